//! Queries that follow the data.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod service;

use std::time::Duration;

use kairos_client::{Client, LiveQuery, RowDifferences, Schema, StaticConnector, Table};
use serde_json::json;
use service::{FakeService, HOME};
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(20);

fn schema() -> Schema {
    Schema::new([Table::new("habits").text("name").integer("done"), Table::new("notes").text("body")])
}

async fn open(connector: StaticConnector) -> (tempfile::TempDir, Client) {
    let folder = tempfile::tempdir().unwrap();
    let client = Client::open(folder.path().join("client.db"), schema(), connector).await.unwrap();
    (folder, client)
}

async fn names(client: &Client) -> LiveQuery<String> {
    let sql = "SELECT h.name FROM habits h WHERE h.done = ?1 ORDER BY h.name";
    client.live(sql, [0], |row| row.get(0)).await.unwrap()
}

async fn next(query: &mut LiveQuery<String>) -> Vec<String> {
    timeout(PATIENCE, query.next()).await.expect("in time").unwrap().expect("the client is there")
}

#[tokio::test]
async fn rows_come_again_when_they_are_others_whoever_wrote_them() {
    let service = FakeService::start().await;
    service.change(|state| state.put(HOME, "habits", "h1", &json!({ "name": "Read", "done": 0 })));
    let (_folder, client) = open(StaticConnector::new(&service.endpoint, "token")).await;
    let mut query = names(&client).await;
    assert!(next(&mut query).await.is_empty());
    client.connect();
    assert_eq!(next(&mut query).await, ["Read"], "from the service");
    client.execute("INSERT INTO habits (id, name, done) VALUES ('h2', 'Run', 0)", []).await.unwrap();
    assert_eq!(next(&mut query).await, ["Read", "Run"], "from here");
    // What changes nothing in the result, or another table, does not wake anybody.
    client.execute("INSERT INTO habits (id, name, done) VALUES ('h3', 'Sleep', 1)", []).await.unwrap();
    client.execute("INSERT INTO notes (id, body) VALUES ('n1', 'x')", []).await.unwrap();
    timeout(Duration::from_millis(300), query.next()).await.expect_err("nothing new");
    client.execute("DELETE FROM habits WHERE id = 'h1'", []).await.unwrap();
    assert_eq!(next(&mut query).await, ["Run"], "a wait that was given up has lost nothing");
}

#[tokio::test]
async fn many_changes_in_a_moment_are_one() {
    let (_folder, client) = open(StaticConnector::not_configured()).await;
    let mut query = names(&client).await.throttled(Duration::from_secs(1));
    assert!(next(&mut query).await.is_empty());
    for n in 0..50 {
        let sql = format!("INSERT INTO habits (id, name, done) VALUES ('h{n:02}', 'n{n:02}', 0)");
        client.execute(sql, []).await.unwrap();
    }
    let mut runs = 0;
    while next(&mut query).await.len() < 50 {
        runs += 1;
    }
    assert!(runs < 10, "{runs} runs for fifty writes");
}

#[tokio::test]
async fn differences_say_what_became_of_each_row() {
    let (_folder, client) = open(StaticConnector::not_configured()).await;
    let sql = "SELECT id, name FROM habits ORDER BY id";
    let row = |row: &kairos_client::rusqlite::Row<'_>| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?));
    let mut rows = client.live(sql, [], row).await.unwrap().by_key(|row| row.0.clone());
    let mut next = async || timeout(PATIENCE, rows.next()).await.expect("in time").unwrap().expect("there");
    assert_eq!(next().await, RowDifferences { rows: vec![], inserted: vec![], updated: vec![], deleted: vec![] });
    let pair = |id: &str, name: &str| (id.to_owned(), name.to_owned());
    client.execute("INSERT INTO habits (id, name) VALUES ('a', 'one'), ('b', 'two')", []).await.unwrap();
    assert_eq!(next().await.inserted, [pair("a", "one"), pair("b", "two")]);
    let change = |tx: &kairos_client::rusqlite::Transaction<'_>| {
        tx.execute_batch("UPDATE habits SET name = 'new' WHERE id = 'a'; DELETE FROM habits WHERE id = 'b'")
    };
    client.transaction(change).await.unwrap();
    let found = next().await;
    assert_eq!((found.updated, found.deleted), (vec![(pair("a", "one"), pair("a", "new"))], vec![pair("b", "two")]));
}

#[tokio::test]
async fn a_query_that_sqlite_refuses_is_told_at_once() {
    let (_folder, client) = open(StaticConnector::not_configured()).await;
    let error = client.live("SELECT nothing FROM nowhere", [], |row| row.get::<_, i64>(0)).await.unwrap_err();
    assert_eq!(error.code(), "CLIENT-0101");
}
