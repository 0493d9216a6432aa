//! Streams of edition 3: what each client gets, also with joins at write time.

use kairos_sync_rules::{Reason, Subscription, SyncPlan, compile};
use serde_json::{Value, json};

use crate::fixture::{request, service};

fn stream(query: &str, options: &str) -> String {
    format!("config: {{ edition: 3 }}\nstreams:\n  s:\n    auto_subscribe: true\n    query: {query}\n{options}")
}

const AT_WRITE_TIME: &str = "    write_time_joins: true\n";

#[test]
fn a_joined_stream_has_a_bucket_per_joined_row() {
    let mut service = service(&stream(
        "SELECT * FROM completions WHERE habit_id IN (SELECT id FROM habits WHERE user_id = auth.user_id())",
        "",
    ));
    for habit in ["h1", "h2"] {
        service.put("habits", json!({"id": habit, "user_id": "u1"}));
        service.put("completions", json!({"id": format!("c-{habit}"), "habit_id": habit}));
    }
    assert_eq!(service.buckets(json!({"sub": "u1"})), [r#"s|0["h1"]"#, r#"s|0["h2"]"#]);
    assert_eq!(service.visible(json!({"sub": "u1"})).len(), 2);
    assert!(service.visible(json!({"sub": "u2"})).is_empty());
}

#[test]
fn joined_at_write_time_a_user_has_one_bucket_however_many_parents_rows_hang_on() {
    let mut service = service(&stream(
        "SELECT * FROM completions WHERE habit_id IN (SELECT id FROM habits WHERE user_id = auth.user_id())",
        AT_WRITE_TIME,
    ));
    for habit in ["h1", "h2", "h3"] {
        service.put("completions", json!({"id": format!("c-{habit}"), "habit_id": habit}));
        service.put("habits", json!({"id": habit, "user_id": "u1"}));
    }
    assert_eq!(service.buckets(json!({"sub": "u1"})), [r#"s|0["u1"]"#]);
    assert_eq!(service.visible(json!({"sub": "u1"})).len(), 3);
    service.put("habits", json!({"id": "h2", "user_id": "u2"}));
    assert_eq!(service.visible(json!({"sub": "u1"})).len(), 2);
    assert!(service.visible(json!({"sub": "u2"})).contains("completions/c-h2"));
}

#[test]
fn tables_joined_on_several_columns_meet_in_one_row() {
    let query = "SELECT p.* FROM projects AS p JOIN orgs AS o ON o.id = p.org AND o.region = p.region \
                 WHERE o.owner = auth.user_id()";
    for options in ["", AT_WRITE_TIME] {
        let mut service = service(&stream(query, options));
        service.put("orgs", json!({"id": "o1", "region": "eu", "owner": "u1"}));
        service.put("orgs", json!({"id": "o2", "region": "us", "owner": "u1"}));
        service.put("projects", json!({"id": "p1", "org": "o1", "region": "eu"}));
        service.put("projects", json!({"id": "p2", "org": "o1", "region": "us"}));
        let visible = service.visible(json!({"sub": "u1"}));
        assert_eq!(visible.into_iter().collect::<Vec<_>>(), ["p/p1"], "{options}");
    }
}

#[test]
fn a_table_without_a_condition_must_have_a_row() {
    let mut service = service(&stream("SELECT t.* FROM t, switches WHERE t.owner = auth.user_id()", ""));
    service.put("t", json!({"id": "a", "owner": "u1"}));
    assert!(service.visible(json!({"sub": "u1"})).is_empty());
    service.put("switches", json!({"id": 1}));
    assert_eq!(service.visible(json!({"sub": "u1"})).len(), 1);
}

#[test]
fn not_in_an_array_of_the_row_excludes_it() {
    let mut service = service(&stream("SELECT id FROM t WHERE NOT ('x' IN tags)", ""));
    service.put("t", json!({"id": "a", "tags": "[\"x\",\"y\"]"}));
    service.put("t", json!({"id": "b", "tags": "[\"y\"]"}));
    assert_eq!(service.visible(json!({"sub": "u1"})).into_iter().collect::<Vec<_>>(), ["t/b"]);
}

#[test]
fn joins_at_write_time_refuse_what_they_cannot_follow() {
    for query in [
        "SELECT a.* FROM a, b, c WHERE a.x = b.x AND b.y = c.y AND c.z = a.z AND b.u = auth.user_id()",
        "SELECT * FROM a WHERE u = auth.user_id() AND auth.user_id() IN (SELECT id FROM admins)",
    ] {
        let compiled = compile(&stream(query, AT_WRITE_TIME), "public");
        let codes: Vec<_> = compiled.diagnostics.iter().map(|finding| finding.code).collect();
        assert_eq!(codes, ["write_time_join_unsupported"], "{query}");
    }
}

#[test]
fn a_subscription_brings_parameters_and_priority() {
    let rules = stream("SELECT id FROM t WHERE owner = auth.user_id() AND list = subscription.parameter('list')", "");
    let mut service = service(&rules);
    let mut request = request(json!({"sub": "u1"}));
    let Value::Object(parameters) = json!({"list": "l1"}) else { panic!("an object") };
    request.subscriptions =
        vec![Subscription { stream: "s".to_owned(), parameters: Some(parameters), priority: Some(1) }];
    let resolution = service.resolve(&request);
    let found: Vec<_> = resolution.buckets.iter().map(|bucket| (bucket.name.as_str(), bucket.priority)).collect();
    assert_eq!(found, [(r#"s|0["l1","u1"]"#, 1)]);
    assert_eq!(resolution.buckets[0].reasons, [Reason::Subscription(0)]);
}

#[test]
fn a_failing_subscription_leaves_the_others() {
    let rules = "config: { edition: 3 }\nstreams:\n  a:\n    auto_subscribe: true\n    query: SELECT id FROM t WHERE id IN \
                 auth.parameter('ids')\n  b:\n    auto_subscribe: true\n    query: SELECT id FROM t\n";
    let resolution = service(rules).resolve(&request(json!({"sub": "u1", "ids": "not an array"})));
    assert_eq!(resolution.buckets.len(), 1);
    assert_eq!(resolution.errors.len(), 1);
    assert_eq!(resolution.errors[0].1.definition, "a");
}

#[test]
fn a_stored_plan_reads_back_the_same() {
    let query = "SELECT *, CASE WHEN a > 1.5 THEN 'x' END AS c FROM t WHERE NOT (x IN ARRAY[1, NULL]) AND y BETWEEN 1 AND 2 AND \
                 h IN (SELECT id FROM h WHERE u = auth.user_id() AND 'a' IN tags)";
    for options in ["", AT_WRITE_TIME] {
        let plan = compile(&stream(query, options), "public").plan.unwrap();
        assert_eq!(SyncPlan::from_json(&plan.to_json()).unwrap(), plan);
    }
    assert!(SyncPlan::from_json("{\"format\":1}").unwrap_err().to_string().contains("format 1"));
    assert!(SyncPlan::from_json("nonsense").is_err());
}

#[test]
fn a_definition_keeps_its_hash_while_others_change() {
    let rules = |second: &str| {
        format!(
            "config: {{ edition: 3 }}\nstreams:\n  new:\n    query: {second}\n  old:\n    query: SELECT * FROM t WHERE h IN \
             (SELECT id FROM h WHERE u = auth.user_id())\n"
        )
    };
    let hashes = |second| {
        let plan = compile(&rules(second), "public").plan.unwrap();
        let hashes = plan.definition_hashes();
        (hashes["new"].clone(), hashes["old"].clone())
    };
    let one = hashes("SELECT * FROM a");
    let other = hashes("SELECT * FROM a WHERE x IN (SELECT id FROM b WHERE u = auth.user_id())");
    assert_ne!(one.0, other.0);
    assert_eq!(one.1, other.1);
}

#[test]
fn a_stream_over_several_tables_knows_their_names() {
    let rules = stream(
        "SELECT id, t.table_name() AS source, t.schema() AS place FROM \"log_%\" AS t WHERE t.table_suffix() = auth.parameter('year')",
        "",
    );
    let mut service = service(&rules.replace("query: SELECT", "query: |\n      SELECT"));
    let evaluation = service.put("log_2025", json!({"id": 1}));
    assert_eq!(evaluation.rows[0].bucket.as_str(), r#"s|0["2025"]"#);
    assert_eq!(&*evaluation.rows[0].data, r#"{"id":1,"source":"log_2025","place":"public"}"#);
    assert_eq!(service.visible(json!({"sub": "u1", "year": "2025"})).len(), 1);
    assert!(service.visible(json!({"sub": "u1", "year": "2026"})).is_empty());
}

#[test]
fn an_array_of_the_request_is_compared_with_one_table() {
    let codes = |query: &str| {
        let compiled = compile(&stream(query, ""), "public");
        compiled.diagnostics.iter().map(|finding| finding.code).collect::<Vec<_>>()
    };
    let from = "SELECT t.* FROM t, u, json_each(auth.parameter('m')) AS j WHERE";
    assert_eq!(codes(&format!("{from} t.x = j.value AND t.y = u.id AND u.k = j.value")), ["table_function_inputs"]);
    assert!(codes(&format!("{from} t.y = u.id AND u.k = j.value")).is_empty());
    assert_eq!(codes("SELECT * FROM t WHERE auth.parameter('a') IN auth.parameter('b')"), ["table_function_inputs"]);
}

#[test]
fn streams_that_share_a_bucket_are_both_named() {
    let rules = "config: { edition: 3 }\nstreams:\n  a: { auto_subscribe: true, query: SELECT * FROM t WHERE o = auth.user_id() }\n  \
                 b: { auto_subscribe: true, query: SELECT * FROM t WHERE o = auth.parameter('other') }\n";
    let resolution = service(rules).resolve(&request(json!({"sub": "u1", "other": "u1"})));
    assert_eq!(resolution.buckets.len(), 1);
    assert_eq!(resolution.buckets[0].default_of, [0, 1]);
    assert_eq!(resolution.buckets[0].reasons, [Reason::Default]);
}
