//! Background work: moves the tail into chunks, and keeps the database file and its log small.
//!
//! Every step takes the writer for one bounded slice, and rests in between as long as the slice took, so that commits
//! get their turn; it does not rest when commits come faster than it makes room for them.

use std::{
    sync::{PoisonError, atomic::Ordering},
    thread,
    time::{Duration, Instant},
};

use kairos_sync_protocol::OpId;
use rusqlite::Connection;

use super::{
    super::{RowKey, StorageError},
    BucketId, Inner,
    chunk::FoldPlan,
    compact::Pace,
    rows::RowState,
    runs::build::RunBuilder,
    writer::{Durability, Writer},
};
use crate::{fault_point::fault_point, traces::trace_span};

/// Most compressed bytes one slice writes, but at least one bucket.
const SLICE_BYTES: usize = 512 << 10;
/// Most buckets in one slice: each touches a page of its own.
const SLICE_BUCKETS: usize = 256;
/// Most rows in one run that a fold writes: all of a usual tail.
const RUN_ROWS: usize = 20_000;
/// Compressed bytes after which it begins another one, since a run is written at once.
const RUN_BYTES: usize = 2 << 20;
/// Most blocks of the tail deleted in one slice.
const SLICE_BLOCKS: u32 = 256;
/// Most free pages given back to the file system in one slice.
const SLICE_PAGES: usize = 256;
/// Pages in the log from which it is worth copying them to the database: 16 MiB, about what a small machine spares.
const LOG_PAGES: usize = 4096;
/// Free pages that are kept for reuse: 8 MiB.
const FREE_PAGES_KEPT: i64 = 2048;
/// Rest after a failure, which mostly is a full disk.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What a fold moves: all that was in the store when it began.
#[derive(Debug, Clone, Copy)]
pub(super) struct FoldBound {
    pub(super) generation: u64,
    pub(super) op_id: OpId,
    pub(super) version: u64,
}

impl Inner {
    /// Runs until the store is closed.
    pub(super) fn maintain(&self) {
        let mut failing = false;
        let mut compaction = Pace::new(self.options.compaction);
        while self.signal.wait_for_work(compaction.rest(), || self.has_work()) {
            let done = self.work(&mut compaction);
            self.is_full.store(matches!(done, Err(StorageError::Full)), Ordering::Relaxed);
            match done {
                Ok(()) => failing = false,
                Err(error) => {
                    if !failing {
                        tracing::warn!(
                            code = error.code(), %error, "bucket store cannot fold or compact; trying again"
                        );
                    }
                    failing = true;
                    self.signal.rest(RETRY_AFTER);
                }
            }
        }
    }

    pub(super) fn has_work(&self) -> bool {
        self.tail_wants_fold()
            || self.has_many_runs()
            || self.has_forgotten.load(Ordering::Relaxed)
            || self.log_pages.load(Ordering::Relaxed) > LOG_PAGES
    }

    fn work(&self, compaction: &mut Pace) -> Result<(), StorageError> {
        // First, since a copied log leaves room for the fold.
        self.checkpoint_log(&self.maintenance().conn)?;
        if self.tail_wants_fold() {
            trace_span!(parent: None, "store.fold").in_scope(|| self.fold())?;
            self.give_back_pages(free_pages_kept)?;
        } else if compaction.rest().is_zero() {
            // Only while there is nothing to fold.
            let merged = self.merge_runs()?;
            compaction.pay(merged.map_or_else(|| self.compact(), |bytes| Ok(Some(bytes)))?);
        }
        // A slice at least, or there would be ever more of them; but commits must not wait for a long merge.
        while self.has_many_runs() && self.merge_runs()?.is_some() && !self.tail_is_pressing() {}
        if self.has_forgotten.load(Ordering::Relaxed) {
            self.delete_forgotten()?;
            self.give_back_pages(free_pages_kept)?;
        }
        Ok(())
    }

    /// Moves all that is in the tail now to where it is kept.
    pub(super) fn fold(&self) -> Result<(), StorageError> {
        let maintenance = self.maintenance();
        let upto = self.bound();
        let log = &maintenance.conn;
        let folded = self.fold_operations(upto, log)? && self.fold_rows(upto, log)?;
        fault_point("store.before-forgetting");
        while folded && self.delete_blocks(upto)? {}
        Ok(())
    }

    /// All that is in the store now.
    pub(super) fn bound(&self) -> FoldBound {
        let writer = self.writer();
        let head = writer.head();
        FoldBound { generation: head.generation, op_id: head.last_op_id, version: head.version }
    }

    /// `false` if it was given up, because of a reset or because the store is being closed.
    fn fold_operations(&self, upto: FoldBound, log: &Connection) -> Result<bool, StorageError> {
        let mut plans = Vec::new();
        let buckets = self.tail_read().bucket_ids();
        let mut damaged = None;
        for bucket in buckets {
            // The others go on meanwhile.
            match self.plan(bucket, upto.op_id) {
                Ok(plan) => plans.extend(plan),
                Err(error @ (StorageError::BucketDamaged { .. } | StorageError::Damaged { .. })) => {
                    damaged = Some(error);
                }
                Err(error) => return Err(error),
            }
            let bytes: usize = plans.iter().map(FoldPlan::bytes).sum();
            if bytes >= SLICE_BYTES || plans.len() >= SLICE_BUCKETS {
                if !self.store_plans(upto, &std::mem::take(&mut plans))? {
                    return Ok(false);
                }
                self.checkpoint_log(log)?;
            }
        }
        let stored = self.store_plans(upto, &plans)?;
        damaged.map_or(Ok(stored), Err)
    }

    /// As `fold_operations`, for rows.
    fn fold_rows(&self, upto: FoldBound, log: &Connection) -> Result<bool, StorageError> {
        loop {
            let rows = self.tail_read().rows.slice(upto.version, RUN_ROWS);
            if rows.is_empty() {
                return Ok(true);
            }
            if !self.place_rows(upto, &rows)? {
                return Ok(false);
            }
            self.checkpoint_log(log)?;
        }
    }

    /// Moves rows of the tail into a run: all of these, or the first that fill it.
    pub(super) fn place_rows(&self, upto: FoldBound, rows: &[(RowKey, RowState)]) -> Result<bool, StorageError> {
        let runs = self.runs.list();
        let (mut run, mut count) = (RunBuilder::new(rows.len()), 0);
        for (key, state) in rows {
            if run.packed_bytes() >= RUN_BYTES {
                break;
            }
            count += 1;
            // That a row is gone need not be said where nothing says that it is there.
            if state.is_some() || runs.may_have(key) {
                run.push(key, state.as_deref())?;
            }
        }
        let run = run.finish()?;
        self.slice(upto.generation, |writer| {
            writer.transaction(Durability::Later, |change| run.store(change))?;
            fault_point("store.rows-placed");
            let mut tail = self.tail.write().unwrap_or_else(PoisonError::into_inner);
            for (key, _) in &rows[..count] {
                tail.rows.remove(key, upto.version);
            }
            Ok(true)
        })
    }

    pub(super) fn plan(&self, bucket: BucketId, upto: OpId) -> Result<Option<FoldPlan>, StorageError> {
        let operations = self.tail_read().range(bucket, OpId::ZERO, upto, usize::MAX);
        if operations.is_empty() {
            return Ok(None);
        }
        let reader = self.reader()?;
        // One state: a reset must not look like a missing chunk.
        reader.conn().execute_batch("BEGIN")?;
        FoldPlan::new(reader.conn(), bucket, operations).map(Some).map_err(|error| self.noting(bucket, error))
    }

    pub(super) fn store_plans(&self, upto: FoldBound, plans: &[FoldPlan]) -> Result<bool, StorageError> {
        if plans.is_empty() {
            return Ok(true);
        }
        self.slice(upto.generation, |writer| {
            // A commit may have taken a bucket's operations past the tail meanwhile.
            let tail = self.tail_read();
            let is_due = |plan: &&FoldPlan| plan.is_due(tail.first_op_id(plan.bucket()));
            let plans: Vec<_> = plans.iter().filter(is_due).collect();
            drop(tail);
            writer.transaction(Durability::Later, |change| {
                change.head.version += 1;
                plans.iter().try_for_each(|plan| plan.store(change.tx))
            })?;
            fault_point("store.operations-folded");
            let mut tail = self.tail.write().unwrap_or_else(PoisonError::into_inner);
            for plan in plans {
                tail.remove(plan.bucket(), upto.op_id);
            }
            tail.version = writer.head().version;
            Ok(true)
        })
    }

    /// Deletes blocks of which everything is where it is kept; `false` when none is left.
    fn delete_blocks(&self, upto: FoldBound) -> Result<bool, StorageError> {
        let operations = "DELETE FROM tail WHERE first_op_id IN \
                          (SELECT first_op_id FROM tail WHERE first_op_id <= ?1 ORDER BY first_op_id LIMIT ?2)";
        let rows = "DELETE FROM row_tail WHERE version IN \
                    (SELECT version FROM row_tail WHERE version <= ?1 ORDER BY version LIMIT ?2)";
        self.slice(upto.generation, |writer| {
            writer.transaction(Durability::Later, |change| {
                change.head.folded_op_id = upto.op_id;
                change.head.folded_version = upto.version;
                let bound = (upto.op_id.get().cast_signed(), SLICE_BLOCKS);
                let operation_blocks = change.tx.prepare_cached(operations)?.execute(bound)?;
                let bound = (upto.version.cast_signed(), SLICE_BLOCKS);
                let row_blocks = change.tx.prepare_cached(rows)?.execute(bound)?;
                Ok(operation_blocks.max(row_blocks) == SLICE_BLOCKS as usize)
            })
        })
    }

    /// Runs one slice with the writer, then rests as long; `false` without running it after a reset or when closing.
    pub(super) fn slice(
        &self,
        generation: u64,
        run: impl FnOnce(&mut Writer) -> Result<bool, StorageError>,
    ) -> Result<bool, StorageError> {
        let mut writer = self.writer();
        if writer.head().generation != generation || self.signal.is_closing() {
            return Ok(false);
        }
        let started = Instant::now();
        let goes_on = run(&mut writer)?;
        drop(writer);
        self.signal.made_room();
        if !self.tail_is_pressing() {
            thread::sleep(started.elapsed());
        }
        Ok(goes_on)
    }

    /// Copies the log into the database once it is long, first beside the writer, then what came meanwhile with the writer
    /// held: only a log copied whole begins again from its start. Also between the slices of a fold or a merge, which write many
    /// times that where rows are scattered over a large table.
    pub(super) fn checkpoint_log(&self, log: &Connection) -> Result<(), StorageError> {
        if self.log_pages.load(Ordering::Relaxed) <= LOG_PAGES {
            return Ok(());
        }
        let noticed = |error| {
            self.writer().notice(&error);
            error
        };
        copy_log(log).map_err(noticed)?;
        fault_point("store.log-half-copied");
        self.copy_whole_log(log)
    }

    /// Copies the log with the writer held. Who begins to read then reads the database: what the log has as well hides
    /// what the database has become.
    pub(super) fn copy_whole_log(&self, log: &Connection) -> Result<(), StorageError> {
        let mut writer = self.writer();
        // Nothing is copied past what an open transaction sees.
        self.row_reader.rest()?;
        copy_log(log).inspect_err(|error| writer.notice(error))?;
        self.log_pages.store(0, Ordering::Relaxed);
        Ok(())
    }

    /// Shrinks the file when more of it is free than is kept, as after a reset or compaction.
    pub(super) fn give_back_pages(&self, kept: impl Fn(i64) -> i64) -> Result<(), StorageError> {
        loop {
            let mut writer = self.writer();
            let free: i64 = writer.conn().pragma_query_value(None, "freelist_count", |row| row.get(0))?;
            let all: i64 = writer.conn().pragma_query_value(None, "page_count", |row| row.get(0))?;
            if free <= kept(all) || self.signal.is_closing() {
                return Ok(());
            }
            let started = Instant::now();
            writer.transaction(Durability::Later, |change| {
                let mut statement = change.tx.prepare(&format!("PRAGMA incremental_vacuum({SLICE_PAGES})"))?;
                let mut rows = statement.query([])?;
                while rows.next()?.is_some() {}
                Ok(())
            })?;
            drop(writer);
            thread::sleep(started.elapsed());
        }
    }
}

/// How many free pages of so many are kept for what comes.
pub(super) fn free_pages_kept(all: i64) -> i64 {
    FREE_PAGES_KEPT.max(all / 4)
}

/// Copies what no reader is in the way of, without waiting for anyone.
fn copy_log(conn: &Connection) -> Result<(), StorageError> {
    Ok(conn.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))?)
}
