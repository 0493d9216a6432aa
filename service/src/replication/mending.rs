//! Damaged buckets get their operations again, as the stream's thread does it between its other work: they are emptied,
//! then all stored rows that are in them are appended, a page to a commit. Nobody gets them before the last page.
//!
//! How far it is is not stored: what an interruption leaves is emptied again. Rows that the stream brings meanwhile go
//! there anyway.

use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    time::{Duration, Instant},
};

use kairos_sync_protocol::BucketName;

use super::{
    apply::Applier,
    error::ReplicationError,
    state::{ReplicationState, TableState},
    work::{PART, Work},
};
use crate::{
    fault_point::fault_point,
    storage::{BucketStore, RowKey, StorageError, TableId, definition_of},
};

/// How often one asks whether buckets were found damaged.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Buckets that are mended at once: all rows are read for them.
const BUCKETS_MAX: usize = 1_000;
/// Stored rows read at once, or about so many bytes of them; as for rules that are built.
const PAGE_ROWS: usize = 10_000;
const PAGE_BYTES: usize = 2 * 1024 * 1024;

/// The worker's side of damages.
pub(super) struct Mending {
    /// When to ask.
    next_look: Instant,
    under_way: Option<UnderWay>,
}

/// Buckets that are being mended.
struct UnderWay {
    buckets: HashSet<BucketName>,
    /// Those of which there is more to delete. While there are any, none is emptied.
    shrinking: VecDeque<BucketName>,
    is_emptied: bool,
    /// Tables whose rows are left.
    tables: VecDeque<TableId>,
    /// The last row of the first table that was read.
    after: Option<RowKey>,
    row_count: u64,
    started: Instant,
}

impl Mending {
    pub(super) fn new() -> Self {
        Self { next_look: Instant::now(), under_way: None }
    }

    /// Whether there is something to do now. While rows are being copied not all that is stored of them is whole.
    pub(super) fn has_work(&self, state: &ReplicationState) -> bool {
        state.is_copied() && (self.under_way.is_some() || Instant::now() >= self.next_look)
    }

    /// When there may be something to do although nothing else happens.
    pub(super) fn due(&self, state: &ReplicationState) -> Option<Instant> {
        state.is_copied().then_some(self.next_look)
    }

    /// Does a piece of the work.
    pub(super) fn step(&mut self, work: &mut Work<'_, '_>) -> Result<(), ReplicationError> {
        let Some(under_way) = &mut self.under_way else {
            self.next_look = Instant::now() + LOOK_EVERY;
            // Rows are mended before the stream is followed.
            work.replicator.store.check_rows()?;
            self.under_way = UnderWay::begin(work)?;
            return Ok(());
        };
        if !under_way.is_emptied {
            return under_way.empty(work);
        }
        let Some(table) = under_way.tables.front().copied() else {
            under_way.end(work)?;
            self.under_way = None;
            return Ok(());
        };
        under_way.page(work, table)
    }
}

impl UnderWay {
    /// Of what was found damaged, if anything.
    fn begin(work: &Work<'_, '_>) -> Result<Option<Self>, ReplicationError> {
        let store = &work.replicator.store;
        let buckets = store.damaged_buckets(BUCKETS_MAX)?;
        if buckets.is_empty() {
            return Ok(None);
        }
        let definitions = definitions(store.as_ref(), &buckets)?;
        tracing::warn!(
            bucket_count = buckets.len(),
            definitions,
            "store: damaged buckets are built again from the row store"
        );
        let tables = work.state.tables.iter().filter(|table| !table.is_gone).map(TableState::id).collect();
        let shrinking = buckets.iter().cloned().collect();
        let buckets = buckets.into_iter().collect();
        let started = Instant::now();
        Ok(Some(Self { buckets, shrinking, is_emptied: false, tables, after: None, row_count: 0, started }))
    }

    /// Deletes some of what the buckets have, and empties them once nothing is left of it.
    fn empty(&mut self, work: &Work<'_, '_>) -> Result<(), ReplicationError> {
        if let Some(bucket) = self.shrinking.front() {
            if !work.replicator.store.shrink_damaged(bucket)? {
                self.shrinking.pop_front();
            }
            fault_point("mending.shrunk");
            return Ok(());
        }
        let buckets: Vec<_> = self.buckets.iter().cloned().collect();
        work.replicator.empty_buckets(&buckets)?;
        self.is_emptied = true;
        fault_point("mending.emptied");
        Ok(())
    }

    /// Appends what a page of a table's stored rows has in the buckets.
    fn page(&mut self, work: &mut Work<'_, '_>, id: TableId) -> Result<(), ReplicationError> {
        let store = work.replicator.store.as_ref();
        let page = store.stored_rows(id, self.after.as_ref(), PAGE_ROWS, PAGE_BYTES)?;
        let mut applier = Applier::new(store);
        let mut last = None;
        for (key, stored) in page {
            if applier.is_full(PART) {
                break;
            }
            if let Some(table) = work.relations.by_id(id)
                && stored.outputs.iter().any(|output| self.buckets.contains(&output.bucket))
            {
                applier.append_again(table, &key, &stored, &self.buckets)?;
                self.row_count += 1;
            }
            last = Some(key);
        }
        if last.is_none() {
            self.tables.pop_front();
        }
        self.after = last;
        if applier.is_empty() {
            return Ok(());
        }
        work.store(applier)?;
        fault_point("mending.after-page");
        Ok(())
    }

    fn end(&self, work: &Work<'_, '_>) -> Result<(), StorageError> {
        let buckets: Vec<_> = self.buckets.iter().cloned().collect();
        fault_point("mending.before-end");
        work.replicator.store.buckets_mended(&buckets)?;
        fault_point("mending.ended");
        work.replicator.metrics.buckets_mended.inc_by(buckets.len() as u64);
        let (bucket_count, row_count, elapsed) = (buckets.len(), self.row_count, self.started.elapsed());
        tracing::info!(bucket_count, row_count, ?elapsed, "store: damaged buckets are whole again");
        Ok(())
    }
}

/// How many buckets of each definition, for people: names of buckets hold values.
fn definitions(store: &dyn BucketStore, buckets: &[BucketName]) -> Result<String, StorageError> {
    let prefix = store.bucket_prefix()?;
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for bucket in buckets {
        *counts.entry(definition_of(bucket, &prefix)).or_default() += 1;
    }
    let parts: Vec<_> = counts.into_iter().map(|(definition, count)| format!("{definition}: {count}")).collect();
    Ok(parts.join(", "))
}
