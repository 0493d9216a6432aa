//! `kubernetes/kairos-sync.yaml`, by the schemas of Kubernetes and by the service that gets its environment.

use std::{fs, process::Command};

use kairos_tests::service::{TestService, service_binary};
use serde_json::{Value, json};

use super::{
    RULES, SCHEMA,
    programs::{fetched, kit},
};

/// Strict ones: they refuse fields that there are not.
const SCHEMAS: &str = "kubernetes_validate/kubernetes-json-schema/v1.37.0-local-strict/_definitions.json";
/// What the manifest is applied to first.
const RULES_FILE: &str = "/etc/kairos-sync/rules/rules.yaml";

fn text() -> String {
    fs::read_to_string(kit().join("kubernetes/kairos-sync.yaml")).expect("readable")
}

/// The objects, each with what the schema says of it.
fn objects() -> Vec<(Value, &'static str)> {
    let text = text();
    let documents: Vec<Value> = text.split("\n---\n").map(|part| serde_saphyr::from_str(part).expect("YAML")).collect();
    let name = |object: &Value| match object["kind"].as_str() {
        Some("Service") => "io.k8s.api.core.v1.Service",
        Some("StatefulSet") => "io.k8s.api.apps.v1.StatefulSet",
        kind => panic!("{kind:?}"),
    };
    documents.into_iter().map(|object| (name(&object), object)).map(|(name, object)| (object, name)).collect()
}

fn pod(objects: &[(Value, &str)]) -> Value {
    let found = objects.iter().find(|(object, _)| object["kind"] == "StatefulSet");
    found.expect("one").0["spec"]["template"]["spec"].clone()
}

#[test]
fn kubernetes_would_take_every_field() {
    let definitions = fs::read_to_string(fetched().join(SCHEMAS)).expect("fetched by `./kairos test`");
    let mut schema: Value = serde_json::from_str(&definitions.replace("/api/_definitions.json#", "#")).expect("JSON");
    for (object, name) in objects() {
        schema["$ref"] = json!(format!("#/$defs/{name}"));
        let validator = jsonschema::validator_for(&schema).expect("a schema");
        let wrong: Vec<_> =
            validator.iter_errors(&object).map(|error| format!("{} {error}", error.instance_path())).collect();
        assert_eq!(wrong, [] as [String; 0], "{name}");
        let mut mistaken = object;
        mistaken["spec"]["replica"] = json!(2);
        assert!(!validator.is_valid(&mistaken), "{name}: the schema is not strict");
    }
}

#[test]
fn the_parts_of_the_manifest_belong_together() {
    let objects = objects();
    let [(service, _), (set, _)] = &objects[..] else { panic!("two objects") };
    let labels = &set["spec"]["template"]["metadata"]["labels"];
    assert_eq!((&set["spec"]["selector"]["matchLabels"], &service["spec"]["selector"]), (labels, labels));
    assert_eq!((&set["spec"]["serviceName"], &set["spec"]["replicas"]), (&service["metadata"]["name"], &json!(1)));
    let pod = pod(&objects);
    let container = &pod["containers"][0];
    for mount in container["volumeMounts"].as_array().expect("mounts") {
        let volumes =
            [&pod["volumes"], &set["spec"]["volumeClaimTemplates"]].map(|list| list.as_array().expect("a list"));
        let names =
            volumes.into_iter().flatten().map(|volume| volume.get("name").unwrap_or(&volume["metadata"]["name"]));
        assert_eq!(names.filter(|name| **name == mount["name"]).count(), 1, "{mount}");
    }
    let image = fs::read_to_string(kit().join("Dockerfile")).expect("readable");
    assert!(image.contains("ENV KAIROS_DATA_DIR=/var/lib/kairos-sync\n") && image.contains("USER 65532:65532\n"));
    assert_eq!((&pod["securityContext"]["runAsUser"], &pod["enableServiceLinks"]), (&json!(65532), &json!(false)));
}

/// The variables of the manifest, with those of the Secret that its head makes, in a cluster that sets its own besides.
#[tokio::test]
async fn the_service_takes_its_environment_and_answers_its_probes() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("rules.yaml"), RULES).expect("writable");
    let (text, pod) = (text(), pod(&objects()));
    let container = &pod["containers"][0];
    let mut command = Command::new(service_binary());
    command.current_dir(folder.path()).args(["config", "check"]).env_clear();
    for variable in container["env"].as_array().expect("variables") {
        let (name, value) = (variable["name"].as_str().expect("text"), variable["value"].as_str().expect("text"));
        command.env(name, if value == RULES_FILE { "rules.yaml" } else { value });
    }
    let secrets: Vec<(&str, &str)> = text
        .lines()
        .filter_map(|line| line.trim_start_matches('#').trim().strip_prefix("--from-literal="))
        .map(|line| line.trim_end_matches(" \\").split_once('=').expect("a name and a value"))
        .collect();
    assert_eq!(secrets.len(), 3);
    command.envs(
        secrets
            .iter()
            .map(|(name, value)| (name, value.replace("\"$(openssl rand -hex 24)\"", "secret").replace('…', "secret"))),
    );
    command.env("KAIROS_PORT", "tcp://10.96.0.7:8080").env("KAIROS_SERVICE_HOST", "10.96.0.7");
    let output = command.output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{output:?}");
    assert!(said.contains("`KAIROS_PORT` is ignored") && said.contains("`enableServiceLinks: false`"), "{said}");
    assert_eq!(said.matches("warning").count(), 1, "{said}");

    let service = TestService::start(SCHEMA, RULES).await;
    service.wait_until_ready().await;
    for probe in ["livenessProbe", "readinessProbe"] {
        let path = container[probe]["httpGet"]["path"].as_str().expect("a path");
        let answer = reqwest::get(format!("{}{path}", service.process.endpoint())).await.expect("an answer");
        assert_eq!(answer.status(), 200, "{probe}");
    }
}
