//! Local writes of devices into Postgres.
//!
//! ```text
//! UploadBatch ─► limits, rates ─► parts (transaction) ─► for each one transaction: answers given before (ledger) ─► role and claims
//!   ─► per operation (batch, or several at once: group): write rule (operation) ─► locked read ─► check ─► conflict
//!      ─► write ─► check (row)
//!   ─► answers remembered, what was not taken kept (conflict_log) ─► commit ─► write checkpoint ─► UploadResponse
//! Resolve ─► one transaction: the conflict, locked ─► the write, as above (resolution) ─► its end ─► commit
//! ```
//!
//! **Invariants**
//!
//! - No rule, no write. A write rule decides, and row-level security decides as well where `write.role` is set.
//! - The check holds for the row as it is and for the row as it became; in between the row is locked.
//! - One upload has one effect, however often, in parallel, and on however many nodes it arrives; it gets one answer.
//! - Operations have the outcomes they have one by one, in their order, also where they are sent together.
//! - A refused operation is an answer, not an error: it never keeps the writes behind it from being taken.
//! - What is not an operation's fault is an error of the whole upload: nothing of the transaction is written, the client
//!   keeps the batch and sends it again.
//! - Names are quoted, values are parameters. No value is in a message, an error or a log.
//!
//! Start reading at [`Writer::upload`], then `batch`.

mod batch;
mod catalog;
mod conflict;
mod conflict_log;
mod conflicts;
mod error;
mod group;
mod ledger;
mod limits;
mod operation;
mod preferences;
mod refusal;
mod resolution;
mod row;
mod script;
mod statement;
mod transaction;
mod value;

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use deadpool_postgres::{Client, Object, Pool};
use futures_util::future::BoxFuture;
use kairos_sync_protocol::{
    WriteCheckpointId,
    upload::{CrudEntry, OpResult, Outcome, UploadBatch, UploadResponse},
};
use kairos_sync_rules::{SyncPlan, WriteOrigin};
use serde_json::{Map, Value};
use tokio::sync::watch;
use tokio_postgres::Error;
use tracing::Instrument;

use self::{
    batch::{Answered, BatchError, Constraints, Context, Upload},
    catalog::Catalog,
    ledger::Answer,
    refusal::{Verdict, judge},
};
use crate::{
    auth::Principal,
    iso8601::iso8601_microseconds,
    metrics::Metrics,
    rate_limit::TableRates,
    traces::{number, trace_span},
};

pub use conflict_log::ConflictFilter;
pub use error::{Cause, ConflictError, UploadError};
pub use transaction::TransactionPolicy;

/// Bytes of rows that come back with conflicts, in all of an answer. Beyond that conflicts are told without them; the
/// rows come by the stream anyway.
const ROW_BYTES_MAX: usize = 4 << 20;
/// More would save little: by then few round trips are left.
const GROUP_SIZE_MAX: usize = 64;
/// How often a batch is run when it meets others.
const ATTEMPTS_MAX: u32 = 6;
/// Doubled with each attempt; the sixth begins after half a second.
const FIRST_PAUSE: Duration = Duration::from_millis(15);
/// How often old answers are looked for.
const PRUNE_EVERY: Duration = Duration::from_mins(1);

/// Settings and bounds of a [`Writer`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriteOptions {
    /// Role writes run as: not the owner of the tables, and without BYPASSRLS. `None`: the connection's own role.
    pub role: Option<String>,
    /// Schema of table names without one.
    pub schema: String,
    /// What is committed at once.
    pub transaction: TransactionPolicy,
    /// For a whole upload, waiting for a connection included.
    pub deadline: Duration,
    /// Operations in a batch.
    pub operations_max: usize,
    /// Bytes of all columns and values in a batch.
    pub batch_bytes_max: usize,
    /// Bytes of one value.
    pub value_bytes_max: usize,
    /// Operations sent together; 1: each waits for the one before.
    pub group_size_max: usize,
    /// How long answers are remembered. A device that was not answered and returns later than this may write twice.
    pub remember_for: Duration,
    /// How long conflicts are kept that were decided.
    pub keep_conflicts_for: Duration,
}

impl Default for WriteOptions {
    fn default() -> Self {
        Self {
            role: None,
            schema: "public".to_owned(),
            transaction: TransactionPolicy::default(),
            deadline: Duration::from_secs(30),
            operations_max: 10_000,
            batch_bytes_max: 16 << 20,
            value_bytes_max: 1 << 20,
            group_size_max: GROUP_SIZE_MAX,
            remember_for: Duration::from_hours(7 * 24),
            keep_conflicts_for: Duration::from_hours(90 * 24),
        }
    }
}

/// Makes write checkpoints: ids a client waits for, to see its upload come back.
pub trait WriteCheckpointSource: Send + Sync {
    /// A write checkpoint that covers all that is committed now. `None` where it cannot be made: the client then asks.
    fn create<'a>(&'a self, user_id: &'a str, client_id: Option<&'a str>) -> BoxFuture<'a, Option<WriteCheckpointId>>;
}

/// What is done in one transaction, and again where that met others.
trait Work: Sync {
    type Done: Send;

    /// Tries once; committed if it is done.
    fn attempt(
        &self,
        context: &Context<'_>,
        client: &mut Client,
        constraints: Constraints,
    ) -> impl Future<Output = Result<Self::Done, BatchError>> + Send;
}

/// What kept a batch from being written, and may not keep the next attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Obstacle {
    Others,
    DeferredConstraint,
    StaleSchema,
}

/// Takes uploads. One for the whole service.
pub struct Writer {
    pool: Pool,
    /// As it changes.
    plan: watch::Receiver<Arc<SyncPlan>>,
    options: WriteOptions,
    checkpoints: Arc<dyn WriteCheckpointSource>,
    metrics: Arc<Metrics>,
    catalog: Catalog,
    rates: TableRates,
    last_pruned: Mutex<Option<Instant>>,
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Writer {
    /// A writer over the source database. The pool's login needs the ledger, and `options.role` granted to it.
    pub fn new(
        pool: Pool,
        plan: watch::Receiver<Arc<SyncPlan>>,
        options: WriteOptions,
        checkpoints: Arc<dyn WriteCheckpointSource>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let (catalog, rates, last_pruned) = (Catalog::default(), TableRates::new(), Mutex::new(None));
        Self { pool, plan, options, checkpoints, metrics, catalog, rates, last_pruned }
    }

    /// Takes a batch: all of it or, on an error, nothing, or the parts before the one that failed, as
    /// [`TransactionPolicy`] says. Operations that are refused are answered so.
    ///
    /// # Errors
    /// [`UploadError`]; the client keeps the batch and may send it again, whatever became of it.
    pub async fn upload(&self, principal: &Principal, batch: UploadBatch) -> Result<UploadResponse, UploadError> {
        self.check_limits(&batch)?;
        self.check_rates(&principal.user_id, &batch)?;
        let upload = upload(principal, batch.client_id.as_deref(), &batch.batch);
        let until = self.deadline();
        let mut answers = Vec::with_capacity(batch.batch.len());
        let mut row_bytes_max = upload.row_bytes_max;
        for entries in self.options.transaction.divide(&upload) {
            let part = Upload { entries, row_bytes_max, ..upload.clone() };
            let taken = self.write_until(until, &part).await?;
            self.count(entries, &taken);
            row_bytes_max -= taken.iter().map(Answered::row_bytes).sum::<usize>();
            answers.extend(taken);
        }
        let write_checkpoint = self.checkpoints.create(upload.user_id, upload.client_id).await;
        let results = batch.batch.into_iter().zip(answers);
        let results = results.map(|(entry, answered)| result(entry, answered.answer)).collect();
        Ok(UploadResponse { write_checkpoint, results })
    }

    fn check_limits(&self, batch: &UploadBatch) -> Result<(), UploadError> {
        let (count, max) = (batch.batch.len(), self.options.operations_max);
        if count > max {
            return Err(UploadError::BatchTooLarge { count, unit: "operations", max });
        }
        let (count, max) = (batch.batch.iter().map(entry_bytes).sum(), self.options.batch_bytes_max);
        if count > max {
            return Err(UploadError::BatchTooLarge { count, unit: "bytes", max });
        }
        Ok(())
    }

    /// Before anything is written, so that the device may send the same again.
    fn check_rates(&self, user_id: &str, batch: &UploadBatch) -> Result<(), UploadError> {
        let rated = limits::rated(&self.plan.borrow(), &batch.batch);
        self.rates.take(user_id, &rated).map_err(|limited| {
            self.metrics.rate_limited.with_label_values(&["user", "table_operations"]).inc();
            UploadError::RateLimited(limited)
        })
    }

    async fn write_in_time<W: Work>(&self, work: &W) -> Result<W::Done, UploadError> {
        self.write_until(self.deadline(), work).await
    }

    fn deadline(&self) -> tokio::time::Instant {
        tokio::time::Instant::now() + self.options.deadline
    }

    async fn write_until<W: Work>(&self, until: tokio::time::Instant, work: &W) -> Result<W::Done, UploadError> {
        let mut client = None;
        let written = tokio::time::timeout_at(until, Box::pin(self.write(&mut client, work))).await;
        match (written, client) {
            (Ok(Ok(done)), Some(client)) => {
                self.prune(&client, until).await;
                Ok(done)
            }
            (Ok(written), _) => written,
            (Err(_), client) => {
                // Whatever the connection is busy with: nobody else should wait for it.
                drop(client.map(Object::take));
                Err(UploadError::Deadline(self.options.deadline))
            }
        }
    }

    /// Does the work until it meets neither others nor a changed schema. `connection` is where it is done now.
    async fn write<W: Work>(&self, connection: &mut Option<Client>, work: &W) -> Result<W::Done, UploadError> {
        // The same rules for all of it.
        let plan = Arc::clone(&self.plan.borrow());
        let context = Context {
            plan: &plan,
            catalog: &self.catalog,
            role: self.options.role.as_deref(),
            schema: &self.options.schema,
            deadline: self.options.deadline,
            value_bytes_max: self.options.value_bytes_max,
            group_size_max: self.options.group_size_max.max(1),
        };
        let mut constraints = Constraints::AsDeclared;
        let mut attempts = 1;
        loop {
            let client = connection.insert(self.pool.get().await.map_err(UploadError::Connect)?);
            let span = trace_span!("upload.attempt", attempt = number(attempts));
            let (obstacle, source) = match work.attempt(&context, client, constraints).instrument(span).await {
                Ok(done) => return Ok(done),
                Err(error) => self.obstacle(error)?,
            };
            if attempts == ATTEMPTS_MAX {
                return Err(UploadError::Contention { attempts, source: source.into() });
            }
            // Others may have the connection meanwhile.
            let client = connection.take();
            match obstacle {
                Obstacle::Others => {}
                Obstacle::DeferredConstraint => constraints = Constraints::Immediate,
                Obstacle::StaleSchema => {
                    self.catalog.forget();
                    // Triggers keep plans as well, which only end with their session.
                    drop(client.map(Object::take));
                }
            }
            tokio::time::sleep(pause(attempts)).await;
            attempts += 1;
        }
    }

    /// What the next attempt has to do otherwise, where there is any hope in one.
    fn obstacle(&self, error: BatchError) -> Result<(Obstacle, Error), UploadError> {
        let (source, is_ledger) = match error {
            BatchError::Deferred(source) => return Ok((Obstacle::DeferredConstraint, source)),
            BatchError::Role(source) => {
                let role = self.options.role.clone().unwrap_or_default();
                return Err(UploadError::Role { role, source: source.into() });
            }
            BatchError::Ledger(source) => (source, true),
            BatchError::Postgres(source) => (source, false),
        };
        match judge(&source, &[]) {
            Verdict::Contention => Ok((Obstacle::Others, source)),
            // Its table is ours: if it is missing or closed, nobody is about to change that.
            Verdict::Stale | Verdict::Refuse(_) if is_ledger => Err(UploadError::Ledger(source.into())),
            Verdict::Stale => Ok((Obstacle::StaleSchema, source)),
            Verdict::Refuse(_) | Verdict::Server => Err(UploadError::Postgres(source.into())),
        }
    }

    /// Forgets old answers now and then. A failure costs nothing but space.
    async fn prune(&self, client: &Client, until: tokio::time::Instant) {
        {
            let mut last = self.last_pruned.lock().unwrap_or_else(PoisonError::into_inner);
            if last.is_some_and(|last| last.elapsed() < PRUNE_EVERY) {
                return;
            }
            *last = Some(Instant::now());
        }
        let prune = async {
            let answers = ledger::prune(client, self.options.remember_for).await?;
            Ok::<_, Error>((answers, conflict_log::prune(client, self.options.keep_conflicts_for).await?))
        };
        match tokio::time::timeout_at(until, prune).await {
            Ok(Ok((answers, conflicts))) => tracing::debug!(answers, conflicts, "forgot old answers and conflicts"),
            Ok(Err(error)) => tracing::warn!(error = %Cause::from(error), "cannot prune the tables of schema kairos"),
            Err(_) => tracing::warn!("pruning the tables of schema kairos takes too long"),
        }
    }

    fn count(&self, entries: &[CrudEntry], answers: &[Answered]) {
        for (entry, Answered { answer, is_repeated, strategy }) in entries.iter().zip(answers) {
            let outcome = if *is_repeated { "repeated" } else { ledger::outcome_name(answer.outcome) };
            self.metrics.writes.with_label_values(&[outcome]).inc();
            let resolution = match (answer.outcome, conflict_log::loss(answer, *strategy)) {
                (Outcome::Refused, _) => continue,
                (_, Some((_, resolution))) => resolution.map_or("open", conflict_log::choice_name),
                (Outcome::Merged, None) => "merged",
                (_, None) => continue,
            };
            // Only tables with a rule come so far: the rules bound the labels.
            if let Some(strategy) = strategy.filter(|_| !is_repeated) {
                self.metrics.conflicts.with_label_values(&[&entry.table, strategy, resolution]).inc();
            }
        }
    }
}

/// Random within a factor of two, so that those who met once do not meet again.
fn pause(attempt: u32) -> Duration {
    FIRST_PAUSE * 2_u32.saturating_pow(attempt - 1).min(64) + FIRST_PAUSE.mul_f64(rand::random::<f64>())
}

fn entry_bytes(entry: &CrudEntry) -> usize {
    entry.data.iter().chain(&entry.old).map(object_bytes).sum::<usize>()
        + entry.table.len()
        + entry.id.as_ref().map_or(0, String::len)
}

fn object_bytes(object: &Map<String, Value>) -> usize {
    object.iter().map(|(name, value)| name.len() + value_bytes(value)).sum()
}

fn value_bytes(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len(),
        Value::Array(elements) => elements.iter().map(value_bytes).sum(),
        Value::Object(object) => object_bytes(object),
        Value::Null | Value::Bool(_) | Value::Number(_) => 8,
    }
}

fn upload<'a>(principal: &'a Principal, client_id: Option<&'a str>, entries: &'a [CrudEntry]) -> Upload<'a> {
    let mut claims = principal.claims.clone();
    claims.insert("sub".to_owned(), Value::String(principal.user_id.clone()));
    let origin = WriteOrigin::new(claims, client_id, iso8601_microseconds(SystemTime::now()));
    let row_bytes_max = ROW_BYTES_MAX;
    Upload { user_id: &principal.user_id, origin, client_id, entries, row_bytes_max, received_at: Instant::now() }
}

fn result(entry: CrudEntry, answer: Answer) -> OpResult {
    let row = if answer.outcome == Outcome::Conflict { answer.theirs } else { None };
    OpResult {
        op_id: entry.op_id,
        table: entry.table,
        id: entry.id,
        outcome: answer.outcome,
        row,
        code: answer.code,
        message: answer.message,
    }
}
