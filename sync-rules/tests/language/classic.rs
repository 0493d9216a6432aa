//! Classic bucket definitions.

use kairos_sync_rules::{SourceTable, SqlValue};
use serde_json::{Value, json};

use crate::fixture::{Index, request, service};

/// A definition `b` with one parameter query and one data query.
fn rules(parameters: &str, data: &str) -> String {
    format!("bucket_definitions:\n  b:\n    parameters: {parameters}\n    data:\n      - {data}\n")
}

/// Buckets of a row of `items`, under a definition with the parameters `x` and `y`.
fn row_buckets(filter: &str, row: Value) -> Vec<String> {
    let parameters = if filter.contains("bucket.y") { "SELECT 'a' AS x, 'b' AS y" } else { "SELECT 'a' AS x" };
    let mut service = service(&rules(parameters, &format!("SELECT * FROM items WHERE {filter}")));
    service.put("items", row).rows.iter().map(|row| row.bucket.to_string()).collect()
}

#[test]
fn request_values_become_bucket_names() {
    let token = json!({"sub": "u1", "n": 5, "f": 1.5, "tags": ["a"], "parameters": {"team": 7, "user_id": "other"}});
    for (expression, bucket) in [
        ("request.user_id() AS x", r#"b["u1"]"#),
        ("request.jwt() ->> 'sub' AS x", r#"b["u1"]"#),
        ("request.jwt() ->> 'n' AS x", "b[5]"),
        ("request.jwt() ->> 'f' AS x", "b[1.5]"),
        ("request.jwt() ->> 'tags' AS x", r#"b["[\"a\"]"]"#),
        ("request.jwt() ->> 'absent' AS x", "b[null]"),
        ("token_parameters.team", "b[7]"),
        ("token_parameters.user_id", r#"b["u1"]"#),
        ("upper(token_parameters.user_id) || '!' AS x", r#"b["U1!"]"#),
        ("typeof(request.jwt() ->> 'n') AS x", r#"b["real"]"#),
    ] {
        let name = if expression.contains(" AS ") { "x" } else { expression.rsplit('.').next().unwrap() };
        let data = format!("SELECT id FROM items WHERE x = bucket.{name}");
        let mut service = service(&rules(&format!("SELECT {expression}"), &data));
        assert_eq!(service.buckets(token.clone()), [bucket], "{expression}");
    }
}

#[test]
fn a_filter_on_the_request_decides_about_the_bucket() {
    let mut service = service(&rules("SELECT WHERE request.jwt() ->> 'role' = 'admin'", "SELECT * FROM items"));
    assert_eq!(service.buckets(json!({"role": "admin"})), ["b[]"]);
    assert!(service.buckets(json!({"role": "guest"})).is_empty());
    assert!(service.buckets(json!({})).is_empty());
}

#[test]
fn rows_go_where_the_filter_would_be_true() {
    let row = json!({"id": 1, "x": "u1", "y": 2, "tags": ["p", 5, null], "n": null, "open": true});
    for (filter, buckets) in [
        ("x = bucket.x", vec![r#"b["u1"]"#]),
        ("bucket.x = items.y", vec!["b[2]"]),
        ("n = bucket.x", vec![]),
        ("bucket.x IN tags", vec![r#"b["p"]"#, "b[5]"]),
        ("upper(x) = bucket.x AND open", vec![r#"b["U1"]"#]),
        ("x = bucket.x AND NOT open", vec![]),
        ("x = bucket.x AND (y > 5 OR n IS NULL)", vec![r#"b["u1"]"#]),
        ("x = bucket.x OR y = bucket.x", vec![r#"b["u1"]"#, "b[2]"]),
        ("bucket.x IN tags AND y = bucket.y", vec![r#"b["p",2]"#, "b[5,2]"]),
        // Both conditions speak of one parameter: they must agree.
        ("x = bucket.x AND y = bucket.x", vec![]),
        ("bucket.x IN tags AND 5 = y + 3 AND 5 = y + 3 AND y + 3 = bucket.x", vec!["b[5]"]),
    ] {
        assert_eq!(row_buckets(filter, row.clone()), buckets, "{filter}");
    }
}

#[test]
fn tables_give_parameters_through_lookups() {
    let mut service = service(&rules(
        "SELECT team_id FROM members WHERE user_id = request.user_id() AND active",
        "SELECT * FROM tasks WHERE team_id = bucket.team_id",
    ));
    service.put("members", json!({"id": 1, "user_id": "u1", "team_id": "t1", "active": 1}));
    service.put("members", json!({"id": 2, "user_id": "u1", "team_id": "t2", "active": 0}));
    service.put("members", json!({"id": 3, "user_id": null, "team_id": "t3", "active": 1}));
    service.put("tasks", json!({"id": 9, "team_id": "t1"}));
    assert_eq!(service.visible(json!({"sub": "u1"})), ["tasks/9".to_owned()].into());
    assert!(service.buckets(json!({})).is_empty(), "NULL is nobody");
    service.put("members", json!({"id": 2, "user_id": "u1", "team_id": "t2", "active": 1}));
    assert_eq!(service.buckets(json!({"sub": "u1"})), [r#"b["t1"]"#, r#"b["t2"]"#]);
}

#[test]
fn a_list_in_the_token_asks_once_per_element() {
    let mut service = service(&rules(
        "SELECT id FROM teams WHERE id IN request.jwt() -> 'teams' AND request.jwt() ->> 'staff'",
        "SELECT * FROM tasks WHERE team = bucket.id",
    ));
    for team in ["t1", "t2", "t3"] {
        service.put("teams", json!({"id": team}));
    }
    assert_eq!(service.buckets(json!({"staff": 1, "teams": ["t1", "t3", "t9", null]})), [r#"b["t1"]"#, r#"b["t3"]"#]);
    assert!(service.buckets(json!({"staff": 0, "teams": ["t1"]})).is_empty());
    assert!(service.buckets(json!({"staff": 1, "teams": "t1"})).is_empty(), "not a list");
}

#[test]
fn two_conditions_on_one_request_value_must_both_hold() {
    let mut service = service(&rules(
        "SELECT id AS g FROM groups WHERE owner = request.user_id() AND deputy = request.user_id()",
        "SELECT * FROM items WHERE g = bucket.g",
    ));
    service.put("groups", json!({"id": 1, "owner": "a", "deputy": "b"}));
    service.put("groups", json!({"id": 2, "owner": "a", "deputy": "a"}));
    assert_eq!(service.buckets(json!({"sub": "a"})), ["b[2]"]);
    assert!(service.buckets(json!({"sub": "b"})).is_empty());
}

#[test]
fn several_parameter_queries_meet_in_the_same_buckets() {
    let rules = "
bucket_definitions:
  b:
    parameters:
      - SELECT 'a' AS x, 'b' AS y
      - SELECT 'c' AS y, 'd' AS x, 0 AS _priority
      - SELECT 'a' AS x, 'b' AS y, 1 AS _priority
    data: [SELECT * FROM items WHERE x = bucket.x AND y = bucket.y]
";
    let mut service = service(rules);
    let resolution = service.resolve(&crate::fixture::request(json!({})));
    let found: Vec<_> = resolution.buckets.iter().map(|bucket| (bucket.name.as_str(), bucket.priority)).collect();
    assert_eq!(found, [(r#"b["a","b"]"#, 1), (r#"b["d","c"]"#, 0)], "by name, and the most urgent priority");
}

#[test]
fn output_columns_follow_the_select_list() {
    let row = json!({"id": 5, "_rev": 1, "name": "n", "n": null, "f": 2.0});
    for (columns, id, data) in [
        ("*", "5", r#"{"id":5,"name":"n","n":null,"f":2.0}"#),
        ("items.*", "5", r#"{"id":5,"name":"n","n":null,"f":2.0}"#),
        ("id, f || '' AS f, _rev, gone", "5", r#"{"id":5,"f":"2","_rev":1}"#),
        ("name AS id", "n", r#"{"id":"n"}"#),
        ("*, name AS id", "n", r#"{"id":"n","name":"n","n":null,"f":2.0}"#),
        ("NULL AS name, 7 AS f, *", "5", r#"{"name":"n","f":7,"id":5,"n":null}"#),
        ("id, 1 + 1 AS two, CAST(f AS integer) AS i", "5", r#"{"id":5,"two":2,"i":2}"#),
        ("n AS id", "", r#"{"id":null}"#),
    ] {
        let mut service =
            service(&format!("bucket_definitions: {{ b: {{ data: [\"SELECT {columns} FROM items\"] }} }}"));
        let evaluation = service.put("items", row.clone());
        let [found] = evaluation.rows.as_slice() else { panic!("{columns}: {evaluation:?}") };
        assert_eq!((&*found.object_id, &*found.data), (id, data), "{columns}");
    }
}

#[test]
fn bytes_are_never_sent() {
    let service = service("bucket_definitions: { b: { data: [SELECT * FROM items] } }");
    let evaluator =
        service.plan.evaluator(&crate::fixture::table("items"), &["id".to_owned(), "bytes".to_owned()], "7#");
    let values = [SqlValue::Real(f64::NAN), SqlValue::Blob(vec![1])];
    let evaluation = evaluator.evaluate(&values, &mut Index::default()).unwrap();
    assert_eq!(&*evaluation.rows[0].data, r#"{"id":null}"#, "not-a-number is null: JSON has no word for it");
    assert_eq!(evaluation.rows[0].bucket.as_str(), "7#b[]");
}

#[test]
fn a_wildcard_reads_all_tables_with_the_prefix() {
    let mut service = service(
        "bucket_definitions: { b: { data: ['SELECT id, _table_suffix AS part FROM \"log_%\"', 'SELECT * FROM app.items AS things'] } }",
    );
    let evaluation = service.put("log_2024", json!({"id": 1}));
    assert_eq!(&*evaluation.rows[0].object_type, "log_2024");
    assert_eq!(&*evaluation.rows[0].data, r#"{"id":1,"part":"2024"}"#);
    assert!(service.put("logs", json!({"id": 1})).rows.is_empty());
    let app = SourceTable { schema: "app".to_owned(), ..crate::fixture::table("items") };
    assert!(service.plan.evaluator(&app, &[], "").is_used());
    assert!(!service.plan.evaluator(&crate::fixture::table("items"), &[], "").is_used());
}

#[test]
fn a_failing_query_does_not_disturb_the_others() {
    let rules = "bucket_definitions: { b: { data: [\"SELECT id, doc ->> 'x' AS x FROM items\", SELECT id FROM items AS copy] } }";
    let mut service = service(rules);
    let evaluation = service.put("items", json!({"id": 1, "doc": "secret {"}));
    assert_eq!(evaluation.rows.len(), 1);
    let [error] = evaluation.errors.as_slice() else { panic!("{evaluation:?}") };
    assert_eq!(error.to_string(), "b: data query 1: the text is not valid JSON");
}

#[test]
fn names_of_buckets_have_a_bound_for_a_row_and_for_a_request() {
    let rules = "bucket_definitions:\n  b:\n    parameters: SELECT token_parameters.a AS a, value AS c FROM \
                 json_each(request.jwt() ->> 'list')\n    data:\n      - SELECT id FROM t WHERE x = bucket.a AND bucket.c IN \
                 list\n  other:\n    data: [SELECT id FROM t]\n";
    let mut service = service(rules);
    let (long, list) = ("x".repeat(50_000), json!((0..10_000).map(|n| format!("e{n}")).collect::<Vec<_>>()));
    let evaluation = service.put("t", json!({"id": 1, "x": long, "list": list.to_string()}));
    let buckets: Vec<_> = evaluation.rows.iter().map(|row| row.bucket.as_str()).collect();
    assert_eq!(buckets, ["other[]"], "the definition that is too much gives nothing, the others do");
    assert!(evaluation.errors[0].message.contains("too long"), "{}", evaluation.errors[0]);
    let resolution = service.resolve(&request(json!({"sub": "u", "parameters": {"a": long}, "list": list})));
    assert!(resolution.errors[0].1.message.contains("too long"), "{}", resolution.errors[0].1);
    assert_eq!(resolution.buckets.len(), 1);
}

#[test]
fn a_missing_argument_that_is_chosen_leaves_the_column_out() {
    let query = "SELECT id, ifnull(a) AS b, iif(a, 1) AS c, length() AS d FROM t";
    let mut service = service(&format!("bucket_definitions: {{ g: {{ data: ['{query}'] }} }}\n"));
    let mut data = |a: Value| service.put("t", json!({"id": 1, "a": a})).rows[0].data.to_string();
    assert_eq!(data(json!(5)), r#"{"id":1,"b":5,"c":1,"d":null}"#);
    assert_eq!(data(Value::Null), r#"{"id":1,"d":null}"#);
}
