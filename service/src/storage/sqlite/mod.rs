//! The embedded store: SQLite, used in a log-structured way.
//!
//! ```text
//! commit ─► table `tail` (blocks in op id order, synced) + the same operations in memory, by bucket
//!        └► table `row_tail` (a block of row states) + the same states in memory, by key
//!        └► of what a commit has much: table `chunk`, and a run of rows, at once
//! fold, in the background ─► table `chunk` (blocks by bucket, merged by size) and a run of rows (in key order);
//!                            the folded part of the tails is deleted; runs are merged
//! operations() = chunks, then the tail      totals = table `bucket` (what is in chunks) + the tail's totals in memory
//! ```
//!
//! Operations of one commit go to many buckets. Writing them where each bucket lives would touch a page per operation;
//! in op id order they are a few sequential pages, and the fold writes each bucket's part at once, compressed. The same
//! holds for rows. A copy, or a large transaction, has enough for a chunk of a bucket by itself, and rows that are
//! neighbours: these go straight to where they are kept.
//!
//! **Invariants**
//!
//! - Everything a batch changes is in one synced transaction. Memory is changed after it, so memory never leads the file.
//! - The head's version ties memory to the file: a view pairs a read transaction with the tail's totals of its version.
//! - An operation is in the tail's memory or in a chunk at every moment, never in neither: a fold commits, then forgets.
//!   It may be in both for an instant, so a reader looks at the tail first and takes from chunks what is older only.
//! - What a bucket has in chunks is older than what it has in the tail: a commit that writes chunks of it takes along what
//!   the tail has, and a fold that had planned to move that gives way.
//! - Chunks of a bucket follow each other without a gap: each knows where the one before it ends.
//! - One writer, behind a mutex. Fold and compaction take it for bounded slices.
//! - Locks are taken in this order: whoever folds or compacts (`maintenance`), `writer`, `signal`, `tail`. Those of the reader of rows,
//!   of the names of buckets and of damages are taken alone, or last.
//! - Memory is bounded: page caches, the tail (commits wait when it is full), names of busy buckets, filters of rows and
//!   the blocks of rows read last.
//! - Numbers of buckets are never reused, not even after a reset.
//!
//! Start reading at [`SqliteStore`], then `schema` for the tables, `writer` for what a commit writes, `runs` for where rows
//! are kept, `fold` and `compact` for what happens to it later, `read` and `view` for how both are seen as one, `damage` for what is done where
//! the disk did not keep it.

mod block;
mod bucket;
mod chain;
mod chunk;
mod chunk_block;
mod codec;
mod compact;
mod damage;
#[cfg(test)]
mod damage_tests;
mod error;
mod fold;
mod forget;
mod head;
mod index;
#[cfg(test)]
mod log_tests;
mod lost_rows;
#[cfg(test)]
mod lost_rows_tests;
#[cfg(test)]
mod mending_tests;
mod pool;
#[cfg(test)]
mod power_tests;
mod read;
mod row_reader;
mod rows;
mod runs;
mod scan;
mod schema;
mod scrub;
mod signal;
mod stats;
mod sum;
mod tail;
#[cfg(test)]
mod tests;
mod upgrade;
mod verify;
mod view;
mod write_checkpoint;
mod writer;

use std::{
    ops::RangeInclusive,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use bytes::Bytes;
use kairos_sync_protocol::{BucketName, OpId, WriteCheckpointId};
use lru::LruCache;
use rusqlite::Connection;

pub use self::verify::{Damage, Verification, VerifyProgress};
use self::{
    compact::{Compaction, Rewriting},
    damage::Damages,
    head::Head,
    pool::{PooledReader, ReaderPool},
    row_reader::RowReader,
    runs::{current::CurrentRuns, list::RunList, missing_filter::PartialFilter, read::RecentBlocks},
    schema::StoreFolder,
    signal::Signal,
    tail::Tail,
    write_checkpoint::WriteCheckpointQueue,
    writer::{Appended, Durability, Memory, NAMES_MAX, Writer},
};
use super::{
    Batch, BucketStore, Commit, CompactionOptions, DamageReport, DefinitionStats, LookupKey, LookupValue, NamePrefixes,
    OperationRange, RowKey, StorageError, StoreStats, StoreView, StoredRow, StoredRules, TableId, WriteCheckpoint,
    WriteCheckpointKey,
};
use crate::{fault_point::fault_point, lsn::Lsn};

/// The tail may grow to this percentage of its threshold while a fold runs; then commits wait.
const TAIL_FULL_PERCENT: usize = 200;
/// From here on a fold no longer rests between its slices: commits come faster than it makes room.
const TAIL_PRESSING_PERCENT: usize = 130;
/// Longest wait of a commit for the fold to make room.
const ROOM_WAIT_MAX: Duration = Duration::from_secs(30);

/// How much memory the embedded store may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SqliteOptions {
    /// Page cache of all connections together. Default 16 MiB.
    pub cache_bytes: usize,
    /// Connections for reading; as many reads run at a time. Default 4.
    pub reader_count: usize,
    /// Operations, or rows, in the tail from which it is folded. Bounds memory and the time to open the store. Default
    /// 20,000.
    pub fold_operations: usize,
    /// Bytes in the tail from which it is folded; while that runs the tail may double. Default 12 MiB.
    pub fold_bytes: usize,
    /// What goes past the tail.
    pub straight: StraightLimits,
    /// When old operations are made fewer.
    pub compaction: CompactionOptions,
    /// How fast older operations are read to see whether they are whole; 0: only when they are needed. Default 1 MiB.
    pub scrub_bytes_per_second: u64,
}

/// How much a commit must have of something for it to go straight to where it is kept. Collected with what other commits
/// have, it would be written twice and gain little by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StraightLimits {
    /// Bytes of JSON for one bucket. Default 8 KiB: the smallest chunk that is read about as fast as its share of a large
    /// one.
    pub chunk_bytes: usize,
    /// Bytes of rows, as replication encodes them. Default 1 MiB, which only copies and large transactions have: their rows
    /// are mostly neighbours, and come once. Scattered rows would cost a page each.
    pub row_bytes: usize,
}

impl Default for StraightLimits {
    fn default() -> Self {
        Self { chunk_bytes: 8 << 10, row_bytes: 1 << 20 }
    }
}

impl Default for SqliteOptions {
    fn default() -> Self {
        Self {
            cache_bytes: 16 << 20,
            reader_count: 4,
            fold_operations: 20_000,
            fold_bytes: 12 << 20,
            straight: StraightLimits::default(),
            compaction: CompactionOptions::default(),
            scrub_bytes_per_second: 1 << 20,
        }
    }
}

/// The embedded store. See the module for how it works.
pub struct SqliteStore {
    inner: Arc<Inner>,
    background: Vec<JoinHandle<()>>,
}

/// Shared with the background threads.
struct Inner {
    options: SqliteOptions,
    // Dropped in this order. The last connection to be closed copies the log and deletes it, which one that only reads
    // cannot; it still has the folder to itself then.
    readers: ReaderPool,
    row_reader: RowReader,
    writer: Mutex<Writer>,
    /// Held by whoever folds or compacts, so that there is one at a time.
    maintenance: Mutex<Maintenance>,
    folder: StoreFolder,
    /// Changed under the writer, right after its transaction. Whoever holds it takes no other lock.
    tail: RwLock<Tail>,
    runs: Arc<CurrentRuns>,
    blocks: RecentBlocks,
    /// Names of buckets that rows were read with. Numbers are never reused, so they hold. Locked for one look at a time.
    bucket_names: Mutex<LruCache<BucketId, BucketName>>,
    write_checkpoints: WriteCheckpointQueue,
    /// What compaction leaves to the next commit. Locked for one look at a time.
    rewriting: Mutex<Rewriting>,
    signal: Signal,
    damages: Damages,
    /// Wakes the thread that scrubs.
    scrub_signal: Signal,
    scrubbed_bytes: AtomicU64,
    /// Whether forgotten buckets may have chunks.
    has_forgotten: AtomicBool,
    /// Whether background work failed for want of space when it was last tried.
    is_full: AtomicBool,
    /// Pages in the log that were not yet copied to the database.
    log_pages: Arc<AtomicUsize>,
}

/// What background work needs for itself.
struct Maintenance {
    /// For the log.
    conn: Connection,
    /// What is under way.
    compaction: Option<Compaction>,
    filter: Option<PartialFilter>,
}

/// Number of a bucket in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct BucketId(u64);

impl BucketId {
    fn column(self) -> i64 {
        self.0.cast_signed()
    }

    fn from_column(id: i64) -> Result<Self, StorageError> {
        let id = u64::try_from(id).map_err(|_| StorageError::Damaged { what: "a bucket id is negative".to_owned() })?;
        Ok(Self(id))
    }
}

impl SqliteStore {
    /// Opens the store in `folder`, making both where they do not exist.
    ///
    /// # Errors
    /// [`StorageError::Locked`] while another process has it, [`StorageError::Format`] for files of others,
    /// [`StorageError::Damaged`] and [`StorageError::Engine`] when it cannot be read.
    pub fn open(folder: &Path, options: SqliteOptions) -> Result<Self, StorageError> {
        let folder = StoreFolder::lock(folder)?;
        // Half for the writer, whose pages are scattered; the other half for all readers.
        let mut conn = folder.writer(options.cache_bytes / 2)?;
        let log_pages = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&log_pages);
        conn.wal_hook(Some(move |_: &mut _, pages: std::ffi::c_int| {
            seen.store(usize::try_from(pages).unwrap_or(0), Ordering::Relaxed);
            Ok(())
        }))?;
        fault_point("store.at-open");
        let runs = verify::check_names(&conn, folder.reader(options.cache_bytes / 2)?, &Head::read(&conn)?)?;
        let runs = Arc::new(CurrentRuns::new(runs));
        let writer = Writer::new(conn, Arc::clone(&runs), options.compaction)?;
        let tail = Tail::load(writer.conn(), writer.head())?;
        let damages = Damages::load(writer.conn())?;
        let maintenance = folder.writer(0)?;
        // One more for the reader of rows.
        let reader_cache_bytes = options.cache_bytes / 2 / (options.reader_count + 1);
        let inner = Arc::new(Inner {
            readers: ReaderPool::new(options.reader_count, reader_cache_bytes),
            folder,
            options,
            writer: Mutex::new(writer),
            maintenance: Mutex::new(Maintenance { conn: maintenance, compaction: None, filter: None }),
            tail: RwLock::new(tail),
            row_reader: RowReader::new(reader_cache_bytes, Arc::clone(&runs)),
            runs,
            blocks: RecentBlocks::default(),
            bucket_names: Mutex::new(LruCache::new(NAMES_MAX)),
            write_checkpoints: WriteCheckpointQueue::default(),
            rewriting: Mutex::default(),
            signal: Signal::default(),
            damages,
            scrub_signal: Signal::default(),
            scrubbed_bytes: AtomicU64::new(0),
            has_forgotten: AtomicBool::new(true),
            is_full: AtomicBool::new(false),
            log_pages,
        });
        let _ = inner.runs.list().check_read().map_err(|error| inner.noting_rows(error));
        let mut store = Self { inner, background: Vec::new() };
        store.start("store-fold", |inner| inner.maintain())?;
        store.start("store-scrub", Inner::look_after)?;
        Ok(store)
    }

    /// Runs work in the background, which ends when the store is closed.
    fn start(&mut self, name: &str, work: fn(&Arc<Inner>)) -> Result<(), StorageError> {
        let inner = Arc::clone(&self.inner);
        let started = thread::Builder::new().name(name.to_owned()).spawn(move || work(&inner));
        self.background.push(started.map_err(|error| StorageError::Engine(format!("start thread {name}: {error}")))?);
        Ok(())
    }

    /// Sizes of the store in `folder`, in all and by definition. Reads the whole row store.
    ///
    /// # Errors
    /// [`StorageError::Missing`] where there is none; otherwise as [`Self::open`].
    pub fn stats_of(folder: &Path) -> Result<(StoreStats, Vec<DefinitionStats>), StorageError> {
        stats::of_folder(folder)
    }

    /// Bytes that the store in `folder` takes on disk.
    ///
    /// # Errors
    /// As [`Self::delete`].
    pub fn size_of(folder: &Path) -> Result<u64, StorageError> {
        Ok(StoreFolder::lock_existing(folder)?.size_bytes())
    }

    /// Deletes the store in `folder`. Everything in it comes from Postgres.
    ///
    /// # Errors
    /// [`StorageError::Missing`] where there is none, [`StorageError::Locked`] where a service has it.
    pub fn delete(folder: &Path) -> Result<(), StorageError> {
        StoreFolder::lock_existing(folder)?.delete()
    }

    /// Compacts every bucket, due or not, and gives all free space back. `progress` is told how many buckets are done, and
    /// how many there are.
    ///
    /// # Errors
    /// When the store cannot be read or written; what was done stays.
    pub fn compact_all(&self, progress: &mut dyn FnMut(u64, u64)) -> Result<(), StorageError> {
        self.inner.compact_all(progress)
    }
}

impl Drop for SqliteStore {
    fn drop(&mut self) {
        self.inner.signal.close();
        self.inner.scrub_signal.close();
        for background in self.background.drain(..) {
            // A panic there was reported by the panic hook; here is nothing left to do about it.
            let _ = background.join();
        }
    }
}

impl Inner {
    // Poisoned locks are used on: transactions roll back by themselves, and the tail is changed by steps that hold.

    fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reader(&self) -> Result<PooledReader<'_>, StorageError> {
        self.readers.get(&self.folder)
    }

    fn maintenance(&self) -> MutexGuard<'_, Maintenance> {
        self.maintenance.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tail_read(&self) -> RwLockReadGuard<'_, Tail> {
        self.tail.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn tail_wants_fold(&self) -> bool {
        self.tail_reaches(100)
    }

    /// Commits wait.
    fn tail_is_full(&self) -> bool {
        self.tail_reaches(TAIL_FULL_PERCENT)
    }

    /// Commits will soon wait.
    fn tail_is_pressing(&self) -> bool {
        self.tail_reaches(TAIL_PRESSING_PERCENT)
    }

    /// Whether the tail has this percentage of what is folded at once.
    fn tail_reaches(&self, percent: usize) -> bool {
        let size = self.tail_read().size();
        let part = |whole: usize| whole.saturating_mul(percent) / 100;
        size.operations >= part(self.options.fold_operations) || size.bytes >= part(self.options.fold_bytes)
    }

    fn commit(&self, batch: Batch) -> Result<Commit, StorageError> {
        let is_full = || self.is_full.load(Ordering::Relaxed);
        if !self.signal.wait_for_room(ROOM_WAIT_MAX, || !self.tail_is_full() || is_full()) {
            let message = format!("folding made no room in {ROOM_WAIT_MAX:?}: the disk is broken or too slow");
            return Err(StorageError::Engine(message));
        }
        if is_full() && self.tail_is_full() {
            return Err(StorageError::Full);
        }
        self.row_reader.rest()?;
        let commit = self.commit_and_publish(batch).map_err(|error| self.noting_rows(error));
        if matches!(commit, Err(StorageError::Full)) {
            // It may be full of log, which shrinks by being copied.
            self.log_pages.store(usize::MAX, Ordering::Relaxed);
        }
        if self.has_work() {
            self.signal.wake();
        }
        commit
    }

    /// Commits to the file, then changes memory alike.
    fn commit_and_publish(&self, mut batch: Batch) -> Result<Commit, StorageError> {
        let mut writer = self.writer();
        if batch.visible_at.is_some() {
            batch.operations.splice(..0, self.take_rewrite(&writer)?);
        }
        let appended = {
            // Only the writer changes it, so nobody waits for it meanwhile.
            let memory = Memory { tail: &self.tail_read(), blocks: &self.blocks };
            writer.transaction(Durability::Synced, |change| change.apply(batch, &memory, &self.options.straight))?
        };
        fault_point("store.before-publishing");
        let Head { version, checkpoint, last_op_id, serving, .. } = *writer.head();
        let mut tail = self.tail.write().unwrap_or_else(PoisonError::into_inner);
        for bucket in appended.past_tail {
            tail.remove(bucket, last_op_id);
        }
        for (bucket, operation) in appended.operations {
            tail.push(bucket, operation);
        }
        for (key, state) in appended.rows {
            tail.rows.insert(key, version, state);
        }
        tail.version = version;
        tail.checkpoint = checkpoint;
        let Appended { buckets, lookups, write_checkpoints, .. } = appended;
        Ok(Commit { checkpoint, buckets, emptied: Vec::new(), lookups, write_checkpoints, serving })
    }

    fn reset(&self) -> Result<(), StorageError> {
        let mut writer = self.writer();
        writer.transaction(Durability::Synced, |change| {
            schema::recreate_generation(change.tx)?;
            *change.runs_mut() = RunList::default();
            change.head = change.head.of_next_generation();
            Ok(())
        })?;
        writer.forget_names();
        self.damages.clear();
        let mut tail = self.tail.write().unwrap_or_else(PoisonError::into_inner);
        *tail = Tail::empty(writer.head().version);
        Ok(())
    }
}

impl BucketStore for SqliteStore {
    fn view(&self) -> Result<Box<dyn StoreView + '_>, StorageError> {
        Ok(Box::new(self.inner.view()?))
    }

    fn operations(
        &self,
        bucket: &BucketName,
        after: OpId,
        upto: OpId,
        bytes_max: usize,
    ) -> Result<OperationRange, StorageError> {
        self.inner.operations(bucket, after, upto, bytes_max)
    }

    fn row(&self, key: &RowKey) -> Result<Option<StoredRow>, StorageError> {
        self.inner.row(key).map_err(|error| self.inner.noting_rows(error))
    }

    fn rows_of_table(&self, table: TableId, after: Option<&RowKey>, limit: usize) -> Result<Vec<RowKey>, StorageError> {
        self.inner.rows_of_table(table, after, limit).map_err(|error| self.inner.noting_rows(error))
    }

    fn stored_rows(
        &self,
        table: TableId,
        after: Option<&RowKey>,
        limit: usize,
        bytes_max: usize,
    ) -> Result<Vec<(RowKey, StoredRow)>, StorageError> {
        self.inner.stored_rows(table, after, limit, bytes_max).map_err(|error| self.inner.noting_rows(error))
    }

    fn lookup_entries(&self, key: &LookupKey) -> Result<Vec<(RowKey, Vec<LookupValue>)>, StorageError> {
        self.inner.lookup_entries(key)
    }

    fn dependents(&self, key: &LookupKey, after: Option<&RowKey>, limit: usize) -> Result<Vec<RowKey>, StorageError> {
        self.inner.dependents(key, after, limit)
    }

    fn replication_state(&self) -> Result<Option<Bytes>, StorageError> {
        self.inner.replication_state()
    }

    fn rules(&self) -> Result<Option<StoredRules>, StorageError> {
        self.inner.rules()
    }

    fn commit(&self, batch: Batch) -> Result<Commit, StorageError> {
        self.inner.commit(batch)
    }

    fn forget(&self, names: &NamePrefixes, limit: u32) -> Result<bool, StorageError> {
        self.inner.forget(names, limit)
    }

    fn damaged_buckets(&self, limit: usize) -> Result<Vec<BucketName>, StorageError> {
        self.inner.damaged_buckets(limit)
    }

    fn damages(&self) -> Result<DamageReport, StorageError> {
        self.inner.damage_report()
    }

    fn shrink_damaged(&self, name: &BucketName) -> Result<bool, StorageError> {
        self.inner.shrink_damaged(name)
    }

    fn empty_buckets(&self, names: &[BucketName]) -> Result<Commit, StorageError> {
        self.inner.empty_buckets(names)
    }

    fn buckets_mended(&self, names: &[BucketName]) -> Result<(), StorageError> {
        self.inner.buckets_mended(names)
    }

    fn check_rows(&self) -> Result<(), StorageError> {
        self.inner.check_rows()
    }

    fn lost_rows(&self) -> Result<Vec<RangeInclusive<TableId>>, StorageError> {
        self.inner.lost_rows()
    }

    fn drop_lost_rows(&self) -> Result<u64, StorageError> {
        self.inner.drop_lost_rows()
    }

    fn reset(&self) -> Result<(), StorageError> {
        self.inner.reset()
    }

    fn put_write_checkpoints(
        &self,
        wanted: &[(WriteCheckpointKey, Option<WriteCheckpointId>)],
        head: Lsn,
    ) -> Result<Vec<WriteCheckpoint>, StorageError> {
        self.inner.put_write_checkpoints(wanted, head)
    }

    fn release_write_checkpoints(&self) -> Result<(), StorageError> {
        self.inner.release_write_checkpoints()
    }

    fn compact(&self) -> Result<bool, StorageError> {
        Ok(self.inner.compact()?.is_some())
    }

    fn definition_stats(&self) -> Result<Vec<DefinitionStats>, StorageError> {
        self.inner.definition_stats()
    }

    fn stats(&self) -> Result<StoreStats, StorageError> {
        let reader = self.inner.reader()?;
        let stats = Head::read(reader.conn())?.stats(&self.inner.folder);
        let damaged_bucket_count = self.inner.damages.count();
        let scrubbed_bytes = self.inner.scrubbed_bytes.load(Ordering::Relaxed);
        let has_damaged_rows = self.inner.damages.lost_rows().is_known();
        Ok(StoreStats { damaged_bucket_count, has_damaged_rows, scrubbed_bytes, ..stats })
    }
}
