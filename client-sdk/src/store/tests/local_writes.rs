//! What the triggers capture, and what the upload loop gets to see.

use kairos_sync_protocol::upload::{CrudOp, OpResult, Outcome as Answer};

use super::*;
use crate::store::crud::{UPLOAD_BYTES_MAX, UPLOAD_ENTRIES_MAX};

#[tokio::test]
async fn an_insert_is_queued_as_a_put_of_all_columns_that_are_not_null() {
    let bench = Bench::new().await;
    bench.execute("INSERT INTO habits (id, name, score) VALUES ('h1', 'Read', 0.1 + 0.2)").await.unwrap();
    assert_eq!(bench.queue().await, [r#"PUT|habits|h1|{"name":"Read","score":0.30000000000000004}"#]);
    assert_eq!(bench.rows("SELECT * FROM habits").await, ["h1|Read|NULL|0.30000000000000004"]);
}

#[tokio::test]
async fn an_update_is_queued_as_a_patch_of_the_changed_columns_alone() {
    let bench = Bench::new().await;
    bench.execute("INSERT INTO habits (id, name, count) VALUES ('h1', 'Read', 1)").await.unwrap();
    bench.execute("UPDATE habits SET name = NULL, count = 1, score = 2 WHERE id = 'h1'").await.unwrap();
    assert_eq!(bench.queue().await[1], r#"PATCH|habits|h1|{"name":null,"score":2.0}"#);
    assert_eq!(bench.rows("SELECT * FROM habits").await, ["h1|NULL|1|2.0"]);
    bench.execute("UPDATE habits SET count = 1").await.unwrap();
    assert_eq!(bench.queue().await.len(), 2, "nothing changed, nothing is queued");
}

#[tokio::test]
async fn a_delete_is_queued_without_data() {
    let bench = Bench::new().await;
    bench.execute("INSERT INTO habits (id, name) VALUES ('h1', 'Read'); DELETE FROM habits").await.unwrap();
    assert_eq!(bench.queue().await[1], "DELETE|habits|h1|NULL");
    assert!(bench.habits().await.is_empty());
}

#[tokio::test]
async fn an_update_keeps_columns_the_app_does_not_declare() {
    let (bench, mut service) = (Bench::new().await, Service::default());
    let data = r#"{"id":"h1","name":"Read","color":"red"}"#.to_owned();
    let put = service.operation("a", OpKind::Put, Some(("habits", "h1")), Some(data));
    bench.perform([put, service.full()]).await;
    bench.execute("UPDATE habits SET name = 'Write'").await.unwrap();
    let stored = bench.rows("SELECT data FROM kairos_data__habits").await;
    assert_eq!(stored, [r#"{"id":"h1","name":"Write","color":"red"}"#]);
}

#[tokio::test]
async fn writes_that_do_nothing_are_not_queued() {
    let bench = Bench::new().await;
    bench.execute("INSERT INTO habits (id, name) VALUES ('h1', 'Read')").await.unwrap();
    bench.execute("INSERT OR IGNORE INTO habits (id, name) VALUES ('h1', 'Other')").await.unwrap();
    bench.execute("DELETE FROM habits WHERE id = 'h2'").await.unwrap();
    assert_eq!(bench.queue().await.len(), 1);
    bench.execute("INSERT OR REPLACE INTO habits (id, name) VALUES ('h1', 'Other')").await.unwrap();
    assert_eq!(bench.queue().await[1], r#"PUT|habits|h1|{"name":"Other"}"#);
}

#[tokio::test]
async fn a_failed_transaction_leaves_neither_row_nor_queue_entry() {
    let bench = Bench::new().await;
    let failing = "INSERT INTO habits (id, name) VALUES ('h1', 'Read'); INSERT INTO nowhere VALUES (1)";
    assert_eq!(bench.execute(failing).await.unwrap_err().code(), "CLIENT-0101");
    assert!(bench.habits().await.is_empty() && bench.queue().await.is_empty());
}

#[tokio::test]
async fn rows_that_could_not_sync_are_refused_with_a_reason() {
    let bench = Bench::new().await;
    bench.execute("INSERT INTO habits (id) VALUES ('h1')").await.unwrap();
    for (sql, reason) in [
        ("INSERT INTO habits (name) VALUES ('x')", "habits.id must be a text"),
        ("INSERT INTO habits (id) VALUES (7)", "habits.id must be a text"),
        ("INSERT INTO habits (id) VALUES ('')", "habits.id must be a text"),
        ("UPDATE habits SET id = 'h2'", "habits.id cannot change"),
        ("INSERT INTO habits (id, name) VALUES ('h3', x'00')", "BLOB"),
        ("INSERT INTO habits (id, score) VALUES ('h3', 9e999)", "infinite"),
        ("INSERT INTO habits (id) VALUES ('h1')", "UNIQUE"),
    ] {
        let error = bench.execute(sql).await.unwrap_err();
        assert!(error.to_string().contains(reason), "{sql}: {error}");
    }
    assert_eq!(bench.queue().await.len(), 1);
}

#[tokio::test]
async fn tracked_tables_carry_the_values_from_before() {
    let bench = Bench::new().await;
    bench.execute("INSERT INTO notes (id, body) VALUES ('n1', 'a')").await.unwrap();
    bench.execute("UPDATE notes SET body = 'b'").await.unwrap();
    bench.execute("DELETE FROM notes").await.unwrap();
    assert_eq!(
        bench.rows("SELECT op, old FROM kairos_crud ORDER BY id").await,
        ["PUT|NULL", r#"PATCH|{"body":"a"}"#, r#"DELETE|{"body":"b"}"#]
    );
}

#[tokio::test]
async fn local_tables_stay_on_the_device() {
    let bench = Bench::new().await;
    bench.execute("INSERT INTO drafts (id, body) VALUES (uuid(), 'x')").await.unwrap();
    assert!(bench.queue().await.is_empty());
    assert_eq!(bench.rows("SELECT body FROM drafts").await, ["x"]);
}

#[tokio::test]
async fn an_index_serves_queries_on_the_view() {
    let bench = Bench::new().await;
    let plan = bench.rows("EXPLAIN QUERY PLAN SELECT id FROM habits WHERE name = 'Read'").await;
    assert!(plan.iter().any(|step| step.contains("kairos_index__habits_0")), "{plan:?}");
}

#[tokio::test]
async fn writes_of_one_transaction_share_its_id_also_after_a_restart() {
    let bench = Bench::new().await;
    bench.execute("INSERT INTO habits (id) VALUES ('1'); INSERT INTO habits (id) VALUES ('2')").await.unwrap();
    let bench = bench.reopen(schema()).await;
    bench.execute("INSERT INTO habits (id) VALUES ('3')").await.unwrap();
    let slice = bench.store.read(crud::next_upload).await.unwrap().unwrap();
    let transactions: Vec<_> = slice.batch.batch.iter().map(|entry| entry.tx_id.clone().unwrap()).collect();
    assert_eq!(transactions[0], transactions[1]);
    assert_ne!(transactions[1], transactions[2]);
}

#[tokio::test]
async fn op_ids_are_never_used_twice() {
    let bench = Bench::new().await;
    bench.execute("INSERT INTO habits (id) VALUES ('1')").await.unwrap();
    bench.upload(1).await;
    let bench = bench.reopen(schema()).await;
    bench.execute("INSERT INTO habits (id) VALUES ('2')").await.unwrap();
    let slice = bench.store.read(crud::next_upload).await.unwrap().unwrap();
    assert_eq!(slice.batch.batch[0].op_id.as_deref(), Some("2"));
}

/// Inserts so many rows in one transaction.
async fn insert(bench: &Bench, prefix: &'static str, rows: usize, body_bytes: usize) {
    bench
        .store
        .write(move |tx| {
            let body = "x".repeat(body_bytes);
            for row in 0..rows {
                tx.execute("INSERT INTO notes (id, body) VALUES (?1, ?2)", (format!("{prefix}{row}"), &body))?;
            }
            Ok::<_, StoreError>(())
        })
        .await
        .unwrap();
}

#[tokio::test]
async fn an_upload_holds_whole_transactions_as_far_as_they_fit() {
    let bench = Bench::new().await;
    insert(&bench, "a", UPLOAD_ENTRIES_MAX - 1, 1).await;
    insert(&bench, "b", 2, 1).await;
    let slice = bench.store.read(crud::next_upload).await.unwrap().unwrap();
    assert_eq!(slice.batch.batch.len(), UPLOAD_ENTRIES_MAX - 1, "the second transaction waits");
}

#[tokio::test]
async fn a_transaction_above_the_limit_is_cut_and_a_large_row_goes_alone() {
    let bench = Bench::new().await;
    insert(&bench, "a", UPLOAD_ENTRIES_MAX + 1, 1).await;
    let slice = bench.store.read(crud::next_upload).await.unwrap().unwrap();
    assert_eq!(slice.batch.batch.len(), UPLOAD_ENTRIES_MAX);
    bench.upload(1).await;
    bench.upload(2).await;
    insert(&bench, "b", 2, UPLOAD_BYTES_MAX).await;
    let slice = bench.store.read(crud::next_upload).await.unwrap().unwrap();
    assert_eq!(slice.batch.batch.len(), 1);
}

#[tokio::test]
async fn refused_writes_are_listed_and_their_rows_go_back() {
    let (bench, mut service) = (Bench::new().await, Service::default());
    let put = service.put("a", "h1", "Read");
    bench.perform([put, service.full()]).await;
    bench.execute("UPDATE habits SET name = 'Mine'; INSERT INTO habits (id, name) VALUES ('h2', 'New')").await.unwrap();
    let refused = |op_id: &str| OpResult {
        row: None,
        op_id: Some(op_id.to_owned()),
        table: "habits".to_owned(),
        id: None,
        outcome: Answer::Refused,
        code: Some("WRITE_CHECK".to_owned()),
        message: Some("not yours".to_owned()),
    };
    let results = [refused("1"), refused("2"), refused("99"), refused("x")];
    let checkpoint = "5".parse().unwrap();
    bench.store.write(move |tx| crud::acknowledge(tx, 2, &results, Some(checkpoint))).await.unwrap();
    service.write_checkpoint = Some(5);
    assert_eq!(bench.perform([service.full()]).await, Some(PUBLISHED));
    assert_eq!(bench.habits().await, ["h1|Read"]);

    let rejected = bench.store.read(attention::list).await.unwrap();
    assert_eq!(rejected.len(), 2);
    assert_eq!((rejected[0].op, rejected[0].row_id.as_str()), (CrudOp::Patch, "h1"));
    assert_eq!(rejected[0].code.as_deref(), Some("WRITE_CHECK"));
    let id = rejected[0].id;
    bench.store.write(move |tx| attention::forget(tx, id)).await.unwrap();
    assert_eq!(bench.store.read(attention::list).await.unwrap().len(), 1);
}

#[tokio::test]
async fn an_insert_only_table_uploads_rows_and_keeps_none() {
    let log = Table::new("events").text("what").insert_only();
    let bench = Bench::new().await.reopen(Schema::new([log])).await;
    bench.execute("INSERT INTO events (id, what) VALUES ('e1', 'opened'), ('e2', NULL)").await.unwrap();
    assert!(bench.rows("SELECT * FROM events").await.is_empty());
    assert_eq!(bench.queue().await, [r#"PUT|events|e1|{"what":"opened"}"#, "PUT|events|e2|{}"]);
    bench.upload(5).await;
    let mut service = Service { write_checkpoint: Some(5), ..Service::default() };
    let back = service.operation("a", OpKind::Put, Some(("events", "e1")), Some(r#"{"what":"opened"}"#.to_owned()));
    assert_eq!(bench.perform([back, service.full()]).await, Some(PUBLISHED));
    assert_eq!(bench.rows("SELECT * FROM events").await, ["e1|opened"], "what comes back is there");
    for sql in ["UPDATE events SET what = 'x'", "DELETE FROM events", "INSERT INTO events (id) VALUES ('')"] {
        assert_eq!(bench.execute(sql).await.unwrap_err().code(), "CLIENT-0101", "{sql}");
    }
    assert!(bench.queue().await.is_empty());
}
