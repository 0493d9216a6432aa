//! The life of replication: connect, decide, copy, follow, and again after every failure.

use std::{
    collections::HashSet,
    fmt,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use kairos_sync_protocol::BucketName;
use kairos_sync_rules::EvaluationError;
use tokio::{
    sync::watch,
    task::spawn_blocking,
    time::{MissedTickBehavior, interval, sleep, timeout},
};
use tokio_postgres::Client;

use crate::{
    deployment::{Deployments, Rules, RulesState},
    lsn::Lsn,
    metrics::Metrics,
    postgres::{
        PgError, SourceConfig, catalog::Table, preflight::read_tables, slot::release, wal_stream::StreamLimits,
        walsender::WalSender,
    },
    replication::{
        copy,
        discontinuity::Discontinuity,
        error::{Recovery, ReplicationError},
        page::Touched,
        plans::Plans,
        prepare::Prepared,
        rows_dropped::RowsDropped,
        state::ReplicationState,
        status::{Phase, ReplicationStatus},
        stream::{Applied, apply_stream},
    },
    storage::{Batch, BucketStore, Commit, StorageError},
    traces::{number, trace_span},
};

/// Full jitter up to a bound that doubles: many services come back to a restarted source at different times.
const RETRY_MIN: Duration = Duration::from_millis(50);
const RETRY_BOUND_FIRST: Duration = Duration::from_millis(200);
const RETRY_BOUND_MAX: Duration = Duration::from_secs(4);
/// While a person has to act; also slow enough not to look like an attack on passwords.
const RETRY_SLOWLY: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(20));
/// An attempt that streamed for so long was a success at first. To wait for a slot is none.
const HEALTHY_AFTER: Duration = Duration::from_secs(30);
/// For questions to the source which it answers from its catalog.
const QUERY_DEADLINE: Duration = Duration::from_mins(1);
/// How often the list of tables is compared with the catalog.
const CATALOG_INTERVAL: Duration = Duration::from_secs(5);
/// What may be read ahead of the store.
const STREAM_LIMITS: StreamLimits = StreamLimits { messages: 8_192, bytes: 8 * 1024 * 1024 };
/// Kinds of rule failures that are written to the log; the metric counts all.
const LOGGED_FAILURES_MAX: usize = 100;

/// Is told of every commit, also of those that only move the visible position.
pub type OnCommit = Arc<dyn Fn(&Commit) + Send + Sync>;

/// Keeps a bucket store equal to a source.
pub struct Replicator {
    pub(super) source: SourceConfig,
    pub(super) deployments: Arc<Deployments>,
    pub(super) store: Arc<dyn BucketStore>,
    pub(super) metrics: Arc<Metrics>,
    on_commit: OnCommit,
    pub(super) progress: Arc<ReplicationStatus>,
    /// Rule failures that have been logged. Locked for one look at a time.
    logged_failures: Mutex<HashSet<(String, String)>>,
    /// For what does not fit into memory.
    pub(super) spool_folder: PathBuf,
    /// Set when what is stored cannot be continued as it is; cleared once that has been seen to.
    remedy: Mutex<Option<Remedy>>,
    /// For the page of stored rows that is read ahead.
    pub(super) touched: Touched,
    /// Locked for one look at a time.
    rows_dropped: Mutex<RowsDropped>,
}

/// Why an attempt ended that did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// It was told to.
    Stopped,
    /// Other rules are wanted, or in force.
    OtherRules,
}

/// What to do with what is stored before going on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Remedy {
    /// Compare it with the source, because of the error of this code.
    Compare(&'static str),
    /// Forget it.
    StartOver,
}

impl fmt::Debug for Replicator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replicator").field("source", &self.source.address()).finish_non_exhaustive()
    }
}

impl Replicator {
    /// Replicates what the rules read of `source` into `store`. Rules may change while it runs: `deployments` says which
    /// are wanted, and is told which are in force.
    pub fn new(
        source: SourceConfig,
        deployments: Arc<Deployments>,
        store: Arc<dyn BucketStore>,
        metrics: Arc<Metrics>,
        on_commit: OnCommit,
        progress: Arc<ReplicationStatus>,
    ) -> Self {
        // Prometheus sees no increase in a counter that appears with 1.
        for code in Discontinuity::CODES {
            metrics.comparisons.with_label_values(&[code]);
        }
        Self {
            source,
            deployments,
            store,
            metrics,
            on_commit,
            progress,
            logged_failures: Mutex::default(),
            spool_folder: std::env::temp_dir(),
            remedy: Mutex::default(),
            touched: Touched::default(),
            rows_dropped: Mutex::default(),
        }
    }

    /// Keeps transactions that are too large for memory in this folder while they run, instead of the system's for
    /// temporary files, which may be in memory itself. It must exist; nothing is left there.
    #[must_use]
    pub fn spooling_to(self, spool_folder: PathBuf) -> Self {
        Self { spool_folder, ..self }
    }

    /// Runs until `shutdown` becomes true. Failures of the source are retried for ever.
    ///
    /// # Errors
    /// [`ReplicationError::Storage`]: the store must not be written to any more. [`ReplicationError::Worker`]: a bug.
    pub async fn run(self, mut shutdown: watch::Receiver<bool>) -> Result<(), ReplicationError> {
        let replicator = Arc::new(self);
        let mut bound = RETRY_BOUND_FIRST;
        let mut wishes = replicator.deployments.subscribe();
        while !*shutdown.borrow() {
            let mut streaming_since = None;
            let outcome = Box::pin(replicator.attempt(&mut wishes, &mut shutdown, &mut streaming_since)).await;
            replicator.metrics.replication_connected.set(0);
            let error = match outcome {
                Ok(Ended::Stopped) => break,
                Ok(Ended::OtherRules) => continue,
                Err(error) => error,
            };
            replicator.progress.failed(&error);
            let source = std::error::Error::source(&error).map(ToString::to_string);
            tracing::warn!(code = error.code(), cause = source, "replication: {error}");
            if streaming_since.is_some_and(|since: Instant| since.elapsed() > HEALTHY_AFTER) {
                bound = RETRY_BOUND_FIRST;
            }
            let recovery = error.recovery();
            match recovery {
                Recovery::Compare => replicator.set_remedy(Some(Remedy::Compare(error.code()))),
                Recovery::StartOver => replicator.set_remedy(Some(Remedy::StartOver)),
                Recovery::Retry | Recovery::RetrySlowly | Recovery::Stop => {}
            }
            let wait = match recovery {
                Recovery::Stop => return Err(error),
                Recovery::RetrySlowly => rand::random_range(RETRY_SLOWLY.0..RETRY_SLOWLY.1),
                Recovery::Retry | Recovery::Compare | Recovery::StartOver => rand::random_range(RETRY_MIN..bound),
            };
            bound = (2 * bound).min(RETRY_BOUND_MAX);
            tokio::select! {
                () = sleep(wait) => {}
                () = other_rules(&mut wishes) => {}
                () = stopped(&mut shutdown) => {}
            }
        }
        Ok(())
    }

    /// Connects, copies what is missing, follows the stream.
    async fn attempt(
        self: &Arc<Self>,
        wishes: &mut watch::Receiver<Arc<Rules>>,
        shutdown: &mut watch::Receiver<bool>,
        streaming_since: &mut Option<Instant>,
    ) -> Result<Ended, ReplicationError> {
        self.progress.set_phase(Phase::Connecting);
        // Before the look at what is wanted, so that a later wish is not missed.
        wishes.mark_unchanged();
        let prepared = tokio::select! {
            prepared = Box::pin(self.prepare()) => prepared?,
            () = stopped(shutdown) => return Ok(Ended::Stopped),
        };
        self.progress.set_slot(&prepared.start.state.slot);
        self.set_resume(prepared.start.state.resume);
        Box::pin(self.follow(prepared, wishes, shutdown, streaming_since)).await
    }

    async fn follow(
        self: &Arc<Self>,
        prepared: Prepared,
        wishes: &mut watch::Receiver<Arc<Rules>>,
        shutdown: &mut watch::Receiver<bool>,
        streaming_since: &mut Option<Instant>,
    ) -> Result<Ended, ReplicationError> {
        let Prepared { client, tables, start } = prepared;
        let (client, state) = (&client, &start.state);
        let (slot, publications) = (state.slot.clone(), state.publications.clone());
        let plans = Arc::clone(&start.plans);
        let open = async {
            self.foresee_copy(client, state).await?;
            within_deadline(release(client, &state.slot)).await?;
            let walsender = WalSender::connect(&self.source).await?;
            let opened = walsender.start(&state.slot, state.resume, &publications, STREAM_LIMITS).await;
            opened.map_err(|error| match Discontinuity::of_refusal(&state.slot, error) {
                Ok(reason) => ReplicationError::from(reason),
                Err(error) => error.into(),
            })
        };
        let (wal, handle) = tokio::select! {
            opened = Box::pin(open) => opened?,
            () = stopped(shutdown) => return Ok(Ended::Stopped),
        };
        *streaming_since = Some(Instant::now());
        self.progress.opened();
        self.metrics.replication_connected.set(1);
        let (desk, readers) = copy::channels(&state.tables, state.resume);
        let replicator = Arc::clone(self);
        let mut worker = spawn_blocking(move || apply_stream(&replicator, start, wal, desk));
        let outcome = tokio::select! {
            applied = &mut worker => {
                handle.close().await;
                let applied = applied.map_err(|_| ReplicationError::Worker)?.map_err(ReplicationError::in_stream);
                return match applied? {
                    Applied::Closed => Err(stream_ended()),
                    Applied::Switched => Ok(Ended::OtherRules),
                };
            }
            failure = self.watch_source(client, &slot) => Err(failure.into()),
            failure = Box::pin(copy::reader::run(self, client, &publications, &plans, readers)) => Err(failure),
            failure = self.watch_catalog(client, &publications, &plans, &tables) => Err(failure),
            () = other_rules(wishes) => Ok(Ended::OtherRules),
            () = stopped(shutdown) => Ok(Ended::Stopped),
        };
        handle.close().await;
        // Nobody else may write to the store before the worker has ended.
        worker.await.map_err(|_| ReplicationError::Worker)??;
        outcome
    }

    /// Compares the published tables with those found at the start. What the stream does not tell of a change is met
    /// here: a table that is gone, renamed or new, but does not change. Returns what differs, or what went wrong.
    async fn watch_catalog(
        &self,
        client: &Client,
        publications: &[String],
        plans: &Plans,
        tables: &[Table],
    ) -> ReplicationError {
        let patterns = plans.source_tables();
        let mut ticks = interval(CATALOG_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.tick().await;
        loop {
            ticks.tick().await;
            let found = match within_deadline(read_tables(client, publications, &patterns)).await {
                Ok(found) => found.tables,
                Err(error) => return error.into(),
            };
            let differs = |one: &[Table], other: &[Table]| {
                one.iter().find(|table| !other.iter().any(|known| known.is_same_as(table))).map(Table::sql_name)
            };
            if let Some(table) = differs(&found, tables).or_else(|| differs(tables, &found)) {
                let change = "it is new, changed or gone";
                return ReplicationError::SchemaChanged { table, change };
            }
        }
    }

    pub(super) fn remedy(&self) -> Option<Remedy> {
        *self.remedy.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_remedy(&self, remedy: Option<Remedy>) {
        *self.remedy.lock().unwrap_or_else(PoisonError::into_inner) = remedy;
    }

    /// Tables are copied again for damaged rows now and then at most.
    pub(super) fn may_mend_rows(&self) -> Result<(), ReplicationError> {
        let wait = self.rows_dropped.lock().unwrap_or_else(PoisonError::into_inner).wait(Instant::now());
        if wait.is_zero() { Ok(()) } else { Err(ReplicationError::DamagedAgain { wait }) }
    }

    /// So many blocks of damaged rows were dropped.
    pub(super) fn rows_dropped(&self, block_count: u64) {
        if block_count > 0 {
            self.metrics.row_blocks_dropped.inc_by(block_count);
            *self.rows_dropped.lock().unwrap_or_else(PoisonError::into_inner) = RowsDropped::at(Instant::now());
        }
    }

    /// Commits a batch and tells who waits for it.
    pub(super) fn commit(&self, batch: Batch) -> Result<(), StorageError> {
        let is_visible = batch.visible_at.is_some();
        let span = trace_span!("store.commit", operations = number(batch.operations.len()), is_visible);
        let _entered = span.entered();
        self.touched.note(&batch.rows);
        let timer = self.metrics.latencies.store_commit.start_timer();
        let commit = self.store.commit(batch)?;
        timer.observe_duration();
        self.progress.stored();
        if is_visible {
            self.progress.published();
        }
        (self.on_commit)(&commit);
        Ok(())
    }

    /// Lets damaged buckets begin anew, and tells who has them.
    pub(super) fn empty_buckets(&self, names: &[BucketName]) -> Result<(), StorageError> {
        let commit = self.store.empty_buckets(names)?;
        (self.on_commit)(&commit);
        Ok(())
    }

    /// Stores the state alone. Clients see what it lets them see.
    pub(super) fn save(&self, state: &ReplicationState) -> Result<(), StorageError> {
        self.commit(Batch {
            replication_state: Some(state.to_bytes()),
            visible_at: state.visible_at(),
            ..Batch::default()
        })
    }

    /// Stores the state with rules that are in force from now on.
    pub(super) fn save_rules(&self, state: &ReplicationState, rules: &RulesState) -> Result<(), StorageError> {
        // Whoever looks at the store next may be served by these.
        self.deployments.in_force(rules);
        let stored = self.commit(Batch {
            replication_state: Some(state.to_bytes()),
            rules: Some(rules.to_stored()),
            visible_at: state.visible_at(),
            ..Batch::default()
        });
        if stored.is_err()
            && let Some(before) =
                self.store.rules().ok().flatten().and_then(|before| RulesState::from_stored(&before).ok())
        {
            self.deployments.in_force(&before);
        }
        stored
    }

    pub(super) fn set_resume(&self, resume: Lsn) {
        self.progress.set_resume(resume);
        self.set_lag();
    }

    pub(super) fn set_lag(&self) {
        let lag = self.progress.snapshot().lag_bytes();
        self.metrics.replication_lag_bytes.set(i64::try_from(lag).unwrap_or(i64::MAX));
    }

    /// Counts rule failures, and logs each kind once.
    pub(super) fn report(&self, failures: &[EvaluationError]) {
        self.metrics.evaluation_errors.inc_by(failures.len() as u64);
        let mut logged = self.logged_failures.lock().unwrap_or_else(PoisonError::into_inner);
        for failure in failures {
            let kind = (failure.definition.clone(), failure.message.clone());
            if logged.len() < LOGGED_FAILURES_MAX && logged.insert(kind) {
                tracing::warn!("a rule fails for some rows, which are left out: {failure}");
            }
        }
    }
}

/// The reading task gives its reason before it ends, so this is only seen when it was lost.
fn stream_ended() -> ReplicationError {
    PgError::Protocol("the end of the stream").into()
}

/// Where the source's WAL ends now.
pub(super) async fn current_position(client: &Client) -> Result<Lsn, PgError> {
    let text: String = client.query_one("SELECT pg_current_wal_lsn()::text", &[]).await?.try_get(0)?;
    text.parse().map_err(|_| PgError::Protocol("a WAL position that is none"))
}

pub(super) async fn within_deadline<T>(ask: impl Future<Output = Result<T, PgError>>) -> Result<T, PgError> {
    let missed = PgError::Timeout { doing: "asking the source", after: QUERY_DEADLINE };
    timeout(QUERY_DEADLINE, ask).await.map_err(|_| missed)?
}

/// Returns when other rules are wanted. Who could want them being gone, nobody will.
async fn other_rules(wishes: &mut watch::Receiver<Arc<Rules>>) {
    if wishes.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Returns when replication is to end; a sender that is gone cannot say so any more, which means the same.
pub(super) async fn stopped(shutdown: &mut watch::Receiver<bool>) {
    let _ = shutdown.wait_for(|stops| *stops).await;
}
