//! Endpoints from the cluster's API, and from DNS while there is none.

use std::pin::pin;
use std::time::Duration;

use futures_util::StreamExt;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::runtime::watcher;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::RESOLVE_INTERVAL;
use super::known::{Source, resolve};
use super::slices::Slices;
use super::target::Service;
use crate::kubernetes::{self, Access, Cluster, Use};

/// A list is there within this time, or the API counts as away.
const LIST_TIMEOUT: Duration = Duration::from_secs(5);

/// Between two attempts, at first; doubled with each.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// Between two attempts, at most.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// What a watch brought is trusted for so long after it broke; then DNS is asked.
const TRUST: Duration = Duration::from_secs(10);

/// Keeps `source` current for ever. The set is never emptied: without an answer, and when the API knows
/// no endpoint at all, what was known last stays.
pub(super) async fn follow<F, C>(service: &Service, find: F, source: &Source)
where
    F: Fn() -> C,
    C: Future<Output = Result<Cluster, String>>,
{
    let mut access = Access::new(Use::Endpoints);
    let (mut pause, mut trusted_until) = (FIRST_PAUSE, Instant::now());
    loop {
        let mut listed = false;
        let why = watch(service, find(), source, &mut access, &mut listed).await;
        access.failed(&why);
        if listed {
            (pause, trusted_until) = (FIRST_PAUSE, Instant::now() + TRUST);
        }
        // Spread, as every pod loses the API in the same moment.
        let again = Instant::now() + pause.mul_f64(0.5 + fastrand::f64());
        pause = (pause * 2).min(LONGEST_PAUSE);
        tokio::select! {
            () = sleep_until(again) => {}
            () = by_dns(service, source, trusted_until) => {}
        }
    }
}

/// Lists and watches until that fails; the reason.
async fn watch(
    service: &Service,
    find: impl Future<Output = Result<Cluster, String>>,
    source: &Source,
    access: &mut Access,
    listed: &mut bool,
) -> String {
    let cluster = match find.await {
        Ok(cluster) => cluster,
        Err(why) => return why,
    };
    let namespace = service.namespace.as_ref().unwrap_or(&cluster.namespace);
    let api: Api<EndpointSlice> = Api::namespaced(cluster.client.clone(), namespace);
    let config = watcher::Config::default().labels(&format!("kubernetes.io/service-name={}", service.name));
    let mut events = pin!(watcher::watcher(api, config));
    let mut slices = Slices::new(service.port.clone());
    let deadline = Instant::now() + LIST_TIMEOUT;
    loop {
        let event = if slices.is_complete() {
            events.next().await
        } else {
            match timeout_at(deadline, events.next()).await {
                Ok(event) => event,
                Err(_) => return format!("no list within {LIST_TIMEOUT:?}"),
            }
        };
        let event = match event {
            Some(Ok(event)) => event,
            // The next list is whole, whatever was missed.
            Some(Err(error)) => return kubernetes::chain(&error),
            None => return "the watch has ended".to_owned(),
        };
        if slices.take(event) && slices.is_complete() {
            *listed = true;
            access.works();
            let addresses = slices.addresses();
            if !addresses.is_empty() {
                source.set(addresses);
            }
        }
    }
}

/// Asks DNS again and again, once what the API said is too old; nothing where it cannot know.
async fn by_dns(service: &Service, source: &Source, trusted_until: Instant) {
    let Some(host) = service.by_dns() else { return std::future::pending().await };
    if !source.is_empty() {
        sleep_until(trusted_until).await;
    }
    loop {
        match resolve(&host).await {
            Ok(found) => source.set(found),
            Err(error) => tracing::debug!(service = %service, error, "the endpoints are not in DNS either"),
        }
        sleep(RESOLVE_INTERVAL).await;
    }
}
