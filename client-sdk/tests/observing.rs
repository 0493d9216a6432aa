//! What tools see of a sync: its steps, its failures, and the database from outside.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod service;

use std::{path::Path, sync::Arc, time::Duration};

use async_trait::async_trait;
use kairos_client::{
    Client, ClientOptions, LocalDatabase, Observer, PublishedCheckpoint, RowChanges, Schema, StaticConnector,
    SyncError, core::Scope, rusqlite,
};
use serde_json::json;
use service::{FakeService, HOME};
use tokio::{sync::mpsc, time::timeout};

#[derive(Debug)]
enum Step {
    Published(PublishedCheckpoint),
    Failed(String),
}

/// Says what it hears, and holds the sync up until somebody listens.
struct Teller(mpsc::Sender<Step>);

#[async_trait]
impl Observer for Teller {
    async fn published(&self, checkpoint: PublishedCheckpoint) {
        self.0.send(Step::Published(checkpoint)).await.unwrap();
    }

    async fn failed(&self, error: &SyncError) {
        self.0.send(Step::Failed(format!("{}: {error}", error.code()))).await.unwrap();
    }
}

/// A client that learns its tables, and its steps.
async fn open(path: &Path, endpoint: &str) -> (Client, mpsc::Receiver<Step>) {
    let (sender, steps) = mpsc::channel(1);
    let options = ClientOptions {
        observer: Some(Arc::new(Teller(sender))),
        retry_base: Duration::from_millis(5),
        retry_cap: Duration::from_millis(5),
        ..ClientOptions::default()
    };
    let connector = StaticConnector::new(endpoint, "token");
    (Client::open_with(path, Schema::learned(), connector, options).await.unwrap(), steps)
}

async fn next(steps: &mut mpsc::Receiver<Step>) -> Step {
    timeout(Duration::from_secs(20), steps.recv()).await.expect("in time").expect("the client lives")
}

async fn published(steps: &mut mpsc::Receiver<Step>) -> PublishedCheckpoint {
    match next(steps).await {
        Step::Published(checkpoint) => checkpoint,
        Step::Failed(error) => panic!("{error}"),
    }
}

#[tokio::test]
async fn every_checkpoint_is_told_with_what_it_changed() {
    let service = FakeService::start().await;
    let folder = tempfile::tempdir().unwrap();
    service.change(|state| {
        state.put(HOME, "habits", "h1", &json!({ "name": "Read" }));
        state.put("other", "places", "p1", &json!({ "name": "Home", "floor": 2 }));
    });
    let path = folder.path().join("client.db");
    let (client, mut steps) = open(&path, &service.endpoint).await;
    client.connect();
    let first = published(&mut steps).await;
    assert_eq!((first.target.last_op_id.get(), first.target.buckets.len(), first.scope), (2, 2, Scope::Full));
    assert_eq!((first.statistics.operations, first.statistics.checkpoints), (2, 1));
    let written = |table: &str| (table.to_owned(), RowChanges { written: 1, deleted: 0 });
    assert_eq!(first.rows, [written("habits"), written("places")].into());

    service.change(|state| state.remove(HOME, "habits", "h1"));
    let second = published(&mut steps).await;
    assert_eq!(second.rows, [("habits".to_owned(), RowChanges { written: 0, deleted: 1 })].into());
    assert_eq!((second.statistics.operations, second.statistics.checkpoints), (3, 2));
    let tables = LocalDatabase::open(&path).unwrap().tables().unwrap();
    let shown: Vec<_> = tables.iter().map(|table| (table.columns.join(","), table.rows)).collect();
    assert_eq!(shown, [("id,name".to_owned(), 0), ("id,name,floor".to_owned(), 1)]);
}

#[tokio::test]
async fn failures_are_told_with_the_words_of_the_service() {
    let service = FakeService::start().await;
    let folder = tempfile::tempdir().unwrap();
    service.change(|state| state.token = "another".to_owned());
    let (client, mut steps) = open(&folder.path().join("client.db"), &service.endpoint).await;
    client.connect();
    let Step::Failed(error) = next(&mut steps).await else { panic!("the token is wrong") };
    assert!(error.starts_with("CLIENT-0202: ") && error.contains("(PSYNC_S2103: JWT has expired)"), "{error}");
    service.change(|state| state.status = Some(500));
    let failed = loop {
        match next(&mut steps).await {
            Step::Failed(error) if !error.starts_with("CLIENT-0202") => break error,
            _ => {}
        }
    };
    assert_eq!(failed, "CLIENT-0204: the server refused the request with status 500", "a page is not quoted");
    client.disconnect().await;
}

#[tokio::test]
async fn a_damaged_file_is_repaired_while_the_client_syncs() {
    let service = FakeService::start().await;
    let folder = tempfile::tempdir().unwrap();
    service.change(|state| {
        state.put(HOME, "habits", "h1", &json!({ "name": "Read" }));
        state.put("other", "places", "p1", &json!({ "name": "Home" }));
    });
    let path = folder.path().join("client.db");
    let (client, mut steps) = open(&path, &service.endpoint).await;
    client.connect();
    published(&mut steps).await;
    let damage = "UPDATE kairos_oplog SET data = replace(data, 'Read', 'Reed')";
    rusqlite::Connection::open(&path).unwrap().execute(damage, []).unwrap();
    let verify = || LocalDatabase::open(&path).unwrap().verify().unwrap();
    let found = verify();
    let differing: Vec<_> = found.buckets.iter().filter(|bucket| !bucket.is_ok()).collect();
    assert_eq!(differing.iter().map(|bucket| bucket.bucket.name.as_str()).collect::<Vec<_>>(), [HOME]);

    assert_eq!(client.repair().await.unwrap(), found);
    let repaired = published(&mut steps).await;
    assert_eq!(repaired.statistics.operations, 3, "one operation is downloaded again");
    assert!(verify().is_ok());
    client.disconnect().await;
    assert!(client.repair().await.unwrap().is_ok());
}
