//! Compiles the `.proto` files with protox, so that no `protoc` is needed on the machine.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = [
        "plaza/event/v1/event.proto",
        "plaza/client/v1/client.proto",
        "plaza/fanout/v1/fanout.proto",
        "plaza/session/v1/session.proto",
    ];
    println!("cargo:rerun-if-changed=plaza");
    let descriptors = protox::compile(files, ["."])?;
    let out = std::path::PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("descriptors.bin"), prost::Message::encode_to_vec(&descriptors))?;
    tonic_prost_build::configure()
        .bytes(".plaza.event.v1.Data.json")
        .bytes(".plaza.fanout.v1.PublishItem.message_id")
        .bytes(".plaza.fanout.v1.StoredEvent.event")
        .bytes(".plaza.client.v1.Data.data")
        .compile_fds(descriptors)?;
    Ok(())
}
