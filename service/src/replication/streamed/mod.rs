//! Streamed transactions, put together: the follower only ever meets whole ones.
//!
//! The source sends a large transaction in parts while it runs, mixed with other transactions and with parts of other
//! large ones. Parts are kept in a [`Spool`] each, and handed out when the commit comes, as if everything had been sent
//! then. What was rolled back is forgotten.
//!
//! **Invariants**
//!
//! - Memory is bounded: beyond [`MEMORY_MAX`] the largest spool goes to a file.
//! - A position inside a part is no position: the source may be further on than what it has sent.
//! - Nothing follows an error.
//! - Nothing kept here counts as received. After a lost connection the source sends it again.
//!
//! Start reading at [`Inbox`].

mod descriptions;
#[cfg(test)]
mod fuzz;
mod spool;

use std::{
    collections::{HashMap, HashSet, VecDeque},
    io,
    path::Path,
};

use tokio::sync::mpsc::error::TryRecvError;

use self::{
    descriptions::Descriptions,
    spool::{Changes, Spool},
};
use crate::{
    fault_point::fault_point,
    lsn::Lsn,
    metrics::Metrics,
    postgres::{
        PgError,
        pgoutput::{Begin, Message, StreamAbort, StreamCommit, StreamedChange, decode},
        wal_stream::{EventReceiver, StreamEvent},
    },
    replication::{error::ReplicationError, status::ReplicationStatus},
};

/// Bytes of all open transactions that are kept in memory.
const MEMORY_MAX: usize = 8 * 1024 * 1024;
/// First byte of the message that describes a table.
const RELATION: u8 = b'R';

/// What the follower meets, in order.
#[derive(Debug)]
pub(super) enum Incoming {
    /// A message of a whole transaction, or between two.
    Message(Message),
    /// Everything before this position has been sent, or concerns nobody here.
    Position {
        /// Where the server's reading of the WAL stands.
        position: Lsn,
        /// Whether the server wants to know what is durable.
        is_urgent: bool,
    },
    /// Something was kept until later: there is nothing to do.
    Kept,
}

/// The stream, with its streamed transactions whole.
pub(super) struct Inbox<'r> {
    events: EventReceiver,
    metrics: &'r Metrics,
    status: &'r ReplicationStatus,
    /// Where spools go that are too large for memory.
    folder: &'r Path,
    open: HashMap<u32, OpenTransaction>,
    /// Bytes of the spools that are in memory, and how many may be.
    memory_bytes: usize,
    memory_max: usize,
    /// The transaction a part of which is being received.
    part_of: Option<u32>,
    descriptions: Descriptions,
    /// The committed transaction that is being handed out.
    replay: Option<Replay>,
    /// Set by the first error: what comes after it cannot be relied on.
    has_failed: bool,
}

/// A streamed transaction that has not ended.
#[derive(Debug, Default)]
struct OpenTransaction {
    spool: Spool,
    /// Subtransactions that were rolled back.
    aborted: HashSet<u32>,
}

/// A committed transaction on its way to the follower.
struct Replay {
    changes: Changes,
    aborted: HashSet<u32>,
    /// What comes before the changes, and after them.
    begin: Option<Message>,
    end: VecDeque<Message>,
}

/// While the stream is being closed nothing more is handed out: the rest of a large transaction would keep a service that
/// is to end, and comes again.
impl<'r> Inbox<'r> {
    pub(super) fn new(
        events: EventReceiver,
        metrics: &'r Metrics,
        status: &'r ReplicationStatus,
        folder: &'r Path,
    ) -> Self {
        Self {
            events,
            metrics,
            status,
            folder,
            open: HashMap::new(),
            memory_bytes: 0,
            memory_max: MEMORY_MAX,
            part_of: None,
            descriptions: Descriptions::default(),
            replay: None,
            has_failed: false,
        }
    }

    fn is_over(&self) -> bool {
        self.has_failed || self.events.is_closing()
    }

    /// What has arrived. [`TryRecvError::Disconnected`] after the last.
    pub(super) fn try_recv(&mut self) -> Result<Result<Incoming, ReplicationError>, TryRecvError> {
        if self.is_over() {
            return Err(TryRecvError::Disconnected);
        }
        if let Some(message) = self.next_of_replay() {
            return Ok(message);
        }
        let event = self.events.try_recv()?;
        Ok(self.take(event))
    }

    /// What comes next, once it has arrived; `None` after the last. Not to be called from asynchronous code.
    pub(super) fn blocking_recv(&mut self) -> Option<Result<Incoming, ReplicationError>> {
        if self.is_over() {
            return None;
        }
        if let Some(message) = self.next_of_replay() {
            return Some(message);
        }
        let event = self.events.blocking_recv()?;
        Some(self.take(event))
    }

    /// What comes next, once it has arrived; `None` after the last. Cancelling loses nothing.
    pub(super) async fn recv(&mut self) -> Option<Result<Incoming, ReplicationError>> {
        if self.is_over() {
            return None;
        }
        if let Some(message) = self.next_of_replay() {
            return Some(message);
        }
        let event = self.events.recv().await?;
        Some(self.take(event))
    }

    fn take(&mut self, event: Result<StreamEvent, PgError>) -> Result<Incoming, ReplicationError> {
        let taken = event.map_err(ReplicationError::from).and_then(|event| self.take_event(event));
        self.has_failed |= taken.is_err();
        taken
    }

    fn take_event(&mut self, event: StreamEvent) -> Result<Incoming, ReplicationError> {
        match event {
            StreamEvent::Keepalive { position, is_urgent } => {
                self.status.heard(position);
                let is_between_parts = self.part_of.is_none();
                Ok(if is_between_parts { Incoming::Position { position, is_urgent } } else { Incoming::Kept })
            }
            // Its room is given back here: what is kept is counted anew.
            StreamEvent::Message { message, size, room: _room } => {
                self.metrics.bytes_replicated.inc_by(size as u64);
                self.receive(message)
            }
        }
    }

    fn receive(&mut self, message: Message) -> Result<Incoming, ReplicationError> {
        match message {
            Message::PartStart(start) => {
                self.part_of = Some(start.xid);
                self.open.entry(start.xid).or_default();
            }
            Message::PartStop => {
                self.part_of = None;
                fault_point("reader.after-streamed-part");
                // The source is alive, wherever it is.
                self.status.heard(Lsn::ZERO);
                self.count();
            }
            Message::Streamed(change) => self.keep(&change)?,
            Message::StreamAbort(abort) => self.abort(&abort),
            Message::StreamCommit(commit) => self.commit(commit)?,
            Message::Relation(relation) => {
                if !self.open.is_empty() {
                    self.descriptions.received(relation.clone());
                }
                return Ok(Incoming::Message(Message::Relation(relation)));
            }
            message => return Ok(Incoming::Message(message)),
        }
        Ok(Incoming::Kept)
    }

    fn keep(&mut self, StreamedChange { xid, change }: &StreamedChange) -> Result<(), ReplicationError> {
        let Some((part_of, transaction)) = self.part_of.and_then(|xid| Some((xid, self.open.get_mut(&xid)?))) else {
            return Err(PgError::Protocol("a change outside of a transaction").into());
        };
        self.memory_bytes += transaction.spool.push(*xid, change);
        if change.first() == Some(&RELATION) {
            match decode(change.clone()) {
                Ok(Message::Relation(relation)) => self.descriptions.received_in(part_of, relation),
                _ => return Err(malformed()),
            }
        }
        if self.memory_bytes > self.memory_max
            && let Some(largest) = self.open.values_mut().max_by_key(|transaction| transaction.spool.memory_bytes())
        {
            self.memory_bytes -= largest.spool.memory_bytes();
            largest.spool.spill(self.folder).map_err(|source| spool_failed(self.folder, source))?;
        }
        Ok(())
    }

    fn abort(&mut self, StreamAbort { xid, subxid }: &StreamAbort) {
        if xid == subxid {
            self.descriptions.abort(*xid);
            self.end(*xid);
        } else if let Some(transaction) = self.open.get_mut(xid) {
            transaction.aborted.insert(*subxid);
        }
    }

    fn commit(&mut self, StreamCommit { xid, commit }: StreamCommit) -> Result<(), ReplicationError> {
        let described_again = self.descriptions.commit(xid).into_iter().map(Message::Relation);
        let end = described_again.chain([Message::Commit(commit.clone())]).collect();
        // To take it for an empty one would be to lose it.
        let Some(OpenTransaction { spool, aborted }) = self.end(xid) else {
            return Err(PgError::Protocol("the commit of a transaction of which nothing was sent").into());
        };
        let changes = spool.into_changes().map_err(|source| spool_failed(self.folder, source))?;
        let begin = Message::Begin(Begin { commit_lsn: commit.commit_lsn, xid });
        self.replay = Some(Replay { begin: Some(begin), changes, aborted, end });
        Ok(())
    }

    /// The transaction is no longer open; `None` if it never was.
    fn end(&mut self, xid: u32) -> Option<OpenTransaction> {
        let transaction = self.open.remove(&xid)?;
        self.memory_bytes -= transaction.spool.memory_bytes();
        if self.open.is_empty() {
            self.descriptions.clear();
        }
        self.count();
        Some(transaction)
    }

    fn count(&self) {
        let bytes: u64 = self.open.values().map(|transaction| transaction.spool.byte_count()).sum();
        self.metrics.open_transaction_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    fn next_of_replay(&mut self) -> Option<Result<Incoming, ReplicationError>> {
        let message = self.replay.as_mut()?.next(self.folder).transpose();
        match &message {
            None => self.replay = None,
            Some(message) => self.has_failed |= message.is_err(),
        }
        message.map(|message| message.map(Incoming::Message))
    }
}

impl Replay {
    fn next(&mut self, folder: &Path) -> Result<Option<Message>, ReplicationError> {
        if let Some(begin) = self.begin.take() {
            return Ok(Some(begin));
        }
        for change in self.changes.by_ref() {
            let (xid, change) = change.map_err(|source| spool_failed(folder, source))?;
            // A table is described once, be it by a subtransaction that was rolled back later.
            if self.aborted.contains(&xid) && change.first() != Some(&RELATION) {
                continue;
            }
            match decode(change).map_err(|_| malformed())? {
                Message::Ignored => {}
                message => return Ok(Some(message)),
            }
        }
        Ok(self.end.pop_front())
    }
}

fn spool_failed(folder: &Path, source: io::Error) -> ReplicationError {
    ReplicationError::Spool { folder: folder.to_owned(), source }
}

fn malformed() -> ReplicationError {
    PgError::Protocol("a malformed change").into()
}
