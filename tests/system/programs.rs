//! What every program tells of itself: its version, on the command line and among its metrics, and by gRPC that each
//! of its services serves.

use plaza_tests::cluster::{Cluster, http_get};
use plaza_tests::process::built;
use std::process::Command;
use tonic::Code;
use tonic::transport::Channel;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

const VERSION: &str = env!("CARGO_PKG_VERSION");

#[test]
fn programs_tell_their_version() {
    for program in ["plaza", "plaza-edge", "plaza-session", "plaza-fanout"] {
        for flag in ["--version", "-V"] {
            let output = Command::new(built(program)).arg(flag).output().expect("it was just found");
            assert!(output.status.success(), "{program} {flag}: {}", output.status);
            assert_eq!(String::from_utf8_lossy(&output.stdout), format!("{program} {VERSION}\n"));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn services_tell_their_version_and_that_they_serve() {
    let cluster = Cluster::start(1).await;
    for (service, name) in [(&cluster.edges[0], "edge"), (&cluster.session, "session"), (&cluster.fanout, "fanout")] {
        let metrics = http_get(service.admin, "/metrics").await.expect("an answer");
        let build = format!("plaza_build_info{{service=\"{name}\",version=\"{VERSION}\"}} 1\n");
        assert!(metrics.contains(&build), "{name}: {metrics}");
    }
    let of_session: &[&str] = &["", "plaza.session.v1.SessionService", "plaza.session.v1.EdgeLeaseService"];
    let of_fanout: &[&str] = &["", "plaza.fanout.v1.FanoutService"];
    for (service, names) in [(&cluster.session, of_session), (&cluster.fanout, of_fanout)] {
        let channel = Channel::from_shared(service.url()).expect("a valid address").connect_lazy();
        let mut health = HealthClient::new(channel);
        let mut status = async |service: &str| {
            let request = HealthCheckRequest { service: service.to_owned() };
            health.check(request).await.map(|answer| HealthCheckResponse::status(answer.get_ref()))
        };
        for name in names {
            assert_eq!(status(name).await.expect("an answer"), ServingStatus::Serving, "{name}");
        }
        assert_eq!(status("plaza.Nothing").await.expect_err("nobody serves it").code(), Code::NotFound);
    }
}
