//! How much a write rule lets devices write to its table.

use kairos_sync::write::UploadError;
use serde_json::{Value, json};

use super::{Desk, as_write_role, codes};

const SQL: &str = "
    CREATE TABLE notes (id text PRIMARY KEY, a text, b text, version int);
    CREATE TABLE others (id text PRIMARY KEY, a text);
    SELECT kairos.publish_table('notes', 'INSERT, UPDATE, DELETE'), kairos.publish_table('others', 'INSERT, UPDATE')";

async fn desk(limits: &str) -> Desk {
    let rules = format!(
        "bucket_definitions: {{}}
write_rules:
  notes: {{ allow: [put, patch, delete], check: true, limits: {limits} }}
  others: {{ allow: [put], check: true }}
"
    );
    Desk::with(SQL, &rules, as_write_role()).await
}

fn put(table: &str, id: &str, data: Value) -> Value {
    let mut entry = json!({ "op": "PUT", "table": table, "id": id });
    entry["data"] = data;
    entry
}

#[tokio::test]
async fn a_row_is_measured_as_it_becomes() {
    let desk = desk("{ row_bytes: 21 }").await;
    assert_eq!(desk.outcome("anna", put("notes", "1", json!({ "a": "x".repeat(20) }))).await, "", "with its id");
    let patch = |data: Value| json!({ "op": "PATCH", "table": "notes", "id": "1", "data": data });
    assert_eq!(desk.outcome("anna", patch(json!({ "b": "y" }))).await, "WRITE_ROW_TOO_LARGE");
    assert_eq!(desk.outcome("anna", patch(json!({ "a": "x", "b": "y" }))).await, "");
    assert_eq!(desk.outcome("anna", put("notes", "2", json!({ "a": "ü".repeat(11) }))).await, "WRITE_ROW_TOO_LARGE");
    assert_eq!(desk.outcome("anna", put("others", "2", json!({ "a": "x".repeat(100) }))).await, "", "another table");
    assert_eq!(desk.value("SELECT string_agg(concat(id, a, b), ',') FROM notes").await.as_deref(), Some("1xy"));
    desk.admin.batch_execute("UPDATE notes SET a = repeat('x', 100)").await.expect("by the server");
    assert_eq!(desk.outcome("anna", json!({ "op": "DELETE", "table": "notes", "id": "1" })).await, "");
}

#[tokio::test]
async fn an_upload_has_so_many_writes_to_a_table_and_the_others_are_taken() {
    let desk = desk("{ operations_per_batch: 2 }").await;
    let batch = json!({ "client_id": "c", "batch": [
        { "op": "PUT", "op_id": 1, "table": "notes", "id": "1", "data": {} },
        { "op": "PUT", "op_id": 2, "table": "others", "id": "1", "data": {} },
        { "op": "PUT", "op_id": 3, "table": "notes", "id": "2", "data": {} },
        { "op": "PUT", "op_id": 4, "table": "notes", "id": "3", "data": {} },
        { "op": "PUT", "op_id": 5, "table": "others", "id": "2", "data": {} },
    ] });
    let expected = ["", "", "", "WRITE_TOO_MANY", ""];
    assert_eq!(codes(&desk.upload("anna", batch.clone()).await), expected);
    assert_eq!(codes(&desk.upload("anna", batch).await), expected, "one answer, however often it is asked");
    assert_eq!(desk.count("SELECT count(*) FROM notes").await, 2);
    assert_eq!(desk.outcome("anna", put("notes", "3", json!({}))).await, "", "in the next upload");
}

#[tokio::test]
async fn who_writes_too_much_waits_and_nothing_is_lost() {
    let desk = desk("{ operations_per_minute: 2 }").await;
    let three: Vec<Value> = (0..3).map(|id| put("notes", &id.to_string(), json!({}))).collect();
    assert_eq!(codes(&desk.upload("anna", json!(three)).await), ["", "", ""], "a larger upload is taken");
    let both = json!([put("others", "1", json!({})), put("notes", "9", json!({}))]);
    let error = desk.try_upload("anna", both.clone()).await.expect_err("too early");
    assert_eq!((error.code(), error.is_transient()), ("SYNC_RATE_LIMITED", true));
    let UploadError::RateLimited(limited) = error else { panic!("{error}") };
    assert_eq!(limited.table, "notes");
    assert_eq!(desk.count("SELECT count(*) FROM others").await, 0, "all of the upload waits");
    assert_eq!(desk.outcome("anna", put("others", "2", json!({}))).await, "", "other tables take more");
    assert_eq!(codes(&desk.upload("ben", both).await), ["", ""], "and other users");
    assert_eq!(desk.metrics.rate_limited.with_label_values(&["user", "table_operations"]).get(), 1);
}
