//! What Helm says after an installation.

use crate::helm::{helm, root, yaml_files};
use std::path::Path;

/// The notes for a file of values.
fn notes(values: &Path) -> String {
    let values = values.to_str().expect("paths of the project are UTF-8");
    let output = helm(&["install", "plaza", "charts/plaza", "--namespace", "chat", "--dry-run=client", "-f", values]);
    assert!(output.status.success(), "{values}: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("helm writes UTF-8");
    text.split_once("\nNOTES:\n").unwrap_or_else(|| panic!("{values} has no notes")).1.to_owned()
}

#[test]
fn every_installation_ends_with_the_next_step() {
    for (name, path) in yaml_files(&root().join("tests/chart/cases")) {
        let notes = notes(&path);
        assert!(notes.contains("\nOpen the chat:\n  ") && notes.contains("ListMembers"), "{name}: {notes}");
        assert!(!notes.contains("  \n") && !notes.contains("\n\n\n"), "{name}: {notes}");
    }
}

#[test]
fn the_notes_say_what_was_assumed() {
    let notes = |case: &str| notes(&root().join("tests/chart/cases").join(case));
    let unowned = notes("alb-aliyun-unowned.yaml");
    assert!(
        unowned.contains("ping every 10 s, for a load balancer that closes idle connections after 15 s.\n"),
        "{unowned}"
    );
    assert!(unowned.contains("That timeout is assumed: own it with an AlbConfig"), "{unowned}");
    let owned = notes("alb-aliyun.yaml");
    assert!(owned.contains("https://chat.example.com/") && !owned.contains("assumed"), "{owned}");
    assert!(notes("default.yaml").contains("brings Redis and NATS along"));
    assert!(!notes("external-open.yaml").contains("along"));
    // A call that the service would refuse is no next step.
    let (dns, both) = (notes("grpc-tls-by-dns.yaml"), notes("grpc-tls.yaml"));
    assert!(notes("default.yaml").contains("grpcurl -plaintext ") && !dns.contains("-plaintext"), "{dns}");
    let call = "grpcurl -cacert ca.crt -authority plaza-session.chat.svc ";
    assert!(dns.contains(call) && both.contains(&format!("{call}-cert client.crt -key client.key ")), "{both}");
    for file in [
        "secret plaza-ca --output 'go-template={{index .data \"ca.crt\" | base64decode}}' >ca.crt\n",
        "secret plaza-client --output 'go-template={{index .data \"tls.key\" | base64decode}}' >client.key\n",
    ] {
        assert!(both.contains(file), "{both}");
    }
}
