//! The copy of tables: at first, after changes were missed, and when a table changed.
//!
//! ```text
//! reader (async): plan of pages ─► announce snapshot ─► take it ─► wait until the stream has passed it ─► COPY ─► rows
//!                                                                                     (`copied`: through the rules) │
//!                                       │                                                                   │
//! worker (the stream's thread):     ledger: what the stream touches from now on                   desk: apply, commit
//! ```
//!
//! A table is read in chunks of pages, several at once, while the stream goes on. The sessions also evaluate its rows, each
//! on a thread beside the worker's, unless the rules ask lookups. Both end on the stream's thread, which
//! alone writes to the store, so a copied row meets the row as the stream left it.
//!
//! **Invariants**
//!
//! - Rows are applied when the stream has passed the snapshot they were read in, and only those that the stream has not
//!   touched since it was announced. So the store equals the source at the stream's position for all that was
//!   copied, at every commit.
//! - A chunk counts as read in the commit of its last rows. After a crash the chunks not counted are read again.
//! - Pages count only for the file they were read from: a rewritten table is read again.
//! - Rows copied earlier are compared; what is the same gives clients nothing to download. Rows that were not met
//!   again are forgotten in the end.
//! - A row of which the stream sent only parts is stored as such, and completed when it is met; if it is not, because it
//!   moved to pages that had been read, it is fetched in the end.
//!
//! Start reading at [`reader`], then [`desk`].

pub(super) mod copied;
pub(super) mod desk;
pub(super) mod ledger;
mod pages;
mod progress;
pub(super) mod reader;
mod snapshot;

use std::sync::Arc;

use bytes::Bytes;
use kairos_sync_rules::SourceTable;
use tokio::sync::{mpsc, oneshot, watch};

use self::{copied::CopiedRow, ledger::SnapshotId};
use super::{
    relations::Layout,
    state::{ColumnState, PageRange, PartCopy, TableState},
};
use crate::{lsn::Lsn, postgres::preflight::source_table, storage::TableId};

/// Messages of the readers that wait for the worker. Each may hold a batch of rows.
const MESSAGES_AHEAD: usize = 1;

/// Names one copy of a table: when it is begun anew, chunks of the old one are worth nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CopyKey {
    table: TableId,
    first_layout: usize,
}

/// What is to be copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CopyOrder {
    key: CopyKey,
    schema: String,
    name: String,
    what: What,
}

/// Which rows of a table are to be copied.
#[derive(Debug, Clone, PartialEq, Eq)]
enum What {
    /// All but those in pages that have been read already.
    Pages { read: Vec<PartCopy> },
    /// Those of which only parts are known, by their identifying values. Numbered, because it may have to be asked for
    /// them again.
    Rows { round: u64, identities: Vec<Vec<Bytes>> },
    /// All, once the stream has come to where the copy may begin.
    Later,
}

impl CopyOrder {
    /// Whether it cannot begin yet.
    fn is_for_later(&self) -> bool {
        self.what == What::Later
    }

    /// The table as the rules name it.
    fn source_table(&self) -> SourceTable {
        source_table(&self.schema, &self.name)
    }

    /// Whether it is the same piece of work, however far it has come.
    fn is_same_work(&self, other: &Self) -> bool {
        self.key == other.key
            && match (&self.what, &other.what) {
                (What::Pages { .. }, What::Pages { .. }) => true,
                (What::Rows { round, .. }, What::Rows { round: other, .. }) => round == other,
                _ => false,
            }
    }

    /// `None` for a table that is copied, or of which only old rows are left to be forgotten.
    fn of(table: &TableState) -> Option<Self> {
        if table.due.is_some() {
            let key = CopyKey { table: table.id(), first_layout: usize::MAX };
            let (schema, name) = (table.schema.clone(), table.name.clone());
            return Some(Self { key, schema, name, what: What::Later });
        }
        let copy = table.copy.as_ref().filter(|copy| !copy.is_read)?;
        Some(Self {
            key: CopyKey { table: table.id(), first_layout: copy.first_layout },
            schema: table.schema.clone(),
            name: table.name.clone(),
            what: What::Pages { read: copy.parts.clone() },
        })
    }
}

/// From a reader to the worker.
#[derive(Debug)]
pub(super) enum CopyMessage {
    /// A snapshot is about to be taken, to read these columns. No answer: the copy was begun anew.
    Begin { key: CopyKey, columns: Vec<ColumnState>, begun: oneshot::Sender<Begun> },
    /// Rows of a chunk, read in a snapshot.
    Rows { key: CopyKey, snapshot: SnapshotId, rows: Vec<CopiedRow>, end: Option<ChunkEnd> },
    /// Nothing more is read in a snapshot.
    End { key: CopyKey, snapshot: SnapshotId },
    /// Everything that was ordered has been read.
    Read { key: CopyKey },
}

/// The worker has begun to note what the stream touches.
#[derive(Debug)]
pub(super) struct Begun {
    snapshot: SnapshotId,
    /// Of the rows.
    layout: Arc<Layout>,
    /// Transactions applied of late: in the snapshot they must have ended.
    recent: Vec<u32>,
}

/// Goes with the last rows of a chunk.
#[derive(Debug)]
pub(super) struct ChunkEnd {
    /// The table whose heap was read.
    oid: u32,
    /// The heap's file.
    filenode: u32,
    pages: PageRange,
    /// Whether the chunk counts; else it must be read again.
    counts: oneshot::Sender<bool>,
}

/// The worker's end.
#[derive(Debug)]
pub(super) struct DeskChannels {
    orders: watch::Sender<Vec<CopyOrder>>,
    passed: watch::Sender<Lsn>,
    inbox: mpsc::Receiver<CopyMessage>,
}

/// The readers' end.
#[derive(Debug)]
pub(super) struct ReaderChannels {
    orders: watch::Receiver<Vec<CopyOrder>>,
    /// The source's transactions before this position are in the store.
    passed: watch::Receiver<Lsn>,
    worker: mpsc::Sender<CopyMessage>,
}

/// Joins readers and worker.
pub(super) fn channels(tables: &[TableState], position: Lsn) -> (DeskChannels, ReaderChannels) {
    let (orders, orders_seen) = watch::channel(orders_of(tables));
    let (passed, passed_seen) = watch::channel(position);
    let (worker, inbox) = mpsc::channel(MESSAGES_AHEAD);
    (DeskChannels { orders, passed, inbox }, ReaderChannels { orders: orders_seen, passed: passed_seen, worker })
}

fn orders_of(tables: &[TableState]) -> Vec<CopyOrder> {
    tables.iter().filter_map(CopyOrder::of).collect()
}
