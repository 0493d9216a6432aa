//! A replicator on a source of its own, and what clients would get from it.

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroU64,
    sync::{Arc, Mutex},
    time::Duration,
};

use kairos_sync::{
    demo::cluster::PgCluster,
    deployment::{Deployments, Rules},
    lsn::Lsn,
    metrics::Metrics,
    postgres::{SnapshotOptions, SourceConfig},
    replication::{Phase, ReplicationStatus, Replicator, StatusSnapshot},
    storage::{BucketStore, Commit, MemoryStore},
};
use kairos_sync_protocol::{BucketName, Checksum, OpId, operation::OpKind, operation::Operation};
use serde_json::Value;
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep},
};
use tokio_postgres::{Client, NoTls};

const DEADLINE: Duration = Duration::from_secs(30);

/// Rules of all tests: one bucket for everybody's items, one per user for habits and what belongs to them.
pub(crate) const RULES: &str = r#"
bucket_definitions:
  everything:
    data:
      - SELECT * FROM items
  user_data:
    parameters:
      - name: user_id
        type: string
    data:
      - table: habits
        filter: "user_id = :user_id"
      - table: completions
        filter: "habit_id IN (SELECT id FROM habits WHERE user_id = :user_id)"
"#;

pub(crate) const TABLES: &str = "
    CREATE TABLE items (id text PRIMARY KEY, title text, body text);
    ALTER TABLE items ALTER body SET STORAGE EXTERNAL;
    CREATE TABLE habits (id text PRIMARY KEY, user_id text NOT NULL);
    CREATE TABLE completions (id text PRIMARY KEY, habit_id text NOT NULL);";

const PUBLICATION: &str = "CREATE PUBLICATION kairos_sync FOR TABLE items, habits, completions";

/// A server with the test's tables.
pub(crate) async fn source() -> (PgCluster, Client) {
    source_with(&[]).await
}

/// As [`source`], with further settings of the server.
pub(crate) async fn source_with(settings: &[(&str, &str)]) -> (PgCluster, Client) {
    let cluster = PgCluster::start_with(None, settings).expect("a server");
    let client = connect(&cluster).await;
    create_tables(&client).await;
    (cluster, client)
}

/// The test's tables, published.
pub(crate) async fn create_tables(client: &Client) {
    for statements in [TABLES, PUBLICATION] {
        client.batch_execute(statements).await.expect("creates the tables");
    }
}

/// Writes WAL of so many segments, 16 MB each.
pub(crate) async fn write_segments(client: &Client, count: u32) {
    for _ in 0..count {
        // By itself the switch writes nothing into an empty segment.
        let sql = "SELECT pg_logical_emit_message(false, 'test', 'x'); SELECT pg_switch_wal()";
        client.batch_execute(sql).await.expect("writes WAL");
    }
}

/// Runs SQL that must succeed.
pub(crate) async fn run(client: &Client, sql: &str) {
    client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
}

/// A server's database, read by the superuser.
pub(crate) fn config(cluster: &PgCluster) -> SourceConfig {
    SourceConfig::from_uri(&cluster.uri("postgres", "postgres")).expect("a usable URI")
}

/// A source read so slowly that there is time for changes between two chunks.
pub(crate) fn slow(cluster: &PgCluster, bytes_per_second: u64) -> SourceConfig {
    let mut slow = config(cluster);
    slow.snapshot = SnapshotOptions { connections: 1, bytes_per_second: NonZeroU64::new(bytes_per_second) };
    slow
}

/// Where the source's WAL ends.
async fn head(client: &Client) -> Lsn {
    let head: String = client.query_one("SELECT pg_current_wal_lsn()::text", &[]).await.expect("a position").get(0);
    head.parse().expect("a position")
}

pub(crate) async fn connect(cluster: &PgCluster) -> Client {
    let (client, connection) =
        tokio_postgres::connect(&cluster.uri("postgres", "postgres"), NoTls).await.expect("a connection");
    tokio::spawn(connection);
    client
}

/// Rules that must be right.
pub(crate) fn compiled(rules: &str) -> Rules {
    Rules::compile("rules", rules).unwrap_or_else(|error| panic!("{error}"))
}

/// A running replicator.
pub(crate) struct Replica {
    pub(crate) store: Arc<dyn BucketStore>,
    pub(crate) deployments: Arc<Deployments>,
    pub(crate) status: Arc<ReplicationStatus>,
    pub(crate) metrics: Arc<Metrics>,
    buckets: Arc<Mutex<BTreeSet<BucketName>>>,
    rules: String,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Replica {
    pub(crate) fn start(cluster: &PgCluster) -> Self {
        Self::start_on(cluster, Arc::new(MemoryStore::new()))
    }

    pub(crate) fn start_on(cluster: &PgCluster, store: Arc<dyn BucketStore>) -> Self {
        Self::start_with(config(cluster), store, Arc::default())
    }

    /// As another role than the superuser.
    pub(crate) fn start_as(cluster: &PgCluster, user: &str) -> Self {
        let source = SourceConfig::from_uri(&cluster.uri(user, "postgres")).expect("a usable URI");
        Self::start_from(source)
    }

    pub(crate) fn start_from(source: SourceConfig) -> Self {
        Self::start_with(source, Arc::new(MemoryStore::new()), Arc::default())
    }

    /// With rules of its own.
    pub(crate) fn start_reading(source: SourceConfig, rules: &str) -> Self {
        Self::start_all(source, Arc::new(MemoryStore::new()), Arc::default(), rules)
    }

    pub(crate) fn start_with(
        source: SourceConfig,
        store: Arc<dyn BucketStore>,
        buckets: Arc<Mutex<BTreeSet<BucketName>>>,
    ) -> Self {
        Self::start_all(source, store, buckets, RULES)
    }

    fn start_all(
        source: SourceConfig,
        store: Arc<dyn BucketStore>,
        buckets: Arc<Mutex<BTreeSet<BucketName>>>,
        rules: &str,
    ) -> Self {
        let deployments = Arc::new(Deployments::new(compiled(rules)));
        let status = Arc::new(ReplicationStatus::default());
        let metrics = Arc::new(Metrics::new());
        let seen = Arc::clone(&buckets);
        let on_commit = move |commit: &Commit| {
            seen.lock().expect("not poisoned").extend(commit.buckets.iter().map(|growth| growth.bucket.clone()));
        };
        let replicator = Replicator::new(
            source,
            Arc::clone(&deployments),
            Arc::clone(&store),
            Arc::clone(&metrics),
            Arc::new(on_commit),
            Arc::clone(&status),
        );
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(async move { replicator.run(stopped).await.expect("the store works") });
        Self { store, deployments, status, metrics, buckets, rules: rules.to_owned(), stop, task }
    }

    /// Ends it in order.
    pub(crate) async fn stop(self) -> Stopped {
        self.stop.send_replace(true);
        self.task.await.expect("no panic");
        Stopped { store: self.store, buckets: self.buckets, rules: self.rules }
    }

    /// Waits until at most so many bytes of WAL are left to be stored.
    pub(crate) async fn keep_within(&self, bytes: u64, client: &Client) {
        let head = head(client).await;
        let lag = |replica: &Self| head.bytes_since(replica.status.snapshot().resume);
        self.wait_until(|replica| lag(replica) <= bytes).await;
    }

    /// Waits until everything the source has committed by now is visible.
    pub(crate) async fn catch_up(&self, client: &Client) {
        let head = head(client).await;
        client.batch_execute("SELECT pg_logical_emit_message(true, 'kairos', 'test')").await.expect("a message");
        self.wait_until(|replica| replica.visible_at().is_some_and(|lsn| lsn >= head)).await;
    }

    pub(crate) fn visible_at(&self) -> Option<Lsn> {
        self.store.view().expect("a view").checkpoint().map(|checkpoint| checkpoint.lsn)
    }

    pub(crate) async fn wait_until(&self, holds: impl Fn(&Self) -> bool) {
        let started = Instant::now();
        while !holds(self) {
            assert!(started.elapsed() < DEADLINE, "not within the deadline: {:?}", self.status.snapshot());
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits for the stream, or for what is in its way.
    pub(crate) async fn outcome(&self) -> Result<(), (&'static str, String)> {
        let is_decided = |status: &StatusSnapshot| status.phase == Phase::Streaming || status.last_error.is_some();
        self.wait_until(|replica| is_decided(&replica.status.snapshot())).await;
        self.status.snapshot().last_error.map_or(Ok(()), Err)
    }

    pub(crate) async fn wait_for_stream(&self) {
        self.wait_until(|replica| replica.status.snapshot().phase == Phase::Streaming).await;
    }

    pub(crate) fn operation_count(&self) -> u64 {
        self.store.stats().expect("stats").operation_count
    }

    /// Transactions that were applied.
    pub(crate) fn transaction_count(&self) -> u64 {
        self.metrics.transactions_replicated.get()
    }

    /// What a client holds of a bucket: output table, id and data of each row. Checksums are verified on the way.
    pub(crate) fn contents(&self, bucket_part: &str) -> BTreeMap<(String, String), Value> {
        let prefix = self.store.bucket_prefix().expect("a prefix");
        let buckets: Vec<_> = self.buckets.lock().expect("not poisoned").iter().cloned().collect();
        let mut rows = BTreeMap::new();
        for bucket in buckets
            .iter()
            .filter(|bucket| bucket.as_str().strip_prefix(&prefix).is_some_and(|name| name.contains(bucket_part)))
        {
            for ((object_type, id, _), data) in self.client_rows(bucket) {
                assert!(rows.insert((object_type, id), data).is_none(), "a row twice in {bucket}");
            }
        }
        rows
    }

    fn client_rows(&self, bucket: &BucketName) -> BTreeMap<(String, String, String), Value> {
        let view = self.store.view().expect("a view");
        let upto = view.checkpoint().expect("a checkpoint").op_id;
        let totals = view.bucket(bucket).expect("totals");
        let (mut rows, mut sum, mut after) = (BTreeMap::new(), Checksum::ZERO, OpId::ZERO);
        loop {
            let range = self.store.operations(bucket, after, upto, 1 << 20).expect("operations");
            let operations: Vec<Operation> = serde_json::from_slice(&range.json.array().expect("whole")).expect("JSON");
            for operation in operations {
                sum += operation.checksum;
                let Operation { op, object_type, object_id, subkey, data, checksum, .. } = operation;
                let key = object_type.zip(object_id).zip(subkey).map(|((table, id), subkey)| (table, id, subkey));
                match op {
                    OpKind::Put => {
                        let data = serde_json::from_str(&data.expect("data")).expect("a JSON object");
                        rows.insert(key.expect("a key"), data);
                    }
                    OpKind::Remove => drop(rows.remove(&key.expect("a key"))),
                    OpKind::Move => {}
                    OpKind::Clear => {
                        rows.clear();
                        sum = checksum;
                    }
                }
            }
            after = range.last_op_id;
            if !range.has_more {
                break;
            }
        }
        assert_eq!(sum, totals.checksum, "{bucket}");
        rows
    }

    /// Waits until clients have rows with these ids, and no others; `bucket_part` as for [`Self::contents`].
    pub(crate) async fn wait_for_ids(&self, bucket_part: &str, ids: &[&str]) {
        let has = |replica: &Self| {
            let found = replica.contents(bucket_part);
            found.len() == ids.len() && found.keys().all(|(_, id)| ids.contains(&id.as_str()))
        };
        let started = Instant::now();
        while self.visible_at().is_none() || !has(self) {
            let found = || self.contents(bucket_part).into_keys().map(|(_, id)| id).collect::<Vec<_>>();
            assert!(
                started.elapsed() < DEADLINE,
                "{ids:?} did not come, but {:?}: {:?}",
                self.visible_at().map(|_| found()),
                self.status.snapshot()
            );
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Compares the bucket of items with the table.
    pub(crate) async fn assert_items_equal_sql(&self, client: &Client) {
        let rows = client.query("SELECT id, title, body FROM items", &[]).await.expect("items");
        let expected: BTreeMap<_, _> = rows
            .iter()
            .map(|row| {
                let (id, title, body): (String, Option<String>, Option<String>) = (row.get(0), row.get(1), row.get(2));
                let data = serde_json::json!({ "id": id, "title": title, "body": body });
                (("items".to_owned(), id), data)
            })
            .collect();
        assert_eq!(self.contents("everything"), expected);
    }
}

/// A replicator that has ended; its store can be continued.
pub(crate) struct Stopped {
    pub(crate) store: Arc<dyn BucketStore>,
    buckets: Arc<Mutex<BTreeSet<BucketName>>>,
    rules: String,
}

impl Stopped {
    pub(crate) fn start_again(self, cluster: &PgCluster) -> Replica {
        self.start_again_from(config(cluster))
    }

    pub(crate) fn start_again_from(self, source: SourceConfig) -> Replica {
        Replica::start_all(source, self.store, self.buckets, &self.rules)
    }

    /// By other rules.
    pub(crate) fn start_again_by(self, cluster: &PgCluster, rules: &str) -> Replica {
        Replica::start_all(config(cluster), self.store, self.buckets, rules)
    }
}
