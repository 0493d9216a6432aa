//! Following the stream: whole transactions, several to a store commit when they come quickly.
//!
//! Runs on a thread of its own, because the store blocks. Another task reads the socket meanwhile and answers
//! keepalives; see [`crate::postgres::wal_stream`].

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, mpsc::error::TryRecvError},
};

use crate::{
    lsn::Lsn,
    postgres::{
        PgError,
        pgoutput::{LogicalMessage, Message, Relation, Truncate, Tuple},
        wal_stream::{StreamEvent, WalStream},
    },
    replication::{
        apply::{Applier, Upserted},
        copy::{
            CopyMessage, DeskChannels,
            desk::{Desk, Work},
        },
        error::ReplicationError,
        relations::{Described, Relations, SourceRelation},
        replicator::Replicator,
        state::ReplicationState,
        types::Types,
    },
};

/// Says which logical messages are ours.
pub(super) const MESSAGE_PREFIX: &str = "kairos";
/// A store commit takes no further transactions once it has run for so long, or holds so much.
const GROUP_TIME_MAX: Duration = Duration::from_millis(20);
const GROUP_BYTES_MAX: usize = 1024 * 1024;
/// How often a position that moved without any change for us is stored.
const IDLE_COMMIT_INTERVAL: Duration = Duration::from_secs(5);

/// Applies the stream until it ends; `Ok` when it was closed on purpose.
pub(super) fn apply_stream(
    replicator: &Replicator,
    start: Start,
    wal: WalStream,
    copies: DeskChannels,
) -> Result<(), ReplicationError> {
    let Start { mut state, catalog_seen_at, partitions } = start;
    let prefix = replicator.store.bucket_prefix()?;
    let mut relations = Relations::new(&replicator.plan, prefix, &state.tables, partitions);
    let types = Types::new(&replicator.source, &state.tables);
    let work = Work { replicator, relations: &mut relations, state: &mut state };
    let desk = Desk::new(copies, &work)?;
    let mut follower =
        Follower { replicator, relations, types, state, catalog_seen_at, wal, desk, idle_since: Instant::now() };
    let mut prefers_stream = true;
    loop {
        // In turns, so that neither waits for the other.
        prefers_stream = !prefers_stream;
        match follower.next(prefers_stream) {
            Next::Event(event) => {
                if !follower.apply_group(event?)? {
                    return Ok(());
                }
            }
            Next::Copy(message) => {
                let (desk, mut work) = follower.desk();
                desk.handle(&mut work, message)?;
            }
            Next::Sweep => {
                let (desk, mut work) = follower.desk();
                desk.sweep(&mut work)?;
            }
            Next::End => return Ok(()),
        }
    }
}

/// Where to follow from.
pub(super) struct Start {
    pub(super) state: ReplicationState,
    /// Where the source's WAL ended before its catalog was looked at.
    pub(super) catalog_seen_at: Lsn,
    /// Partitions whose changes come as those of the whole table.
    pub(super) partitions: BTreeSet<u32>,
}

/// What there is to do.
enum Next {
    Event(Result<StreamEvent, PgError>),
    Copy(CopyMessage),
    Sweep,
    End,
}

struct Follower<'r> {
    replicator: &'r Replicator,
    relations: Relations<'r>,
    types: Types<'r>,
    state: ReplicationState,
    catalog_seen_at: Lsn,
    wal: WalStream,
    desk: Desk,
    /// When the last position was stored.
    idle_since: Instant,
}

/// What will become one store commit.
struct Group<'r> {
    applier: Applier<'r>,
    started: Instant,
    transaction: Transaction,
    /// Everything before it is in the group.
    position: Option<Lsn>,
    /// Whether the position alone is worth a commit: somebody may wait for it.
    is_awaited: bool,
    transaction_count: u64,
}

/// Where in the stream of transactions we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Transaction {
    /// Between two.
    None,
    /// In one that is being applied; its commit is here.
    Applying(Lsn),
    /// In one that was applied before the stream was opened.
    Skipping,
}

impl<'r> Follower<'r> {
    fn desk(&mut self) -> (&mut Desk, Work<'_, 'r>) {
        let work = Work { replicator: self.replicator, relations: &mut self.relations, state: &mut self.state };
        (&mut self.desk, work)
    }

    /// Waits until there is something to do.
    fn next(&mut self, prefers_stream: bool) -> Next {
        let mut copy = if prefers_stream { None } else { self.desk.try_recv() };
        if copy.is_none() {
            match self.wal.events.try_recv() {
                Ok(event) => return Next::Event(event),
                Err(TryRecvError::Disconnected) => return Next::End,
                Err(TryRecvError::Empty) => copy = self.desk.try_recv(),
            }
        }
        if let Some(message) = copy {
            return Next::Copy(message);
        }
        if self.desk.has_sweeps() {
            return Next::Sweep;
        }
        let (events, desk) = (&mut self.wal.events, &mut self.desk);
        Handle::current().block_on(async {
            tokio::select! {
                event = events.recv() => event.map_or(Next::End, Next::Event),
                message = desk.recv() => Next::Copy(message),
            }
        })
    }

    /// Applies whole transactions until there is enough for a commit, or nothing more has arrived. `false` when the
    /// stream was closed; an unfinished transaction is forgotten then, and comes again.
    fn apply_group(&mut self, first: StreamEvent) -> Result<bool, ReplicationError> {
        let mut group = Group {
            applier: Applier::new(self.replicator.store.as_ref()),
            started: Instant::now(),
            transaction: Transaction::None,
            position: None,
            is_awaited: false,
            transaction_count: 0,
        };
        self.handle(&mut group, first)?;
        loop {
            let next = if group.transaction == Transaction::None {
                if group.started.elapsed() >= GROUP_TIME_MAX || group.applier.bytes() >= GROUP_BYTES_MAX {
                    break;
                }
                match self.wal.events.try_recv() {
                    Ok(event) => Some(event),
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => None,
                }
            } else {
                self.wal.events.blocking_recv()
            };
            match next {
                Some(event) => self.handle(&mut group, event?)?,
                None if group.transaction == Transaction::None => break,
                None => return Ok(false),
            }
        }
        self.commit(group)?;
        Ok(true)
    }

    fn handle(&mut self, group: &mut Group<'r>, event: StreamEvent) -> Result<(), ReplicationError> {
        match event {
            StreamEvent::Keepalive { position, is_urgent } => {
                self.replicator.progress.heard(position);
                // Inside a transaction the position may lie beyond what has been sent of it.
                if group.transaction == Transaction::None {
                    group.advance(position);
                    group.is_awaited |= is_urgent;
                }
                Ok(())
            }
            StreamEvent::Message { message, size, room } => {
                self.replicator.metrics.bytes_replicated.inc_by(size as u64);
                self.handle_message(group, message, room)
            }
        }
    }

    /// `_room` is held until the change is in the batch, where it is counted anew.
    fn handle_message(
        &mut self,
        group: &mut Group<'r>,
        message: Message,
        _room: OwnedSemaphorePermit,
    ) -> Result<(), ReplicationError> {
        match message {
            Message::Begin(begin) => {
                self.desk.ledger.applied(begin.xid);
                let is_known = begin.commit_lsn < self.state.resume.max(group.position.unwrap_or_default());
                group.transaction =
                    if is_known { Transaction::Skipping } else { Transaction::Applying(begin.commit_lsn) };
                Ok(())
            }
            Message::Commit(commit) => {
                if group.transaction != Transaction::Skipping {
                    group.transaction_count += 1;
                    group.is_awaited = true;
                }
                group.transaction = Transaction::None;
                group.advance(commit.end_lsn);
                self.replicator.progress.heard(commit.end_lsn);
                Ok(())
            }
            Message::Relation(relation) => self.describe(group, &relation),
            Message::Logical(message) => {
                logical_message(group, &message);
                Ok(())
            }
            change => match group.transaction {
                Transaction::Applying(commit_lsn) => self.apply(group, change, commit_lsn),
                Transaction::Skipping => Ok(()),
                Transaction::None => Err(PgError::Protocol("a change outside of a transaction").into()),
            },
        }
    }

    fn describe(&mut self, group: &Group<'r>, relation: &Relation) -> Result<(), ReplicationError> {
        let is_history = match group.transaction {
            Transaction::Applying(commit_lsn) => commit_lsn < self.catalog_seen_at,
            Transaction::Skipping | Transaction::None => true,
        };
        let ledger = &self.desk.ledger;
        let has_rows = |table| ledger.has_rows(table);
        let described =
            self.relations.describe(relation, &mut self.state.tables, &mut self.types, is_history, has_rows)?;
        if let Described::Outdated(table) = described {
            tracing::info!(
                "{}.{} has other columns or types now: its rows are copied again",
                relation.schema,
                relation.name
            );
            let (desk, work) = self.desk();
            desk.begin(&work, table)?;
        }
        Ok(())
    }

    fn apply(&mut self, group: &mut Group<'r>, change: Message, commit_lsn: Lsn) -> Result<(), ReplicationError> {
        self.replicator.metrics.rows_replicated.inc();
        match change {
            Message::Insert(insert) => {
                self.look_at_types(group, insert.relation, &insert.new)?;
                let Some(table) = self.table(insert.relation)? else { return Ok(()) };
                group.applier.upsert(table, None, insert.new)?;
            }
            Message::Update(update) => {
                self.look_at_types(group, update.relation, &update.new)?;
                let Some(table) = self.table(update.relation)? else { return Ok(()) };
                let outcome = group.applier.upsert(table, update.old, update.new)?;
                // While its table is copied the row comes with the copy.
                let is_expected = table.is_being_copied || commit_lsn < self.state.consistent_from;
                if outcome == Upserted::RowMissing && !is_expected {
                    return Err(ReplicationError::RowMissing { table: table.full_name() });
                }
            }
            Message::Delete(delete) => {
                let Some(table) = self.table(delete.relation)? else { return Ok(()) };
                group.applier.delete(table, delete.old)?;
            }
            Message::Truncate(Truncate { relations }) => {
                for oid in relations {
                    if let Some(table) = self.table(oid)? {
                        let id = table.id;
                        group.applier.truncate(table)?;
                        self.desk.ledger.truncate(id);
                    }
                }
            }
            _ => {}
        }
        for (key, kind) in group.applier.take_touched() {
            self.desk.ledger.touch(key, kind);
        }
        Ok(())
    }

    /// The stream does not say when a type changes: a row may be the first to show it.
    fn look_at_types(&mut self, group: &Group<'r>, oid: u32, row: &Tuple) -> Result<(), ReplicationError> {
        let Some(table) = self.relations.by_oid(oid).filter(|table| table.is_outgrown_by(row)) else {
            return Ok(());
        };
        match self.types.look_again(oid, table.columns())? {
            Some(relation) => self.describe(group, &relation),
            None => Ok(()),
        }
    }

    /// `None` for a table the rules do not read.
    fn table(&self, oid: u32) -> Result<Option<&SourceRelation>, ReplicationError> {
        if self.relations.is_ignored(oid) {
            return Ok(None);
        }
        match self.relations.by_oid(oid) {
            None => Err(PgError::Protocol("a change of a table it has not described").into()),
            table => Ok(table),
        }
    }

    fn commit(&mut self, mut group: Group<'r>) -> Result<(), ReplicationError> {
        let Some(position) = group.position.filter(|position| *position > self.state.resume) else {
            return Ok(());
        };
        if !group.is_awaited && self.idle_since.elapsed() < IDLE_COMMIT_INTERVAL {
            return Ok(());
        }
        group.applier.settle(&self.relations)?;
        self.replicator.report(&group.applier.take_errors());
        self.state.resume = position;
        let mut batch = group.applier.finish();
        batch.replication_state = Some(self.state.to_bytes());
        batch.visible_at = self.state.visible_at();
        self.replicator.commit(batch)?;
        // Only now may the source forget it.
        self.wal.durable.send_replace(position);
        self.desk.passed(position);
        self.idle_since = Instant::now();
        self.replicator.metrics.transactions_replicated.inc_by(group.transaction_count);
        self.replicator.set_resume(position);
        let (desk, mut work) = self.desk();
        desk.begin_due(&mut work)
    }
}

impl Group<'_> {
    fn advance(&mut self, position: Lsn) {
        self.position = self.position.max(Some(position));
    }
}

/// A message of ours says that everything before it has been sent. One in a transaction counts with its commit.
fn logical_message(group: &mut Group<'_>, message: &LogicalMessage) {
    if message.prefix == MESSAGE_PREFIX && !message.is_transactional && group.transaction == Transaction::None {
        group.advance(message.lsn);
        group.is_awaited = true;
    }
}
