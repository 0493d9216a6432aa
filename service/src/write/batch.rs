//! A batch as one Postgres transaction: each operation under a savepoint, so that a refused one undoes only itself.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use deadpool_postgres::{Client, Transaction};
use futures_util::future::join;
use kairos_sync_protocol::upload::CrudEntry;
use kairos_sync_rules::{ConflictStrategy, SyncPlan, WriteOrigin, WritePolicy};
use serde_json::Value;
use tokio_postgres::Error;

use super::{
    Work,
    catalog::{Catalog, Table},
    conflict_log::{self, Judged},
    ledger::{self, Answer, Key},
    limits, object_bytes,
    operation::{self, UNKNOWN_COLUMN, Write},
    preferences::{self, Preferences},
    refusal::{Refusal, Verdict, is_constraint, judge},
    row::RowWrite,
};

/// Statements kept prepared on a connection. Devices may send any set of columns, so there must be an end.
const STATEMENTS_MAX: usize = 256;
/// Bytes of rows that come back with conflicts, in all of an answer. Beyond that conflicts are told without them; the
/// rows come by the stream anyway.
const ROW_BYTES_MAX: usize = 4 << 20;
/// Ends the savepoint of the last operation and begins the next one's, in one message.
const NEXT_SAVEPOINT: &str = "RELEASE SAVEPOINT operation; SAVEPOINT operation";

/// What every batch of a writer needs.
#[derive(Debug)]
pub(super) struct Context<'a> {
    pub(super) plan: &'a SyncPlan,
    pub(super) catalog: &'a Catalog,
    pub(super) role: Option<&'a str>,
    pub(super) schema: &'a str,
    pub(super) deadline: Duration,
    pub(super) value_bytes_max: usize,
}

/// A user's upload.
#[derive(Debug)]
pub(super) struct Upload<'a> {
    pub(super) user_id: &'a str,
    /// What the rules know of it; the token's `sub` is `user_id`.
    pub(super) origin: WriteOrigin,
    pub(super) client_id: Option<&'a str>,
    pub(super) entries: &'a [CrudEntry],
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

/// Why one operation ends.
pub(super) enum Stop {
    Refused(Refusal),
    /// Not this operation's fault: the batch ends.
    Failed(Error),
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
        configure(&tx, context.deadline).await?;
        let mut known = recall(&tx, self, &keys).await.map_err(BatchError::Ledger)?;
        let preferences = prefer(context, &tx, self).await.map_err(BatchError::Ledger)?;
        begin(context, &tx, self, constraints).await?;
        let mut answers = Vec::with_capacity(self.entries.len());
        let mut fresh = Vec::new();
        let mut row_bytes_left = ROW_BYTES_MAX;
        let beyond = limits::beyond(context.plan, self.entries);
        for (position, (entry, key)) in self.entries.iter().zip(keys).enumerate() {
            let chosen = preferences.get(&entry.table);
            let strategy = chosen.or_else(|| Some(context.plan.write_policy(&entry.table)?.conflict()));
            let strategy = strategy.map(ConflictStrategy::name);
            if let Some(answer) = key.and_then(|key| known.get(&key)) {
                answers.push(Answered { answer: answer.clone(), is_repeated: true, strategy });
                continue;
            }
            let mut answer = if beyond.contains(&position) {
                limits::too_many().into()
            } else {
                answer(context, &tx, self, entry, chosen).await?
            };
            let row_bytes = answer.theirs.as_ref().map_or(0, object_bytes);
            match row_bytes_left.checked_sub(row_bytes) {
                Some(left) => row_bytes_left = left,
                None => answer.theirs = None,
            }
            if let Some(key) = key {
                let remembered = Answer { theirs: None, ..answer.clone() };
                known.insert(key, remembered.clone());
                fresh.push((key, remembered));
            }
            answers.push(Answered { answer, is_repeated: false, strategy });
        }
        end(context, &tx).await?;
        if !fresh.is_empty() {
            ledger::record(&tx, &fresh).await.map_err(BatchError::Ledger)?;
        }
        let judged = judged(context, self, &answers, &preferences);
        conflict_log::record(&tx, self, &judged).await.map_err(BatchError::Ledger)?;
        tx.commit().await?;
        Ok(answers)
    }
}

/// From here on statements are those of the user, each operation under the savepoint.
pub(super) async fn begin(
    context: &Context<'_>,
    tx: &Transaction<'_>,
    upload: &Upload<'_>,
    constraints: Constraints,
) -> Result<(), BatchError> {
    assume_role(tx, context, upload).await?;
    if constraints == Constraints::Immediate {
        tx.batch_execute("SET CONSTRAINTS ALL IMMEDIATE").await?;
    }
    Ok(tx.batch_execute("SAVEPOINT operation").await?)
}

/// Until here.
pub(super) async fn end(context: &Context<'_>, tx: &Transaction<'_>) -> Result<(), BatchError> {
    tx.batch_execute("RELEASE SAVEPOINT operation; SET CONSTRAINTS ALL IMMEDIATE").await.map_err(|error| {
        if is_constraint(&error) { BatchError::Deferred(error) } else { BatchError::Postgres(error) }
    })?;
    if context.role.is_some() {
        tx.batch_execute("SET LOCAL ROLE NONE").await?;
    }
    Ok(())
}

/// What the user chose for tables of the batch that leave conflicts to people, by table as devices name it.
async fn prefer(context: &Context<'_>, tx: &Transaction<'_>, upload: &Upload<'_>) -> Result<Preferences, Error> {
    let is_manual = |table: &str| {
        let policy = context.plan.write_policy(table);
        policy.is_some_and(|policy| *policy.conflict() == ConflictStrategy::Manual)
    };
    if !upload.entries.iter().any(|entry| is_manual(&entry.table)) {
        return Ok(Preferences::default());
    }
    let mut preferences = preferences::read(tx, upload.user_id).await?;
    preferences.retain(|table, _| is_manual(table));
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
        let strategy = preferences.get(&entry.table).or_else(|| policy.map(WritePolicy::conflict));
        Judged { entry, answer, policy, strategy }
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
    ledger::lock(tx, upload.user_id, client_id).await?;
    // A statement of its own, after the lock: it sees what the one before committed.
    Ok(ledger::read(tx, &keys).await?.into_iter().collect())
}

/// Claims and role, until the end of the transaction.
async fn assume_role(tx: &Transaction<'_>, context: &Context<'_>, upload: &Upload<'_>) -> Result<(), BatchError> {
    let claims = Value::Object(upload.origin.token().clone()).to_string();
    let statement = tx.prepare_cached("SELECT set_config('request.jwt.claims', $1, true)").await?;
    tx.query_one(&statement, &[&claims]).await?;
    if let Some(role) = context.role {
        let statement = tx.prepare_cached("SELECT set_config('role', $1, true)").await?;
        tx.query_one(&statement, &[&role]).await.map_err(BatchError::Role)?;
    }
    Ok(())
}

/// Runs one operation, under another strategy than the table's if one is given.
pub(super) async fn answer(
    context: &Context<'_>,
    tx: &Transaction<'_>,
    upload: &Upload<'_>,
    entry: &CrudEntry,
    strategy: Option<&ConflictStrategy>,
) -> Result<Answer, Error> {
    // Polled in this order, so the savepoint is sent first; its answer is not waited for.
    let (begun, executed) = join(tx.batch_execute(NEXT_SAVEPOINT), execute(context, tx, upload, entry, strategy)).await;
    begun?;
    match executed {
        Ok(answer) => Ok(answer),
        Err(Stop::Refused(refusal)) => {
            tx.batch_execute("ROLLBACK TO SAVEPOINT operation").await?;
            Ok(refusal.into())
        }
        Err(Stop::Failed(error)) => Err(error),
    }
}

async fn execute(
    context: &Context<'_>,
    tx: &Transaction<'_>,
    upload: &Upload<'_>,
    entry: &CrudEntry,
    strategy: Option<&ConflictStrategy>,
) -> Result<Answer, Stop> {
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
    RowWrite { tx, table: &table, policy, strategy, origin: &upload.origin, fraction_digits, write }.run().await
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
