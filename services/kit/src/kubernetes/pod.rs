//! What a pod does to itself: its deletion cost, and events about it.

use std::time::Duration;

use k8s_openapi::api::core::v1::{ObjectReference, Pod as Object};
use kube::Api;
use kube::api::{Patch, PatchParams};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use serde_json::json;
use tokio::time::{sleep, timeout};

use super::{Access, Cluster, Use, chain};

/// The annotation that the ReplicaSet reads when it takes pods away: the lowest goes first.
const COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// A call takes at most so long.
const CALL_TIMEOUT: Duration = Duration::from_secs(3);

/// A pod, by the names that the downward API gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// `POD_NAME`.
    pub name: String,
    /// `POD_UID`; without it `kubectl describe` does not find the events.
    pub uid: Option<String>,
}

impl Pod {
    /// The pod of this process; `None` outside of one.
    pub fn of_process() -> Option<Self> {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        variable("POD_NAME").map(|name| Self { name, uid: variable("POD_UID") })
    }

    /// Keeps the deletion cost of the pod at [`cost`] of its connections, for ever. It asks for the
    /// connections every 5 s, and changes the annotation once a minute at most, but for the first time.
    pub async fn keep_cost(&self, connections: impl Fn() -> u64) {
        self.keep_cost_at(&PACE, Cluster::find, connections).await;
    }

    async fn keep_cost_at<F, C>(&self, pace: &Pace, find: F, connections: impl Fn() -> u64)
    where
        F: Fn() -> C,
        C: Future<Output = Result<Cluster, String>>,
    {
        let mut access = Access::new(Use::DeletionCost);
        // An earlier process of this pod may have left anything.
        let mut written = None;
        loop {
            // Spread, as pods that start together see the same.
            sleep(pace.look.mul_f64(0.5 + fastrand::f64())).await;
            let wanted = cost(connections());
            if written == Some(wanted) {
                continue;
            }
            match limited(self.write_cost(find(), wanted)).await {
                Ok(()) => {
                    access.works();
                    if written.replace(wanted).is_none() {
                        // Clients come soon after the first.
                        continue;
                    }
                }
                Err(why) => access.failed(&why),
            }
            sleep(pace.between.mul_f64(1.0 + 0.2 * fastrand::f64())).await;
        }
    }

    async fn write_cost(
        &self,
        cluster: impl Future<Output = Result<Cluster, String>>,
        cost: u32,
    ) -> Result<(), String> {
        let cluster = cluster.await?;
        let api: Api<Object> = Api::namespaced(cluster.client, &cluster.namespace);
        let patch = json!({ "metadata": { "annotations": { COST: cost.to_string() } } });
        let patched = api.patch_metadata(&self.name, &PatchParams::default(), &Patch::Merge(patch)).await;
        patched.map(drop).map_err(|error| chain(&error))
    }

    /// Writes an Event about the pod. A failure is counted and logged, and nothing else; it takes 3 s at most.
    pub async fn event(&self, reason: &'static str, note: String) {
        self.event_at(Cluster::find(), reason, note).await;
    }

    async fn event_at(
        &self,
        cluster: impl Future<Output = Result<Cluster, String>>,
        reason: &'static str,
        note: String,
    ) {
        let publish = async {
            let Cluster { client, namespace } = cluster.await?;
            let reporter = Reporter { controller: "plaza-edge".to_owned(), instance: Some(self.name.clone()) };
            let regarding = ObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Pod".to_owned()),
                name: Some(self.name.clone()),
                namespace: Some(namespace),
                uid: self.uid.clone(),
                ..ObjectReference::default()
            };
            let event = Event {
                type_: EventType::Normal,
                reason: reason.to_owned(),
                note: Some(note),
                action: "Drain".to_owned(),
                secondary: None,
            };
            Recorder::new(client, reporter).publish(&event, &regarding).await.map_err(|error| chain(&error))
        };
        if let Err(why) = limited(publish).await {
            Access::new(Use::Events).failed(&why);
        }
    }
}

/// How often things are done.
#[derive(Debug)]
struct Pace {
    look: Duration,
    between: Duration,
}

/// The API server has better to do than to follow each connection.
const PACE: Pace = Pace { look: Duration::from_secs(5), between: Duration::from_secs(60) };

/// What it costs to delete a pod: 10 for each doubling of its connections, so that a small change is none.
pub fn cost(connections: u64) -> u32 {
    10 * connections.saturating_add(1).ilog2()
}

async fn limited<T>(call: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    timeout(CALL_TIMEOUT, call).await.unwrap_or_else(|_| Err(format!("no answer within {CALL_TIMEOUT:?}")))
}

#[cfg(test)]
mod tests {
    use std::future::ready;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

    use axum::http::StatusCode;

    use super::*;
    use crate::kubernetes::fake::FakeApi;
    use crate::shutdown::Shutdown;

    const PATH: &str = "/api/v1/namespaces/chat/pods/edge-1";

    fn pod() -> Pod {
        Pod { name: "edge-1".to_owned(), uid: Some("7".to_owned()) }
    }

    #[test]
    fn the_cost_rises_with_each_doubling() {
        let costs = [0, 1, 2, 3, 6, 7, 1_000, 1_023, 10_000].map(cost);
        assert_eq!(costs, [0, 10, 10, 20, 20, 30, 90, 100, 130]);
        assert!(cost(u64::MAX) < 1_000);
    }

    #[tokio::test]
    async fn the_annotation_follows_the_connections_and_only_its_bucket() {
        let api = FakeApi::start().await;
        let left = json!({ "name": "edge-1", "annotations": { COST: "50" } });
        api.put(PATH, Some(json!({ "apiVersion": "v1", "kind": "Pod", "metadata": left })));
        let connections = Arc::new(AtomicU64::new(0));
        let (shutdown, server, count) = (Shutdown::new(), api.clone(), connections.clone());
        shutdown.spawn_last("cost", async move {
            let pace = Pace { look: Duration::from_millis(2), between: Duration::from_millis(2) };
            pod().keep_cost_at(&pace, || ready(Ok(server.cluster())), || count.load(Relaxed)).await;
        });
        let until = async |wanted: &str| {
            let seen = async {
                while api.get(PATH).unwrap()["metadata"]["annotations"][COST] != wanted {
                    sleep(Duration::from_millis(5)).await;
                }
            };
            assert!(timeout(Duration::from_secs(30), seen).await.is_ok(), "{wanted} never came");
        };
        until("0").await;
        connections.store(1_000, Relaxed);
        until("90").await;
        connections.store(600, Relaxed);
        connections.store(0, Relaxed);
        until("0").await;
        api.refuse(Some(StatusCode::FORBIDDEN));
        connections.store(5, Relaxed);
        let before = api.calls().len();
        let tried = async {
            while api.calls().len() < before + 2 {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(Duration::from_secs(30), tried).await.unwrap();
        api.refuse(None);
        until("20").await;
        let calls = api.calls();
        assert!(calls.iter().all(|call| call == &format!("PATCH {PATH}")), "{calls:?}");
    }

    #[tokio::test]
    async fn an_event_is_about_the_pod_and_its_failure_is_nobodys() {
        let api = FakeApi::start().await;
        pod().event_at(ready(Ok(api.cluster())), "DrainStarted", "12 connections".to_owned()).await;
        let calls = api.calls();
        assert_eq!(calls, ["POST /apis/events.k8s.io/v1/namespaces/chat/events"]);
        let event = api.newest().unwrap();
        assert_eq!((&event["reason"], &event["note"]), (&json!("DrainStarted"), &json!("12 connections")));
        let about = json!({ "apiVersion": "v1", "kind": "Pod", "name": "edge-1", "namespace": "chat", "uid": "7" });
        assert_eq!(event["regarding"], about);
        api.refuse(Some(StatusCode::FORBIDDEN));
        pod().event_at(ready(Ok(api.cluster())), "DrainCompleted", String::new()).await;
        pod().event_at(ready(Err("no cluster".to_owned())), "DrainCompleted", String::new()).await;
    }
}
