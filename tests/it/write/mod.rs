//! Uploads into a real Postgres.

mod attention;
mod conflict_model;
mod conflicts;
mod exactly_once;
mod groups;
mod limits;
mod outcomes;
mod ownership;
mod soft_delete;
mod stamps;
mod table_limits;
mod transactions;
mod validators;
mod values;

use std::{
    fs,
    path::Path,
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use deadpool_postgres::{Manager, Pool, Runtime};
use futures_util::{FutureExt, future::BoxFuture};
use kairos_sync::{
    auth::Principal,
    demo::cluster::PgCluster,
    metrics::Metrics,
    migrate::{Migrations, migrate},
    write::{UploadError, WriteCheckpointSource, WriteOptions, Writer},
};
use kairos_sync_protocol::{
    WriteCheckpointId,
    upload::{OpResult, UploadBatch, UploadResponse},
};
use kairos_sync_rules::{SyncPlan, compile};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_postgres::{Client, NoTls};

use crate::migrations::{connect, connect_to};

/// A migrated database and a writer in front of it.
pub(crate) struct Desk {
    pub(crate) cluster: Arc<PgCluster>,
    pub(crate) database: String,
    pub(crate) admin: Client,
    pub(crate) writer: Arc<Writer>,
    pub(crate) metrics: Arc<Metrics>,
}

/// The role uploads run as.
pub(crate) fn as_write_role() -> WriteOptions {
    WriteOptions { role: Some("kairos_write".to_owned()), ..WriteOptions::default() }
}

/// The rules that come with the app, and more tables after them.
pub(crate) fn rules(more: &str) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/rules/kairos.yaml");
    fs::read_to_string(file).expect("the file is part of the tree") + more
}

impl Desk {
    /// The app as it is deployed.
    pub(crate) async fn open() -> Self {
        Self::with("", &rules(""), as_write_role()).await
    }

    /// With further SQL, other rules or options.
    pub(crate) async fn with(sql: &str, rules: &str, options: WriteOptions) -> Self {
        Self::on(shared_server(), sql, rules, options).await
    }

    /// On a server of its own, which the test may stop.
    pub(crate) async fn alone() -> Self {
        let cluster = Arc::new(PgCluster::start(None).expect("a server"));
        Self::on(cluster, "", &rules(""), as_write_role()).await
    }

    async fn on(cluster: Arc<PgCluster>, sql: &str, rules: &str, options: WriteOptions) -> Self {
        static DATABASES: AtomicU64 = AtomicU64::new(0);
        let database = format!("desk_{}", DATABASES.fetch_add(1, Ordering::SeqCst));
        let create = format!("CREATE DATABASE {database}");
        connect(&cluster, "postgres").await.batch_execute(&create).await.expect("a database");
        let mut admin = connect_to(&cluster, "postgres", &database).await;
        migrate(&mut admin, Migrations::ServiceAndSample).await.expect("migrates");
        admin.batch_execute(sql).await.expect("further SQL");
        let metrics = Arc::new(Metrics::new());
        let writer = writer(&cluster.uri("kairos_service", &database), rules, options, &metrics);
        Self { cluster, database, admin, writer, metrics }
    }

    /// Another writer on the same database, as another node or in another configuration.
    pub(crate) fn another_writer(&self, login: &str, rules: &str, options: WriteOptions) -> Arc<Writer> {
        writer(&self.cluster.uri(login, &self.database), rules, options, &self.metrics)
    }

    pub(crate) async fn try_upload(&self, user: &str, batch: Value) -> Result<UploadResponse, UploadError> {
        self.writer.upload(&principal(user), self::batch(batch)).await
    }

    pub(crate) async fn upload(&self, user: &str, batch: Value) -> Vec<OpResult> {
        self.try_upload(user, batch).await.expect("an answer").results
    }

    /// Uploads one operation; its code, or "" where it was applied.
    pub(crate) async fn outcome(&self, user: &str, operation: Value) -> String {
        let results = self.upload(user, operation).await;
        assert_eq!(results.len(), 1);
        codes(&results).remove(0)
    }

    /// One value, as text.
    pub(crate) async fn value(&self, sql: &str) -> Option<String> {
        self.admin.query_one(sql, &[]).await.expect("one row").get(0)
    }

    pub(crate) async fn count(&self, sql: &str) -> i64 {
        self.admin.query_one(sql, &[]).await.expect("one row").get(0)
    }

    pub(crate) fn written(&self, outcome: &str) -> u64 {
        self.metrics.writes.with_label_values(&[outcome]).get()
    }
}

fn writer(uri: &str, rules: &str, options: WriteOptions, metrics: &Arc<Metrics>) -> Arc<Writer> {
    let manager = Manager::new(uri.parse().expect("a URI"), NoTls);
    let pool = Pool::builder(manager).max_size(8).runtime(Runtime::Tokio1).build().expect("a pool");
    Arc::new(Writer::new(
        pool,
        watch::channel(plan(rules)).1,
        options,
        Arc::new(Counter::default()),
        Arc::clone(metrics),
    ))
}

/// One server for the tests that run now; it goes with the last of them.
fn shared_server() -> Arc<PgCluster> {
    static SERVER: Mutex<Weak<PgCluster>> = Mutex::new(Weak::new());
    let mut server = SERVER.lock().expect("no test fails while it starts a server");
    server.upgrade().unwrap_or_else(|| {
        let started = Arc::new(PgCluster::start(None).expect("a server"));
        *server = Arc::downgrade(&started);
        started
    })
}

fn plan(rules: &str) -> Arc<SyncPlan> {
    let compiled = compile(rules, "public");
    Arc::new(compiled.plan.unwrap_or_else(|| panic!("{:?}", compiled.diagnostics)))
}

/// Write checkpoints 1, 2, 3, …; none for the user `nobody`.
#[derive(Default)]
struct Counter(AtomicU64);

impl WriteCheckpointSource for Counter {
    fn create<'a>(&'a self, user_id: &'a str, _: Option<&'a str>) -> BoxFuture<'a, Option<WriteCheckpointId>> {
        let id = self.0.fetch_add(1, Ordering::SeqCst) + 1;
        std::future::ready((user_id != "nobody").then(|| WriteCheckpointId::new(id).expect("small"))).boxed()
    }
}

pub(crate) fn principal(user: &str) -> Principal {
    let claims = json!({ "sub": user, "role": "authenticated" });
    let Value::Object(claims) = claims else { unreachable!("an object") };
    Principal {
        user_id: user.to_owned(),
        claims,
        expires_at: SystemTime::now() + Duration::from_mins(1),
        confirmation: None,
    }
}

pub(crate) fn batch(json: Value) -> UploadBatch {
    serde_json::from_value(json).expect("a batch")
}

pub(crate) fn codes(results: &[OpResult]) -> Vec<String> {
    let code = |result: &OpResult| {
        assert_eq!(result.code.is_some(), result.outcome.needs_attention(), "{result:?}");
        assert_eq!(result.code.is_none(), result.message.is_none(), "{result:?}");
        result.code.clone().unwrap_or_default()
    };
    results.iter().map(code).collect()
}

pub(crate) fn habit(id: &str, user: &str) -> Value {
    json!({ "op": "PUT", "table": "habits", "id": id, "data": { "name": "Read", "user_id": user } })
}
