//! What clients may write.

use kairos_sync_rules::{
    CompileOptions, SchemaTable, SourceSchema, SqlValue, WriteOp, WritePolicy, compile, compile_with,
};
use serde_json::{Map, Value, json};

use crate::fixture::{service, sql};

fn policy(rule: &str) -> WritePolicy {
    let rules = format!("bucket_definitions: {{}}\nwrite_rules:\n  habits: {rule}\n");
    let service = service(&rules);
    assert_eq!(service.plan.writable_tables(), ["habits"]);
    assert!(service.plan.write_policy("users").is_none(), "a table without a rule cannot be written");
    service.plan.write_policy("habits").expect("a rule").clone()
}

fn token() -> Map<String, Value> {
    json!({"sub": "u1", "role": "admin", "team": 5}).as_object().expect("an object").clone()
}

fn row(value: &Value) -> Vec<(String, SqlValue)> {
    value.as_object().expect("an object").iter().map(|(name, value)| (name.clone(), sql(value))).collect()
}

/// Verdict of a check about a row that comes to be, changes, or goes.
fn verdict(check: &str, new: Option<Value>, old: Option<Value>) -> bool {
    let policy = policy(&format!("{{ allow: [put], check: \"{check}\" }}"));
    let (new, old) = (new.map(|new| row(&new)), old.map(|old| row(&old)));
    policy.check(&token(), new.as_deref(), old.as_deref()).expect("the check does not fail")
}

#[test]
fn operations_and_columns_are_allowed_by_name() {
    let policy = policy(
        "{ allow: [put, patch], columns: { deny: [created_at], stamp: { updated_by: auth.user_id(), kind: \"'x'\", n: 3 } }, check: true }",
    );
    assert!(policy.allows(WriteOp::Put) && policy.allows(WriteOp::Patch) && !policy.allows(WriteOp::Delete));
    assert!(policy.allows_column("name") && policy.allows_column("id"));
    assert!(!policy.allows_column("created_at"));
    assert!(!policy.allows_column("updated_by"), "the server sets it");
    let stamps = policy.stamps(&token()).unwrap();
    assert_eq!(stamps[0], ("updated_by".to_owned(), SqlValue::Text("u1".to_owned())));
    assert_eq!(
        stamps[1..],
        [("kind".to_owned(), SqlValue::Text("x".to_owned())), ("n".to_owned(), SqlValue::Integer(3))]
    );
}

#[test]
fn a_list_of_columns_excludes_the_others() {
    let policy = policy("{ allow: [put], columns: { allow: [name] }, check: true }");
    assert!(policy.allows_column("name") && policy.allows_column("id") && !policy.allows_column("other"));
}

#[test]
fn a_check_compares_rows_with_the_writer() {
    let mine = || Some(json!({"user_id": "u1", "team": 5, "n": 1}));
    assert!(verdict("row.user_id = auth.user_id()", mine(), None));
    assert!(verdict("row.user_id = auth.user_id()", None, mine()), "a delete is about the stored row");
    assert!(!verdict("row.user_id = auth.user_id()", Some(json!({"user_id": "u2"})), None));
    assert!(!verdict("row.user_id = auth.user_id()", Some(json!({})), None), "an absent column is NULL");
    assert!(verdict("row.team = auth.parameter('team') AND auth.parameters() ->> 'role' = 'admin'", mine(), None));
    assert!(verdict("row.n > 0 OR row.n IS NULL", mine(), None));
    assert!(!verdict("true", None, None), "about nothing");
}

#[test]
fn a_row_of_another_user_cannot_be_taken_over() {
    let (mine, theirs) = (json!({"user_id": "u1"}), json!({"user_id": "u2"}));
    let check = "row.user_id = auth.user_id()";
    assert!(!verdict(check, Some(mine.clone()), Some(theirs.clone())));
    assert!(!verdict(check, Some(theirs.clone()), Some(mine.clone())), "nor given away");
    assert!(verdict(check, Some(mine.clone()), Some(mine.clone())));
    // A check that speaks of the stored row decides for itself.
    assert!(verdict("old.user_id = auth.user_id()", Some(theirs.clone()), Some(mine)));
    assert!(!verdict("old.user_id = auth.user_id()", Some(theirs), None), "there is no stored row");
}

#[test]
fn a_failing_check_says_nothing_of_values() {
    let policy = policy("{ allow: [put], check: \"row.doc ->> 'a' = 'b'\" }");
    let error = policy.check(&token(), Some(&row(&json!({"doc": "secret"}))), None).unwrap_err();
    assert_eq!(error.to_string(), "habits: check: the text is not valid JSON");
}

#[test]
fn what_a_rule_cannot_say_is_refused() {
    for (rule, code) in [
        ("{ allow: [put] }", "check_missing"),
        ("{ check: true }", "schema_violation"),
        ("{ allow: [insert], check: true }", "schema_violation"),
        ("{ allow: put, check: true }", "yaml_structure"),
        ("{ allow: [put], check: true, conflict: { strategy: manual, column: a } }", "schema_violation"),
        ("{ allow: [put], check: true, conflict: client_win }", "schema_violation"),
        ("{ allow: [put], check: true, conflict: lww }", "schema_violation"),
        ("{ allow: [put], check: true, conflict: { strategy: lww, columns: [a] } }", "schema_violation"),
        ("{ allow: [put], check: true, conflict: { strategy: merge_fields, column: a } }", "schema_violation"),
        ("{ allow: [put], check: true, conflict: { column: a } }", "schema_violation"),
        ("{ allow: [put, patch], check: true, conflict: append_only }", "schema_violation"),
        (
            "{ allow: [put], check: true, columns: { stamp: { v: 1 } }, conflict: { strategy: version, column: v } }",
            "schema_violation",
        ),
        ("{ allow: [put], check: true, validators: { a: secret } }", "schema_violation"),
        ("{ allow: [put], check: true, validators: { a: max_length } }", "schema_violation"),
        ("{ allow: [put], check: true, validators: { a: { max_length: -1 } } }", "schema_violation"),
        ("{ allow: [put], check: true, validators: { a: { min: x } } }", "schema_violation"),
        ("{ allow: [put], check: true, validators: { a: { pattern: '(' } } }", "pattern_invalid"),
        ("{ allow: [put], check: true, validators: { a: { one_of: [[]] } } }", "yaml_structure"),
        ("{ allow: [put], check: true, chek: 1 }", "schema_violation"),
        ("{ allow: [put], check: true, columns: { allow: [a], deny: [b] } }", "schema_violation"),
        ("{ allow: [put], check: user_id = auth.user_id() }", "undefined_reference"),
        ("{ allow: [put], check: row.h IN (SELECT id FROM h) }", "unsupported_expression"),
        ("{ allow: [put], check: row.h = request.user_id() }", "unknown_function"),
        ("{ allow: [put], check: \"row.h = :user_id\" }", "sql_syntax"),
        ("{ allow: [put], check: true, columns: { stamp: { a: row.b } } }", "undefined_reference"),
        ("{ allow: [put], check: true, columns: { stamp: { a: auth.user_id(1) } } }", "argument_count"),
    ] {
        let compiled = compile(&format!("bucket_definitions: {{}}\nwrite_rules:\n  habits: {rule}\n"), "public");
        let codes: Vec<_> = compiled.diagnostics.iter().map(|finding| finding.code).collect();
        assert_eq!(codes, [code], "{rule}");
    }
}

#[test]
fn names_that_the_source_does_not_have_are_found() {
    let table = |name: &str, columns: &[&str]| SchemaTable {
        connection: "default".to_owned(),
        schema: "public".to_owned(),
        name: name.to_owned(),
        columns: columns.iter().map(|column| (*column).to_owned()).collect(),
    };
    let source = SourceSchema { tables: vec![table("habits", &["id", "user_id", "name", "updated_at"])] };
    let options = CompileOptions { default_schema: "public", schema: Some(&source) };
    let rule = "{ allow: [put], check: row.user_id = auth.user_id() AND old.owner = 1,
                  columns: { deny: [created], stamp: { changed_by: auth.user_id() } },
                  conflict: { strategy: lww, column: update_at }, validators: { name: secrets, nam: secrets } }";
    for (rules, expected) in [
        (format!("habits: {rule}"), vec!["changed_by", "created", "nam", "owner", "update_at"]),
        ("habit: { allow: [put], check: row.user_id = auth.user_id() }".to_owned(), vec!["public.habit"]),
        ("public.habits: { allow: [put], check: row.user_id = auth.user_id() }".to_owned(), vec![]),
        ("other.habits: { allow: [put], check: true }".to_owned(), vec!["other.habits"]),
    ] {
        let compiled = compile_with(&format!("bucket_definitions: {{}}\nwrite_rules:\n  {rules}\n"), &options);
        assert!(compiled.plan.is_some(), "warnings only: {:?}", compiled.diagnostics);
        let names = compiled.diagnostics.iter().map(|finding| {
            assert_eq!(
                finding.code,
                if finding.message.contains("no table") { "table_not_found" } else { "column_not_found" }
            );
            finding.message.rsplit(' ').next().expect("a name")
        });
        let mut names: Vec<_> = names.collect();
        names.sort_unstable();
        assert_eq!(names, expected, "{rules}");
    }
}
