//! What `k8s/` has for the load balancers fits the values that lie beside it.

use crate::helm::{root, yaml_files};
use crate::renders::{items, name, validate};
use serde_json::Value;
use std::collections::BTreeMap;

const FOLDERS: [&str; 2] = ["alb-aliyun", "alb-aws"];

/// All documents of the folders, by `folder/file`, and what the schemas say.
fn manifests() -> Value {
    let mut texts = BTreeMap::new();
    for folder in FOLDERS {
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
