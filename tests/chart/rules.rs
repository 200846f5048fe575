//! What holds for every render, whatever the values.

use crate::helm::{root, template};
use crate::renders::{EXTENSIONS, Render, items, name, renders};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Runs a check on every render and reports all that it finds.
fn for_every_render(check: impl Fn(&Render, &mut Vec<String>)) {
    let mut found = Vec::new();
    for (case, render) in &renders().by_name {
        let mut here = Vec::new();
        check(render, &mut here);
        found.extend(here.into_iter().map(|what| format!("{case}: {what}")));
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// Name of the pod, and each container.
fn containers(render: &Render) -> impl Iterator<Item = (&str, &Value)> {
    render.pods().flat_map(|(pod, template)| {
        let spec = &template["spec"];
        items(&spec["initContainers"]).chain(items(&spec["containers"])).map(move |container| (pod, container))
    })
}

/// Whether labels have all that a selector asks for.
fn selects(selector: &Value, labels: &Value) -> bool {
    selector.as_object().is_some_and(|wanted| !wanted.is_empty() && wanted.iter().all(|(k, v)| labels[k] == *v))
}

/// Every string below a value.
fn strings<'a>(value: &'a Value, out: &mut Vec<&'a str>) {
    match value {
        Value::String(text) => out.push(text),
        Value::Array(list) => list.iter().for_each(|v| strings(v, out)),
        Value::Object(map) => map.values().for_each(|v| strings(v, out)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[test]
fn the_oldest_and_the_newest_kubernetes_accept_every_object() {
    assert!(renders().problems.is_empty(), "{}", renders().problems.join("\n"));
    assert_eq!(renders().unknown, EXTENSIONS, "kinds that Kubernetes itself does not have");
}

#[test]
fn no_environment_has_a_name_twice() {
    for_every_render(|render, found| {
        for (pod, container) in containers(render) {
            let mut seen = BTreeSet::new();
            for variable in items(&container["env"]) {
                if !seen.insert(variable["name"].as_str()) {
                    found.push(format!("{pod} has {} twice", variable["name"]));
                }
            }
        }
    });
}

#[test]
fn the_users_environment_wins() {
    let render = &renders().by_name["everything"];
    let (_, edge) = containers(render).find(|(pod, _)| *pod == "rooms-edge").expect("the edge is rendered");
    let value = |name: &str| items(&edge["env"]).find(|v| v["name"] == name).cloned().unwrap_or_default();
    assert_eq!(value("PLAZA_MESSAGE_BURST")["value"], "50");
    assert_eq!(value("PLAZA_THREADS")["valueFrom"]["resourceFieldRef"]["resource"], "limits.cpu");
    assert_eq!(value("RUST_BACKTRACE")["value"], "1");
}

#[test]
fn an_autoscaler_alone_counts_the_pods() {
    for_every_render(|render, found| {
        let scalers = render.of_kind("HorizontalPodAutoscaler").chain(render.of_kind("ScaledObject"));
        let scaled: BTreeSet<_> = scalers.filter_map(|s| s["spec"]["scaleTargetRef"]["name"].as_str()).collect();
        for deployment in render.of_kind("Deployment") {
            let counted = deployment["spec"]["replicas"].is_u64();
            if counted == scaled.contains(name(deployment)) {
                found.push(format!("{}: replicas {}", name(deployment), deployment["spec"]["replicas"]));
            }
        }
    });
}

#[test]
fn every_pod_meets_the_restricted_profile() {
    for_every_render(|render, found| {
        for (pod, template) in render.pods() {
            let (spec, security) = (&template["spec"], &template["spec"]["securityContext"]);
            if security["runAsNonRoot"] != true || security["seccompProfile"]["type"] != "RuntimeDefault" {
                found.push(format!("{pod}: security {security}"));
            }
            for key in ["hostNetwork", "hostPID", "hostIPC"] {
                if !spec[key].is_null() {
                    found.push(format!("{pod} has {key}"));
                }
            }
            found.extend(items(&spec["volumes"]).filter(|v| !v["hostPath"].is_null()).map(|v| format!("{pod}: {v}")));
        }
        let wanted = json!({
            "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": { "drop": ["ALL"] },
        });
        for (pod, container) in containers(render).filter(|(_, c)| c["securityContext"] != wanted) {
            found.push(format!("{pod}: security {}", container["securityContext"]));
        }
    });
}

#[test]
fn only_a_pod_that_uses_the_api_server_has_a_token_and_none_has_variables_of_other_services() {
    for_every_render(|render, found| {
        let accounts: Vec<_> = render.of_kind("ServiceAccount").map(name).collect();
        for kind in ["Role", "RoleBinding"] {
            if render.of_kind(kind).map(name).ne(accounts.iter().copied()) {
                found.push(format!("accounts {accounts:?}, but {kind} {:?}", render.of_kind(kind).collect::<Vec<_>>()));
            }
        }
        for (pod, template) in render.pods() {
            let spec = &template["spec"];
            let account = spec["serviceAccountName"].as_str();
            if spec["automountServiceAccountToken"] != account.is_some() || spec["enableServiceLinks"] != false {
                found.push(format!("{pod}: account {account:?}, token {}", spec["automountServiceAccountToken"]));
            }
            if accounts.contains(&pod) != (account == Some(pod)) {
                found.push(format!("{pod}: account {account:?} of {accounts:?}"));
            }
        }
    });
}

/// Component, group and resource, verbs: what the Roles of a render allow.
fn allowed(case: &str) -> Vec<String> {
    let render = &renders().by_name[case];
    let words = |value: &Value| items(value).filter_map(Value::as_str).collect::<Vec<_>>().join(",");
    let mut all = Vec::new();
    for role in render.of_kind("Role") {
        for rule in items(&role["rules"]) {
            let (groups, resources, verbs) =
                (words(&rule["apiGroups"]), words(&rule["resources"]), words(&rule["verbs"]));
            let names = words(&rule["resourceNames"]);
            all.push(format!("{} {groups}/{resources} {verbs} {names}", name(role)).trim_end().to_owned());
        }
    }
    all
}

#[test]
fn roles_allow_what_is_used_and_nothing_else() {
    let slices = "discovery.k8s.io/endpointslices get,list,watch";
    let edge = |name: &str, more: &[&str]| {
        let mut rules = vec![slices];
        rules.extend(more);
        rules.push("events.k8s.io/events create");
        rules.into_iter().map(|rule| format!("{name}-edge {rule}")).collect::<Vec<_>>()
    };
    let session = |name: &str| {
        let lease = format!("{name}-session coordination.k8s.io/leases get,update {name}-reaper");
        vec![format!("{name}-session {slices}"), lease]
    };
    assert_eq!(allowed("default"), [edge("plaza", &[]), session("plaza")].concat());
    assert_eq!(allowed("everything"), [edge("rooms", &["/pods patch"]), session("rooms")].concat());
    assert!(allowed("no-api").is_empty());
    let without = &renders().by_name["no-api"].text;
    assert!(!without.contains("kubernetes:///") && !without.contains("6443"), "a way to the API server is left");
}

#[test]
fn every_container_names_its_ports_and_bounds_its_memory() {
    for_every_render(|render, found| {
        for (pod, container) in containers(render) {
            if container["resources"]["limits"]["memory"].is_null() {
                found.push(format!("{pod} has no limit of memory"));
            }
            if pod.ends_with("-check") {
                continue; // it ends by itself and serves nobody
            }
            let names: BTreeSet<_> = items(&container["ports"]).filter_map(|port| port["name"].as_str()).collect();
            if names.is_empty() || names.len() != items(&container["ports"]).count() {
                found.push(format!("{pod}: ports {}", container["ports"]));
            }
            for probe in ["livenessProbe", "readinessProbe"] {
                let action = container[probe]["httpGet"].as_object().or(container[probe]["tcpSocket"].as_object());
                if !action.is_some_and(|a| a["port"].as_str().is_some_and(|port| names.contains(port))) {
                    found.push(format!("{pod}: {probe} asks {}", container[probe]));
                }
            }
        }
    });
}

/// Start and life ask whether the process answers, readiness whether new work should come: stores are in neither.
#[test]
fn each_service_is_probed_for_what_the_probe_means() {
    for_every_render(|render, found| {
        for (pod, container) in containers(render).filter(|(_, c)| items(&c["ports"]).any(|p| p["name"] == "admin")) {
            for (probe, path) in
                [("startupProbe", "/livez"), ("livenessProbe", "/livez"), ("readinessProbe", "/readyz")]
            {
                if container[probe]["httpGet"] != json!({ "path": path, "port": "admin" }) {
                    found.push(format!("{pod}: {probe} asks {}", container[probe]));
                }
            }
        }
    });
}

#[test]
fn every_service_reaches_exactly_one_kind_of_pod_at_a_named_port() {
    for_every_render(|render, found| {
        for service in render.of_kind("Service") {
            let chosen = render.pods().filter(|(_, t)| selects(&service["spec"]["selector"], &t["metadata"]["labels"]));
            let chosen: Vec<_> = chosen.collect();
            let [(_, template)] = chosen.as_slice() else {
                found.push(format!("{} reaches {} kinds of pods", name(service), chosen.len()));
                continue;
            };
            let ports = items(&template["spec"]["containers"]).flat_map(|c| items(&c["ports"]));
            let ports: Vec<_> = ports.map(|port| &port["name"]).collect();
            for port in items(&service["spec"]["ports"]) {
                if port["name"].is_null() || !ports.contains(&&port["targetPort"]) {
                    found.push(format!("{}: port {port}", name(service)));
                }
            }
        }
    });
}

#[test]
fn every_pod_is_fenced_in_both_directions() {
    for_every_render(|render, found| {
        for (pod, template) in render.pods() {
            let labels = &template["metadata"]["labels"];
            let policies = render.of_kind("NetworkPolicy");
            let fences = policies.filter(|p| selects(&p["spec"]["podSelector"]["matchLabels"], labels));
            let fences: Vec<_> = fences.map(|p| &p["spec"]["policyTypes"]).collect();
            if fences != [&json!(["Ingress", "Egress"])] {
                found.push(format!("{pod}: {fences:?}"));
            }
        }
    });
}

#[test]
fn secrets_are_the_users_and_never_rendered() {
    for_every_render(|render, found| {
        found.extend(render.of_kind("Secret").map(|secret| format!("renders the Secret {}", name(secret))));
        for (pod, template) in render.pods() {
            let spec = &template["spec"];
            let volumes = items(&spec["volumes"]).map(|volume| &volume["secret"]["secretName"]);
            let variables = items(&spec["containers"]).flat_map(|c| items(&c["env"]));
            let variables = variables.map(|variable| &variable["valueFrom"]["secretKeyRef"]["name"]);
            for secret in volumes.chain(variables).filter_map(Value::as_str) {
                if !render.values.contains(&format!("existingSecret: {secret}")) {
                    found.push(format!("{pod} reads {secret}, which no value names"));
                }
            }
        }
    });
    let external = &renders().by_name["external-stores"];
    let text =
        |pod: &str| external.pods().find(|(name, _)| *name == pod).map(|(_, t)| t.to_string()).expect("it is rendered");
    assert!(text("plaza-session").contains(r#"{"key":"address","name":"chat-redis"}"#));
    for pod in ["plaza-edge", "plaza-fanout"] {
        assert!(text(pod).contains(r#""secretName":"chat-nats""#), "{pod}");
    }
}

#[test]
fn numbers_are_written_out() {
    let exponent = |text: &&str| {
        let (digits, rest) = text.split_once("e+").unwrap_or_default();
        !rest.is_empty()
            && rest.bytes().all(|b| b.is_ascii_digit())
            && digits.bytes().all(|b| b.is_ascii_digit() || b == b'.')
    };
    for_every_render(|render, found| {
        let mut all = Vec::new();
        render.documents.iter().for_each(|document| strings(document, &mut all));
        found.extend(all.into_iter().filter(exponent).map(str::to_owned));
    });
    let everything = &renders().by_name["everything"].text;
    for number in ["\"10000000000\"", "\"1000000000000\"", "\"1000000\"", "315360000s"] {
        assert!(everything.contains(number), "{number} is not there");
    }
}

#[test]
fn the_longest_release_name_still_makes_names_of_63_characters() {
    let values = root().join("tests/chart/cases/default.yaml");
    let text = template(&"x".repeat(53), "chat", &values, &[]).unwrap_or_else(|said| panic!("{said}"));
    let names = text.lines().filter_map(|line| line.strip_prefix("  name: ").or(line.strip_prefix("name: ")));
    let names: Vec<_> = names.collect();
    assert!(names.iter().all(|name| name.len() <= 63), "{names:?}");
    // A Deployment's pods add `-` and 10 characters, `-` and 5; an edge is known by its pod's name.
    let edge = names.iter().find(|name| name.ends_with("-edge")).expect("the edge is rendered");
    assert!(edge.len() + 17 <= 63, "{edge}");
}
