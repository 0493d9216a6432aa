//! What each kind of operation does, and how it is refused.

use kairos_sync_protocol::WriteCheckpointId;
use serde_json::{Value, json};

use super::{Desk, as_write_role, codes, habit, rules};

#[tokio::test]
async fn put_inserts_patch_changes_delete_deletes() {
    let desk = Desk::open().await;
    assert_eq!(desk.outcome("anna", habit("h1", "anna")).await, "");
    assert_eq!(desk.value("SELECT schedule::text FROM habits").await.as_deref(), Some(r#"{"every": "day"}"#));

    let patch = json!({ "op": "PATCH", "table": "habits", "id": "h1", "data": { "archived": 1, "icon": null } });
    assert_eq!(desk.outcome("anna", patch).await, "");
    assert_eq!(desk.value("SELECT name || archived FROM habits").await.as_deref(), Some("Readtrue"));

    let put = json!({ "op": "PUT", "table": "habits", "id": "h1", "data": { "name": "Run", "user_id": "anna" } });
    assert_eq!(desk.outcome("anna", put).await, "");
    assert_eq!(
        desk.value("SELECT name || archived FROM habits").await.as_deref(),
        Some("Runtrue"),
        "only what is sent"
    );

    assert_eq!(desk.outcome("anna", json!({ "op": "DELETE", "table": "habits", "id": "h1" })).await, "");
    assert_eq!(desk.count("SELECT count(*) FROM habits").await, 0);
}

#[tokio::test]
async fn a_missing_row_is_no_failure_for_patch_and_delete() {
    let desk = Desk::open().await;
    let patch = json!({ "op": "PATCH", "table": "habits", "id": "gone", "data": { "name": "x" } });
    assert_eq!(desk.outcome("anna", patch).await, "");
    assert_eq!(desk.outcome("anna", json!({ "op": "DELETE", "table": "habits", "id": "gone" })).await, "");
    assert_eq!(desk.outcome("anna", json!({ "op": "PATCH", "table": "habits", "id": "gone" })).await, "");
    assert_eq!(desk.count("SELECT count(*) FROM habits").await, 0);
}

#[tokio::test]
async fn operations_of_a_batch_build_on_each_other_in_order() {
    let desk = Desk::open().await;
    let results = desk
        .upload(
            "anna",
            json!({ "batch": [
                habit("h1", "anna"),
                { "op": "PUT", "table": "completions", "id": "c1", "data": { "habit_id": "h1", "completed_on": "2026-11-21" } },
                { "op": "PATCH", "table": "habits", "id": "h1", "data": { "name": "Twice" } },
                { "op": "PUT", "table": "routines", "id": "r1", "data": { "user_id": "anna", "name": "Morning", "starts_at": "06:30" } },
                { "op": "PUT", "table": "routine_habits", "id": "rh1", "data": { "routine_id": "r1", "habit_id": "h1" } },
                { "op": "DELETE", "table": "completions", "id": "c1" },
            ] }),
        )
        .await;
    assert_eq!(codes(&results), vec![""; 6]);
    assert_eq!(desk.count("SELECT count(*) FROM completions").await, 0);
    assert_eq!(desk.count("SELECT count(*) FROM routine_habits").await, 1);
}

#[tokio::test]
async fn a_poison_operation_anywhere_stops_no_other() {
    let desk = Desk::open().await;
    let poison = json!({ "op": "PUT", "table": "habits", "id": "bad", "data": { "name": "", "user_id": "anna" } });
    let results = desk
        .upload(
            "anna",
            json!({ "batch": [
                poison,
                habit("h1", "anna"),
                { "op": "PUT", "table": "nonsense", "id": "1", "data": {} },
                { "op": "PUT", "table": "completions", "id": "c", "data": { "habit_id": "bad", "completed_on": "2026-01-01" } },
                habit("h2", "anna"),
                poison,
            ] }),
        )
        .await;
    assert_eq!(codes(&results), ["WRITE_CONSTRAINT", "", "WRITE_NO_RULE", "WRITE_RLS", "", "WRITE_CONSTRAINT"]);
    assert_eq!(desk.value("SELECT string_agg(id, ',' ORDER BY id) FROM habits").await.as_deref(), Some("h1,h2"));
    assert_eq!((desk.written("applied"), desk.written("refused")), (2, 4));
}

const ODD: &str = "
    CREATE TABLE odd (id text PRIMARY KEY, note varchar(3), server text, made text GENERATED ALWAYS AS (id || '!') STORED);
    CREATE TABLE keyless (a text, b text, PRIMARY KEY (a, b));
    CREATE TABLE numbered (number bigint PRIMARY KEY, note text);
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF NEW.note = 'no' THEN RAISE 'secret %', NEW.note USING CONSTRAINT = 'no_no'; END IF;
        IF NEW.note = 'off' THEN RETURN NULL; END IF;
        RETURN NEW; END $$;
    CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON odd FOR EACH ROW EXECUTE FUNCTION refuse();
    SELECT kairos.publish_table('odd', 'INSERT, UPDATE'), kairos.publish_table('numbered', 'INSERT, UPDATE');
";

const ODD_RULES: &str = "
  odd:
    allow: [put, patch, delete]
    columns: { deny: [server] }
    check: true
  keyless:
    allow: [put]
    check: true
  numbered:
    allow: [put]
    check: true
  missing:
    allow: [put]
    check: true
";

#[allow(clippy::needless_pass_by_value)] // so that `json!` can be written in place
fn put(table: &str, id: &str, data: Value) -> Value {
    json!({ "op": "PUT", "table": table, "id": id, "data": data })
}

#[tokio::test]
async fn every_refusal_has_its_code_and_says_where() {
    let desk = Desk::with(ODD, &rules(ODD_RULES), as_write_role()).await;
    for (operation, code, place) in [
        (put("secrets", "1", json!({})), "WRITE_NO_RULE", "secrets"),
        (put("missing", "1", json!({})), "WRITE_UNKNOWN_TABLE", "missing"),
        (put("keyless", "1", json!({})), "WRITE_NO_KEY", "primary key"),
        (json!({ "op": "DELETE", "table": "numbered", "id": "1" }), "WRITE_OP", "delete"),
        (put("odd", "", json!({})), "WRITE_NO_ID", "id"),
        (put("odd", "1", json!({ "id": "2" })), "WRITE_KEY_CHANGE", "id"),
        (put("odd", "1", json!({ "id": null })), "WRITE_KEY_CHANGE", "id"),
        (put("numbered", "1", json!({ "number": 2 })), "WRITE_KEY_CHANGE", "number"),
        (put("odd", "1", json!({ "server": "x" })), "WRITE_COLUMN", "server"),
        (put("odd", "1", json!({ "nope": 1 })), "WRITE_UNKNOWN_COLUMN", "nope"),
        (put("odd", "1", json!({ "xmin": 1 })), "WRITE_UNKNOWN_COLUMN", "xmin"),
        (put("odd", "1", json!({ "made": "x" })), "WRITE_COLUMN_GENERATED", "made"),
        (put("odd", "1", json!({ "note": "long" })), "WRITE_VALUE", "22001"),
        (put("odd", "1", json!({ "note": "\u{0}" })), "WRITE_VALUE", "type"),
        (put("numbered", "one", json!({})), "WRITE_VALUE", "`id`"),
        (put("odd", "1", json!({ "note": "no" })), "WRITE_TRIGGER", "no_no"),
        (put("habits", "1", json!({ "user_id": "anna" })), "WRITE_CONSTRAINT", "`name`"),
        (put("habits", "1", json!({ "user_id": "ben", "name": "x" })), "WRITE_RLS", "yours"),
        (json!({ "op": "DELETE", "table": "odd", "id": "here" }), "WRITE_PRIVILEGE", "role"),
    ] {
        desk.admin.batch_execute("INSERT INTO odd (id) VALUES ('here') ON CONFLICT DO NOTHING").await.unwrap();
        let results = desk.upload("anna", operation.clone()).await;
        assert_eq!(codes(&results), [code], "{operation} {:?}", results[0].message);
        let message = results[0].message.clone().unwrap();
        assert!(message.contains(place), "{operation}: {message}");
        assert!(!message.contains("secret %") && !message.contains("secret no"), "{message}");
    }
    assert_eq!(desk.count("SELECT count(*) FROM odd").await, 1);
    assert_eq!(desk.count("SELECT count(*) FROM numbered").await, 0);
}

#[tokio::test]
async fn a_write_that_a_trigger_takes_elsewhere_is_applied() {
    let desk = Desk::with(ODD, &rules(ODD_RULES), as_write_role()).await;
    assert_eq!(desk.outcome("anna", put("odd", "1", json!({ "note": "off" }))).await, "");
    assert_eq!(desk.count("SELECT count(*) FROM odd").await, 0);
}

#[tokio::test]
async fn a_key_of_another_name_and_type_is_the_id() {
    let desk = Desk::with(ODD, &rules(ODD_RULES), as_write_role()).await;
    assert_eq!(desk.outcome("anna", put("numbered", "7", json!({ "id": "7", "note": "x" }))).await, "");
    assert_eq!(desk.outcome("anna", json!({ "op": "PUT", "table": "numbered", "data": { "id": 8 } })).await, "");
    assert_eq!(desk.value("SELECT string_agg(number::text, ',') FROM numbered").await.as_deref(), Some("7,8"));
}

#[tokio::test]
async fn a_column_and_a_table_changed_under_the_writer_are_seen() {
    let desk = Desk::with(ODD, &rules(ODD_RULES), as_write_role()).await;
    assert_eq!(desk.outcome("anna", put("odd", "1", json!({ "note": "a" }))).await, "");
    desk.admin.batch_execute("ALTER TABLE odd ADD COLUMN fresh int").await.unwrap();
    assert_eq!(desk.outcome("anna", put("odd", "1", json!({ "fresh": 5 }))).await, "");
    assert_eq!(desk.value("SELECT fresh::text FROM odd").await.as_deref(), Some("5"));
    desk.admin.batch_execute("ALTER TABLE odd DROP COLUMN fresh").await.unwrap();
    assert_eq!(desk.outcome("anna", put("odd", "1", json!({ "note": "b" }))).await, "");
    assert_eq!(desk.outcome("anna", put("odd", "1", json!({ "fresh": 6 }))).await, "WRITE_UNKNOWN_COLUMN");
    desk.admin.batch_execute("ALTER TABLE odd ALTER COLUMN note TYPE text").await.unwrap();
    assert_eq!(desk.outcome("anna", put("odd", "1", json!({ "note": "longer" }))).await, "");
}

#[tokio::test]
async fn a_constraint_checked_at_commit_refuses_the_operation_at_fault() {
    let desk = Desk::with(
        "CREATE TABLE parent (id text PRIMARY KEY);
         CREATE TABLE child (id text PRIMARY KEY, parent text REFERENCES parent DEFERRABLE INITIALLY DEFERRED);
         SELECT kairos.publish_table('parent', 'INSERT, UPDATE'), kairos.publish_table('child', 'INSERT, UPDATE');",
        &rules("  parent:\n    allow: [put]\n    check: true\n  child:\n    allow: [put]\n    check: true\n"),
        as_write_role(),
    )
    .await;
    let child_first = json!([put("child", "c1", json!({ "parent": "p" })), put("parent", "p", json!({}))]);
    assert_eq!(codes(&desk.upload("anna", child_first).await), ["", ""], "the order Postgres allows");
    let orphan = json!([put("child", "c2", json!({ "parent": "none" })), put("parent", "q", json!({}))]);
    assert_eq!(codes(&desk.upload("anna", orphan).await), ["WRITE_CONSTRAINT", ""]);
    assert_eq!(desk.value("SELECT string_agg(id, ',' ORDER BY id) FROM parent").await.as_deref(), Some("p,q"));
}

#[tokio::test]
async fn stamped_columns_are_the_servers_whatever_the_device_sends() {
    let desk = Desk::with(
        "CREATE TABLE stamped (id text PRIMARY KEY, note text, by_user text);
         SELECT kairos.publish_table('stamped', 'INSERT, UPDATE');",
        &rules(
            "  stamped:\n    allow: [put, patch]\n    columns: { stamp: { by_user: auth.user_id() } }\n    check: row.by_user = auth.user_id()\n",
        ),
        as_write_role(),
    )
    .await;
    assert_eq!(desk.outcome("anna", put("stamped", "1", json!({ "by_user": "eve", "note": "x" }))).await, "");
    assert_eq!(desk.value("SELECT by_user FROM stamped").await.as_deref(), Some("anna"));
    assert_eq!(
        desk.outcome("ben", json!({ "op": "PATCH", "table": "stamped", "id": "1", "data": { "note": "y" } })).await,
        "WRITE_CHECK"
    );
}

#[tokio::test]
async fn the_answer_carries_a_write_checkpoint_where_there_is_one() {
    let desk = Desk::open().await;
    let first = desk.try_upload("anna", habit("h1", "anna")).await.unwrap();
    assert_eq!(first.write_checkpoint.map(WriteCheckpointId::get), Some(1));
    let none = desk.try_upload("nobody", habit("h2", "nobody")).await.unwrap();
    assert_eq!((none.write_checkpoint, codes(&none.results)), (None, vec![String::new()]), "no failure of the upload");
}
