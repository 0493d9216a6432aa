//! Background work: moves the tail into chunks, and keeps the database file and its log small.
//!
//! Every step takes the writer for one bounded slice, and rests in between as long as the slice took, so that commits
//! get their turn.

use std::{
    sync::{PoisonError, atomic::Ordering},
    thread,
    time::{Duration, Instant},
};

use kairos_sync_protocol::OpId;
use rusqlite::Connection;

use super::{
    super::StorageError,
    BucketId, Inner,
    chunk::FoldPlan,
    writer::{Durability, Writer},
};

/// Most compressed bytes one slice writes, but at least one bucket.
const SLICE_BYTES: usize = 512 << 10;
/// Most buckets in one slice: each touches a page of its own.
const SLICE_BUCKETS: usize = 256;
/// Most blocks of the tail deleted in one slice.
const SLICE_BLOCKS: u32 = 256;
/// Most free pages given back to the file system in one slice.
const SLICE_PAGES: usize = 256;
/// Pages in the log from which it is worth copying them to the database: 16 MiB, about what a small machine spares.
pub(super) const LOG_PAGES: usize = 4096;
/// Free pages that are kept for reuse: 8 MiB.
const FREE_PAGES_KEPT: i64 = 2048;
/// Rest after a failure, which mostly is a full disk.
const RETRY_AFTER: Duration = Duration::from_secs(1);

impl Inner {
    /// Runs until the store is closed.
    pub(super) fn maintain(&self) {
        let mut failing = false;
        while self.signal.wait_for_work(|| self.has_work()) {
            match self.work() {
                Ok(()) => failing = false,
                Err(error) => {
                    if !failing {
                        tracing::warn!(code = error.code(), %error, "bucket store cannot fold its tail; trying again");
                    }
                    failing = true;
                    self.signal.rest(RETRY_AFTER);
                }
            }
        }
    }

    pub(super) fn has_work(&self) -> bool {
        self.tail_wants_fold() || self.log_pages.load(Ordering::Relaxed) > LOG_PAGES
    }

    fn work(&self) -> Result<(), StorageError> {
        if self.tail_wants_fold() {
            self.fold()?;
            self.give_back_pages()?;
        }
        self.checkpoint_log()
    }

    /// Moves all operations that are in the tail now into chunks.
    pub(super) fn fold(&self) -> Result<(), StorageError> {
        let _alone = self.maintenance();
        let (generation, upto) = {
            let writer = self.writer();
            (writer.head().generation, writer.head().last_op_id)
        };
        let mut plans = Vec::new();
        let buckets = self.tail_read().bucket_ids();
        for bucket in buckets {
            plans.extend(self.plan(bucket, upto)?);
            let bytes: usize = plans.iter().map(FoldPlan::bytes).sum();
            if (bytes >= SLICE_BYTES || plans.len() >= SLICE_BUCKETS)
                && !self.store_plans(generation, upto, &std::mem::take(&mut plans))?
            {
                return Ok(());
            }
        }
        if !self.store_plans(generation, upto, &plans)? {
            return Ok(());
        }
        while self.delete_blocks(generation, upto)? {}
        Ok(())
    }

    pub(super) fn plan(&self, bucket: BucketId, upto: OpId) -> Result<Option<FoldPlan>, StorageError> {
        let operations = self.tail_read().range(bucket, OpId::ZERO, upto, usize::MAX);
        if operations.is_empty() {
            return Ok(None);
        }
        let reader = self.readers.get(&self.folder)?;
        FoldPlan::new(reader.conn(), bucket, operations).map(Some)
    }

    /// `false` if a reset came in between, after which there is nothing to fold.
    pub(super) fn store_plans(&self, generation: u64, upto: OpId, plans: &[FoldPlan]) -> Result<bool, StorageError> {
        self.slice(generation, |writer| {
            writer.transaction(Durability::Later, |change| {
                change.head.version += 1;
                plans.iter().try_for_each(|plan| plan.store(change.tx))
            })?;
            let mut tail = self.tail.write().unwrap_or_else(PoisonError::into_inner);
            for plan in plans {
                tail.remove(plan.bucket(), upto);
            }
            tail.version = writer.head().version;
            Ok(true)
        })
    }

    /// Deletes blocks of which every operation is in a chunk; `false` when none is left.
    fn delete_blocks(&self, generation: u64, upto: OpId) -> Result<bool, StorageError> {
        self.slice(generation, |writer| {
            writer.transaction(Durability::Later, |change| {
                let sql = "DELETE FROM tail WHERE first_op_id IN \
                           (SELECT first_op_id FROM tail WHERE first_op_id <= ?1 ORDER BY first_op_id LIMIT ?2)";
                let bounds = (upto.get().cast_signed(), SLICE_BLOCKS);
                Ok(change.tx.prepare_cached(sql)?.execute(bounds)? == SLICE_BLOCKS as usize)
            })
        })
    }

    /// Runs one slice with the writer, then rests as long; `false` without running it after a reset or when closing.
    fn slice(
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
        thread::sleep(started.elapsed());
        Ok(goes_on)
    }

    /// Copies the log into the database, first beside the writer, then what came meanwhile with the writer held: only
    /// a log copied whole begins again from its start.
    fn checkpoint_log(&self) -> Result<(), StorageError> {
        if self.log_pages.load(Ordering::Relaxed) <= LOG_PAGES {
            return Ok(());
        }
        let maintenance = self.maintenance();
        copy_log(&maintenance)?;
        let _writer = self.writer();
        copy_log(&maintenance)?;
        self.log_pages.store(0, Ordering::Relaxed);
        Ok(())
    }

    /// Shrinks the file when much of it is free, as after a reset.
    fn give_back_pages(&self) -> Result<(), StorageError> {
        loop {
            let mut writer = self.writer();
            let free: i64 = writer.conn().pragma_query_value(None, "freelist_count", |row| row.get(0))?;
            let all: i64 = writer.conn().pragma_query_value(None, "page_count", |row| row.get(0))?;
            if free <= FREE_PAGES_KEPT.max(all / 4) || self.signal.is_closing() {
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

/// Copies what no reader is in the way of, without waiting for anyone.
fn copy_log(conn: &Connection) -> Result<(), StorageError> {
    Ok(conn.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))?)
}
