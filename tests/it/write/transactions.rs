//! `write.transaction: tx_id`: each transaction of the device is committed by itself.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use kairos_sync::write::{TransactionPolicy, WriteOptions};
use kairos_sync_protocol::upload::OpResult;
use serde_json::{Value, json};
use tokio_postgres::Client;

use super::{Desk, as_write_role, batch, codes, exactly_once::COUNTED, principal, rules};
use crate::migrations::connect_to;

fn by_tx_id() -> WriteOptions {
    WriteOptions { transaction: TransactionPolicy::TxId, ..as_write_role() }
}

/// Three transactions; the second changes `busy`, and one of its operations is refused.
fn three_transactions() -> Value {
    let put = |op_id: u32, tx_id: u32, id: &str, name: &str| json!({ "op": "PUT", "table": "habits", "id": id, "op_id": op_id, "tx_id": tx_id, "data": { "name": name, "user_id": "anna" } });
    json!({ "client_id": "phone", "batch": [
        put(1, 1, "first", "Read"), put(2, 1, "with-first", "Run"),
        put(3, 2, "second", "Rest"), put(4, 2, "refused", ""), put(5, 2, "busy", "Mine"),
        put(6, 3, "third", "Swim"),
    ] })
}

async fn ids(desk: &Desk) -> String {
    let sql = "SELECT coalesce(string_agg(id, ' ' ORDER BY id), '') FROM habits WHERE id <> 'busy'";
    desk.value(sql).await.expect("text")
}

/// Waits until some session waits for a lock of another one.
async fn wait_until_one_waits(watcher: &Client) -> i32 {
    let waiting = "SELECT pid FROM pg_stat_activity
                   WHERE datname = current_database() AND wait_event_type = 'Lock' AND wait_event <> 'advisory'";
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(row) = watcher.query_opt(waiting, &[]).await.expect("an answer") {
            return row.get(0);
        }
        assert!(Instant::now() < deadline, "the upload waits for `busy`");
        tokio::task::yield_now().await;
    }
}

/// As a device does: a connection that was ended may be found closed only when it is used.
async fn upload_until_answered(desk: &Desk) -> Vec<OpResult> {
    for _ in 0..10 {
        if let Ok(answer) = desk.try_upload("anna", three_transactions()).await {
            return answer.results;
        }
    }
    panic!("no answer");
}

/// The process, or the connection, goes while the second transaction is under way. The first one is there, the second
/// and third are not; the batch is sent again, and each write has one effect.
#[tokio::test]
async fn a_crash_between_two_transactions_leaves_the_first_and_a_repeat_has_one_effect() {
    for is_process in [true, false] {
        let mut desk = Desk::with(COUNTED, &rules(""), by_tx_id()).await;
        let watcher = connect_to(&desk.cluster, "postgres", &desk.database).await;
        let sql = "INSERT INTO habits (id, name, user_id) VALUES ('busy', 'Theirs', 'anna'); TRUNCATE effects";
        desk.admin.batch_execute(sql).await.expect("a row");
        let others = desk.admin.transaction().await.expect("begins");
        others.batch_execute("UPDATE habits SET name = 'Later' WHERE id = 'busy'").await.expect("holds it");

        let writer = Arc::clone(&desk.writer);
        let upload = tokio::spawn(async move { writer.upload(&principal("anna"), batch(three_transactions())).await });
        let waiting = wait_until_one_waits(&watcher).await;
        let seen = "SELECT string_agg(id, ' ' ORDER BY id) FROM habits";
        let committed: String = watcher.query_one(seen, &[]).await.expect("an answer").get(0);
        assert_eq!(committed, "busy first with-first");
        let free = "SELECT id FROM habits WHERE id LIKE '%first' FOR UPDATE NOWAIT";
        assert_eq!(watcher.query(free, &[]).await.expect("nobody holds them").len(), 2);
        if is_process {
            upload.abort();
            assert!(upload.await.is_err_and(|ended| ended.is_cancelled()));
        } else {
            watcher.execute("SELECT pg_terminate_backend($1)", &[&waiting]).await.expect("ends it");
            assert!(upload.await.expect("no panic").is_err(), "the client is to send it again");
        }
        others.rollback().await.expect("lets it go");

        let results = upload_until_answered(&desk).await;
        assert_eq!(codes(&results), ["", "", "", "WRITE_CONSTRAINT", "", ""]);
        assert_eq!(ids(&desk).await, "first second third with-first");
        assert_eq!(desk.count("SELECT count(*) FROM effects").await, 5, "once each");
        assert_eq!((desk.written("applied"), desk.written("repeated"), desk.written("refused")), (5, 2, 1));
        assert_eq!(desk.upload("anna", three_transactions()).await, results);
        assert_eq!(desk.count("SELECT count(*) FROM effects").await, 5);
    }
}

#[tokio::test]
async fn a_batch_that_cannot_be_recognised_is_written_at_once() {
    let options = WriteOptions { deadline: Duration::from_millis(300), ..by_tx_id() };
    let mut desk = Desk::with("", &rules(""), options).await;
    desk.admin.batch_execute("INSERT INTO habits (id, name, user_id) VALUES ('busy', 'Theirs', 'anna')").await.unwrap();
    let others = desk.admin.transaction().await.expect("begins");
    others.batch_execute("UPDATE habits SET name = 'Later' WHERE id = 'busy'").await.expect("holds it");
    let mut anonymous = three_transactions();
    anonymous["client_id"] = Value::Null;
    let error = desk.writer.upload(&principal("anna"), batch(anonymous)).await.expect_err("nobody lets go");
    assert_eq!(error.code(), "WRITE_DEADLINE");
    others.rollback().await.expect("lets it go");
    assert_eq!(ids(&desk).await, "");
}
