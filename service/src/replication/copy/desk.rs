//! The copy as the stream's thread sees it: chunks are announced here, their rows applied and counted.

use std::collections::VecDeque;

use bytes::Bytes;

use super::{
    super::{
        apply::Applier,
        error::ReplicationError,
        image::CompleteRow,
        relations::{Relations, SourceRelation},
        replicator::Replicator,
        state::{ColumnState, ReplicationState, TableState},
    },
    Begun, ChunkEnd, CopyKey, CopyMessage, DeskChannels,
    ledger::{ChunkId, Ledger, Verdict},
    orders_of,
};
use crate::{
    fault_point::fault_point,
    lsn::Lsn,
    postgres::{
        copy::fields,
        pgoutput::{Tuple, TupleValue},
    },
    storage::{Batch, RowKey, TableId},
};

/// Rows looked at in one commit of a sweep.
const SWEEP_ROWS: usize = 1_000;

/// The worker's side of all copies.
pub(in super::super) struct Desk {
    channels: DeskChannels,
    pub(in super::super) ledger: Ledger,
    sweeps: VecDeque<Sweep>,
}

/// Forgets rows that the copy did not meet.
struct Sweep {
    key: CopyKey,
    after: Option<RowKey>,
}

/// What the desk works on: the follower's parts.
pub(in super::super) struct Work<'w, 'r> {
    pub(in super::super) replicator: &'r Replicator,
    pub(in super::super) relations: &'w mut Relations<'r>,
    pub(in super::super) state: &'w mut ReplicationState,
}

impl Desk {
    pub(in super::super) fn new(channels: DeskChannels, work: &Work<'_, '_>) -> Result<Self, ReplicationError> {
        let mut desk = Self { channels, ledger: Ledger::default(), sweeps: VecDeque::new() };
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
        self.publish_orders(work.state);
        Ok(())
    }

    /// From now on what the stream touches is noted, if the table is being copied.
    fn prepare(&mut self, replicator: &Replicator, table: &TableState) -> Result<(), ReplicationError> {
        let Some(copy) = &table.copy else { return Ok(()) };
        let id = table.id();
        let key = CopyKey { table: id, first_layout: copy.first_layout };
        self.sweeps.retain(|sweep| sweep.key.table != id);
        if copy.is_read {
            self.sweeps.push_back(Sweep { key, after: None });
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
        !self.sweeps.is_empty()
    }

    pub(in super::super) fn handle(
        &mut self,
        work: &mut Work<'_, '_>,
        message: CopyMessage,
    ) -> Result<(), ReplicationError> {
        match message {
            CopyMessage::Begin { key, columns, begun } => {
                if let Some(answer) = self.begin_chunk(work, key, &columns) {
                    // A reader that was stopped asks no more.
                    let _ = begun.send(answer);
                }
                Ok(())
            }
            CopyMessage::Rows { key, chunk, lines, end } => self.rows(work, key, chunk, &lines, end),
            CopyMessage::Read { key } => self.read(work, key),
        }
    }

    /// `None` when the copy was begun anew.
    fn begin_chunk(&mut self, work: &mut Work<'_, '_>, key: CopyKey, columns: &[ColumnState]) -> Option<Begun> {
        let table = work.state.tables.iter_mut().find(|table| table.id() == key.table)?;
        table.copy.as_ref().filter(|copy| copy.first_layout == key.first_layout)?;
        let layout_count = table.layouts.len();
        let layout = table.layout_of(columns);
        if layout_count != table.layouts.len() {
            work.relations.set(table);
        }
        let chunk = self.ledger.begin_chunk(key.table, layout)?;
        Some(Begun { chunk, recent: self.ledger.recent() })
    }

    fn rows(
        &mut self,
        work: &mut Work<'_, '_>,
        key: CopyKey,
        chunk: ChunkId,
        lines: &[Bytes],
        end: Option<ChunkEnd>,
    ) -> Result<(), ReplicationError> {
        // One of a copy that was begun anew: the reader learns it from its channel's end.
        let Some(layout) = self.ledger.layout(key.table, chunk) else { return Ok(()) };
        let Some(table) = work.relations.by_id(key.table) else { return Ok(()) };
        let mut applier = Applier::new(work.replicator.store.as_ref());
        for line in lines {
            let row = read_row(table, layout, line)?;
            let row_key = row.key(key.table, table.identity(layout));
            match self.ledger.judge(chunk, &row_key) {
                Verdict::Skip => {}
                verdict @ (Verdict::New | Verdict::Compare) => {
                    applier.copied(table, &row_key, (layout, &row), verdict == Verdict::New)?;
                }
                Verdict::Complete(sent) if table.has_same_columns(layout, table.current_layout()) => {
                    applier.copied(table, &row_key, (layout, &overlaid(row, sent)), false)?;
                }
                Verdict::Complete(_) => self.ledger.spoil(key.table, chunk),
            }
        }
        applier.settle(work.relations)?;
        work.replicator.report(&applier.take_errors());
        let mut batch = applier.finish();
        let mut counts = None;
        if let Some(end) = end {
            let is_stored = self.ledger.end_chunk(key.table, chunk);
            let table = work.state.tables.iter_mut().find(|table| table.id() == key.table);
            if let Some(copy) = table.and_then(|table| table.copy.as_mut()).filter(|_| is_stored) {
                copy.read(end.oid, end.filenode, end.pages);
                batch.replication_state = Some(work.state.to_bytes());
            }
            counts = Some((end.counts, is_stored));
        }
        batch.visible_at = work.state.visible_at();
        fault_point("copy.before-rows");
        work.replicator.commit(batch)?;
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
        copy.is_read = true;
        if key.first_layout == 0 {
            return self.end(work, key);
        }
        self.sweeps.push_back(Sweep { key, after: None });
        self.publish_orders(work.state);
        Ok(work.replicator.save(work.state)?)
    }

    /// Goes on forgetting, for one commit.
    pub(in super::super) fn sweep(&mut self, work: &mut Work<'_, '_>) -> Result<(), ReplicationError> {
        let Some(Sweep { key, after }) = self.sweeps.pop_front() else { return Ok(()) };
        let Some(table) = work.relations.by_id(key.table) else { return Ok(()) };
        let page = work.replicator.store.rows_of_table(key.table, after.as_ref(), SWEEP_ROWS)?;
        let Some(last) = page.last().cloned() else {
            return self.end(work, key);
        };
        let mut applier = Applier::new(work.replicator.store.as_ref());
        for row in &page {
            applier.sweep(table, row, key.first_layout)?;
        }
        applier.settle(work.relations)?;
        work.replicator.report(&applier.take_errors());
        let batch = Batch { visible_at: work.state.visible_at(), ..applier.finish() };
        work.replicator.commit(batch)?;
        self.sweeps.push_front(Sweep { key, after: Some(last) });
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
        self.publish_orders(work.state);
        Ok(())
    }

    fn publish_orders(&self, state: &ReplicationState) {
        self.channels.orders.send_replace(orders_of(&state.tables));
    }
}

/// The row with the columns that were sent later.
fn overlaid(row: CompleteRow, sent: Tuple) -> CompleteRow {
    let newest = |(copied, sent)| match sent {
        TupleValue::Unchanged => copied,
        TupleValue::Null => None,
        TupleValue::Text(text) => Some(text),
    };
    CompleteRow(row.0.into_iter().zip(sent.0).map(newest).collect())
}

fn read_row(table: &SourceRelation, layout: usize, line: &Bytes) -> Result<CompleteRow, ReplicationError> {
    let own = |text: std::borrow::Cow<'_, [u8]>| match text {
        std::borrow::Cow::Borrowed(part) => line.slice_ref(part),
        std::borrow::Cow::Owned(text) => text.into(),
    };
    let row = CompleteRow(fields(line).map(|field| field.map(own)).collect());
    if row.0.len() == table.column_count(layout) {
        Ok(row)
    } else {
        Err(ReplicationError::RowShape { table: table.full_name() })
    }
}
