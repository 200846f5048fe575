//! TLS between the services, by values of the chart.

use crate::kube::{Kube, succeed};
use crate::release::{self, NAME, NAMESPACE, kubectl};
use plaza_proto::session::GetSessionRequest;
use plaza_proto::session::session_service_client::SessionServiceClient;
use plaza_tests::certificates;
use std::path::Path;
use std::time::Duration;
use tonic::Code;

/// An authority, the services' certificate and the callers', as Secrets.
const SECRETS: [&str; 3] = ["grpc-ca", "grpc-services", "grpc-callers"];

/// What lets a running release change.
const ACCEPTED: [&str; 2] = ["--set", "grpc.tls.acceptInterruption=true"];

/// A message goes from client to client, and `helm test` calls the session service; a running release does not
/// change unasked.
pub(crate) async fn is_spoken_between_the_services(kube: &Kube) {
    // It makes the namespace, if nobody has.
    release::apply(kube, &["values.yaml"], &ACCEPTED);
    let folder = plaza_tests::process::fresh_folder("tls");
    certificates(&folder);
    let file = |name: &str| folder.join(name).display().to_string();
    let [ca, services, callers] = SECRETS;
    let remove = || kubectl(kube, &["delete", "secret", "--ignore-not-found", ca, services, callers]);
    remove();
    kubectl(kube, &["create", "secret", "generic", ca, &format!("--from-file=ca.crt={}", file(&format!("{ca}.pem")))]);
    for secret in [services, callers] {
        let (cert, key) =
            (format!("--cert={}", file(&format!("{secret}.pem"))), format!("--key={}", file(&format!("{secret}.key"))));
        kubectl(kube, &["create", "secret", "tls", secret, &cert, &key]);
    }
    let values = format!("grpc.tls.existingSecret={services},grpc.tls.caSecret={ca},grpc.tls.clientSecret={callers}");
    let values = ["--set", values.as_str()];
    let (chart, names) = (release::chart(), release::values("values.yaml"));
    let upgrade = ["upgrade", NAME, &chart, "--namespace", NAMESPACE, "--dry-run=server", "--values", &names];
    let unasked = succeed(kube.command("helm").args(upgrade).args(values));
    let refused = unasked.expect_err("the release runs without TLS");
    assert!(refused.contains("from plain text to TLS of both sides"), "{refused}");
    release::apply(kube, &["values.yaml"], &[ACCEPTED, values].concat());
    kube.helm(&["test", NAME, "--namespace", NAMESPACE, "--timeout=3m"]);

    let answered = plain_text_is_answered(kube).await;
    assert!(!answered, "the session service answers without TLS");

    release::apply(kube, &["values.yaml"], &ACCEPTED);
    let answered = plain_text_is_answered(kube).await;
    assert!(answered, "without the values there is no TLS");
    remove();
    let _ = std::fs::remove_dir_all(folder);
}

/// Whether the session service knows of nobody, when asked without TLS.
async fn plain_text_is_answered(kube: &Kube) -> bool {
    let (_session, addr) = release::forward(kube, &format!("service/{NAME}-session"), 50051).await;
    let Ok(mut client) = SessionServiceClient::connect(format!("http://{addr}")).await else { return false };
    let call = client.get_session(GetSessionRequest { session_id: "nobodynobodynobodyno".to_owned() });
    let answer = tokio::time::timeout(Duration::from_secs(10), call).await;
    answer.is_ok_and(|answer| answer.is_err_and(|status| status.code() == Code::NotFound))
}

/// `grpc-services` is for the services' names, `grpc-callers` for nobody's.
fn certificates(folder: &Path) {
    let [ca, services, callers] = SECRETS;
    let there = "openssl is installed, as scripts/tools sees to";
    certificates::alone(folder, ca).expect(there);
    let names = format!("DNS:{NAME}-session.{NAMESPACE}.svc,DNS:{NAME}-fanout.{NAMESPACE}.svc");
    for (secret, names) in [(services, names.as_str()), (callers, "DNS:callers")] {
        certificates::signed(folder, ca, secret, names).expect(there);
    }
}
