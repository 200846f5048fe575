//! What `k8s/` has for the load balancers fits the values that lie beside it.

use crate::helm::{root, yaml_files};
use crate::renders::{items, name, validate};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// The folders of load balancers.
const FOLDERS: [&str; 2] = ["alb-aliyun", "alb-aws"];

/// All documents of the folders, by `folder/file`, and what the schemas say.
fn manifests() -> Value {
    let mut texts = BTreeMap::new();
    for folder in FOLDERS.into_iter().chain(["observability", "observability/config/grafana"]) {
        for (file, path) in yaml_files(&root().join("k8s").join(folder)) {
            texts.insert(format!("{folder}/{file}"), std::fs::read_to_string(path).expect("it was listed"));
        }
    }
    validate(&serde_json::to_vec(&texts).expect("strings are JSON"))
}

#[test]
fn kubernetes_accepts_them() {
    let manifests = manifests();
    assert_eq!(manifests["problems"], Value::from(Vec::<Value>::new()));
    let extensions = ["AlbConfig", "Certificate", "IngressClassParams"];
    assert_eq!(manifests["unknown"], Value::from(extensions.to_vec()), "kinds that Kubernetes itself does not have");
}

#[test]
fn the_class_of_the_values_leads_to_the_settings_of_the_load_balancer() {
    let manifests = manifests();
    for folder in FOLDERS {
        let of_folder = manifests["documents"].as_object().expect("documents by file").iter();
        let all: Vec<_> = of_folder.filter(|(file, _)| file.starts_with(folder)).flat_map(|(_, d)| items(d)).collect();
        let values = all.iter().find(|d| d["ingress"].is_object()).expect("the folder has values");
        let class = all.iter().find(|d| d["kind"] == "IngressClass").expect("the folder has a class");
        assert_eq!(values["ingress"]["className"], name(class), "{folder}");

        let parameters = &class["spec"]["parameters"];
        let settings = all.iter().find(|d| d["kind"] == parameters["kind"]).expect("the settings of the class");
        assert_eq!(parameters["name"], name(settings), "{folder}");
        let group = settings["apiVersion"].as_str().and_then(|version| version.split('/').next());
        assert_eq!(parameters["apiGroup"].as_str(), group, "{folder}");
    }
}

#[test]
fn the_values_repeat_the_timeouts_of_the_albconfig() {
    let manifests = manifests();
    let document = |file: &str| &manifests["documents"][file][0];
    let ingress = &document("alb-aliyun/values")["ingress"];
    let listeners: Vec<_> = items(&document("alb-aliyun/albconfig")["spec"]["listeners"]).collect();
    assert_eq!(listeners.len(), 2);
    for listener in listeners {
        assert_eq!(listener["idleTimeout"], ingress["idleTimeoutSeconds"], "{listener}");
        assert_eq!(listener["requestTimeout"], ingress["requestTimeoutSeconds"], "{listener}");
    }
}

/// What `k8s/observability/up` puts into a namespace fits together: ports, maps of settings, tight security.
#[test]
fn the_pods_that_watch_plaza_find_their_settings_and_each_other() {
    let manifests = manifests();
    let all: Vec<_> = items(&manifests["documents"]["observability/manifests"]).collect();
    let up = std::fs::read_to_string(root().join("k8s/observability/up")).expect("the script is there");
    let of_kind = |kind: &'static str| all.iter().filter(move |document| document["kind"] == kind);
    assert_eq!(of_kind("Deployment").count(), 5);
    for deployment in of_kind("Deployment") {
        assert_eq!(deployment["metadata"]["namespace"], "observability");
        assert!(up.contains(name(deployment)), "the script waits for {}", name(deployment));
        let pod = &deployment["spec"]["template"]["spec"];
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true, "{}", name(deployment));
        assert_eq!(pod["containers"][0]["securityContext"]["readOnlyRootFilesystem"], true, "{}", name(deployment));
        for map in items(&pod["volumes"]).filter_map(|volume| volume["configMap"]["name"].as_str()) {
            assert!(up.contains(&format!("map {map} --from-file")), "{map} is made by the script");
        }
        let service = of_kind("Service").find(|service| name(service) == name(deployment)).expect("it has a service");
        let ports: Vec<_> = items(&pod["containers"][0]["ports"]).map(|port| &port["name"]).collect();
        for port in items(&service["spec"]["ports"]) {
            assert!(ports.contains(&&port["targetPort"]), "{} has {}", name(deployment), port["targetPort"]);
        }
    }
}

/// Grafana's pod has its files where Grafana looks, and what they name is there: services, sources, the folder.
#[test]
fn grafana_finds_its_dashboards_and_whom_to_ask() {
    let manifests = manifests();
    let all: Vec<_> = items(&manifests["documents"]["observability/manifests"]).collect();
    let called = |kind: &str, wanted: &str| all.iter().find(|d| d["kind"] == kind && name(d) == wanted);
    let pod = &called("Deployment", "grafana").expect("there is one")["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    let lies = |map: &str| {
        let volume = items(&pod["volumes"]).find(|volume| volume["configMap"]["name"] == map);
        let volume = volume.unwrap_or_else(|| panic!("no volume of {map}"));
        let mount = items(&container["volumeMounts"]).find(|mount| mount["name"] == volume["name"]);
        mount.and_then(|mount| mount["mountPath"].as_str()).unwrap_or_else(|| panic!("{map} is not mounted"))
    };
    assert_eq!(lies("grafana-datasources"), "/etc/grafana/provisioning/datasources");
    assert_eq!(lies("grafana-providers"), "/etc/grafana/provisioning/dashboards");
    let filled = |text: &Value| {
        let text = text.as_str().expect("it is text").to_owned();
        items(&container["env"]).fold(text, |text, variable| {
            let [name, value] = ["name", "value"].map(|key| variable[key].as_str().unwrap_or_default());
            text.replace(&format!("${{{name}}}"), value)
        })
    };
    let config = |file: &str| &manifests["documents"][format!("observability/config/grafana/{file}")][0];

    let sources: Vec<_> = items(&config("datasources")["datasources"]).collect();
    let uids: BTreeSet<_> = sources.iter().map(|source| source["uid"].as_str().expect("it has an uid")).collect();
    assert_eq!(uids.len(), 2, "{sources:?}");
    for source in &sources {
        let url = filled(&source["url"]);
        let (host, port) =
            url.strip_prefix("http://").and_then(|rest| rest.split_once(':')).expect("a host and a port");
        let service = called("Service", host).unwrap_or_else(|| panic!("{url} is no service"));
        let port: u64 = port.parse().expect("a number");
        assert!(items(&service["spec"]["ports"]).any(|own| own["port"] == port), "{url}: {service}");
        for exemplars in items(&source["jsonData"]["exemplarTraceIdDestinations"]) {
            assert!(exemplars["datasourceUid"].as_str().is_some_and(|uid| uids.contains(uid)), "{exemplars}");
        }
    }
    for file in ["datasources", "dashboards"] {
        assert_eq!(config(file)["apiVersion"], 1, "{file}");
    }
    let provider = &config("dashboards")["providers"][0];
    assert_eq!(
        (&provider["type"], filled(&provider["options"]["path"]).as_str()),
        (&"file".into(), lies("plaza-dashboards"))
    );

    let mut titles = BTreeSet::new();
    for file in std::fs::read_dir(root().join("charts/plaza/dashboards")).expect("the folder of dashboards") {
        let path = file.expect("it can be listed").path();
        assert!(path.extension().is_some_and(|ending| ending == "json"), "Grafana reads *.json: {}", path.display());
        let dashboard: Value = serde_json::from_slice(&std::fs::read(&path).expect("it can be read")).expect("JSON");
        let variable = items(&dashboard["templating"]["list"]).find(|variable| variable["name"] == "datasource");
        let kind = &variable.expect("the source is a variable")["query"];
        assert!(sources.iter().any(|source| source["type"] == *kind), "no source is a {kind}");
        for panel in items(&dashboard["panels"]).filter(|panel| panel["type"] != "row") {
            let asked = [&panel["datasource"]].into_iter().chain(items(&panel["targets"]).map(|t| &t["datasource"]));
            for source in asked {
                assert!(source["uid"] == "${datasource}" && source["type"] == *kind, "{}: {source}", panel["title"]);
            }
        }
        // Grafana keeps one of two that share an uid or, in a folder, a title.
        assert!(dashboard["id"].is_null(), "{}", path.display());
        for key in ["uid", "title"] {
            assert!(titles.insert(dashboard[key].to_string()), "{}: {} is taken", path.display(), dashboard[key]);
        }
    }
}
