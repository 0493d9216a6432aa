//! Grafana's dashboards as files, since there is no Grafana to show them: what each panel needs to be read.

use std::{collections::BTreeSet, fs};

use serde_json::Value;

use super::programs::kit;

/// A dashboard's file name and content.
pub(super) fn dashboards() -> Vec<(String, Value)> {
    let files = fs::read_dir(kit().join("grafana/dashboards")).expect("readable").filter_map(Result::ok);
    let read = |path: std::path::PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).expect("a plain name").to_owned();
        (name, serde_json::from_str(&fs::read_to_string(path).expect("readable")).expect("JSON"))
    };
    files.map(|file| read(file.path())).collect()
}

/// The panels of a dashboard that show something.
fn panels(dashboard: &Value) -> impl Iterator<Item = &Value> {
    let panels = dashboard["panels"].as_array().expect("panels");
    panels.iter().filter(|panel| panel["type"] != "row")
}

/// What all panels ask Prometheus, with what Grafana puts in for its variables.
pub(super) fn expressions() -> Vec<String> {
    let mut expressions = Vec::new();
    for (_, dashboard) in &dashboards() {
        let targets = panels(dashboard).flat_map(|panel| panel["targets"].as_array().expect("targets"));
        let text = targets.map(|target| target["expr"].as_str().expect("text"));
        expressions.extend(text.map(|text| text.replace("$__rate_interval", "1m").replace("$instance", ".*")));
    }
    expressions
}

/// Whether two panels take the same place.
fn overlap(one: &Value, other: &Value) -> bool {
    let side = |panel: &Value, key: &str| panel["gridPos"][key].as_u64().expect("a number");
    let apart = |start, length| {
        side(one, start) + side(one, length) <= side(other, start)
            || side(other, start) + side(other, length) <= side(one, start)
    };
    !apart("x", "w") && !apart("y", "h")
}

#[test]
fn every_panel_says_what_it_shows_and_has_a_place() {
    let source = fs::read_to_string(kit().join("grafana/provisioning/datasources/prometheus.yaml")).expect("readable");
    let mut uids = BTreeSet::new();
    for (file, dashboard) in &dashboards() {
        let uid = dashboard["uid"].as_str().expect("a uid");
        assert!(uids.insert(uid.to_owned()) && format!("{}.json", uid.trim_start_matches("kairos-")) == *file);
        assert!(dashboard["title"].is_string() && dashboard["description"].is_string(), "{file}");
        let all = dashboard["panels"].as_array().expect("panels");
        let ids: BTreeSet<Option<u64>> = all.iter().map(|panel| panel["id"].as_u64()).collect();
        assert!(ids.len() == all.len() && !ids.contains(&None), "{file}: ids of panels");
        for panel in panels(dashboard) {
            let title = panel["title"].as_str().expect("a title");
            assert!(panel["description"].as_str().is_some_and(|text| text.ends_with('.')), "{file}: {title}");
            assert!(panel["fieldConfig"]["defaults"]["unit"].is_string(), "{file}: {title} has no unit");
            let uid = panel["datasource"]["uid"].as_str().expect("a source");
            assert!(source.contains(&format!("uid: {uid}\n")), "{file}: {title} asks {uid}");
        }
        for (index, panel) in all.iter().enumerate() {
            let others = all[index + 1..].iter().filter(|other| overlap(panel, other));
            assert_eq!(others.count(), 0, "{file}: {} is covered", panel["title"]);
        }
    }
    let expected = ["kairos-clients", "kairos-overview", "kairos-replication", "kairos-writes"];
    assert_eq!(uids.into_iter().collect::<Vec<_>>(), expected);
}
