//! A batch as one Postgres transaction: each operation under a savepoint, or several together (group), so that a refused
//! one undoes only itself.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use deadpool_postgres::{Client, Transaction};
use futures_util::{
    TryFutureExt,
    future::{join, try_join, try_join3},
};
use kairos_sync_protocol::upload::CrudEntry;
use kairos_sync_rules::{ConflictStrategy, SyncPlan, WriteOrigin, WritePolicy};
use serde_json::Value;
use tokio_postgres::Error;

use super::{
    Work,
    catalog::{Catalog, Table},
    conflict_log::{self, Judged},
    group::{self, Pace},
    ledger::{self, Answer, Key},
    limits, object_bytes,
    operation::{self, UNKNOWN_COLUMN, Write},
    preferences::{self, Preferences},
    refusal::{Refusal, Verdict, is_constraint, judge},
    row::{self, RowWrite},
    script::{Stage, Values},
};
use crate::fault_point::fault_point;

/// Statements kept prepared on a connection. Devices may send any set of columns, so there must be an end.
const STATEMENTS_MAX: usize = 256;
/// Ends the savepoint of the last operation and begins the next one's, in one message.
pub(super) const NEXT_SAVEPOINT: &str = "RELEASE SAVEPOINT operation; SAVEPOINT operation";

/// Until the end of the transaction.
const CLAIMS: &str = "SELECT set_config('request.jwt.claims', $1, true)";
const ROLE: &str = "SELECT set_config('role', $1, true)";

/// What every batch of a writer needs.
#[derive(Debug)]
pub(super) struct Context<'a> {
    pub(super) plan: &'a SyncPlan,
    pub(super) catalog: &'a Catalog,
    pub(super) role: Option<&'a str>,
    pub(super) schema: &'a str,
    pub(super) deadline: Duration,
    pub(super) value_bytes_max: usize,
    pub(super) group_size_max: usize,
}

/// A user's upload, or a part of it that is committed by itself.
#[derive(Debug, Clone)]
pub(super) struct Upload<'a> {
    pub(super) user_id: &'a str,
    /// What the rules know of it; the token's `sub` is `user_id`.
    pub(super) origin: WriteOrigin,
    pub(super) client_id: Option<&'a str>,
    pub(super) entries: &'a [CrudEntry],
    /// Bytes of rows that may come back with conflicts.
    pub(super) row_bytes_max: usize,
    pub(super) received_at: Instant,
}

/// When constraints that Postgres may check at the end of the transaction are checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Constraints {
    /// As declared.
    AsDeclared,
    /// With each operation, which finds the one at fault.
    Immediate,
}

/// Why a batch did not commit.
#[derive(Debug)]
pub(super) enum BatchError {
    /// A deferred constraint does not hold at the end; which operation broke it is not known.
    Deferred(Error),
    Role(Error),
    Ledger(Error),
    Postgres(Error),
}

impl From<Error> for BatchError {
    fn from(error: Error) -> Self {
        Self::Postgres(error)
    }
}

/// An answer, and whether it was given before.
#[derive(Debug, Clone)]
pub(super) struct Answered {
    pub(super) answer: Answer,
    pub(super) is_repeated: bool,
    /// Of the table, or what its user chose; where there is a rule.
    pub(super) strategy: Option<&'static str>,
}

impl Answered {
    /// Of the row that comes with it.
    pub(super) fn row_bytes(&self) -> usize {
        self.answer.theirs.as_ref().map_or(0, object_bytes)
    }
}

/// An operation, and another strategy than the table's if one was chosen.
#[derive(Debug, Clone, Copy)]
pub(super) struct Operation<'a> {
    pub(super) entry: &'a CrudEntry,
    pub(super) strategy: Option<&'a ConflictStrategy>,
    /// It is more than its table takes at a time.
    pub(super) is_beyond: bool,
}

/// Why one operation ends.
pub(super) enum Stop {
    Refused(Refusal),
    /// Not this operation's fault: the batch ends.
    Failed(Error),
    /// It cannot be told from what was sent already. Never where each statement is sent when it is asked for.
    Unknown,
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        match judge(&error, &[]) {
            Verdict::Refuse(refusal) => Self::Refused(refusal),
            Verdict::Contention | Verdict::Stale | Verdict::Server => Self::Failed(error),
        }
    }
}

impl Work for Upload<'_> {
    type Done = Vec<Answered>;

    /// Runs the batch once, and commits it.
    async fn attempt(
        &self,
        context: &Context<'_>,
        client: &mut Client,
        constraints: Constraints,
    ) -> Result<Vec<Answered>, BatchError> {
        let keys: Vec<Option<Key>> =
            self.entries.iter().map(|entry| ledger::key(self.user_id, self.client_id, entry)).collect();
        let tx = client.transaction().await?;
        let configured = configure(&tx, context.deadline).map_err(BatchError::Postgres);
        let recalled = recall(&tx, self, &keys).map_err(BatchError::Ledger);
        let ((), mut known) = try_join(configured, recalled).await?;
        fault_point("upload.after-lookup");
        let preferences = prefer(context, &tx, self).await.map_err(BatchError::Ledger)?;
        begin(context, &tx, self, constraints).await?;
        fault_point("upload.begun");
        let places = unanswered(&keys, &known);
        let taken = take(context, &tx, self, &places, &preferences).await?;
        fault_point("upload.after-statements");
        let remembered = |index: usize| Some((keys[index]?, Answer { theirs: None, ..taken.get(&index)?.clone() }));
        let fresh: Vec<(Key, Answer)> = places.into_iter().filter_map(remembered).collect();
        // Sent in this order, without waiting in between: the ledger is not the write role's.
        try_join(end(context, &tx), remember(&tx, &fresh).map_err(BatchError::Ledger)).await?;
        known.extend(fresh);
        let answers = assemble(context, self, &keys, taken, &known, &preferences);
        let judged = judged(context, self, &answers, &preferences);
        conflict_log::record(&tx, self, &judged).await.map_err(BatchError::Ledger)?;
        fault_point("upload.before-commit");
        tx.commit().await?;
        fault_point("upload.after-commit");
        Ok(answers)
    }
}

/// Places of the operations that have no answer yet; of one that comes several times, the first.
fn unanswered(keys: &[Option<Key>], known: &HashMap<Key, Answer>) -> Vec<usize> {
    let mut seen = HashSet::new();
    let mut is_new = |key: Option<Key>| key.is_none_or(|key| !known.contains_key(&key) && seen.insert(key));
    (0..keys.len()).filter(|&index| is_new(keys[index])).collect()
}

/// Takes the operations at these places, in their order. Answers by place.
async fn take(
    context: &Context<'_>,
    tx: &Transaction<'_>,
    upload: &Upload<'_>,
    places: &[usize],
    preferences: &Preferences,
) -> Result<HashMap<usize, Answer>, Error> {
    let mut taken = HashMap::with_capacity(places.len());
    let mut row_bytes_left = upload.row_bytes_max;
    let mut pace = Pace::new(context.group_size_max);
    let beyond = limits::beyond(context.plan, upload.entries);
    while let Some(left) = places.get(taken.len()..).filter(|left| !left.is_empty()) {
        let operation = |&index: &usize| {
            let entry = &upload.entries[index];
            Operation { entry, strategy: preferences.get(&entry.table), is_beyond: beyond.contains(&index) }
        };
        let operations: Vec<_> = left.iter().take(context.group_size_max).map(operation).collect();
        let answers = group::take(context, tx, upload, &operations, &mut pace).await?;
        for (&index, mut answer) in left.iter().zip(answers) {
            let row_bytes = answer.theirs.as_ref().map_or(0, object_bytes);
            match row_bytes_left.checked_sub(row_bytes) {
                Some(left) => row_bytes_left = left,
                None => answer.theirs = None,
            }
            taken.insert(index, answer);
        }
    }
    Ok(taken)
}

async fn remember(tx: &Transaction<'_>, fresh: &[(Key, Answer)]) -> Result<(), Error> {
    if fresh.is_empty() { Ok(()) } else { ledger::record(tx, fresh).await }
}

/// Which strategy decides about writes to the table: what its user chose, else the rule's.
fn strategy<'a>(context: &Context<'a>, preferences: &'a Preferences, table: &str) -> Option<&'a ConflictStrategy> {
    preferences.get(table).or_else(|| Some(context.plan.write_policy(table)?.conflict()))
}

/// The answers in the order of the batch: those of now, and those given before.
fn assemble(
    context: &Context<'_>,
    upload: &Upload<'_>,
    keys: &[Option<Key>],
    mut taken: HashMap<usize, Answer>,
    known: &HashMap<Key, Answer>,
    preferences: &Preferences,
) -> Vec<Answered> {
    let answered = |(index, entry): (usize, &CrudEntry)| {
        let strategy = strategy(context, preferences, &entry.table).map(ConflictStrategy::name);
        let (answer, is_repeated) = match taken.remove(&index) {
            Some(answer) => (answer, false),
            None => (known.get(keys[index].as_ref()?)?.clone(), true),
        };
        Some(Answered { answer, is_repeated, strategy })
    };
    upload.entries.iter().enumerate().filter_map(answered).collect()
}

/// From here on statements are those of the user, each operation under the savepoint.
pub(super) async fn begin(
    context: &Context<'_>,
    tx: &Transaction<'_>,
    upload: &Upload<'_>,
    constraints: Constraints,
) -> Result<(), BatchError> {
    let set_claims = tx.prepare_cached(CLAIMS).await?;
    let set_role = match context.role {
        Some(role) => Some((tx.prepare_cached(ROLE).await?, role)),
        None => None,
    };
    let claims = Value::Object(upload.origin.token().clone()).to_string();
    let claims = async { tx.query_one(&set_claims, &[&claims]).await.map_err(BatchError::Postgres) };
    let role = async {
        match &set_role {
            Some((set_role, role)) => tx.query_one(set_role, &[role]).await.map(drop).map_err(BatchError::Role),
            None => Ok(()),
        }
    };
    let savepoint = tx.batch_execute(match constraints {
        Constraints::AsDeclared => "SAVEPOINT operation",
        Constraints::Immediate => "SET CONSTRAINTS ALL IMMEDIATE; SAVEPOINT operation",
    });
    // Sent in this order, without waiting in between.
    try_join3(claims, role, savepoint.map_err(BatchError::Postgres)).await?;
    Ok(())
}

/// Until here.
pub(super) async fn end(context: &Context<'_>, tx: &Transaction<'_>) -> Result<(), BatchError> {
    let constraints = tx.batch_execute("RELEASE SAVEPOINT operation; SET CONSTRAINTS ALL IMMEDIATE");
    let constraints = constraints
        .map_err(|error| if is_constraint(&error) { BatchError::Deferred(error) } else { BatchError::Postgres(error) });
    let role = async { if context.role.is_some() { tx.batch_execute("SET LOCAL ROLE NONE").await } else { Ok(()) } };
    // Sent in this order, without waiting in between.
    try_join(constraints, role.map_err(BatchError::Postgres)).await?;
    Ok(())
}

/// What the user chose for tables of the batch that leave conflicts to people, by table as devices name it.
async fn prefer(context: &Context<'_>, tx: &Transaction<'_>, upload: &Upload<'_>) -> Result<Preferences, Error> {
    let asks_user = |table: &str| context.plan.write_policy(table).is_some_and(WritePolicy::asks_user);
    if !upload.entries.iter().any(|entry| asks_user(&entry.table)) {
        return Ok(Preferences::default());
    }
    let mut preferences = preferences::read(tx, upload.user_id).await?;
    preferences.retain(|table, _| asks_user(table));
    Ok(preferences)
}

/// Writes that were answered now.
fn judged<'a>(
    context: &Context<'a>,
    upload: &Upload<'a>,
    answers: &'a [Answered],
    preferences: &'a Preferences,
) -> Vec<Judged<'a>> {
    let answered = upload.entries.iter().zip(answers).filter(|(_, answered)| !answered.is_repeated);
    let judged = answered.map(|(entry, Answered { answer, .. })| {
        let policy = context.plan.write_policy(&entry.table);
        Judged { entry, answer, policy, strategy: strategy(context, preferences, &entry.table) }
    });
    judged.collect()
}

/// Postgres itself ends what takes too long, also when this process is gone. Text forms do not depend on the server's
/// settings; a time without zone, as SQLite's functions print it, is UTC.
pub(super) async fn configure(tx: &Transaction<'_>, deadline: Duration) -> Result<(), Error> {
    let sql = "SELECT set_config('statement_timeout', $1, true),
                      set_config('idle_in_transaction_session_timeout', $1, true),
                      set_config('TimeZone', 'UTC', true), set_config('DateStyle', 'ISO', true),
                      set_config('IntervalStyle', 'postgres', true), set_config('bytea_output', 'hex', true)";
    let statement = tx.prepare_cached(sql).await?;
    tx.query_one(&statement, &[&deadline.as_millis().max(1).to_string()]).await?;
    Ok(())
}

/// Answers given to these writes before.
async fn recall(
    tx: &Transaction<'_>,
    upload: &Upload<'_>,
    keys: &[Option<Key>],
) -> Result<HashMap<Key, Answer>, Error> {
    let keys: Vec<Key> = keys.iter().flatten().copied().collect();
    let Some(client_id) = upload.client_id.filter(|_| !keys.is_empty()) else { return Ok(HashMap::new()) };
    for sql in [ledger::LOCK, ledger::READ] {
        tx.prepare_cached(sql).await?;
    }
    // What is prepared is sent when it is first polled, hence in this order. The reading is a statement of its own after
    // the lock: it sees what the upload before committed.
    let ((), known) = try_join(ledger::lock(tx, upload.user_id, client_id), ledger::read(tx, &keys)).await?;
    Ok(known.into_iter().collect())
}

/// Takes one operation by itself.
pub(super) async fn answer(
    context: &Context<'_>,
    tx: &Transaction<'_>,
    upload: &Upload<'_>,
    operation: Operation<'_>,
) -> Result<Answer, Error> {
    // Polled in this order, so the savepoint is sent first; its answer is not waited for.
    let (begun, executed) = join(tx.batch_execute(NEXT_SAVEPOINT), execute(context, tx, upload, operation)).await;
    begun?;
    match executed {
        Ok(answer) => Ok(answer),
        Err(Stop::Refused(refusal)) => {
            tx.batch_execute("ROLLBACK TO SAVEPOINT operation").await?;
            Ok(refusal.into())
        }
        Err(Stop::Failed(error)) => Err(error),
        Err(Stop::Unknown) => unreachable!("each statement is sent when it is asked for"),
    }
}

async fn execute(
    context: &Context<'_>,
    tx: &Transaction<'_>,
    upload: &Upload<'_>,
    operation: Operation<'_>,
) -> Result<Answer, Stop> {
    plan(context, tx, upload, operation).await?.run(&Stage::Live(tx), &upload.origin).await
}

/// An operation that may go to Postgres.
#[derive(Debug, Clone)]
pub(super) struct Planned<'a> {
    table: Arc<Table>,
    policy: &'a WritePolicy,
    strategy: &'a ConflictStrategy,
    fraction_digits: Option<u8>,
    pub(super) write: Write,
}

impl Planned<'_> {
    /// What it does to the row, where that does not depend on how the row is.
    pub(super) fn foreseen(&self) -> Option<[(String, Values); 2]> {
        row::foreseen(&self.table, self.policy, self.strategy, &self.write)
    }

    pub(super) async fn run(self, stage: &Stage<'_>, origin: &WriteOrigin) -> Result<Answer, Stop> {
        let Self { table, policy, strategy, fraction_digits, write } = self;
        RowWrite { stage, table: &table, policy, strategy, origin, fraction_digits, write }.run().await
    }
}

/// Whether what the operation writes depends on how the row is.
pub(super) fn asks_for_row(context: &Context<'_>, Operation { entry, strategy, .. }: Operation<'_>) -> bool {
    let strategy = strategy.or_else(|| Some(context.plan.write_policy(&entry.table)?.conflict()));
    strategy.is_some_and(|strategy| row::asks_for_row(strategy, operation::write_op(entry.op)))
}

/// What to do, as rules and description of the table allow it.
pub(super) async fn plan<'a>(
    context: &Context<'a>,
    tx: &Transaction<'_>,
    upload: &Upload<'_>,
    Operation { entry, strategy, is_beyond }: Operation<'a>,
) -> Result<Planned<'a>, Stop> {
    if is_beyond {
        return Err(limits::too_many().into());
    }
    let policy = context.plan.write_policy(&entry.table).ok_or_else(|| {
        let table = operation::named(&entry.table);
        Refusal::new("WRITE_NO_RULE", format!("no write rule for table {table}: add it under `write_rules`"))
    })?;
    operation::allow(entry, policy)?;
    let (table, write) = match prepare(context, tx, upload, entry, policy, Catalog::recently()).await {
        // The column may be newer than what is known of the table. One look for each batch is enough.
        Err(Stop::Refused(refusal)) if refusal.code == UNKNOWN_COLUMN => {
            prepare(context, tx, upload, entry, policy, Some(upload.received_at)).await?
        }
        prepared => prepared?,
    };
    if tx.statement_cache.size() > STATEMENTS_MAX {
        tx.statement_cache.clear();
    }
    let strategy = strategy.unwrap_or(policy.conflict());
    let fraction_digits = context.plan.compatibility().timestamp_fraction_digits_max;
    Ok(Planned { table, policy, strategy, fraction_digits, write })
}

async fn prepare(
    context: &Context<'_>,
    tx: &Transaction<'_>,
    upload: &Upload<'_>,
    entry: &CrudEntry,
    policy: &WritePolicy,
    known_since: Option<Instant>,
) -> Result<(Arc<Table>, Write), Stop> {
    let (schema, name) = entry.table.split_once('.').unwrap_or((context.schema, &entry.table));
    let table = context.catalog.table(tx, schema, name, known_since).await?.ok_or_else(|| {
        let message = format!("Postgres has no table {}: see the write rules", operation::named(&entry.table));
        Refusal::new("WRITE_UNKNOWN_TABLE", message)
    })?;
    let write = operation::prepare(entry, policy, &table, &upload.origin, context.value_bytes_max)?;
    Ok((table, write))
}
