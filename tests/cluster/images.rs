//! What is in the services' images, and what is not.

use crate::kube::{Kube, succeed};
use serde_json::Value;
use std::path::Path;
use std::process::Command;

/// Programs that an image must not have.
const FORBIDDEN: &[&str] = &["sh", "bash", "dash", "busybox", "apt", "dpkg", "cargo", "perl"];

/// Labels, a user that is not root, a bill of materials, one program, and no shell.
pub(crate) async fn hold_one_program_and_what_it_needs(kube: &Kube) {
    for service in ["edge", "session", "fanout"] {
        let archive = kube.images().join(format!("plaza-{service}.tar"));
        let config: Value = {
            let manifest: Value = json(&archive, "manifest.json");
            json(&archive, manifest[0]["Config"].as_str().expect("an image has a configuration"))
        };
        let config = &config["config"];
        assert_eq!(config["User"], "65532:65532", "{config}");
        assert_eq!(config["Entrypoint"][0], format!("/usr/bin/plaza-{service}"), "{config}");
        let labels = &config["Labels"];
        assert_eq!(labels["org.opencontainers.image.title"], format!("plaza-{service}"), "{labels}");
        for label in ["description", "licenses", "revision", "vendor", "version"] {
            assert!(labels[format!("org.opencontainers.image.{label}")].is_string(), "no {label} in {labels}");
        }

        let unpacked = plaza_tests::process::fresh_folder(service);
        let manifest: Value = json(&archive, "manifest.json");
        for layer in manifest[0]["Layers"].as_array().expect("an image has layers") {
            let layer = layer.as_str().expect("a layer is named by its file");
            let unpack = "tar -xOf \"$0\" \"$1\" | tar -x -C \"$2\"";
            let folder = unpacked.display().to_string();
            let mut command = Command::new("sh");
            succeed(command.args(["-c", unpack]).arg(&archive).args([layer, &folder])).expect("a layer is an archive");
        }
        let files = succeed(Command::new("find").arg(&unpacked).args(["-type", "f", "-printf", "%P\n"]));
        let files = files.expect("it was just unpacked");
        let programs = |file: &&str| file.split('/').any(|folder| folder == "bin" || folder == "sbin");
        let programs: Vec<&str> = files.lines().filter(programs).collect();
        assert_eq!(programs, [format!("usr/bin/plaza-{service}")]);
        let forbidden = |file: &&str| FORBIDDEN.contains(&file.rsplit('/').next().unwrap_or_default());
        assert_eq!(files.lines().find(forbidden), None);

        let bill = std::fs::read_to_string(unpacked.join(format!("usr/share/sbom/plaza-{service}.cdx.json")));
        let bill: Value = serde_json::from_str(&bill.expect("a bill of materials is there")).expect("it is JSON");
        assert_eq!(bill["metadata"]["component"]["name"], format!("plaza-{service}"));
        let crates = bill["components"].as_array().expect("it lists components");
        for linked in ["plaza-kit", "plaza-proto", "tokio", "tonic"] {
            assert!(crates.iter().any(|component| component["name"] == linked), "{linked} is not in the bill");
        }
        assert!(!crates.iter().any(|component| component["name"] == "proptest"), "tests link it, programs do not");
        let _ = std::fs::remove_dir_all(unpacked);
    }
}

/// A JSON file in an archive.
fn json(archive: &Path, file: &str) -> Value {
    let text = succeed(Command::new("tar").arg("-xOf").arg(archive).arg(file)).expect("the archive has it");
    serde_json::from_str(&text).expect("it is JSON")
}
