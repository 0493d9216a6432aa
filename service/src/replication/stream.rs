//! Following the stream: whole transactions, several to a store commit when they come quickly.
//!
//! A transaction that is too large for one commit is stored in parts, of which clients see nothing before the last one.
//! How many of its changes are stored is stored with them, and that the source sends the same changes again after an
//! interruption makes it enough: they are passed over then.
//!
//! Runs on a thread of its own, because the store blocks. Another task reads the socket meanwhile and answers
//! keepalives; see [`crate::postgres::wal_stream`].

use std::{
    collections::BTreeSet,
    mem,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use tokio::{
    runtime::Handle,
    sync::{mpsc::error::TryRecvError, watch},
    time::sleep_until,
};
use tracing::{Span, field};

use crate::{
    deployment::RulesState,
    fault_point::fault_point,
    lsn::Lsn,
    postgres::{
        PgError,
        pgoutput::{Begin, Commit, LogicalMessage, Message, Relation, Truncate, Tuple},
        wal_stream::WalStream,
    },
    replication::{
        apply::{Applier, Upserted},
        copy::{CopyMessage, DeskChannels, desk::Desk},
        error::ReplicationError,
        mending::Mending,
        plans::Plans,
        relations::{Described, Relations, SourceRelation},
        replicator::Replicator,
        rollout::{Rollout, Stepped},
        state::{PartialTransaction, ReplicationState},
        streamed::{Inbox, Incoming},
        types::Types,
        work::{PART, Work},
    },
    traces::{number, trace_span},
};

/// Says which logical messages are ours.
pub(super) const MESSAGE_PREFIX: &str = "kairos";
/// A store commit takes no further transactions once it has run for so long, or holds so much. It ends at once when no
/// other transaction has arrived, so only those wait for it that have to wait anyway.
const GROUP_TIME_MAX: Duration = Duration::from_millis(40);
const GROUP_BYTES_MAX: usize = 2 * 1024 * 1024;
/// How often a position that moved without any change for us is stored.
const IDLE_COMMIT_INTERVAL: Duration = Duration::from_secs(5);

/// Why the stream is no longer applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Applied {
    /// It was closed on purpose.
    Closed,
    /// Clients are served by other rules now, by which the rest is to be applied.
    Switched,
}

/// Applies the stream until it ends.
pub(super) fn apply_stream(
    replicator: &Replicator,
    start: Start,
    wal: WalStream,
    copies: DeskChannels,
) -> Result<Applied, ReplicationError> {
    let Start { mut state, rules, plans, catalog_seen_at, partitions } = start;
    let prefix = replicator.store.bucket_prefix()?;
    let mut relations = Relations::new(&plans, prefix, &state.tables, partitions);
    let types = Types::new(&replicator.source, &state.tables);
    let mut work = Work { replicator, relations: &mut relations, state: &mut state };
    work.store_rest()?;
    let desk = Desk::new(copies, &work)?;
    let WalStream { events, durable } = wal;
    let inbox = Inbox::new(events, &replicator.metrics, &replicator.progress, &replicator.spool_folder);
    let idle_since = Instant::now();
    let (rollout, mending) = (Rollout::new(rules), Mending::new());
    let mut follower = Follower {
        replicator,
        relations,
        types,
        state,
        catalog_seen_at,
        inbox,
        durable,
        desk,
        rollout,
        mending,
        idle_since,
    };
    let mut prefers_stream = true;
    loop {
        // In turns, so that neither waits for the other.
        prefers_stream = !prefers_stream;
        match follower.next(prefers_stream) {
            Next::Incoming(incoming) => {
                if !follower.apply_group(incoming?)? {
                    return Ok(Applied::Closed);
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
            Next::Rollout => {
                if follower.roll_out()? == Stepped::Switched {
                    return Ok(Applied::Switched);
                }
            }
            Next::Mending => follower.mend()?,
            Next::End => return Ok(Applied::Closed),
        }
    }
}

/// Where to follow from.
pub(super) struct Start {
    pub(super) state: ReplicationState,
    pub(super) rules: RulesState,
    pub(super) plans: Arc<Plans>,
    /// Where the source's WAL ended before its catalog was looked at.
    pub(super) catalog_seen_at: Lsn,
    /// Partitions whose changes come as those of the whole table.
    pub(super) partitions: BTreeSet<u32>,
}

/// What there is to do.
enum Next {
    Incoming(Result<Incoming, ReplicationError>),
    Copy(CopyMessage),
    Sweep,
    Rollout,
    Mending,
    End,
}

struct Follower<'r> {
    replicator: &'r Replicator,
    relations: Relations<'r>,
    types: Types<'r>,
    state: ReplicationState,
    catalog_seen_at: Lsn,
    inbox: Inbox<'r>,
    /// What the source is told to be durable.
    durable: watch::Sender<Lsn>,
    desk: Desk,
    rollout: Rollout,
    mending: Mending,
    /// When the last position was stored.
    idle_since: Instant,
}

/// What will become one store commit.
struct Group<'r> {
    applier: Applier<'r>,
    started: Instant,
    transaction: Transaction,
    /// Changes of the current transaction that are in the group or in the store.
    change_count: u64,
    /// Changes of the current transaction that an earlier attempt has stored.
    stored_count: u64,
    /// Everything before it is in the group.
    position: Option<Lsn>,
    /// Whether the position alone is worth a commit: somebody may wait for it.
    is_awaited: bool,
    transaction_count: u64,
    /// When the first of its transactions was committed in the source.
    committed_at: Option<SystemTime>,
    /// Of traces; begins with the first transaction.
    span: Span,
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

    fn work(&mut self) -> Work<'_, 'r> {
        Work { replicator: self.replicator, relations: &mut self.relations, state: &mut self.state }
    }

    fn roll_out(&mut self) -> Result<Stepped, ReplicationError> {
        let mut work = Work { replicator: self.replicator, relations: &mut self.relations, state: &mut self.state };
        self.rollout.step(&mut work)
    }

    fn mend(&mut self) -> Result<(), ReplicationError> {
        let mut work = Work { replicator: self.replicator, relations: &mut self.relations, state: &mut self.state };
        self.mending.step(&mut work)
    }

    /// Work that waits for nobody.
    fn background(&self) -> Option<Next> {
        if self.desk.has_sweeps() {
            return Some(Next::Sweep);
        }
        if self.mending.has_work(&self.state) {
            return Some(Next::Mending);
        }
        self.rollout.has_work(&self.state).then_some(Next::Rollout)
    }

    /// Waits until there is something to do.
    fn next(&mut self, prefers_stream: bool) -> Next {
        let mut copy = if prefers_stream { None } else { self.desk.try_recv() };
        if copy.is_none()
            && !prefers_stream
            && let Some(background) = self.background()
        {
            return background;
        }
        if copy.is_none() {
            match self.inbox.try_recv() {
                Ok(incoming) => return Next::Incoming(incoming),
                Err(TryRecvError::Disconnected) => return Next::End,
                Err(TryRecvError::Empty) => copy = self.desk.try_recv(),
            }
        }
        if let Some(message) = copy {
            return Next::Copy(message);
        }
        if let Some(background) = self.background() {
            return background;
        }
        let (due, look) = (self.rollout.due(), self.mending.due(&self.state));
        let (inbox, desk) = (&mut self.inbox, &mut self.desk);
        Handle::current().block_on(async {
            tokio::select! {
                incoming = inbox.recv() => incoming.map_or(Next::End, Next::Incoming),
                message = desk.recv() => Next::Copy(message),
                () = until(due) => Next::Rollout,
                () = until(look) => Next::Mending,
            }
        })
    }

    /// Applies whole transactions until there is enough for a commit, or nothing more has arrived. `false` when the
    /// stream was closed; an unfinished transaction is forgotten then, and comes again.
    fn apply_group(&mut self, first: Incoming) -> Result<bool, ReplicationError> {
        let mut group = Group {
            applier: Applier::new(self.replicator.store.as_ref()),
            started: Instant::now(),
            transaction: Transaction::None,
            change_count: 0,
            stored_count: 0,
            position: None,
            is_awaited: false,
            transaction_count: 0,
            committed_at: None,
            span: Span::none(),
        };
        self.handle(&mut group, first)?;
        loop {
            let next = if group.transaction == Transaction::None {
                if group.started.elapsed() >= GROUP_TIME_MAX || group.applier.bytes() >= GROUP_BYTES_MAX {
                    break;
                }
                match self.inbox.try_recv() {
                    Ok(incoming) => Some(incoming),
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => None,
                }
            } else {
                self.inbox.blocking_recv()
            };
            match next {
                Some(incoming) => self.handle(&mut group, incoming?)?,
                None if group.transaction == Transaction::None => break,
                None => return Ok(false),
            }
        }
        self.commit(group)?;
        Ok(true)
    }

    fn handle(&mut self, group: &mut Group<'r>, incoming: Incoming) -> Result<(), ReplicationError> {
        match incoming {
            Incoming::Message(message) => self.handle_message(group, message),
            // Inside a transaction the position may lie beyond what has been sent of it.
            Incoming::Position { position, is_urgent } if group.transaction == Transaction::None => {
                fault_point("reader.at-keepalive");
                group.advance(position);
                group.is_awaited |= is_urgent;
                Ok(())
            }
            Incoming::Position { .. } | Incoming::Kept => Ok(()),
        }
    }

    fn handle_message(&mut self, group: &mut Group<'r>, message: Message) -> Result<(), ReplicationError> {
        match message {
            Message::Begin(begin) => self.begin(group, &begin),
            Message::Commit(commit) => {
                self.end(group, &commit);
                Ok(())
            }
            Message::Relation(relation) => self.describe(group, &relation),
            Message::Logical(message) => {
                logical_message(group, &message);
                Ok(())
            }
            change => match group.transaction {
                Transaction::Applying(_) => {
                    if group.change_count >= group.stored_count {
                        self.apply(group, change)?;
                    }
                    group.change_count += 1;
                    fault_point("reader.in-transaction");
                    self.store_part(group)
                }
                Transaction::Skipping => Ok(()),
                Transaction::None => Err(PgError::Protocol("a change outside of a transaction").into()),
            },
        }
    }

    fn begin(&mut self, group: &mut Group<'r>, begin: &Begin) -> Result<(), ReplicationError> {
        self.desk.ledger.applied(begin.xid);
        // A large one is applied for a while.
        self.replicator.progress.saw_head(begin.commit_lsn);
        (group.change_count, group.stored_count) = (0, 0);
        if begin.commit_lsn < self.state.resume.max(group.position.unwrap_or_default()) {
            group.transaction = Transaction::Skipping;
            return Ok(());
        }
        group.transaction = Transaction::Applying(begin.commit_lsn);
        if group.span.is_none() {
            group.span = group_span();
        }
        fault_point("reader.after-begin");
        if let Some(partial) = self.state.partial {
            if partial.commit_lsn != begin.commit_lsn {
                return Err(ReplicationError::TransactionLost);
            }
            group.stored_count = partial.change_count;
            // What it did to tables being copied is not known here.
            self.desk.ledger.lost_track();
        }
        Ok(())
    }

    fn end(&mut self, group: &mut Group<'r>, commit: &Commit) {
        if group.transaction != Transaction::Skipping {
            group.transaction_count += 1;
            group.committed_at = group.committed_at.or(Some(commit.committed_at));
            group.is_awaited = true;
            self.state.partial = None;
        }
        group.transaction = Transaction::None;
        group.advance(commit.end_lsn);
        self.replicator.progress.heard(commit.end_lsn);
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

    fn apply(&mut self, group: &mut Group<'r>, change: Message) -> Result<(), ReplicationError> {
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
                if outcome == Upserted::Partly {
                    // While its table is copied the rest comes with the copy.
                    if !table.is_being_copied {
                        return Err(ReplicationError::RowMissing { table: table.full_name() });
                    }
                    let id = table.id;
                    self.state.has_gaps(id);
                }
            }
            Message::Delete(delete) => {
                let Some(table) = self.table(delete.relation)? else { return Ok(()) };
                group.applier.delete(table, delete.old)?;
            }
            Message::Truncate(Truncate { relations }) => {
                for oid in relations {
                    self.truncate(group, oid)?;
                }
            }
            _ => {}
        }
        for touched in group.applier.take_touched() {
            self.desk.ledger.touch(touched);
        }
        Ok(())
    }

    fn truncate(&mut self, group: &mut Group<'r>, oid: u32) -> Result<(), ReplicationError> {
        let Some(table) = self.table(oid)? else { return Ok(()) };
        group.applier.truncate(table)?;
        self.desk.ledger.truncate(table.id);
        let mut after = None;
        while let Some(table) = self.table(oid)? {
            after = group.applier.truncate_page(table, after.as_ref())?;
            if after.is_none() {
                break;
            }
            self.store_part(group)?;
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

    /// Stores what there is of a transaction that is too large for one commit, and goes on with it.
    fn store_part(&mut self, group: &mut Group<'r>) -> Result<(), ReplicationError> {
        let Transaction::Applying(commit_lsn) = group.transaction else { return Ok(()) };
        if !group.applier.is_full(PART) {
            return Ok(());
        }
        self.state.partial = Some(PartialTransaction { commit_lsn, change_count: group.change_count });
        let applier = mem::replace(&mut group.applier, Applier::new(self.replicator.store.as_ref()));
        group.span.in_scope(|| self.store(applier, group.position.unwrap_or_default()))?;
        fault_point("reader.after-part");
        Ok(())
    }

    fn commit(&mut self, group: Group<'r>) -> Result<(), ReplicationError> {
        let Some(position) = group.position.filter(|position| *position > self.state.resume) else {
            return Ok(());
        };
        if self.state.partial.is_some_and(|partial| position > partial.commit_lsn) {
            return Err(ReplicationError::TransactionLost);
        }
        if !group.is_awaited && self.idle_since.elapsed() < IDLE_COMMIT_INTERVAL {
            return Ok(());
        }
        group.span.record("transactions", number(group.transaction_count));
        group.span.in_scope(|| self.store(group.applier, position))?;
        self.idle_since = Instant::now();
        self.replicator.metrics.transactions_replicated.inc_by(group.transaction_count);
        if let Some(committed_at) = group.committed_at {
            // A clock that is behind that of the source shows no delay.
            let delay = committed_at.elapsed().unwrap_or_default();
            self.replicator.metrics.latencies.replication.observe(delay.as_secs_f64());
            self.replicator.progress.stored_after(delay);
            group.span.record("delay_ms", number(delay.as_millis()));
        }
        let (desk, mut work) = self.desk();
        desk.begin_due(&mut work)
    }

    /// Commits to the store: everything before `position` is there then.
    fn store(&mut self, applier: Applier<'r>, position: Lsn) -> Result<(), ReplicationError> {
        let resume = position.max(self.state.resume);
        self.state.resume = resume;
        fault_point("reader.before-store-commit");
        self.work().store(applier)?;
        fault_point("reader.before-feedback");
        // Only now may the source forget it.
        self.durable.send_replace(resume);
        self.desk.passed(resume);
        self.replicator.set_resume(resume);
        Ok(())
    }
}

/// From the first transaction of a group until it is stored; `delay_ms` is the time since that was committed.
fn group_span() -> Span {
    trace_span!(parent: None, "replication.group", transactions = field::Empty, delay_ms = field::Empty)
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due.into()).await,
        None => std::future::pending().await,
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
