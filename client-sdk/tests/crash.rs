//! The client is killed, again and again, in the middle of writing, downloading and publishing.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod service;

use std::{
    env,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
};

use kairos_client::{Client, Schema, StaticConnector, Table};
use serde_json::json;
use service::{FakeService, HOME};

const PATH: &str = "KAIROS_CLIENT_TEST_PATH";
const ENDPOINT: &str = "KAIROS_CLIENT_TEST_ENDPOINT";

async fn open(path: &Path, endpoint: &str) -> Client {
    let schema = Schema::new([Table::new("habits").text("name"), Table::new("pairs").integer("value")]);
    Client::open(path, schema, StaticConnector::new(endpoint, "token")).await.unwrap()
}

async fn texts(client: &Client, sql: &'static str) -> Vec<String> {
    client.query(sql, [], |row| row.get(0)).await.unwrap()
}

/// Not a test of its own: the process that is killed. Says which writes were acknowledged to it.
#[tokio::test]
async fn the_app_that_is_killed() {
    let (Ok(path), Ok(endpoint)) = (env::var(PATH), env::var(ENDPOINT)) else { return };
    let client = open(Path::new(&path), &endpoint).await;
    client.connect();
    loop {
        let id = client
            .transaction(|tx| {
                let id: String = tx.query_row("SELECT uuid()", [], |row| row.get(0))?;
                tx.execute("INSERT INTO habits (id, name) VALUES (?1, 'Read')", [&id])?;
                Ok(id)
            })
            .await
            .unwrap();
        println!("written {id}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_app_loses_no_write_and_never_shows_half_a_checkpoint() {
    let service = FakeService::start().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("client.db");
    let mut written = Vec::new();
    for round in 0..8 {
        let mut app = Command::new(env::current_exe().unwrap())
            .args(["the_app_that_is_killed", "--exact", "--nocapture"])
            .env(PATH, &path)
            .env(ENDPOINT, &service.endpoint)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(app.stdout.take().unwrap());
        let acknowledged =
            output.lines().map_while(Result::ok).filter_map(|line| line.strip_prefix("written ").map(str::to_owned));
        for (count, id) in acknowledged.take(20 + round * 13).enumerate() {
            written.push(id);
            service.change(|state| {
                let value = round * 1000 + count;
                state.put(HOME, "pairs", "left", &json!({ "value": value }));
                state.put("other", "pairs", "right", &json!({ "value": value }));
            });
        }
        app.kill().unwrap();
        app.wait().unwrap();

        let client = open(&path, &service.endpoint).await;
        let rows = texts(&client, "SELECT id FROM habits").await;
        assert!(written.iter().all(|id| rows.contains(id)), "a write was lost in round {round}");
        let values = client.query("SELECT DISTINCT value FROM pairs", [], |row| row.get::<_, i64>(0)).await.unwrap();
        assert!(values.len() <= 1, "half a checkpoint in round {round}: {values:?}");
    }

    let client = open(&path, &service.endpoint).await;
    client.connect();
    tokio::time::timeout(std::time::Duration::from_secs(30), client.wait_until_synced()).await.expect("syncs");
    let rows = texts(&client, "SELECT id FROM habits ORDER BY id").await;
    let mut on_service = service.change(|state| {
        let operations =
            state.buckets[HOME].iter().filter(|operation| operation.object_type.as_deref() == Some("habits"));
        operations.filter_map(|operation| operation.object_id.clone()).collect::<Vec<_>>()
    });
    on_service.sort();
    on_service.dedup(); // an upload whose answer was lost is repeated; its ids make that harmless
    assert_eq!(rows, on_service);
    let values = client.query("SELECT value FROM pairs", [], |row| row.get::<_, i64>(0)).await.unwrap();
    assert_eq!(values.len(), 2);
    assert_eq!(values[0], values[1]);
}
