//! The Kairos dialect.

use serde_json::json;

use crate::fixture::service;

const SEED: &str = r#"
bucket_definitions:
  user_data:
    parameters:
      - name: user_id
        type: string
    data:
      - table: habits
        filter: "user_id = :user_id"
      - table: completions
        filter: "habit_id IN (SELECT id FROM habits WHERE user_id = :user_id)"
      - table: routines
        filter: "user_id = :user_id"
      - table: routine_habits
        filter: "routine_id IN (SELECT id FROM routines WHERE user_id = :user_id)"
      - table: recovery_sessions
        filter: "habit_id IN (SELECT id FROM habits WHERE user_id = :user_id)"
"#;

#[test]
fn a_user_has_one_bucket_however_many_parents_rows_hang_on() {
    let mut service = service(SEED);
    for habit in 0..50 {
        service.put("habits", json!({"id": format!("h{habit}"), "user_id": "u1"}));
        service.put("completions", json!({"id": format!("c{habit}"), "habit_id": format!("h{habit}")}));
    }
    assert_eq!(service.buckets(json!({"sub": "u1"})), [r#"user_data["u1"]"#]);
    assert_eq!(service.visible(json!({"sub": "u1"})).len(), 100);
    assert!(service.visible(json!({"sub": "u2"})).is_empty());
}

#[test]
fn rows_follow_their_parent_to_another_owner() {
    let mut service = service(SEED);
    service.put("completions", json!({"id": "c1", "habit_id": "h1"}));
    assert!(service.visible(json!({"sub": "u1"})).is_empty(), "the habit is not known yet");
    service.put("habits", json!({"id": "h1", "user_id": "u1"}));
    assert_eq!(service.visible(json!({"sub": "u1"})).len(), 2);
    service.put("habits", json!({"id": "h1", "user_id": "u2"}));
    assert!(service.visible(json!({"sub": "u1"})).is_empty());
    assert_eq!(service.visible(json!({"sub": "u2"})).len(), 2);
    service.delete("habits", &json!("h1"));
    assert!(service.visible(json!({"sub": "u2"})).is_empty());
}

#[test]
fn equal_subqueries_share_one_lookup() {
    let mut service = service(SEED);
    assert_eq!(service.put("habits", json!({"id": "h1", "user_id": "u1"})).lookups.len(), 1);
    assert!(service.put("habits", json!({"id": "h2", "user_id": null})).lookups.is_empty());
}

#[test]
fn a_row_that_other_conditions_exclude_asks_no_join() {
    let rules = SEED.replace("habit_id IN (", "deleted = 0 AND habit_id IN (");
    let mut service = service(&rules);
    assert!(service.put("completions", json!({"id": "c1", "habit_id": "h1", "deleted": 1})).consulted.is_empty());
    assert_eq!(service.put("completions", json!({"id": "c1", "habit_id": "h1", "deleted": 0})).consulted.len(), 1);
}

#[test]
fn client_parameters_are_never_asked() {
    let mut service = service(SEED);
    let mut request = crate::fixture::request(json!({}));
    request.parameters.insert("user_id".to_owned(), json!("u1"));
    let resolution = service.resolve(&request);
    assert!(resolution.buckets.is_empty());
    assert_eq!(resolution.errors.len(), 1, "a token without `sub` is reported");
}

#[test]
fn a_parameter_is_checked_against_its_type() {
    let mut service = service(
        "
bucket_definitions:
  team:
    priority: 1
    parameters: [{ name: team, type: integer }]
    data: [{ table: app.tasks, filter: 'team_id = :team', columns: [id, title] }]
",
    );
    assert_eq!(service.buckets(json!({"team": 5})), ["team[5]"]);
    assert_eq!(service.buckets(json!({"team": "7", "parameters": {"team": 6}})), ["team[6]"]);
    assert!(service.buckets(json!({"team": "x"})).is_empty());
    assert_eq!(service.plan.source_tables()[0].schema, "app");
}

#[test]
fn columns_limit_what_is_sent() {
    let mut service = service(
        "
bucket_definitions:
  all:
    data: [{ table: tasks, filter: 'NOT hidden', columns: [id, title] }]
",
    );
    let evaluation = service.put("tasks", json!({"id": 1, "title": "t", "secret": "s", "hidden": 0}));
    assert_eq!(&*evaluation.rows[0].data, r#"{"id":1,"title":"t"}"#);
    assert!(service.put("tasks", json!({"id": 1, "title": "t", "hidden": 1})).rows.is_empty());
    assert_eq!(service.buckets(json!({})), ["all[]"]);
}

#[test]
fn the_fingerprint_follows_meaning_not_layout() {
    let print = |rules: &str| service(rules).plan.fingerprint();
    let original = print(SEED);
    assert_eq!(original.len(), 64);
    assert_eq!(
        print(&format!("# a comment\n{SEED}\nwrite_rules: {{ habits: {{ allow: [put], check: true }} }}\n")),
        original
    );
    assert_ne!(print(&SEED.replace("routine_id IN", "id IN")), original);
    assert_ne!(print(&SEED.replace("user_data", "mine")), original);
}
