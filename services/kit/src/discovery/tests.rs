//! Channels over real listeners, and endpoints from an API server over HTTP.

use std::net::Ipv4Addr;

use serde_json::{Value, json};
use tonic::service::Routes;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus};

use super::tls::{UPSTREAM_TLS_FLAGS, UpstreamTls};
use super::*;
use crate::grpc::{self, GrpcOptions, TlsFiles};
use crate::kubernetes::fake::FakeApi;
use crate::settings::Settings;

/// A server of health alone, with its own shutdown.
fn start() -> (SocketAddr, Shutdown) {
    start_with(GrpcOptions { reflection: true, ..GrpcOptions::default() })
}

fn start_with(options: GrpcOptions) -> (SocketAddr, Shutdown) {
    let listener = crate::net::bind((Ipv4Addr::LOCALHOST, 0).into(), "listen").unwrap();
    let (addr, shutdown) = (listener.local_addr().unwrap(), Shutdown::new());
    let calls = crate::metrics::Metrics::new("test", "0").served_calls();
    let serving = grpc::serve(listener, Routes::default(), &["test.Service"], options, calls, shutdown.clone());
    shutdown.spawn("server", async move { serving.await.unwrap() });
    (addr, shutdown)
}

async fn check(health: &mut HealthClient<BalancedChannel>) -> Result<ServingStatus, tonic::Status> {
    let mut request = tonic::Request::new(HealthCheckRequest { service: "test.Service".to_owned() });
    request.set_timeout(Duration::from_secs(10));
    Ok(health.check(request).await?.into_inner().status())
}

#[tokio::test]
async fn calls_go_on_when_one_of_two_endpoints_ends() {
    let ((first, first_server), (second, second_server)) = (start(), start());
    let client = Shutdown::new();
    let targets = Targets::parse(&format!("http://{first},http://{second}")).unwrap();
    let mut health = HealthClient::new(targets.channel(&client));
    for _ in 0..20 {
        assert_eq!(check(&mut health).await.unwrap(), ServingStatus::Serving);
    }
    first_server.begin();
    assert!(first_server.wait(Duration::from_secs(5)).await);
    // The dead endpoint fails some calls until it is left out; then a long run of calls passes.
    let mut passed_in_a_row = 0;
    let settled = async {
        while passed_in_a_row < 200 {
            match check(&mut health).await {
                Ok(_) => passed_in_a_row += 1,
                Err(_) => passed_in_a_row = 0,
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), settled).await.unwrap();
    client.begin();
    second_server.begin();
    assert!(second_server.wait(Duration::from_secs(5)).await);
    assert!(client.wait(Duration::from_secs(5)).await);
}

#[tokio::test]
async fn a_name_is_resolved_to_endpoints() {
    let shutdown = Shutdown::new();
    let mut endpoints = Targets::parse("http://localhost:50051,http://192.0.2.1:7").unwrap().endpoints(&shutdown);
    let all = endpoints.wait_for(|uris| uris.len() > 1).await.unwrap().clone();
    assert!(all.contains(&"http://127.0.0.1:50051/".parse().unwrap()), "{all:?}");
    assert!(all.contains(&"http://192.0.2.1:7/".parse().unwrap()), "{all:?}");
}

#[tokio::test]
async fn a_name_is_followed_once_for_all_who_ask() {
    let targets = Targets::parse("http://localhost:50051").unwrap();
    let first = Shutdown::new();
    let known = targets.addresses(&first);
    assert!(known.same_channel(&targets.clone().addresses(&first)));
    first.begin();
    assert!(first.wait(Duration::from_secs(5)).await);
    let mut anew = targets.addresses(&Shutdown::new());
    assert!(!known.same_channel(&anew));
    let found = anew.wait_for(|known| !known.is_empty());
    assert!(tokio::time::timeout(Duration::from_secs(30), found).await.is_ok());
}

#[test]
fn wrong_lists_say_what_is_right() {
    for (text, part) in
        [("http://a:1,,http://b:2", "not an address"), ("http://a:1,b:2", "does not begin with http://")]
    {
        let error = Targets::parse(text).unwrap_err();
        assert!(error.contains(part), "{text}: {error}");
    }
    let many = vec!["http://a:1"; 65].join(",");
    assert!(Targets::parse(&many).unwrap_err().contains("at most 64"));
}

const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/chat/endpointslices";

/// A slice of the Service `session` with these ready addresses.
fn slice(name: &str, ips: &[&str]) -> (String, Option<Value>) {
    let endpoints: Vec<_> =
        ips.iter().map(|ip| json!({ "addresses": [ip], "conditions": { "ready": true } })).collect();
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": { "name": name, "namespace": "chat", "labels": { "kubernetes.io/service-name": "session" } },
        "endpoints": endpoints, "ports": [{ "name": "grpc", "port": 50051 }],
    });
    (format!("{SLICES}/{name}"), Some(slice))
}

fn put(api: &FakeApi, (path, slice): (String, Option<Value>)) {
    api.put(&path, slice);
}

/// What `kubernetes:///session:grpc` says, from this API server.
fn follow(api: &FakeApi, shutdown: &Shutdown) -> watch::Receiver<Addresses> {
    let target = Target::parse("kubernetes:///session:grpc").unwrap();
    let (known, receiver) = Known::new(Addresses::new());
    let (source, api) = (known.source(&target), api.clone());
    let Target::Service(service) = target else { panic!("it is a Service") };
    shutdown.spawn_last("follow", async move {
        cluster::follow(&service, || std::future::ready(Ok(api.cluster())), &source).await;
    });
    receiver
}

async fn until(known: &mut watch::Receiver<Addresses>, ips: &[&str]) {
    let wanted: Vec<_> = ips.iter().map(|ip| SocketAddr::new(ip.parse().unwrap(), 50051)).collect();
    let seen = known.wait_for(|known| known.keys().eq(&wanted));
    let seen = tokio::time::timeout(Duration::from_secs(30), seen).await;
    assert!(seen.is_ok(), "{ips:?} never came");
}

#[tokio::test]
async fn endpoints_of_all_slices_come_from_the_api_and_follow_it() {
    let (api, shutdown) = (FakeApi::start().await, Shutdown::new());
    put(&api, slice("session-a", &["192.0.2.1"]));
    put(&api, slice("session-b", &["192.0.2.2", "192.0.2.3"]));
    let mut known = follow(&api, &shutdown);
    until(&mut known, &["192.0.2.1", "192.0.2.2", "192.0.2.3"]).await;
    put(&api, slice("session-b", &["192.0.2.3"]));
    until(&mut known, &["192.0.2.1", "192.0.2.3"]).await;
    api.put(&format!("{SLICES}/session-a"), None);
    until(&mut known, &["192.0.2.3"]).await;
    // Nobody is there: whoever was there last is as good as anybody.
    put(&api, slice("session-b", &[]));
    put(&api, slice("session-c", &["192.0.2.4"]));
    until(&mut known, &["192.0.2.4"]).await;
}

#[tokio::test]
async fn what_was_missed_while_the_history_was_lost_is_listed_anew() {
    let (api, shutdown) = (FakeApi::start().await, Shutdown::new());
    put(&api, slice("session-a", &["192.0.2.1"]));
    let mut known = follow(&api, &shutdown);
    until(&mut known, &["192.0.2.1"]).await;
    for ip in ["192.0.2.5", "192.0.2.6"] {
        api.put(&format!("{SLICES}/session-a"), None);
        api.forget();
        put(&api, slice("session-a", &[ip]));
        until(&mut known, &[ip]).await;
    }
}

#[tokio::test]
async fn without_the_api_the_last_endpoints_stay_until_it_is_back() {
    let (api, shutdown) = (FakeApi::start().await, Shutdown::new());
    put(&api, slice("session-a", &["192.0.2.1"]));
    let mut known = follow(&api, &shutdown);
    until(&mut known, &["192.0.2.1"]).await;
    let before = api.calls().len();
    api.refuse(Some(axum::http::StatusCode::FORBIDDEN));
    put(&api, slice("session-a", &["192.0.2.2"]));
    let asked_again = async {
        while api.calls().len() < before + 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), asked_again).await.unwrap();
    until(&mut known, &["192.0.2.1"]).await;
    api.refuse(None);
    until(&mut known, &["192.0.2.2"]).await;
}

#[tokio::test]
async fn without_any_api_dns_says_where_the_pods_are() {
    let target = Target::parse("kubernetes:///localhost:50051").unwrap();
    let (known, mut receiver) = Known::new(Addresses::new());
    let source = known.source(&target);
    let Target::Service(service) = target else { panic!("it is a Service") };
    let shutdown = Shutdown::new();
    shutdown.spawn_last("follow", async move {
        cluster::follow(&service, || std::future::ready(Err("there is no cluster".to_owned())), &source).await;
    });
    let found = receiver.wait_for(|known| known.contains_key(&"127.0.0.1:50051".parse().unwrap()));
    tokio::time::timeout(Duration::from_secs(10), found).await.unwrap().unwrap();
}

/// Certificates of one authority, made anew: `ca.pem`, and by name `NAME.pem` with `NAME.key`.
fn certificates(folder: &std::path::Path) {
    std::fs::create_dir_all(folder).unwrap();
    let openssl = |arguments: &str| {
        let output = std::process::Command::new("openssl").args(arguments.split(' ')).current_dir(folder).output();
        let output = output.expect("openssl is installed, as scripts/tools sees to");
        assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    };
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2";
    openssl(&format!("req -x509 {key} -subj /CN=ca -keyout ca.key -out ca.pem"));
    for (name, host) in [("session", "DNS:localhost"), ("client", "IP:127.0.0.1")] {
        let host = format!("-addext subjectAltName={host} -addext basicConstraints=CA:FALSE");
        openssl(&format!(
            "req -x509 {key} -subj /CN={name} {host} -CA ca.pem -CAkey ca.key -keyout {name}.key -out {name}.pem"
        ));
    }
}

#[tokio::test]
async fn calls_go_by_tls_with_certificates_of_both_sides_and_not_without() {
    let folder = std::env::temp_dir().join(format!("plaza-tls-{}", std::process::id()));
    certificates(&folder);
    let file = |name: &str| folder.join(name);
    let text = |name: &str| file(name).to_str().unwrap().to_owned();
    let files = TlsFiles { cert: file("session.pem"), key: file("session.key"), client_ca: Some(file("ca.pem")) };
    let (addr, server) = start_with(GrpcOptions { tls: Some(files.clone()), ..GrpcOptions::default() });
    let own = [("upstream-cert", text("client.pem")), ("upstream-key", text("client.key"))];
    let applied = |pairs: &[(&str, String)], targets: &str| {
        let pairs: Vec<_> = pairs.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let mut settings = Settings::from_pairs(&[UPSTREAM_TLS_FLAGS], &pairs);
        let tls = UpstreamTls::from_settings(&mut settings);
        settings.finish().unwrap();
        tls.apply(Targets::parse(targets).unwrap()).unwrap()
    };
    let called = async |pairs: &[(&str, String)]| {
        let targets = applied(pairs, &format!("https://localhost:{}", addr.port()));
        let client = Shutdown::new();
        let mut health = HealthClient::new(targets.channel(&client));
        tokio::time::timeout(Duration::from_secs(5), check(&mut health)).await.map_err(|_| ())
    };
    let ca = ("upstream-ca", text("ca.pem"));
    let both = [ca.clone(), own[0].clone(), own[1].clone()];
    assert_eq!(called(&both).await.unwrap().unwrap(), ServingStatus::Serving);
    assert!(!matches!(called(&[ca]).await, Ok(Ok(_))), "the server asks for a certificate");
    let stranger = ("upstream-ca", text("client.pem"));
    assert!(!matches!(called(&[stranger, own[0].clone(), own[1].clone()]).await, Ok(Ok(_))), "of another authority");

    // Each of a list is asked for its own name.
    let other = TlsFiles { cert: file("client.pem"), key: file("client.key"), ..files };
    let (other, other_server) = start_with(GrpcOptions { tls: Some(other), ..GrpcOptions::default() });
    let list = format!("https://localhost:{},https://127.0.0.1:{}", addr.port(), other.port());
    let (client, targets) = (Shutdown::new(), applied(&both, &list));
    let mut endpoints = targets.endpoints(&client);
    let all =
        endpoints.wait_for(|uris| uris.iter().any(|uri| uri.port_u16() == Some(addr.port()))).await.unwrap().clone();
    for addr in [addr, other] {
        let uri = format!("https://{addr}/").parse().unwrap();
        assert!(all.contains(&uri), "{uri} is not in {all:?}");
        let connected = targets.endpoint(&uri).connect().await;
        assert!(connected.is_ok(), "{uri}: {connected:?}");
    }
    other_server.begin();
    server.begin();
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn wrong_tls_settings_say_what_is_right() {
    let tls = UpstreamTls::default();
    let problem = tls.apply(Targets::parse("https://session:1").unwrap()).unwrap_err();
    assert!(problem.contains("needs --upstream-ca"), "{problem}");
    for (pairs, part) in [
        (&[("upstream-ca", "/nowhere")][..], "cannot be read"),
        (&[("upstream-cert", "/dev/null")], "--upstream-key: is needed"),
        (&[("upstream-key", "/dev/null")], "--upstream-cert: is needed"),
        (&[("upstream-cert", "/dev/null"), ("upstream-key", "/dev/null")], "--upstream-ca: is needed"),
    ] {
        let mut settings = Settings::from_pairs(&[UPSTREAM_TLS_FLAGS], pairs);
        UpstreamTls::from_settings(&mut settings);
        let problems = settings.finish().unwrap_err().to_string();
        assert!(problems.contains(part), "{pairs:?}: {problems}");
    }
}

#[tokio::test]
async fn a_connection_that_is_old_is_made_anew_and_no_call_fails() {
    let (addr, server) =
        start_with(GrpcOptions { max_connection_age: Duration::from_millis(5), ..GrpcOptions::default() });
    let client = Shutdown::new();
    let mut health = HealthClient::new(Targets::parse(&format!("http://{addr}")).unwrap().channel(&client));
    // Without a pause, so that calls wait for their turn when a connection is told to end.
    for _ in 0..2_000 {
        assert_eq!(check(&mut health).await.unwrap(), ServingStatus::Serving);
    }
    client.begin();
    server.begin();
}
