//! The copy as the stream's thread sees it: snapshots are announced here, their rows applied and chunks counted.

use std::{collections::VecDeque, mem, sync::Arc};

use bytes::Bytes;

use super::{
    super::{
        apply::Applier,
        error::ReplicationError,
        replicator::Replicator,
        state::{ColumnState, TableState},
        work::Work,
    },
    Begun, ChunkEnd, CopyKey, CopyMessage, CopyOrder, DeskChannels, What,
    copied::CopiedRow,
    ledger::{Ledger, SnapshotId},
    orders_of,
};
use crate::{
    fault_point::fault_point,
    lsn::Lsn,
    storage::{BucketStore, RowKey, StorageError, TableId},
};

/// Rows looked at in one commit of a sweep, and about as many are fetched at once.
const SWEEP_ROWS: usize = 1_000;
/// How often rows are asked for that the stream keeps touching; more means that the source does not find them.
const FETCHES_MAX: u32 = 100;

/// The worker's side of all copies.
pub(in super::super) struct Desk {
    channels: DeskChannels,
    pub(in super::super) ledger: Ledger,
    sweeps: VecDeque<Sweep>,
    /// Counts the orders for single rows.
    round: u64,
}

/// Looks at the rows of a table after it was read: those from before that the copy did not meet are forgotten, those of
/// which only parts are known are fetched, many at once.
struct Sweep {
    key: CopyKey,
    /// The last row it has looked at.
    after: Option<RowKey>,
    has_seen_all: bool,
    /// Rows of which only parts are known, with their identifying values.
    gaps: Vec<(RowKey, Vec<Bytes>)>,
    /// The number of the order for these, while it runs.
    awaited: Option<u64>,
    /// How often they were asked for.
    attempts: u32,
}

impl Sweep {
    fn new(key: CopyKey) -> Self {
        Self { key, after: None, has_seen_all: false, gaps: Vec::new(), awaited: None, attempts: 0 }
    }

    /// The rows to look at next: those that were fetched, or else those that follow.
    fn next_rows(&mut self, store: &dyn BucketStore) -> Result<Vec<RowKey>, StorageError> {
        if self.attempts > 0 {
            return Ok(mem::take(&mut self.gaps).into_iter().map(|(row, _)| row).collect());
        }
        let page = store.rows_of_table(self.key.table, self.after.as_ref(), SWEEP_ROWS)?;
        self.has_seen_all = page.len() < SWEEP_ROWS;
        self.after = page.last().cloned().or(self.after.take());
        Ok(page)
    }

    /// Whether there are rows to be fetched before it goes on.
    fn must_fetch(&mut self) -> bool {
        if self.gaps.is_empty() {
            self.attempts = 0;
        }
        !self.gaps.is_empty() && (self.attempts > 0 || self.has_seen_all || self.gaps.len() >= SWEEP_ROWS)
    }

    fn order(&self, tables: &[TableState]) -> Option<CopyOrder> {
        let table = tables.iter().find(|table| table.id() == self.key.table)?;
        let identities = self.gaps.iter().map(|(_, identity)| identity.clone()).collect();
        Some(CopyOrder {
            key: self.key,
            schema: table.schema.clone(),
            name: table.name.clone(),
            what: What::Rows { round: self.awaited?, identities },
        })
    }
}

impl Desk {
    pub(in super::super) fn new(channels: DeskChannels, work: &Work<'_, '_>) -> Result<Self, ReplicationError> {
        let mut desk = Self { channels, ledger: Ledger::default(), sweeps: VecDeque::new(), round: 0 };
        for table in &work.state.tables {
            desk.prepare(work.replicator, table)?;
        }
        Ok(desk)
    }

    /// A table's copy begins, or begins anew.
    pub(in super::super) fn begin(&mut self, work: &Work<'_, '_>, id: TableId) -> Result<(), ReplicationError> {
        if let Some(table) = work.state.tables.iter().find(|table| table.id() == id) {
            self.prepare(work.replicator, table)?;
        }
        self.publish_orders(work);
        Ok(())
    }

    /// Begins the copies that waited for the stream to come to where it is now.
    pub(in super::super) fn begin_due(&mut self, work: &mut Work<'_, '_>) -> Result<(), ReplicationError> {
        let mut is_begun = false;
        let resume = work.state.resume;
        for table in &mut work.state.tables {
            if !table.begin_due(resume) {
                continue;
            }
            work.relations.begin_copy(table);
            self.prepare(work.replicator, table)?;
            is_begun = true;
        }
        if is_begun {
            // Rows of the copy name its layouts, so these are stored first.
            work.replicator.save(work.state)?;
            self.publish_orders(work);
        }
        Ok(())
    }

    /// From now on what the stream touches is noted, if the table is being copied.
    fn prepare(&mut self, replicator: &Replicator, table: &TableState) -> Result<(), ReplicationError> {
        let Some(copy) = &table.copy else { return Ok(()) };
        let id = table.id();
        let key = CopyKey { table: id, first_layout: copy.first_layout };
        self.sweeps.retain(|sweep| sweep.key.table != id);
        if copy.is_read {
            self.sweeps.push_back(Sweep::new(key));
        }
        let is_empty = replicator.store.rows_of_table(id, None, 1)?.is_empty();
        self.ledger.begin_table(id, is_empty, !copy.parts.is_empty());
        Ok(())
    }

    /// The stream has passed a position, and what came before is in the store.
    pub(in super::super) fn passed(&self, position: Lsn) {
        self.channels.passed.send_replace(position);
    }

    /// The next message, if there is one now.
    pub(in super::super) fn try_recv(&mut self) -> Option<CopyMessage> {
        self.channels.inbox.try_recv().ok()
    }

    /// The next message; waits for ever once all readers are gone.
    pub(in super::super) async fn recv(&mut self) -> CopyMessage {
        match self.channels.inbox.recv().await {
            Some(message) => message,
            None => std::future::pending().await,
        }
    }

    /// Whether [`Self::sweep`] has something to do.
    pub(in super::super) fn has_sweeps(&self) -> bool {
        self.sweeps.iter().any(|sweep| sweep.awaited.is_none())
    }

    pub(in super::super) fn handle(
        &mut self,
        work: &mut Work<'_, '_>,
        message: CopyMessage,
    ) -> Result<(), ReplicationError> {
        match message {
            CopyMessage::Begin { key, columns, begun } => {
                if let Some(answer) = self.begin_snapshot(work, key, &columns) {
                    // A reader that was stopped asks no more.
                    let _ = begun.send(answer);
                }
                Ok(())
            }
            CopyMessage::Rows { key, snapshot, rows, end } => self.rows(work, key, snapshot, rows, end),
            CopyMessage::End { key, snapshot } => {
                self.ledger.end_snapshot(key.table, snapshot);
                Ok(())
            }
            CopyMessage::Read { key } => self.read(work, key),
        }
    }

    /// `None` when the copy was begun anew.
    fn begin_snapshot(&mut self, work: &mut Work<'_, '_>, key: CopyKey, columns: &[ColumnState]) -> Option<Begun> {
        let table = work.state.tables.iter_mut().find(|table| table.id() == key.table)?;
        table.copy.as_ref().filter(|copy| copy.first_layout == key.first_layout)?;
        let layout_count = table.layouts.len();
        let layout = table.layout_of(columns);
        if layout_count != table.layouts.len() {
            work.relations.set(table);
        }
        let layout = Arc::clone(work.relations.by_id(key.table)?.layout(layout)?);
        let snapshot = self.ledger.begin_snapshot(key.table)?;
        Some(Begun { snapshot, layout, recent: self.ledger.recent() })
    }

    fn rows(
        &mut self,
        work: &mut Work<'_, '_>,
        key: CopyKey,
        snapshot: SnapshotId,
        rows: Vec<CopiedRow>,
        end: Option<ChunkEnd>,
    ) -> Result<(), ReplicationError> {
        // One of a copy that was begun anew: the reader learns it from its channel's end.
        if !self.ledger.knows(key.table, snapshot) {
            return Ok(());
        }
        let Some(table) = work.relations.by_id(key.table) else { return Ok(()) };
        let mut applier = Applier::with_capacity(work.replicator.store.as_ref(), rows.len());
        for row in rows {
            let verdict = self.ledger.judge(snapshot, &row.key);
            if !applier.copied(table, row, verdict)? {
                self.ledger.spoil(key.table, snapshot);
            }
        }
        let mut counts = None;
        if let Some(end) = end {
            let is_stored = self.ledger.is_whole(key.table, snapshot);
            let table = work.state.tables.iter_mut().find(|table| table.id() == key.table);
            if let Some(copy) = table.and_then(|table| table.copy.as_mut()).filter(|copy| is_stored && !copy.is_read) {
                copy.read(end.oid, end.filenode, end.pages);
            }
            counts = Some((end.counts, is_stored));
        }
        fault_point("copy.before-rows");
        work.store(applier)?;
        fault_point("copy.after-rows");
        if let Some((sender, is_stored)) = counts {
            // A reader that was stopped asks no more.
            let _ = sender.send(is_stored);
        }
        Ok(())
    }

    /// Everything was read: what is left are rows that are no longer in the source.
    fn read(&mut self, work: &mut Work<'_, '_>, key: CopyKey) -> Result<(), ReplicationError> {
        let table = work.state.tables.iter_mut().find(|table| table.id() == key.table);
        let Some(copy) = table.and_then(|table| table.copy.as_mut()) else { return Ok(()) };
        if copy.first_layout != key.first_layout {
            return Ok(());
        }
        if copy.is_read {
            // These were single rows, and the sweep looks at them again.
            self.sweeps.iter_mut().filter(|sweep| sweep.key == key).for_each(|sweep| sweep.awaited = None);
            self.publish_orders(work);
            return Ok(());
        }
        copy.is_read = true;
        if key.first_layout == 0 && !copy.has_gaps {
            return self.end(work, key);
        }
        self.sweeps.push_back(Sweep::new(key));
        self.publish_orders(work);
        Ok(work.replicator.save(work.state)?)
    }

    /// Goes on with a sweep, for one commit.
    pub(in super::super) fn sweep(&mut self, work: &mut Work<'_, '_>) -> Result<(), ReplicationError> {
        let next = self.sweeps.iter().position(|sweep| sweep.awaited.is_none());
        let Some(mut sweep) = next.and_then(|index| self.sweeps.remove(index)) else { return Ok(()) };
        let key = sweep.key;
        let Some(table) = work.relations.by_id(key.table) else { return Ok(()) };
        let rows = sweep.next_rows(work.replicator.store.as_ref())?;
        let mut applier = Applier::new(work.replicator.store.as_ref());
        for row in rows {
            if let Some(identity) = applier.sweep(table, &row, key.first_layout)? {
                sweep.gaps.push((row, identity));
            }
        }
        let name = table.full_name();
        work.store(applier)?;
        if sweep.must_fetch() {
            if sweep.attempts == FETCHES_MAX {
                return Err(ReplicationError::RowMissing { table: name });
            }
            self.round += 1;
            sweep.awaited = Some(self.round);
            sweep.attempts += 1;
            self.sweeps.push_front(sweep);
            self.publish_orders(work);
            return Ok(());
        }
        if sweep.has_seen_all {
            return self.end(work, key);
        }
        self.sweeps.push_front(sweep);
        Ok(())
    }

    /// A copy has ended. After the last one clients may see the store.
    fn end(&mut self, work: &mut Work<'_, '_>, key: CopyKey) -> Result<(), ReplicationError> {
        self.ledger.end_table(key.table);
        if let Some(index) = work.state.tables.iter().position(|table| table.id() == key.table) {
            if work.state.tables[index].is_gone {
                work.relations.remove(key.table);
                work.state.tables.remove(index);
            } else {
                work.state.tables[index].end_copy();
                work.relations.set(&work.state.tables[index]);
            }
        }
        if work.state.is_copied() {
            work.state.hides = false;
        }
        fault_point("copy.before-end");
        work.replicator.save(work.state)?;
        self.publish_orders(work);
        Ok(())
    }

    fn publish_orders(&self, work: &Work<'_, '_>) {
        let tables = &work.state.tables;
        let mut orders = orders_of(tables);
        orders.extend(self.sweeps.iter().filter_map(|sweep| sweep.order(tables)));
        work.replicator.progress.tables_to_copy(tables.iter().filter_map(TableState::copy_progress));
        self.channels.orders.send_replace(orders);
    }
}
