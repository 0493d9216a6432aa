use serde_json::{Value, json};

use super::{CaseError, run};

const RULES: &str = "bucket_definitions:\n  g:\n    data:\n      - SELECT * FROM t\n";

fn result(case: &Value) -> Value {
    serde_json::from_str(&run(&case.to_string()).unwrap()).unwrap()
}

#[test]
fn the_example_of_the_format_gives_its_result() {
    let case = r#"{"id":"demo","rules_yaml":"bucket_definitions:\n  mine:\n    parameters: SELECT request.user_id() AS u\n    data:\n      - SELECT id, n FROM things WHERE owner = bucket.u\n","source_rows":[{"table":"things","columns":{"id":7,"owner":"ann","n":1.0}}],"requests":[{"jwt":{"sub":"ann"}}]}"#;
    let result = r#"{"id":"demo","requests":[{"buckets":[{"bucket":"mine[\"ann\"]","definition":"mine","priority":3,"reasons":["default"]}],"dynamic":false,"errors":0}],"rows":[{"data":[{"bucket":"mine[\"ann\"]","data":"{\"id\":7,\"n\":1.0}","id":"7","table":"things"}],"data_errors":0,"parameter_errors":0,"parameters":[]}],"rules":{"errors":[],"ok":true,"source_tables":[["default","public","things"]]}}"#;
    assert_eq!(run(case).unwrap(), result);
}

#[test]
fn rules_that_do_not_parse_are_a_result() {
    let result = result(&json!({"id": "x", "rules_yaml": "]", "source_rows": [], "requests": [{"jwt": {}}]}));
    assert_eq!(result["rules"]["ok"], false);
    assert_eq!(result["rules"]["errors"], json!([{"code": "yaml_syntax", "severity": "fatal"}]));
    assert_eq!((&result["rows"], &result["requests"]), (&json!([]), &json!([])));
}

#[test]
fn a_row_the_source_cannot_deliver_is_one_failed_evaluation() {
    let deep = (0..11).fold(json!(1), |inner, _| json!([inner]));
    let rows = json!([{"table": "t", "columns": {"id": 1, "deep": deep}}, {"table": "t", "columns": {"id": 2}}]);
    let result = result(&json!({"id": "x", "rules_yaml": RULES, "source_rows": rows}));
    assert_eq!(result["rows"][0]["data_errors"], 1);
    assert_eq!(result["rows"][0]["data"], json!([]));
    assert_eq!(result["rows"][1]["data"][0]["id"], "2", "other rows are not affected");

    let deep = format!("{}{}", "[".repeat(5000), "]".repeat(5000));
    let case = json!({"id": "x", "rules_yaml": RULES, "source_rows": [{"table": "t", "columns": {"deep": "DEEP"}}]});
    let line = run(&case.to_string().replace("\"DEEP\"", &deep)).unwrap();
    assert!(line.contains(r#""data_errors":1"#), "however deep it is: {line}");
}

#[test]
fn the_deployment_number_stands_in_front_only_if_the_rules_ask_for_it() {
    for (option, bucket) in [("true", "7#g[]"), ("false", "g[]")] {
        let rules = format!("config:\n  edition: 1\n  versioned_bucket_ids: {option}\n{RULES}");
        let rows = json!([{"table": "t", "columns": {"id": 1}}]);
        let result = result(
            &json!({"id": "x", "bucket_version": 7, "rules_yaml": rules, "source_rows": rows, "requests": [{}]}),
        );
        assert_eq!(result["rows"][0]["data"][0]["bucket"], bucket);
        assert_eq!(result["requests"][0]["buckets"][0]["bucket"], bucket);
    }
}

#[test]
fn joins_see_rows_that_come_later() {
    let rules = "bucket_definitions:
  mine:
    parameters:
      - { name: user_id, type: string }
    data:
      - table: notes
        filter: >-
          list_id IN (SELECT id FROM lists WHERE folder_id IN (SELECT id FROM folders WHERE owner = :user_id))
";
    let rows = json!([
        {"table": "notes", "columns": {"id": 1, "list_id": 2}},
        {"table": "lists", "columns": {"id": 2, "folder_id": 3}},
        {"table": "folders", "columns": {"id": 3, "owner": "ann"}},
    ]);
    let result =
        result(&json!({"id": "x", "rules_yaml": rules, "source_rows": rows, "requests": [{"jwt": {"sub": "ann"}}]}));
    assert_eq!(result["rules"]["ok"], true, "{result}");
    assert_eq!(result["rows"][0]["data"][0]["bucket"], result["requests"][0]["buckets"][0]["bucket"]);
}

#[test]
fn what_is_not_a_case_is_an_error_without_values() {
    let token = run(r#"{"id":"x","rules_yaml":"","requests":[{"jwt":"secret"}]}"#).unwrap_err();
    assert!(!format!("{token:?}").contains("secret"));
    let row = run(&json!({"id": "x", "rules_yaml": RULES, "source_rows": [{"table": "t", "columns": {"b": {"$blob": "secret"}}}]}).to_string());
    let row = row.unwrap_err();
    assert!(matches!(row, CaseError::Column { row: 0, .. }));
    assert!(!format!("{row:?}").contains("secret"));
    let missing = run("{\"id\":\"x\"}").unwrap_err();
    assert_eq!(missing.to_string(), "not a case: missing field `rules_yaml` (column 10)");
    for line in ["", "[]", "{", "{\"id\":1,\"rules_yaml\":\"\"}"] {
        assert!(matches!(run(line), Err(CaseError::Shape { .. })), "{line}");
    }
}

#[test]
fn a_failed_event_is_named_and_a_table_without_events_has_none() {
    let rules =
        format!("{RULES}event_definitions:\n  changed:\n    payloads:\n      - SELECT json_keys(a) AS k FROM e\n");
    let row = |table: &str, a: &str| json!({"table": table, "columns": {"id": 1, "a": a}});
    let rows = json!([row("e", r#"{"x":1}"#), row("e", "secret"), row("t", "")]);
    let result = result(&json!({"id": "x", "rules_yaml": rules, "source_rows": rows}));
    assert_eq!(result["rows"][0]["events"], json!([{"data": r#"{"k":"[\"x\"]"}"#, "event": "changed"}]));
    assert_eq!(result["rows"][1]["events"], json!([{"error": true, "event": "changed"}]));
    assert_eq!(result["rows"][1]["data_errors"], 0, "it counts as an event only");
    assert_eq!(result["rows"][2].get("events"), None);
}

#[test]
fn absent_subscription_parameters_are_empty_and_null_is_the_default_subscription() {
    let rules = "config: { edition: 3 }\nstreams:\n  s: { auto_subscribe: true, query: SELECT * FROM t }\n";
    let reasons = |streams: Value| {
        let result = result(&json!({"id": "x", "rules_yaml": rules, "requests": [{"streams": streams}]}));
        result["requests"][0]["buckets"][0]["reasons"].clone()
    };
    assert_eq!(reasons(json!([{"stream": "s"}])), json!(["default", {"subscription": 0}]));
    assert_eq!(reasons(json!([{"stream": "s", "parameters": null}])), json!([{"subscription": 0}]));
}
