//! The local SQLite database: what the app sees, what was received, what waits for upload.
//!
//! Down: data lines go to `kairos_oplog` as they arrive ([`oplog`]); a completed checkpoint is validated and published
//! to the app's tables ([`publish`]), which the app declared ([`views`]) or which are made as rows come ([`learn`]). Up: the app writes to views ([`views`]), whose triggers change the row and queue
//! the write ([`crud`]) in the same SQLite transaction.
//!
//! **Invariants**
//!
//! - One connection writes, so a publish and a local write never interleave; another reads and never waits for it.
//! - A checkpoint whose checksums do not match is never published.
//! - Nothing is published over local writes which are queued or whose write checkpoint was not seen yet; priority 0 is,
//!   but leaves the rows alone that were written locally.
//! - A publish is one transaction, and short also after a first sync ([`staging`]); a download lets the app's writes pass
//!   ([`writer`]).
//! - The operation with the highest id over all buckets decides what a row is.
//! - A local write is on disk (synced) before its call returns. Downloads are not synced: what a power cut takes is
//!   downloaded again.
//!
//! Start reading at [`Store`], then [`publish`].

pub(crate) mod account;
pub(crate) mod archive;
pub(crate) mod attention;
pub(crate) mod crud;
mod functions;
pub(crate) mod identity;
mod inspect;
mod learn;
mod log;
mod migrations;
mod oplog;
mod publish;
mod query_tables;
mod raw;
mod rows;
mod staging;
pub(crate) mod subscriptions;
#[cfg(test)]
mod tests;
mod verify;
mod views;
mod writer;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering},
    time::Duration,
};

use kairos_sync_protocol::operation::Operation;
use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};

pub use self::{
    attention::RejectedWrite,
    inspect::{LocalBucket, LocalTable},
    publish::RowChanges,
    verify::{BucketVerification, TableVerification, Verification},
};
pub(crate) use self::{
    crud::LocalState,
    inspect::{buckets, facts, tables},
    migrations::check_version,
    publish::Outcome,
    verify::{repair, verify},
};
use self::{functions::WriteContext, log::Log, raw::RawNames, staging::Staging, writer::Writer};
use crate::{
    changes::TableChanges,
    core::{BucketState, Completion, StoreStep},
    schema::{Schema, SchemaError},
};

/// How long to wait for another process that uses the same file.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Operations between two looks at whether somebody wants to write: about a millisecond's.
const OPERATIONS_PER_PIECE: usize = 128;
/// Prepared statements kept per connection: a few per table, and the app's own.
const STATEMENTS_MAX: usize = 256;

/// A local database that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// SQLite refused something.
    #[error("SQLite: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// The declared tables cannot be made.
    #[error("the declared schema cannot be used")]
    Schema(#[from] SchemaError),
    /// A SQLite file of something else.
    #[error("this SQLite file was not made by the Kairos client; choose another path")]
    NotOurs,
    /// Made by a later version of this crate.
    #[error("this database has version {found}, but this client knows only up to {known}; update the app")]
    Newer {
        /// Version of the file.
        found: u32,
        /// The latest version known here.
        known: u32,
    },
    /// Made by an earlier version of this crate, and opened for reading only.
    #[error("this database has version {found}, but version {known} is needed; sync it once with this client")]
    Older {
        /// Version of the file.
        found: u32,
        /// The version needed.
        known: u32,
    },
    /// A learned schema for a database with a declared one.
    #[error("the tables of this database are declared by an app; choose another path to learn them from what arrives")]
    Declared,
    /// A write to a table that is not declared any more.
    #[error("the table `{table}` is not declared any more; forget the write, or declare the table again")]
    TableGone {
        /// Its name.
        table: String,
    },
    /// A statement of a table of the app's own design failed.
    #[error("SQLite refused to write a row of `{table}` as the app's schema says")]
    RawTable {
        /// Its name.
        table: String,
        /// Why.
        source: rusqlite::Error,
    },
    /// Something is there where a file is to be made.
    #[error("there is a file at this path already; choose another, or remove it")]
    Exists,
    /// SQLite takes paths in Unicode only.
    #[error("the path is not Unicode; choose another")]
    Path,
    /// An archive that is damaged.
    #[error("the archive is damaged; use another one")]
    Damaged,
    /// The async runtime shuts down.
    #[error("the database call was cancelled because the async runtime is shutting down")]
    ShuttingDown,
}

impl StoreError {
    /// Stable across releases; listed in `docs/errors.md`.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Sqlite(_) => "CLIENT-0101",
            Self::Schema(_) => "CLIENT-0102",
            Self::NotOurs => "CLIENT-0103",
            Self::Newer { .. } => "CLIENT-0104",
            Self::ShuttingDown => "CLIENT-0105",
            Self::Older { .. } => "CLIENT-0106",
            Self::Declared => "CLIENT-0107",
            Self::TableGone { .. } => "CLIENT-0108",
            Self::Exists => "CLIENT-0109",
            Self::Path => "CLIENT-0110",
            Self::Damaged => "CLIENT-0111",
            Self::RawTable { .. } => "CLIENT-0113",
        }
    }
}

/// The database. Calls block on SQLite and therefore run on the runtime's blocking threads.
#[derive(Debug)]
pub(crate) struct Store {
    path: PathBuf,
    writer: Arc<Writer>,
    log: Arc<Log>,
    reader: Arc<Mutex<Connection>>,
    context: Arc<WriteContext>,
    schema: Arc<Schema>,
    /// As of the last commit: replaced while the writer is still locked, so it never goes back.
    local: Arc<Mutex<LocalState>>,
    changes: TableChanges,
    /// So many operations at once are worth a view made anew; see [`staging`].
    stages_from: usize,
}

/// How durable a transaction must be when its call returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Durability {
    /// Survives a power cut.
    Synced,
    /// Survives the end of the process.
    Written,
}

/// Whose writes a transaction has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Author {
    /// They are queued for upload.
    App,
    /// They are what the service has.
    Sync,
}

impl Store {
    /// Opens or creates the database and makes the declared tables.
    pub(crate) async fn open(path: PathBuf, schema: Schema) -> Result<Self, StoreError> {
        blocking(move || Self::open_blocking(&path, schema)).await
    }

    fn open_blocking(path: &Path, schema: Schema) -> Result<Self, StoreError> {
        schema.validate()?;
        let mut writer = Connection::open(path)?;
        prepare(&writer)?;
        writer.pragma_update(None, "journal_mode", "wal")?;
        let context = functions::register_for_writes(&writer)?;
        migrations::run(&mut writer)?;
        let tx = writer.transaction_with_behavior(TransactionBehavior::Immediate)?;
        raw::defer_foreign_keys(&tx)?;
        views::install(&tx, &schema)?;
        identity::settle(&tx, path)?;
        subscriptions::resume(&tx)?;
        context.resume_tx_ids(&tx)?;
        let local = crud::local_state(&tx)?;
        tx.commit()?;
        context.watch_changes(&mut writer, RawNames::of(&schema))?;
        let log = Log::of(&mut writer, path)?;

        let reader = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        prepare(&reader)?;
        functions::register(&reader)?;
        reader.pragma_update(None, "query_only", true)?;
        Ok(Self {
            path: path.to_path_buf(),
            writer: Arc::new(Writer::new(writer)),
            log: Arc::new(log),
            reader: Arc::new(Mutex::new(reader)),
            context,
            schema: Arc::new(schema),
            local: Arc::new(Mutex::new(local)),
            changes: TableChanges::default(),
            stages_from: staging::OPERATIONS_MIN,
        })
    }

    pub(crate) const fn changes(&self) -> &TableChanges {
        &self.changes
    }

    /// What the last commit left of local writes.
    pub(crate) fn local_state(&self) -> LocalState {
        *lock(&self.local)
    }

    /// Reads the last committed state.
    pub(crate) async fn read<T, E>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let reader = Arc::clone(&self.reader);
        blocking(move || work(&lock(&reader))).await
    }

    /// Writes all of it to a new file.
    pub(crate) async fn export(&self, archive: PathBuf) -> Result<(), StoreError> {
        let path = self.path.clone();
        blocking(move || archive::export(&path, &archive)).await
    }

    /// The app's tables that a query reads.
    pub(crate) async fn tables_read_by(&self, sql: String) -> Result<BTreeSet<String>, StoreError> {
        let (reader, raw) = (Arc::clone(&self.reader), RawNames::of(&self.schema));
        blocking(move || query_tables::read_by(&mut lock(&reader), raw, &sql)).await
    }

    /// Runs `work` in one transaction, synced to disk before this returns. All of it happens or nothing.
    pub(crate) async fn write<T, E>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        self.transact(Durability::Synced, Author::App, work).await
    }

    /// As [`Self::write`], but nothing that this writes to the app's own tables is queued.
    pub(crate) async fn write_as_sync<T, E>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        self.transact(Durability::Synced, Author::Sync, work).await
    }

    /// Performs steps of the sync, and says what became of a completion among them. Whenever somebody wants to write, a
    /// transaction ends; what it has done is fit to be continued from after a crash.
    pub(crate) async fn perform(&self, steps: Vec<StoreStep>) -> Result<Option<Outcome>, StoreError> {
        let (writer, log, schema) = (Arc::clone(&self.writer), Arc::clone(&self.log), Arc::clone(&self.schema));
        let (context, local) = (Arc::clone(&self.context), Arc::clone(&self.local));
        let stages_from = self.stages_from;
        let (outcome, changed) = blocking(move || {
            let mut pieces = steps.iter().flat_map(pieces).peekable();
            let (mut outcome, mut changed) = (None, BTreeSet::new());
            while pieces.peek().is_some() {
                let mut connection = writer.lock_after_others();
                let mode = (Durability::Written, Author::Sync);
                let (completed, state) = transact(&mut connection, &context, mode, |tx| {
                    let mut completed = None;
                    for piece in pieces.by_ref() {
                        completed = piece.perform(tx, &context, &schema, stages_from)?;
                        if completed.is_some() || writer.is_wanted() {
                            break;
                        }
                    }
                    Ok::<_, StoreError>(completed)
                })?;
                *lock(&local) = state;
                changed.append(&mut context.take_changed_tables());
                outcome = completed.or(outcome);
            }
            if let Some(Outcome::Published(rows)) = &outcome {
                changed.extend(rows.keys().cloned());
            }
            if log.is_long() {
                log.shorten(); // the download waits for its own
            }
            Ok::<_, StoreError>((outcome, changed))
        })
        .await?;
        self.changes.announce(changed);
        Ok(outcome)
    }

    /// The buckets and positions for the next request.
    pub(crate) async fn bucket_states(&self) -> Result<Vec<BucketState>, StoreError> {
        self.read(oplog::bucket_states).await
    }

    async fn transact<T, E>(
        &self,
        durability: Durability,
        author: Author,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let (writer, log) = (Arc::clone(&self.writer), Arc::clone(&self.log));
        let (context, local) = (Arc::clone(&self.context), Arc::clone(&self.local));
        let (result, changed) = blocking(move || {
            let mut connection = writer.lock();
            let (result, state) = transact(&mut connection, &context, (durability, author), work)?;
            *lock(&local) = state;
            let changed = context.take_changed_tables();
            if log.is_too_long() {
                log.empty(); // with the connection still locked
            }
            Ok::<_, E>((result, changed))
        })
        .await?;
        self.changes.announce(changed);
        if self.log.is_long() {
            let log = Arc::clone(&self.log);
            tokio::task::spawn_blocking(move || log.shorten());
        }
        Ok(result)
    }
}

/// Part of a step, short enough for others to wait for its end.
enum Piece<'steps> {
    Delete(&'steps [String]),
    Apply(&'steps str, &'steps [Operation]),
    Complete(&'steps Completion),
}

impl Piece<'_> {
    /// What became of it, if it is a completion.
    fn perform(
        self,
        tx: &Connection,
        context: &WriteContext,
        schema: &Schema,
        stages_from: usize,
    ) -> Result<Option<Outcome>, StoreError> {
        match self {
            Self::Delete(names) => oplog::delete_buckets(tx, names)?,
            Self::Apply(bucket, operations) => {
                let staging = Staging::new(tx, schema, operations.len() >= stages_from);
                oplog::apply(tx, bucket, operations, staging)?;
                context.take_changed_tables(); // nobody sees what was staged
            }
            Self::Complete(completion) => return publish::complete(tx, completion, schema).map(Some),
        }
        Ok(None)
    }
}

fn pieces(step: &StoreStep) -> Box<dyn Iterator<Item = Piece<'_>> + '_> {
    match step {
        StoreStep::DeleteBuckets(names) => Box::new(std::iter::once(Piece::Delete(names))),
        StoreStep::Complete(completion) => Box::new(std::iter::once(Piece::Complete(completion))),
        StoreStep::ApplyData(line) => {
            Box::new(line.data.chunks(OPERATIONS_PER_PIECE).map(|part| Piece::Apply(&line.bucket, part)))
        }
    }
}

fn transact<T, E: From<StoreError>>(
    connection: &mut Connection,
    context: &WriteContext,
    (durability, author): (Durability, Author),
    work: impl FnOnce(&Transaction<'_>) -> Result<T, E>,
) -> Result<(T, LocalState), E> {
    let begin = |connection: &mut Connection| -> Result<(), StoreError> {
        context.take_changed_tables(); // left over when an earlier transaction was rolled back
        let mode = if durability == Durability::Synced { "full" } else { "normal" };
        Ok(connection.pragma_update(None, "synchronous", mode)?)
    };
    begin(connection)?;
    context.tx_id.fetch_add(1, Ordering::Relaxed);
    context.captures.store(author == Author::App, Ordering::Relaxed);
    let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(StoreError::from)?;
    if author == Author::Sync {
        raw::defer_foreign_keys(&tx)?;
    }
    let result = work(&tx)?;
    let state = crud::local_state(&tx)?;
    tx.commit().map_err(StoreError::from)?;
    Ok((result, state))
}

pub(crate) fn prepare(connection: &Connection) -> Result<(), StoreError> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    // The triggers' own effects must not depend on what an app sets.
    connection.pragma_update(None, "recursive_triggers", false)?;
    connection.pragma_update(None, "cache_size", -8192)?; // 8 MiB
    Ok(())
}

/// A closure of the app that panicked leaves a rolled back transaction behind, so the connection is fit for use.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn blocking<T, E>(work: impl FnOnce() -> Result<T, E> + Send + 'static) -> Result<T, E>
where
    T: Send + 'static,
    E: From<StoreError> + Send + 'static,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(StoreError::ShuttingDown.into()),
        },
    }
}
