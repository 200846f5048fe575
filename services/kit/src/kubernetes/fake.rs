//! An API server of plain HTTP: objects by path, lists, watches, conflicts; and, on demand, what a real one
//! does not show on demand: history that is gone, broken watches, refusals.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Query, State};
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::Cluster;

/// What happened, in order: resource version, kind of the event, path, object.
type History = Vec<(u64, &'static str, String, Value)>;

#[derive(Debug, Default)]
struct Store {
    objects: BTreeMap<String, Value>,
    history: History,
    version: u64,
    /// Watches from before this version get 410.
    oldest: u64,
    /// Open watches of an older number end.
    broken: u64,
    refuse: Option<StatusCode>,
    calls: Vec<String>,
}

/// The server. Clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct FakeApi {
    store: Arc<Mutex<Store>>,
    changed: watch::Sender<()>,
    addr: SocketAddr,
}

impl FakeApi {
    /// Serves until the test's runtime ends.
    pub(crate) async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let api = Self { store: Arc::default(), changed: watch::Sender::new(()), addr };
        let app = Router::new().fallback(answer).with_state(api.clone());
        let shutdown = crate::shutdown::Shutdown::new();
        shutdown.spawn_last("fake api", async move { axum::serve(listener, app).await });
        api
    }

    /// A cluster of this server, in the namespace `chat`.
    pub(crate) fn cluster(&self) -> Cluster {
        let mut config = kube::Config::new(format!("http://{}", self.addr).parse().unwrap());
        config.default_namespace = "chat".to_owned();
        Cluster::new(config).unwrap()
    }

    /// Creates or replaces an object as somebody else would; `None` deletes it.
    pub(crate) fn put(&self, path: &str, object: Option<Value>) {
        let mut store = self.store.lock().unwrap();
        store.version += 1;
        let version = store.version;
        let (kind, object) = match object {
            Some(mut object) => {
                object["metadata"]["resourceVersion"] = json!(version.to_string());
                let old = store.objects.insert(path.to_owned(), object.clone());
                (if old.is_some() { "MODIFIED" } else { "ADDED" }, object)
            }
            None => ("DELETED", store.objects.remove(path).unwrap_or_default()),
        };
        store.history.push((version, kind, path.to_owned(), object));
        drop(store);
        self.changed.send_replace(());
    }

    /// The object as it is.
    pub(crate) fn get(&self, path: &str) -> Option<Value> {
        self.store.lock().unwrap().objects.get(path).cloned()
    }

    /// What was created or changed last.
    pub(crate) fn newest(&self) -> Option<Value> {
        self.store.lock().unwrap().history.last().map(|(.., object)| object.clone())
    }

    /// Forgets the history: open watches end, and going on from before is 410.
    pub(crate) fn forget(&self) {
        let mut store = self.store.lock().unwrap();
        store.version += 1;
        store.oldest = store.version;
        store.broken += 1;
        drop(store);
        self.changed.send_replace(());
    }

    /// Answers everything with this status, and ends open watches.
    pub(crate) fn refuse(&self, status: Option<StatusCode>) {
        let mut store = self.store.lock().unwrap();
        store.refuse = status;
        store.broken += 1;
        drop(store);
        self.changed.send_replace(());
    }

    /// Method and path of every call so far.
    pub(crate) fn calls(&self) -> Vec<String> {
        self.store.lock().unwrap().calls.clone()
    }
}

fn status(code: StatusCode, reason: &str) -> Response {
    let body = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "message": reason, "reason": reason,
        "code": code.as_u16(),
    });
    (code, body.to_string()).into_response()
}

async fn answer(
    State(api): State<FakeApi>,
    method: Method,
    uri: Uri,
    Query(query): Query<BTreeMap<String, String>>,
    body: Bytes,
) -> Response {
    let path = uri.path().to_owned();
    {
        let mut store = api.store.lock().unwrap();
        let watching = if query.contains_key("watch") { " watch" } else { "" };
        store.calls.push(format!("{method} {path}{watching}"));
        if let Some(code) = store.refuse {
            return status(code, "Forbidden");
        }
    }
    if query.contains_key("watch") {
        return watch(&api, &path, query.get("resourceVersion").and_then(|v| v.parse().ok()).unwrap_or(0));
    }
    let sent: Value = serde_json::from_slice(&body).unwrap_or_default();
    let current = api.get(&path);
    match (method, current) {
        (Method::GET, Some(object)) => object.to_string().into_response(),
        (Method::GET, None) if uri.query().is_some() => list(&api, &path),
        (Method::POST, _) => {
            let name = sent["metadata"]["name"].as_str().unwrap_or("generated").to_owned();
            let path = format!("{path}/{name}");
            if api.get(&path).is_some() {
                return status(StatusCode::CONFLICT, "AlreadyExists");
            }
            api.put(&path, Some(sent));
            (StatusCode::CREATED, api.get(&path).unwrap().to_string()).into_response()
        }
        (Method::PUT, Some(object)) => {
            let seen = &sent["metadata"]["resourceVersion"];
            if !seen.is_null() && *seen != object["metadata"]["resourceVersion"] {
                return status(StatusCode::CONFLICT, "Conflict");
            }
            api.put(&path, Some(sent));
            api.get(&path).unwrap().to_string().into_response()
        }
        (Method::PATCH, Some(mut object)) => {
            merge(&mut object, &sent);
            api.put(&path, Some(object));
            api.get(&path).unwrap().to_string().into_response()
        }
        _ => status(StatusCode::NOT_FOUND, "NotFound"),
    }
}

fn list(api: &FakeApi, path: &str) -> Response {
    let store = api.store.lock().unwrap();
    let below = format!("{path}/");
    let items: Vec<_> = store.objects.iter().filter(|(each, _)| each.starts_with(&below)).map(|(_, o)| o).collect();
    json!({
        "kind": "List", "apiVersion": "v1", "items": items,
        "metadata": { "resourceVersion": store.version.to_string() },
    })
    .to_string()
    .into_response()
}

/// Lines of events after `from`, as they come.
fn watch(api: &FakeApi, path: &str, from: u64) -> Response {
    let (api, below) = (api.clone(), format!("{path}/"));
    let (begun, changed) = (api.store.lock().unwrap().broken, api.changed.subscribe());
    let lines = stream::unfold((from, changed), move |(from, mut changed)| {
        let (api, below) = (api.clone(), below.clone());
        async move {
            loop {
                changed.borrow_and_update();
                {
                    let store = api.store.lock().unwrap();
                    if from < store.oldest {
                        let gone = json!({ "type": "ERROR", "object": {
                            "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 410,
                            "reason": "Expired", "message": "too old resource version",
                        } });
                        return Some((Ok::<_, Infallible>(format!("{gone}\n")), (u64::MAX, changed)));
                    }
                    if store.broken != begun || from == u64::MAX {
                        return None;
                    }
                    let next =
                        store.history.iter().find(|(version, _, at, _)| *version > from && at.starts_with(&below));
                    if let Some((version, kind, _, object)) = next {
                        let line = json!({ "type": kind, "object": object });
                        return Some((Ok(format!("{line}\n")), (*version, changed)));
                    }
                }
                if changed.changed().await.is_err() {
                    return None;
                }
            }
        }
    });
    Body::from_stream(lines).into_response()
}

/// A merge patch (RFC 7386).
fn merge(into: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *into = patch.clone();
        return;
    };
    if !into.is_object() {
        *into = json!({});
    }
    for (key, value) in patch {
        if value.is_null() {
            into.as_object_mut().unwrap().remove(key);
        } else {
            merge(&mut into[key.as_str()], value);
        }
    }
}
