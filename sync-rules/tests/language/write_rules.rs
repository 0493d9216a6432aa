//! What clients may write.

use std::num::NonZeroU32;

use kairos_sync_rules::{
    CompileOptions, SchemaTable, SourceSchema, SqlValue, WriteOp, WriteOrigin, WritePolicy, compile, compile_with,
};
use serde_json::{Value, json};

use crate::fixture::{service, sql};

fn policy(rule: &str) -> WritePolicy {
    let rules = format!("bucket_definitions: {{}}\nwrite_rules:\n  habits: {rule}\n");
    let service = service(&rules);
    assert_eq!(service.plan.writable_tables(), ["habits"]);
    assert!(service.plan.write_policy("users").is_none(), "a table without a rule cannot be written");
    service.plan.write_policy("habits").expect("a rule").clone()
}

fn origin() -> WriteOrigin {
    let token = json!({"sub": "u1", "role": "admin", "team": 5}).as_object().expect("an object").clone();
    WriteOrigin::new(token, Some("phone"), "2026-01-31T08:15:00.000001Z".to_owned())
}

fn row(value: &Value) -> Vec<(String, SqlValue)> {
    value.as_object().expect("an object").iter().map(|(name, value)| (name.clone(), sql(value))).collect()
}

/// Verdict of a check about a row that comes to be, changes, or goes.
fn verdict(check: &str, new: Option<Value>, old: Option<Value>) -> bool {
    let policy = policy(&format!("{{ allow: [put], check: \"{check}\" }}"));
    let (new, old) = (new.map(|new| row(&new)), old.map(|old| row(&old)));
    policy.check(&origin(), new.as_deref(), old.as_deref()).expect("the check does not fail")
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
    let stamps = policy.stamps(&origin()).unwrap();
    assert_eq!(stamps[0], ("updated_by".to_owned(), SqlValue::Text("u1".to_owned())));
    assert_eq!(
        stamps[1..],
        [("kind".to_owned(), SqlValue::Text("x".to_owned())), ("n".to_owned(), SqlValue::Integer(3))]
    );
}

#[test]
fn stamps_know_when_a_write_came_and_from_which_device() {
    let policy = policy(
        "{ allow: [put], columns: { stamp: { at: upload.received_at(), s: unixepoch(upload.received_at()), by: upload.client_id() } }, check: true }",
    );
    let text = |text: &str| SqlValue::Text(text.to_owned());
    let stamps: Vec<_> = policy.stamps(&origin()).unwrap().into_iter().map(|(_, value)| value).collect();
    assert_eq!(stamps, [text("2026-01-31T08:15:00.000001Z"), SqlValue::Integer(1_769_847_300), text("phone")]);
    let nameless = WriteOrigin::new(origin().token().clone(), None, "2026-01-31T08:15:00.000001Z".to_owned());
    assert_eq!(policy.stamps(&nameless).unwrap()[2].1, SqlValue::Null);
    assert!(verdict("row.device = upload.client_id()", Some(json!({"device": "phone"})), None));
    assert!(verdict("row.at <= unixepoch(upload.received_at())", Some(json!({"at": 5})), None));
}

#[test]
fn only_write_rules_know_of_an_upload() {
    for rules in [
        "bucket_definitions: { a: { parameters: SELECT upload.client_id() AS c, data: [SELECT * FROM b WHERE d = bucket.c] } }",
        "config: { edition: 3 }\nstreams: { a: { query: SELECT * FROM b WHERE d = upload.client_id() } }",
        "bucket_definitions: {}\nwrite_rules: { a: { allow: [put], check: row.a = upload.device_id() } }",
    ] {
        let compiled = compile(rules, "public");
        let [finding] = compiled.diagnostics.as_slice() else { panic!("{:?}", compiled.diagnostics) };
        assert_eq!(finding.code, "unknown_function", "{rules}");
        let help = finding.help.as_deref().unwrap_or_default();
        assert!(help.contains("write rules have") || help.contains("upload.client_id()"), "{help}");
    }
}

#[test]
fn a_list_of_columns_excludes_the_others() {
    let policy = policy("{ allow: [put], columns: { allow: [name] }, check: true }");
    assert!(policy.allows_column("name") && policy.allows_column("id") && !policy.allows_column("other"));
}

#[test]
fn a_column_that_marks_deleted_rows_is_the_servers() {
    let policy = policy("{ allow: [put, delete], soft_delete: deleted_at, check: true }");
    assert_eq!(policy.soft_delete(), Some("deleted_at"));
    assert!(policy.allows_column("name") && !policy.allows_column("deleted_at"));
}

#[test]
fn limits_and_schemas_are_stored_with_the_rule() {
    let policy = policy(
        "{ allow: [put], check: true, limits: { row_bytes: 65536, operations_per_batch: 10 },
           validators: { doc: { json_schema: { type: object, required: [a], $comment: 'x' } } } }",
    );
    let limits = policy.limits();
    assert_eq!(limits.row_bytes.map(NonZeroU32::get), Some(65_536));
    assert_eq!(limits.operations_per_batch.map(NonZeroU32::get), Some(10));
    assert_eq!(limits.operations_per_minute, None);
    let stored = serde_json::to_string(&policy).expect("JSON");
    let read: WritePolicy = serde_json::from_str(&stored).expect("a policy");
    assert_eq!(read, policy);
    let [validator] = read.validators("doc") else { panic!("one validator") };
    assert_eq!(validator.fault(&json!("{\"a\": 1}")), None);
    let fault = validator.fault(&json!("{\"secret\": 1}")).expect("a fault");
    assert!(fault.contains("`/required`") && !fault.contains("secret"), "{fault}");
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
    let error = policy.check(&origin(), Some(&row(&json!({"doc": "secret"}))), None).unwrap_err();
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
        ("{ allow: [put], check: true, limits: { row_bytes: 0 } }", "schema_violation"),
        ("{ allow: [put], check: true, limits: { operations_per_minute: 5000000000 } }", "schema_violation"),
        ("{ allow: [put], check: true, limits: { bytes: 1 } }", "schema_violation"),
        ("{ allow: [put], check: true, limits: 5 }", "yaml_structure"),
        ("{ allow: [put], check: true, validators: { a: { json_schema: { type: nope } } } }", "json_schema_invalid"),
        (
            "{ allow: [put], check: true, validators: { a: { json_schema: { $ref: 'https://example.com/a' } } } }",
            "json_schema_invalid",
        ),
        ("{ allow: [put], check: true, soft_delete: d }", "schema_violation"),
        ("{ allow: [delete], check: true, soft_delete: [d] }", "yaml_structure"),
        ("{ allow: [delete], check: true, soft_delete: d, columns: { stamp: { d: 1 } } }", "schema_violation"),
        ("{ allow: [delete], check: true, soft_delete: d, columns: { allow: [d] } }", "schema_violation"),
        (
            "{ allow: [delete], check: true, soft_delete: d, conflict: { strategy: lww, column: d } }",
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
        ("{ allow: [put], check: true, columns: { stamp: { a: upload.client_id(1) } } }", "argument_count"),
    ] {
        let compiled = compile(&format!("bucket_definitions: {{}}\nwrite_rules:\n  habits: {rule}\n"), "public");
        let codes: Vec<_> = compiled.diagnostics.iter().map(|finding| finding.code).collect();
        assert_eq!(codes, [code], "{rule}");
    }
}

#[test]
fn each_mistake_of_a_rule_is_told() {
    let rules = "bucket_definitions: {}
write_rules:
  habits:
    allow: [insert]
    columns: { stamp: { a: row.b, c: nobody() } }
    conflict: last
    validators: { a: secret, b: { max_length: x } }
  habit%: { allow: [put], check: true }
";
    let compiled = compile(rules, "public");
    let lines: Vec<_> = compiled.diagnostics.iter().map(|finding| finding.span.expect("a place").line).collect();
    assert_eq!(lines, [3, 4, 6, 7, 7, 8], "{:?}", compiled.diagnostics);
    let stamps = rules
        .replace("allow: [insert]", "allow: [put]\n    check: true")
        .replace("conflict: last", "")
        .replace("validators: { a: secret, b: { max_length: x } }", "")
        .replace("  habit%: { allow: [put], check: true }", "");
    assert_eq!(compile(&stamps, "public").diagnostics.len(), 2, "both stamps");
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
    let rule = "{ allow: [put, delete], check: row.user_id = auth.user_id() AND old.owner = 1,
                  columns: { deny: [created], stamp: { changed_by: auth.user_id() } },
                  conflict: { strategy: lww, column: update_at }, validators: { name: secrets, nam: secrets },
                  soft_delete: deleted_at }";
    for (rules, expected) in [
        (format!("habits: {rule}"), vec!["changed_by", "created", "deleted_at", "nam", "owner", "update_at"]),
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
