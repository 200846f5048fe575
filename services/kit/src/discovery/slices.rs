//! The endpoints of a Service from its EndpointSlices: every slice counts, none is the whole.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use kube::runtime::watcher::Event;

use super::target::Port;

/// What an endpoint is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Condition {
    Ready,
    /// It ends, and answers until then.
    Leaving,
    /// It starts, is unwell, or has ended.
    Away,
}

type ByName = BTreeMap<String, Vec<(SocketAddr, Condition)>>;

/// All slices of one Service.
#[derive(Debug)]
pub(super) struct Slices {
    port: Port,
    /// By the name of the slice.
    current: ByName,
    /// What a list brings, until it is complete.
    listing: Option<ByName>,
    complete: bool,
}

impl Slices {
    pub(super) fn new(port: Port) -> Self {
        Self { port, current: BTreeMap::new(), listing: None, complete: false }
    }

    /// Whether a whole list has been there.
    pub(super) fn is_complete(&self) -> bool {
        self.complete
    }

    /// Takes what the watch says; true when [`addresses`](Self::addresses) may be another set now.
    pub(super) fn take(&mut self, event: Event<EndpointSlice>) -> bool {
        match event {
            Event::Init => {
                self.listing = Some(BTreeMap::new());
                false
            }
            Event::InitApply(slice) => {
                let endpoints = self.read(&slice);
                self.listing.get_or_insert_default().insert(name(slice), endpoints);
                false
            }
            Event::InitDone => {
                self.current = self.listing.take().unwrap_or_default();
                self.complete = true;
                true
            }
            Event::Apply(slice) => {
                let endpoints = self.read(&slice);
                self.current.insert(name(slice), endpoints);
                true
            }
            Event::Delete(slice) => self.current.remove(&name(slice)).is_some(),
        }
    }

    /// The ready endpoints of all slices; when there is none, those that leave but still answer.
    pub(super) fn addresses(&self) -> BTreeSet<SocketAddr> {
        let of = |wanted| {
            let all = self.current.values().flatten();
            all.filter(move |(_, condition)| *condition == wanted).map(|(address, _)| *address)
        };
        let ready: BTreeSet<_> = of(Condition::Ready).collect();
        if ready.is_empty() { of(Condition::Leaving).collect() } else { ready }
    }

    fn read(&self, slice: &EndpointSlice) -> Vec<(SocketAddr, Condition)> {
        let port = match &self.port {
            Port::Number(port) => Some(*port),
            Port::Name(name) => {
                let mut ports = slice.ports.iter().flatten();
                let port = ports.find(|port| port.name.as_deref() == Some(name)).and_then(|port| port.port);
                port.and_then(|port| u16::try_from(port).ok())
            }
        };
        let Some(port) = port else { return Vec::new() };
        let mut endpoints = Vec::new();
        for endpoint in &slice.endpoints {
            let condition = condition(endpoint);
            // All addresses of an endpoint are one pod, of which the first is as good as any.
            let ip = endpoint.addresses.first().and_then(|address| address.parse::<IpAddr>().ok());
            endpoints.extend(ip.map(|ip| (SocketAddr::new(ip, port), condition)));
        }
        endpoints
    }
}

fn name(slice: EndpointSlice) -> String {
    slice.metadata.name.unwrap_or_default()
}

fn condition(endpoint: &Endpoint) -> Condition {
    let Some(conditions) = &endpoint.conditions else { return Condition::Ready };
    // What is not said counts as true for `ready`, and `serving` is as `ready` then.
    let ready = conditions.ready.unwrap_or(true);
    match (conditions.terminating.unwrap_or(false), conditions.serving.unwrap_or(ready)) {
        (false, _) if ready => Condition::Ready,
        (true, true) => Condition::Leaving,
        (_, _) => Condition::Away,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn slice(name: &str, endpoints: &[(&str, Value)]) -> EndpointSlice {
        let endpoints: Vec<_> = endpoints.iter().map(|(ip, c)| json!({"addresses": [ip], "conditions": c})).collect();
        serde_json::from_value(json!({
            "metadata": { "name": name }, "addressType": "IPv4", "endpoints": endpoints,
            "ports": [{ "name": "admin", "port": 9090 }, { "name": "grpc", "port": 7 }],
        }))
        .unwrap()
    }

    fn known(slices: &Slices) -> Vec<String> {
        slices.addresses().iter().map(ToString::to_string).collect()
    }

    fn listed(all: &[EndpointSlice]) -> Slices {
        let mut slices = Slices::new(Port::Name("grpc".to_owned()));
        slices.take(Event::Init);
        for slice in all {
            slices.take(Event::InitApply(slice.clone()));
        }
        assert!(known(&slices).is_empty(), "half a list is no list");
        assert!(slices.take(Event::InitDone) && slices.is_complete());
        slices
    }

    #[test]
    fn all_slices_count_and_a_new_list_replaces_them() {
        let mut slices = listed(&[slice("a", &[("192.0.2.1", json!({}))]), slice("b", &[("192.0.2.2", json!(null))])]);
        assert_eq!(known(&slices), ["192.0.2.1:7", "192.0.2.2:7"]);
        assert!(slices.take(Event::Apply(slice("c", &[("2001:db8::3", json!({ "ready": true }))]))));
        assert!(slices.take(Event::Delete(slice("a", &[]))));
        assert!(!slices.take(Event::Delete(slice("a", &[]))));
        assert_eq!(known(&slices), ["192.0.2.2:7", "[2001:db8::3]:7"]);
        slices.take(Event::Init);
        slices.take(Event::InitApply(slice("b", &[("192.0.2.9", json!({}))])));
        assert_eq!(known(&slices), ["192.0.2.2:7", "[2001:db8::3]:7"], "the old ones serve until the list is whole");
        slices.take(Event::InitDone);
        assert_eq!(known(&slices), ["192.0.2.9:7"]);
    }

    #[test]
    fn leaving_endpoints_are_used_only_when_there_is_no_other() {
        let leaving = json!({ "ready": false, "serving": true, "terminating": true });
        let ended = json!({ "ready": false, "serving": false, "terminating": true });
        let starting = json!({ "ready": false, "serving": false, "terminating": false });
        let all = [("192.0.2.1", leaving), ("192.0.2.2", ended), ("192.0.2.3", starting)];
        let mut slices = listed(&[slice("a", &all), slice("b", &[("192.0.2.4", json!({ "ready": true }))])]);
        assert_eq!(known(&slices), ["192.0.2.4:7"]);
        slices.take(Event::Delete(slice("b", &[])));
        assert_eq!(known(&slices), ["192.0.2.1:7"]);
        // A Service that publishes what is not ready says `ready` of those that leave, too.
        slices.take(Event::Apply(slice("b", &[("192.0.2.4", json!({ "ready": true, "terminating": true }))])));
        assert_eq!(known(&slices), ["192.0.2.1:7", "192.0.2.4:7"]);
    }

    #[test]
    fn the_port_is_the_one_that_was_asked_for() {
        let mut by_number = Slices::new(Port::Number(50051));
        by_number.take(Event::Apply(slice("a", &[("192.0.2.1", json!({}))])));
        assert_eq!(known(&by_number), ["192.0.2.1:50051"]);
        let mut unknown = Slices::new(Port::Name("http".to_owned()));
        unknown.take(Event::Apply(slice("a", &[("192.0.2.1", json!({})), ("not an address", json!({}))])));
        assert!(known(&unknown).is_empty());
    }
}
