//! One version and one set of ports everywhere.

use crate::helm::root;
use crate::renders::{items, renders};

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test]
fn the_chart_and_the_images_have_the_version_of_the_programs() {
    let version = env!("CARGO_PKG_VERSION");
    assert!(read("charts/plaza/Chart.yaml").contains(&format!("\nappVersion: {version}\n")));
    assert!(read("Dockerfile").contains(&format!("\nARG VERSION={version}\n")));
}

#[test]
fn each_service_has_an_image_that_exposes_the_ports_of_its_pod() {
    let dockerfile = read("Dockerfile");
    for service in ["edge", "session", "fanout"] {
        let (_, rest) = dockerfile.split_once(&format!("\nFROM runtime AS {service}\n")).expect("it has a target");
        let stage = rest.split("\nFROM ").next().unwrap_or_default();
        let name = format!("plaza-{service}");
        let mut pods = renders().by_name["default"].pods();
        let (_, pod) = pods.find(|(pod, _)| *pod == name).expect("the service is rendered");
        let ports = items(&pod["spec"]["containers"][0]["ports"]).map(|port| port["containerPort"].to_string());
        let ports = ports.collect::<Vec<_>>().join(" ");
        assert!(stage.contains(&format!("\nEXPOSE {ports}\n")), "{service} listens on {ports}");
        assert!(stage.contains(&format!("ENTRYPOINT [\"/usr/bin/{name}\"]")), "{stage}");
    }
}
