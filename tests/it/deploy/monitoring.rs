//! Metrics, alerts and dashboards: of one piece, and at work in a Prometheus that asks a running service.

use std::{collections::BTreeSet, fs};

use kairos_sync::demo::cluster::free_port;
use kairos_tests::service::{TestService, eventually};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{
    RULES, SCHEMA,
    dashboards::expressions,
    programs::{Running, kit, program, run},
};
use crate::tidy::root;

/// They appear with their first label.
const APPEAR_LATER: [&str; 5] = [
    "kairos_conflicts_total",
    "kairos_copy_bytes_left",
    "kairos_copy_rows_done",
    "kairos_rate_limited_total",
    "kairos_requests_refused_total",
];

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Names of our metrics in a text; of histograms the name that they are registered by.
fn metrics_in(text: &str) -> BTreeSet<String> {
    let words = text.split(|char: char| !(char.is_ascii_alphanumeric() || char == '_'));
    let is_metric = |word: &&str| ["kairos_", "powersync_"].iter().any(|prefix| word.starts_with(prefix));
    let base = |word: &str| {
        let part = ["_bucket", "_sum", "_count"].into_iter().find_map(|part| word.strip_suffix(part));
        part.filter(|name| name.ends_with("_seconds")).unwrap_or(word).to_owned()
    };
    words.filter(is_metric).map(base).collect()
}

/// Names that the service registers.
fn registered() -> BTreeSet<String> {
    let source = read("service/src/metrics.rs");
    let code = source.split("#[cfg(test)]").next().unwrap_or_default();
    code.split('"').filter(|word| metrics_in(word).contains(*word)).map(str::to_owned).collect()
}

/// The first cell of each row of the tables in docs/metrics.md.
fn documented() -> BTreeSet<String> {
    let docs = read("docs/metrics.md");
    docs.lines()
        .filter_map(|line| line.strip_prefix("| `"))
        .flat_map(|line| metrics_in(line.split(" | ").next().unwrap_or_default()))
        .collect()
}

#[test]
fn every_metric_is_documented_and_those_asked_for_are_there() {
    let registered = registered();
    assert_eq!(registered, documented(), "service/src/metrics.rs and docs/metrics.md");
    let alerts = read("deploy/prometheus/alerts.yaml");
    for asked in metrics_in(&alerts).into_iter().chain(expressions().iter().flat_map(|text| metrics_in(text))) {
        assert!(registered.contains(&asked), "{asked} is asked for, and nobody has it");
    }
}

#[test]
fn every_alert_has_a_section_in_the_runbook_and_no_other() {
    let alerts = read("deploy/prometheus/alerts.yaml");
    let names: Vec<&str> = alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    let runbook = read("docs/runbook.md");
    let sections: BTreeSet<&str> = runbook.lines().filter_map(|line| line.strip_prefix("## Kairos")).collect();
    let expected: BTreeSet<&str> = names.iter().map(|name| name.trim_start_matches("Kairos")).collect();
    assert_eq!(sections, expected);
    let urls: Vec<&str> = alerts.lines().filter_map(|line| line.trim().strip_prefix("runbook_url: ")).collect();
    let anchors: Vec<&str> =
        urls.iter().filter_map(|url| url.split_once("docs/runbook.md#")).map(|url| url.1).collect();
    assert_eq!(anchors, names.iter().map(|name| name.to_lowercase()).collect::<Vec<_>>());
    for section in runbook.split("\n## ").skip(1) {
        let name = section.lines().next().unwrap_or_default();
        for part in ["**What it means.**", "**What to do.**"] {
            assert!(section.contains(part), "{name} has no {part}");
        }
    }
}

#[test]
fn prometheus_accepts_its_files_and_alerts_fire_when_they_should() {
    run(program("promtool").args(["check", "config"]).arg(kit().join("prometheus/prometheus.yaml")));
    let tests = root().join("tests/it/deploy/alerts_test.yaml");
    run(program("promtool").args(["test", "rules"]).arg(&tests));
    let alerts = read("deploy/prometheus/alerts.yaml");
    let tested = read("tests/it/deploy/alerts_test.yaml");
    for name in alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
        let cases = tested.split("alertname: ").filter(|rest| rest.lines().next() == Some(name));
        let (silent, loud): (Vec<&str>, Vec<&str>) =
            cases.partition(|case| case.lines().nth(1).is_some_and(|line| line.trim() == "exp_alerts: []"));
        assert!(!silent.is_empty() && !loud.is_empty(), "{name} is not tested both ways");
    }
}

/// What is otherwise about a Prometheus.
pub(super) struct Asked<'a> {
    /// Where it tells of alerts.
    pub(super) alertmanager: &'a str,
    /// Whether alerts fire without waiting.
    pub(super) for_at_once: bool,
}

/// A Prometheus with the kit's files, which asks this service every second.
pub(super) fn prometheus(service: &TestService, folder: &TempDir, asked: &Asked<'_>) -> (Running, String) {
    let config = read("deploy/prometheus/prometheus.yaml");
    let address = service.process.endpoint().trim_start_matches("http://");
    let here = config.replace("kairos-sync:8080", address).replace("interval: 15s", "interval: 1s");
    assert!(here.contains("targets: [alertmanager:9093]"), "{here}");
    let here = here.replace("alertmanager:9093", asked.alertmanager);
    assert!(here.contains(address) && here.contains("scrape_interval: 1s"), "{here}");
    fs::write(folder.path().join("prometheus.yaml"), here).expect("writable");
    let mut alerts = read("deploy/prometheus/alerts.yaml");
    if asked.for_at_once {
        alerts = alerts.replace("for: 2m", "for: 0s");
    }
    fs::write(folder.path().join("alerts.yaml"), alerts).expect("writable");
    let port = free_port().expect("a port");
    let mut command = program("prometheus");
    command.arg(format!("--config.file={}", folder.path().join("prometheus.yaml").display()));
    command.arg(format!("--storage.tsdb.path={}", folder.path().join("tsdb").display()));
    command.arg(format!("--web.listen-address=127.0.0.1:{port}"));
    (Running::start(command, folder.path(), "prometheus"), format!("http://127.0.0.1:{port}"))
}

/// What Prometheus answers to an expression: its values, or why there are none.
async fn query(prometheus: &str, expression: &str) -> Result<Vec<Value>, String> {
    let request = reqwest::Client::new().get(format!("{prometheus}/api/v1/query")).query(&[("query", expression)]);
    let answer: Value = match request.send().await {
        Ok(answer) => answer.json().await.map_err(|error| error.to_string())?,
        Err(error) => return Err(error.to_string()),
    };
    let values = answer["data"]["result"].as_array().cloned();
    values.ok_or_else(|| format!("{expression}: {answer}"))
}

/// A change, an upload, a stream and a request without a token, so that there is something to see.
async fn live_a_little(service: &TestService) {
    let token = service.token("ann");
    let http = reqwest::Client::new();
    let post = |path: &str| http.post(format!("{}{path}", service.process.endpoint()));
    assert_eq!(post("/sync/stream").json(&json!({})).send().await.expect("answers").status().as_u16(), 401);
    let mut stream = post("/sync/stream").bearer_auth(&token).json(&json!({})).send().await.expect("answers");
    let note = json!({ "op": "PUT", "table": "notes", "id": "a", "data": { "owner": "ann", "body": "b" } });
    let upload = post("/api/sync/data").bearer_auth(&token).json(&json!({ "batch": [note] }));
    assert_eq!(upload.send().await.expect("answers").status().as_u16(), 200);
    let mut text = String::new();
    while text.matches("checkpoint_complete").count() < 2 {
        let chunk = stream.chunk().await.expect("lines").expect("the stream goes on");
        text.push_str(&String::from_utf8_lossy(&chunk));
    }
}

#[tokio::test]
async fn a_running_prometheus_gets_an_answer_to_everything_that_is_asked() {
    let service = TestService::start(SCHEMA, RULES).await;
    service.wait_until_ready().await;
    let folder = TempDir::new().expect("a folder");
    let (_process, prometheus) =
        prometheus(&service, &folder, &Asked { alertmanager: "127.0.0.1:1", for_at_once: false });
    live_a_little(&service).await;
    let scrape = service.process.get("/metrics").await.expect("answers");
    let shown = metrics_in(&scrape);
    let missing: Vec<String> = registered().difference(&shown).cloned().collect();
    let later = APPEAR_LATER.iter().filter(|name| **name != "kairos_requests_refused_total");
    assert_eq!(missing, later.map(|name| (*name).to_owned()).collect::<Vec<_>>(), "in a live scrape");
    for histogram in ["replication_delay", "delivery", "upload"] {
        let count = format!("kairos_{histogram}_seconds_count ");
        let count = scrape.lines().find_map(|line| line.strip_prefix(&count)).expect("it is shown");
        assert!(count.parse::<u64>().expect("a number") > 0, "{histogram}");
    }

    // Rates need two scrapes after the first change, and the changes after that.
    let rate = "sum(rate(kairos_upload_seconds_count[1m])) > 0";
    eventually(true, async || {
        live_a_little(&service).await;
        query(&prometheus, rate).await.is_ok_and(|values| !values.is_empty())
    })
    .await;
    let mut silent = Vec::new();
    for expression in expressions() {
        let values = query(&prometheus, &expression).await.expect("Prometheus understands it");
        let names = metrics_in(&expression);
        let may_be_silent = APPEAR_LATER.iter().any(|name| names.contains(*name));
        if values.is_empty() && !may_be_silent {
            silent.push(expression);
        }
    }
    // No bound of the slot's WAL is set here.
    silent.retain(|expression| !expression.contains("kairos_slot_budget_bytes"));
    assert_eq!(silent, [] as [String; 0], "nothing is shown");

    let answer: Value =
        reqwest::get(format!("{prometheus}/api/v1/rules")).await.expect("answers").json().await.expect("JSON");
    let rules = answer["data"]["groups"][0]["rules"].as_array().expect("rules");
    let count = read("deploy/prometheus/alerts.yaml").matches("- alert: ").count();
    assert_eq!(rules.len(), count);
    for rule in rules {
        assert!(rule["health"] != "err", "{rule}");
        assert_ne!(rule["state"], "firing", "a service that is well: {rule}");
    }
    assert!(query(&prometheus, "up{job=\"kairos-sync\"} == 1").await.is_ok_and(|up| up.len() == 1));
}
