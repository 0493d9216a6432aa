//! Rows that a delete only marks.

use kairos_sync_protocol::upload::Outcome;
use serde_json::{Value, json};

use super::{Desk, as_write_role, batch, codes, principal};

fn sql(mark: &str) -> String {
    format!(
        "CREATE TABLE notes (id text PRIMARY KEY, owner text, a text, version int, by_user text, gone {mark});
         SELECT kairos.publish_table('notes', 'INSERT, UPDATE')"
    )
}

fn rules(conflict: &str, check: &str) -> String {
    format!(
        "bucket_definitions: {{}}
write_rules:
  notes:
    allow: [put, patch, delete]
    columns: {{ stamp: {{ by_user: auth.user_id() }} }}
    check: \"{check}\"
    conflict: {conflict}
    soft_delete: gone
"
    )
}

const MINE: &str = "row.owner = auth.user_id()";

fn operation(op: &str, data: Value) -> Value {
    let mut entry = json!({ "op": op, "table": "notes", "id": "n1" });
    entry["data"] = data;
    entry
}

fn put(a: &str) -> Value {
    operation("PUT", json!({ "owner": "anna", "a": a }))
}

async fn row(desk: &Desk) -> Value {
    let row = desk.value("SELECT to_jsonb(notes)::text FROM notes").await.expect("a row");
    serde_json::from_str(&row).expect("JSON")
}

/// The role may not delete at all: DELETE was not granted.
#[tokio::test]
async fn a_delete_marks_the_row_once_and_a_put_brings_it_back() {
    for (mark, unset) in [
        ("timestamptz", Value::Null),
        ("timestamp", Value::Null),
        ("date", Value::Null),
        ("text", Value::Null),
        ("boolean NOT NULL DEFAULT false", json!(false)),
    ] {
        let desk = Desk::with(&sql(mark), &rules("client_wins", MINE), as_write_role()).await;
        assert_eq!(desk.outcome("anna", put("first")).await, "", "{mark}");
        assert_eq!(row(&desk).await["gone"], unset, "{mark}");
        assert_eq!(desk.outcome("anna", operation("DELETE", Value::Null)).await, "", "{mark}");
        let deleted = row(&desk).await;
        assert_eq!((&deleted["a"], &deleted["by_user"]), (&json!("first"), &json!("anna")), "{mark}");
        assert_ne!(deleted["gone"], unset, "{mark}");
        // A row that is gone takes nothing.
        for again in [operation("DELETE", Value::Null), operation("PATCH", json!({ "a": "late" }))] {
            assert_eq!(desk.outcome("anna", again).await, "", "{mark}");
            assert_eq!(row(&desk).await, deleted, "{mark}: the first time stays");
        }
        assert_eq!(desk.outcome("anna", put("second")).await, "", "{mark}");
        let back = row(&desk).await;
        assert_eq!((&back["a"], &back["gone"]), (&json!("second"), &unset), "{mark}");
    }
}

#[tokio::test]
async fn the_time_of_a_delete_is_the_servers_and_devices_cannot_set_it() {
    let desk = Desk::with(&sql("timestamptz"), &rules("client_wins", MINE), as_write_role()).await;
    let said = operation("PUT", json!({ "owner": "anna", "gone": null }));
    assert_eq!(desk.outcome("anna", said).await, "", "that it is not deleted, a device may say");
    for data in [json!({ "gone": "2020-01-01T00:00:00Z" }), json!({ "gone": true })] {
        assert_eq!(desk.outcome("anna", operation("PATCH", data)).await, "WRITE_COLUMN");
    }
    let before = desk.value("SELECT clock_timestamp()::text").await.expect("a time");
    assert_eq!(desk.outcome("anna", operation("DELETE", Value::Null)).await, "");
    let count = format!("SELECT count(*) FROM notes WHERE gone BETWEEN '{before}' AND clock_timestamp()");
    assert_eq!(desk.count(&count).await, 1);
    assert_eq!(desk.outcome("anna", operation("PATCH", json!({ "gone": null }))).await, "");
    assert_eq!(desk.count(&count).await, 1, "nor take it back with a patch");
}

#[tokio::test]
async fn a_marked_row_is_still_its_owners() {
    for check in [MINE, "row.owner = auth.user_id() AND (old.id IS NULL OR old.owner = auth.user_id())"] {
        let desk = Desk::with(&sql("timestamptz"), &rules("server_wins", check), as_write_role()).await;
        assert_eq!(desk.outcome("anna", put("mine")).await, "");
        let seen = json!({ "op": "DELETE", "table": "notes", "id": "n1", "old": { "a": "mine" } });
        assert_eq!(desk.outcome("ben", seen.clone()).await, "WRITE_CHECK");
        assert_eq!(desk.outcome("anna", seen).await, "");
        let deleted = row(&desk).await;
        let theft = operation("PUT", json!({ "owner": "ben", "a": "x" }));
        for entry in [theft, operation("PATCH", json!({ "a": "x" })), operation("DELETE", Value::Null)] {
            assert_eq!(desk.outcome("ben", entry).await, "WRITE_CHECK", "{check}");
        }
        assert_eq!(row(&desk).await, deleted);
    }
}

#[tokio::test]
async fn deletes_are_compared_as_the_strategy_says() {
    let desk = Desk::with(&sql("timestamptz"), &rules("server_wins", MINE), as_write_role()).await;
    desk.outcome("anna", put("theirs")).await;
    let delete = |old: Value| json!({ "op": "DELETE", "table": "notes", "id": "n1", "old": old });
    assert_eq!(desk.outcome("anna", delete(Value::Null)).await, "WRITE_BASE_MISSING");
    assert_eq!(desk.outcome("anna", delete(json!({ "a": "before" }))).await, "WRITE_CONFLICT");
    assert_eq!(row(&desk).await["gone"], Value::Null);
    assert_eq!(desk.outcome("anna", delete(json!({ "a": "theirs" }))).await, "");
    let patch = json!({ "op": "PATCH", "table": "notes", "id": "n1", "data": { "a": "x" }, "old": { "a": "theirs" } });
    let late = desk.upload("anna", patch).await.remove(0);
    assert_eq!((late.outcome, late.row), (Outcome::Conflict, None), "the row is gone");
    assert_eq!(desk.outcome("anna", put("again")).await, "", "who inserts a row has seen none");

    let versions = rules("{ strategy: version, column: version }", MINE);
    let desk = Desk::with(&sql("boolean"), &versions, as_write_role()).await;
    desk.outcome("anna", put("first")).await;
    assert_eq!(desk.outcome("anna", delete(json!({ "version": 1 }))).await, "");
    assert_eq!((&row(&desk).await["version"], &row(&desk).await["gone"]), (&json!(2), &json!(true)));
    assert_eq!(desk.outcome("anna", put("second")).await, "");
    assert_eq!(row(&desk).await["version"], 3, "it goes on, since somebody may hold version 1");
}

#[tokio::test]
async fn a_column_that_cannot_say_it_is_named() {
    let desk = Desk::with(&sql("int"), &rules("client_wins", MINE), as_write_role()).await;
    desk.outcome("anna", put("x")).await;
    assert_eq!(desk.outcome("anna", operation("DELETE", Value::Null)).await, "WRITE_SOFT_DELETE");
    let other = rules("client_wins", MINE).replace("soft_delete: gone", "soft_delete: missing");
    let writer = desk.another_writer("kairos_service", &other, as_write_role());
    let answer = writer.upload(&principal("anna"), batch(operation("DELETE", Value::Null))).await.expect("an answer");
    assert_eq!(codes(&answer.results), ["WRITE_UNKNOWN_COLUMN"]);
}

/// As documented: what row-level security hides cannot be written, so the rules are the place to leave rows out.
#[tokio::test]
async fn row_level_security_decides_as_for_an_update() {
    let policies = "ALTER TABLE notes ENABLE ROW LEVEL SECURITY;
        CREATE POLICY seen ON notes FOR SELECT USING (gone IS NULL);
        CREATE POLICY added ON notes FOR INSERT WITH CHECK (true);
        CREATE POLICY changed ON notes FOR UPDATE USING (true)";
    let desk =
        Desk::with(&format!("{};{policies}", sql("timestamptz")), &rules("client_wins", MINE), as_write_role()).await;
    desk.outcome("anna", put("x")).await;
    assert_eq!(desk.outcome("anna", operation("DELETE", Value::Null)).await, "WRITE_RLS");
    desk.admin.batch_execute("ALTER POLICY seen ON notes USING (true)").await.expect("altered");
    assert_eq!(desk.outcome("anna", operation("DELETE", Value::Null)).await, "");
}
