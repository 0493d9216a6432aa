//! A replicator, and what a client would have of its rows.

use std::sync::Arc;

use kairos_sync::{
    deployment::Deployments,
    postgres::SourceConfig,
    replication::{ReplicationStatus, Replicator},
    storage::{BucketStore, Commit, MemoryStore},
};
use kairos_sync_protocol::{
    BucketName, OpId,
    operation::{OpKind, Operation},
};
use serde_json::{Map, Value};
use tokio::{
    sync::watch,
    time::{Duration, Instant, sleep},
};
use tokio_postgres::{Client, NoTls};

use crate::replica::compiled;

/// A replicator with rules of a form.
pub(super) struct Reader {
    store: Arc<MemoryStore>,
    status: Arc<ReplicationStatus>,
    bucket: watch::Receiver<Option<BucketName>>,
    stop: watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
}

impl Reader {
    /// A store of its own, filled by `query`.
    pub(super) fn start(uri: &str, config: &str, query: &str) -> Self {
        Self::resume(Arc::default(), uri, config, query)
    }

    /// Goes on with a store.
    pub(super) fn resume(store: Arc<MemoryStore>, uri: &str, config: &str, query: &str) -> Self {
        let rules = format!("config: {config}\nbucket_definitions:\n  all:\n    data:\n      - {query}\n");
        let deployments = Deployments::new(compiled(&rules));
        let status = Arc::new(ReplicationStatus::default());
        let (seen, bucket) = watch::channel(None);
        let on_commit = move |commit: &Commit| {
            if let Some(bucket) = commit.buckets.first().map(|growth| &growth.bucket) {
                seen.send_replace(Some(bucket.clone()));
            }
        };
        let replicator = Replicator::new(
            SourceConfig::from_uri(uri).expect("a usable URI"),
            Arc::new(deployments),
            Arc::<MemoryStore>::clone(&store),
            Arc::default(),
            Arc::new(on_commit),
            Arc::clone(&status),
        );
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(async move { replicator.run(stopped).await.expect("the store works") });
        Self { store, status, bucket, stop, task }
    }

    /// The rows by id, once everything committed by now is visible.
    pub(super) async fn rows_at(&self, client: &Client) -> Map<String, Value> {
        let head: String = client.query_one("SELECT pg_current_wal_lsn()::text", &[]).await.expect("a position").get(0);
        let head: kairos_sync::lsn::Lsn = head.parse().expect("a position");
        client.batch_execute("SELECT pg_logical_emit_message(true, 'kairos', 'test')").await.expect("a message");
        let started = Instant::now();
        let (checkpoint, bucket) = loop {
            let checkpoint = self.store.view().expect("a view").checkpoint();
            let checkpoint = checkpoint.filter(|checkpoint| checkpoint.lsn >= head);
            // The bucket is told of after the commit that made it visible.
            if let Some(found) = checkpoint.zip(self.bucket.borrow().clone()) {
                break found;
            }
            assert!(started.elapsed() < Duration::from_secs(30), "not in time: {:?}", self.status.snapshot());
            sleep(Duration::from_millis(5)).await;
        };
        let range = self.store.operations(&bucket, OpId::ZERO, checkpoint.op_id, 1 << 24).expect("operations");
        assert!(!range.has_more, "a few rows are one range");
        let operations: Vec<Operation> = serde_json::from_slice(&range.json.array().expect("whole")).expect("JSON");
        let puts = operations.into_iter().filter(|operation| operation.op == OpKind::Put);
        puts.map(|put| {
            let row = serde_json::from_str(&put.data.expect("data")).expect("a JSON object");
            (put.object_id.expect("an id"), row)
        })
        .collect()
    }

    /// Gives the store back.
    pub(super) async fn stop(self) -> Arc<MemoryStore> {
        self.stop.send_replace(true);
        self.task.await.expect("no panic");
        self.store
    }
}

/// As SQLite's `quote` prints it.
pub(super) fn as_sql(value: Option<&Value>) -> String {
    match value {
        None => "not sent".to_owned(),
        Some(Value::Null) => "NULL".to_owned(),
        Some(Value::String(text)) => format!("'{}'", text.replace('\'', "''")),
        Some(other) => other.to_string(),
    }
}

pub(super) async fn connect(uri: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(uri, NoTls).await.expect("a connection");
    tokio::spawn(connection);
    client
}
