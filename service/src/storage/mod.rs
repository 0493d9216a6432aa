//! The bucket store: what clients download, and what is needed to keep it true.
//!
//! Replication hands a [`Batch`] to [`BucketStore::commit`]: operations, row store, lookups, write position, in one
//! atomic and durable step. Serving reads through a [`StoreView`] (one consistent state) and then
//! [`BucketStore::operations`] in slices bounded by op id, never holding a transaction open while a client downloads.
//!
//! **Invariants**
//!
//! - A crash leaves all of a batch or none of it. When `commit` returns, the batch survives a power cut.
//! - One ever increasing op id for all buckets; it never goes back, also across [`BucketStore::reset`].
//! - Totals of a bucket equal the sum over its operations, always. Compaction makes operations fewer, and changes neither
//!   the checksum of a bucket nor its last op id.
//! - Methods block on disk; async callers run them on a blocking thread. One writer (replication), many readers.
//! - No HTTP, no pgoutput, no rules here. The store never interprets a row image or a lookup.
//! - The store is disposable: deleting it loses nothing but time.
//!
//! Engines: [`MemoryStore`], the simple model, and [`SqliteStore`], the default. Both pass one suite, `conformance`.
//! Start reading at [`BucketStore`].

mod compaction;
#[cfg(test)]
mod conformance;
mod damage_report;
mod frame;
mod generation;
mod memory;
mod range;
mod sqlite;
mod wire;

use std::{collections::HashMap, ops::RangeInclusive, sync::Arc};

use bytes::Bytes;
use foldhash::fast::RandomState;
use kairos_sync_protocol::{BucketName, Checksum, OpId, WriteCheckpointId};
pub use kairos_sync_rules::{LookupKey, LookupValue, NamePrefixes};
use serde::{Deserialize, Serialize};

pub use self::{
    compaction::CompactionOptions,
    damage_report::{DamageReport, DamagedDefinition},
    memory::MemoryStore,
    range::{RangeJson, RangePart},
    sqlite::{Damage, SqliteOptions, SqliteStore, StraightLimits, Verification, VerifyProgress},
};
use crate::lsn::Lsn;

/// Most operations in one [`OperationRange`]; the protocol's limit for a `data` line.
pub const RANGE_OPERATIONS_MAX: usize = 1_000;

/// Number of a source table within one store; given by replication, part of every row key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableId(pub u32);

/// Identifies a source row: its table and its encoded replica identity.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RowKey {
    /// The table.
    pub table: TableId,
    /// Encoded values of the replica identity; opaque here.
    pub identity: Arc<[u8]>,
}

/// The last full state of a source row and what it became: enough to undo it, and to evaluate it again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoredRow {
    /// Column values as the source printed them, encoded by replication; opaque here.
    pub image: Bytes,
    /// What clients have of this row.
    pub outputs: Vec<RowOutput>,
    /// Lookups this row feeds. A key may occur several times with different values.
    pub lookups: Vec<(LookupKey, LookupValue)>,
    /// Lookups this row's evaluation asked; when one changes the row is evaluated again.
    pub consulted: Vec<LookupKey>,
}

impl StoredRow {
    /// Whether it neither feeds lookups nor asked any.
    pub fn is_in_no_join(&self) -> bool {
        self.lookups.is_empty() && self.consulted.is_empty()
    }
}

/// An output row in a bucket.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RowOutput {
    /// The bucket.
    pub bucket: BucketName,
    /// Output table.
    pub object_type: Arc<str>,
    /// Output row id.
    pub object_id: Arc<str>,
}

/// An operation to append. The store gives it the next op id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewOperation {
    /// Where and what.
    pub output: RowOutput,
    /// Distinguishes source rows within the bucket.
    pub subkey: Arc<str>,
    /// As the protocol defines it, computed by the caller once per row rather than once per bucket.
    pub checksum: Checksum,
    /// The row as a JSON object in text for a PUT; `None` is a REMOVE.
    pub data: Option<Arc<str>>,
}

/// Everything one commit changes.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    /// Appended in this order with ascending op ids.
    pub operations: Vec<NewOperation>,
    /// Row store: the new state of these rows; `None` forgets the row. Each key at most once.
    pub rows: Vec<(RowKey, Option<StoredRow>)>,
    /// Lookup index: all values this source row now gives for this key; empty forgets them. Order and repetitions do
    /// not matter; of several entries for one key and row the last counts.
    pub lookups: Vec<(LookupKey, RowKey, Vec<LookupValue>)>,
    /// Join index: whether this row's evaluation now depends on this lookup. Applied in order; adding twice is adding
    /// once, removing what is not there does nothing.
    pub dependents: Vec<(LookupKey, RowKey, Dependency)>,
    /// Write checkpoints that are reached with this batch. Where a key has one with a larger id, that stays.
    pub write_checkpoints: Vec<(WriteCheckpointKey, WriteCheckpointId)>,
    /// Replication's own state (resume position, tables, slot identity); opaque here, replaced whole.
    pub replication_state: Option<Bytes>,
    /// Rules that are in force from this batch on; replaced whole.
    pub rules: Option<StoredRules>,
    /// Makes everything committed so far visible to clients as of this source position. `None` while it would be
    /// inconsistent: views then have no checkpoint until a later batch has one.
    pub visible_at: Option<Lsn>,
}

/// Number of a deployment of rules, the first being zero.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DeploymentNumber(pub u64);

/// The rules a store was built by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRules {
    /// The deployment clients are served by.
    pub serving: DeploymentNumber,
    /// All that replication must know of rules; opaque here.
    pub state: Bytes,
}

/// Entry or exit in the join index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dependency {
    /// The row depends on the lookup.
    Added,
    /// It no longer does.
    Removed,
}

/// A state clients may see: all operations up to `op_id` are durable and the source was read up to `lsn`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checkpoint {
    /// Last operation that belongs to it.
    pub op_id: OpId,
    /// Source position it equals.
    pub lsn: Lsn,
}

/// What a commit changed, for those who wait for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// The visible state after the commit; `None` before the first.
    pub checkpoint: Option<Checkpoint>,
    /// Buckets that got operations, each once, in the order of their names.
    pub buckets: Vec<BucketGrowth>,
    /// Lookups for which some row's values changed, each once. What was set to the same values again is not among them.
    pub lookups: Vec<LookupKey>,
    /// Buckets that begin anew, of which nothing holds that was known before. See [`BucketStore::empty_buckets`].
    pub emptied: Vec<BucketName>,
    /// Write checkpoints of the batch, as they are recorded now.
    pub write_checkpoints: Vec<(WriteCheckpointKey, WriteCheckpoint)>,
    /// The deployment clients are served by after it.
    pub serving: DeploymentNumber,
}

/// The operations a commit appended to one bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BucketGrowth {
    /// The bucket.
    pub bucket: BucketName,
    /// The first of them.
    pub first_op_id: OpId,
    /// Sums over them: what the bucket's totals grew by, with its new last op id.
    pub added: BucketTotals,
}

impl BucketGrowth {
    /// Counts what a later commit appended, too.
    pub fn extend(&mut self, later: &BucketTotals) {
        self.added.extend(later);
    }

    /// Growths of the buckets of these operations, in the order of op ids.
    fn of<'a>(operations: impl Iterator<Item = (&'a BucketName, OpId, Checksum)>) -> Vec<Self> {
        let mut places: HashMap<&BucketName, usize, RandomState> = HashMap::default();
        let mut growths: Vec<Self> = Vec::new();
        for (bucket, op_id, checksum) in operations {
            let place = *places.entry(bucket).or_insert_with(|| {
                growths.push(Self { bucket: bucket.clone(), first_op_id: op_id, added: BucketTotals::default() });
                growths.len() - 1
            });
            growths[place].added.append(op_id, checksum);
        }
        growths.sort_unstable_by(|one, other| one.bucket.cmp(&other.bucket));
        growths
    }
}

/// Sums over all operations of a bucket.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BucketTotals {
    /// Number of operations.
    pub count: u64,
    /// Sum of their checksums.
    pub checksum: Checksum,
    /// Id of the last one; zero without operations.
    pub last_op_id: OpId,
}

impl BucketTotals {
    /// Counts later operations, too.
    pub fn extend(&mut self, later: &Self) {
        self.count += later.count;
        self.checksum += later.checksum;
        self.last_op_id = later.last_op_id;
    }

    /// Of these operations, in their order.
    fn of(operations: impl IntoIterator<Item = (OpId, Checksum)>) -> Self {
        let mut totals = Self::default();
        operations.into_iter().for_each(|(op_id, checksum)| totals.append(op_id, checksum));
        totals
    }

    /// Counts one more operation.
    fn append(&mut self, op_id: OpId, checksum: Checksum) {
        self.count += 1;
        self.checksum += checksum;
        self.last_op_id = op_id;
    }
}

/// Consecutive operations of one bucket, in the form they are sent.
#[derive(Debug, Clone, Default)]
pub struct OperationRange {
    /// The operations.
    pub json: RangeJson,
    /// How many.
    pub count: usize,
    /// Id of the last one; the position to continue from. Zero if there is none.
    pub last_op_id: OpId,
    /// The bucket may have more operations up to the bound asked for.
    pub has_more: bool,
    /// What was replaced here by operations up to this one is missing from states before it: a bucket of which this range
    /// is a part is whole only in states that have this operation. Such a state was visible before the range could be
    /// read. Zero where nothing was replaced.
    pub valid_from: OpId,
}

/// Who waits for a write checkpoint: the user, and the client where it said which.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct WriteCheckpointKey(pub String);

impl WriteCheckpointKey {
    /// Of a user's client, or of the user where clients do not name themselves.
    pub fn of(user_id: &str, client_id: Option<&str>) -> Self {
        Self(client_id.map_or_else(|| user_id.to_owned(), |client_id| format!("{user_id}/{client_id}")))
    }
}

/// A write checkpoint: reached once replication has passed `lsn`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WriteCheckpoint {
    /// What the client waits for.
    pub id: WriteCheckpointId,
    /// Head of the source when it was asked for.
    pub lsn: Lsn,
}

impl WriteCheckpoint {
    /// What is recorded once `head` is waited for, where `known` was. See [`BucketStore::put_write_checkpoints`].
    fn after(known: Option<Self>, head: Lsn, requested: Option<WriteCheckpointId>) -> Self {
        let newest = known.map_or(WriteCheckpointId::ZERO, |known| known.id);
        match (known, requested) {
            (Some(known), Some(requested)) if requested <= newest => known,
            (_, Some(requested)) => Self { id: requested, lsn: head },
            (_, None) => Self { id: newest.next(), lsn: head },
        }
    }
}

/// Size of the store, for metrics and the status page.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// Buckets that have operations. An engine may count those that only stored rows name, too.
    pub bucket_count: u64,
    /// Operations in all buckets.
    pub operation_count: u64,
    /// Rows in the row store.
    pub row_count: u64,
    /// Bytes on disk, or in memory for an engine without files.
    pub size_bytes: u64,
    /// Bytes that are free where its files are, if it has any and the system tells.
    pub free_bytes: Option<u64>,
    /// Buckets that were found damaged and are not whole again.
    pub damaged_bucket_count: u64,
    /// Whether stored rows were found damaged that are not dropped yet.
    pub has_damaged_rows: bool,
    /// Bytes of operations and rows that were read since the store was opened only to see whether they are whole.
    pub scrubbed_bytes: u64,
}

/// How much the buckets of one definition hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct DefinitionStats {
    /// What bucket names begin with, between the store's prefix and the parameters.
    pub definition: String,
    /// Buckets.
    pub bucket_count: u64,
    /// Operations in them.
    pub operation_count: u64,
    /// Rows of the source in them; one that is in several buckets counts for each.
    pub row_count: u64,
    /// Pieces that older operations are kept in; zero for an engine without.
    pub chunk_count: u64,
    /// Bytes of JSON: what a client of all buckets would download.
    pub json_bytes: u64,
    /// Bytes that operations take, compressed where the engine does.
    pub stored_bytes: u64,
}

/// The definition in the name of a bucket.
pub(crate) fn definition_of<'a>(name: &'a BucketName, prefix: &str) -> &'a str {
    let own = name.as_str().strip_prefix(prefix).unwrap_or(name.as_str());
    own.split_once('[').map_or(own, |(definition, _)| definition)
}

/// Why the store cannot do what was asked.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    /// The engine failed: no permission, a broken disk.
    #[error("bucket store failed: {0}")]
    Engine(String),
    /// Nothing can be written for want of space. Nothing of what was to be written is there, and it can be tried again.
    #[error("the disk of the bucket store is full: free some space")]
    Full,
    /// A sync to disk failed. Nobody knows what is on the disk, and a second try may falsely succeed: nothing more is
    /// written by this process.
    #[error(
        "a sync of the bucket store to its disk failed, so nothing more is written: check the disk, then start the \
         service again"
    )]
    Unsynced,
    /// The folder belongs to a newer release or to another program.
    #[error(
        "bucket store at {path} has format {found}, this release reads {expected}: delete the folder to rebuild it"
    )]
    Format {
        /// Where.
        path: String,
        /// What the file says.
        found: String,
        /// What this release reads.
        expected: u32,
    },
    /// Another process has the store open.
    #[error("bucket store at {path} is in use by another process: stop it, or give this one another data_dir")]
    Locked {
        /// Where.
        path: String,
    },
    /// There is no store in the folder.
    #[error("there is no bucket store in {path}: name the folder that `data_dir` is set to")]
    Missing {
        /// Where.
        path: String,
    },
    /// Content contradicts its own checksum or structure.
    #[error(
        "bucket store is damaged ({what}): look at the disk, stop the service and run `kairos-sync store delete --yes`; \
         all is built again from Postgres"
    )]
    Damaged {
        /// Which part.
        what: String,
    },
    /// Stored rows contradict their checksums or structure. Which tables they are of is to be found out; all else can be used.
    #[error("stored rows are damaged ({what}): check the disk; their tables are copied again from Postgres")]
    RowsDamaged {
        /// Which part.
        what: String,
    },
    /// A filter of rows contradicts its checksum. Rows are found without it, only more slowly.
    #[error("a filter of rows is damaged ({what}) and is made again from the rows: check the disk")]
    FilterDamaged {
        /// Which part.
        what: String,
    },
    /// The operations of one bucket contradict their checksums or structure. All else can be used.
    #[error("a bucket is damaged ({what}) and is built again from the row store: try again")]
    BucketDamaged {
        /// Which part.
        what: String,
    },
}

impl StorageError {
    /// Stable across releases; listed in `docs/errors.md`.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Engine(_) => "STORE-0101",
            Self::Format { .. } => "STORE-0102",
            Self::Locked { .. } => "STORE-0103",
            Self::Damaged { .. } => "STORE-0104",
            Self::Missing { .. } => "STORE-0105",
            Self::BucketDamaged { .. } => "STORE-0106",
            Self::Full => "STORE-0107",
            Self::Unsynced => "STORE-0108",
            Self::RowsDamaged { .. } => "STORE-0109",
            Self::FilterDamaged { .. } => "STORE-0110",
        }
    }
}

/// One consistent state of the store. Commits that come later do not change it.
///
/// If the last commit was not visible there is nothing to see: no checkpoint, no lookup values, all totals zero.
pub trait StoreView {
    /// The state; `None` unless the last commit was visible.
    fn checkpoint(&self) -> Option<Checkpoint>;

    /// All values of a lookup, duplicates removed, in ascending order.
    fn lookup(&self, key: &LookupKey) -> Result<Vec<LookupValue>, StorageError>;

    /// Totals of a bucket; all zero for one that never had operations.
    fn bucket(&self, name: &BucketName) -> Result<BucketTotals, StorageError>;

    /// The deployment clients are served by in this state; zero before rules were stored.
    fn serving(&self) -> DeploymentNumber;

    /// As [`BucketStore::bucket_prefix`].
    fn bucket_prefix(&self) -> String;

    /// As [`BucketStore::write_checkpoint`].
    fn write_checkpoint(&self, key: &WriteCheckpointKey) -> Result<Option<WriteCheckpoint>, StorageError>;
}

/// Keeps buckets, and what is needed to keep them true. See the module for its invariants.
pub trait BucketStore: Send + Sync + 'static {
    /// A consistent state to compute a client's checkpoint from. Short-lived: drop it before sending anything, and ask
    /// nothing else of the store meanwhile: there may be as many readers as views.
    fn view(&self) -> Result<Box<dyn StoreView + '_>, StorageError>;

    /// Operations of `bucket` with `after < op id <= upto`, ascending.
    ///
    /// At most [`RANGE_OPERATIONS_MAX`] operations and `bytes_max` bytes of JSON, but at least one operation if there is
    /// any. Bounded by op id alone, so `upto` must come from a checkpoint the caller holds.
    fn operations(
        &self,
        bucket: &BucketName,
        after: OpId,
        upto: OpId,
        bytes_max: usize,
    ) -> Result<OperationRange, StorageError>;

    /// The stored state of a row.
    fn row(&self, key: &RowKey) -> Result<Option<StoredRow>, StorageError>;

    /// Keys of a table's rows after `after` in key order, at most `limit`. As of the last commit, visible or not.
    fn rows_of_table(&self, table: TableId, after: Option<&RowKey>, limit: usize) -> Result<Vec<RowKey>, StorageError>;

    /// The same rows with their states, for those who need most of them. Ends with the row at which these have `bytes_max`
    /// bytes, as far as the engine counts them; empty only if there are no more.
    fn stored_rows(
        &self,
        table: TableId,
        after: Option<&RowKey>,
        limit: usize,
        bytes_max: usize,
    ) -> Result<Vec<(RowKey, StoredRow)>, StorageError>;

    /// Values of a lookup with the source rows that give them, in key order, each row's values ascending and without
    /// repetitions. As of the last commit, visible or not.
    fn lookup_entries(&self, key: &LookupKey) -> Result<Vec<(RowKey, Vec<LookupValue>)>, StorageError>;

    /// Rows whose evaluation depends on a lookup, after `after` in key order, at most `limit`.
    fn dependents(&self, key: &LookupKey, after: Option<&RowKey>, limit: usize) -> Result<Vec<RowKey>, StorageError>;

    /// What replication last committed as its state.
    fn replication_state(&self) -> Result<Option<Bytes>, StorageError>;

    /// The rules the store was built by, as a batch last said.
    fn rules(&self) -> Result<Option<StoredRules>, StorageError>;

    /// Makes a batch durable and, where it says so, visible. Acknowledge to the source only after it returned.
    ///
    /// With it, the store may append PUTs that are there already once more, before the batch's own operations, so that what
    /// came before them can be compacted. The commit counts them as any others.
    ///
    /// After an error nothing of the batch is there, and the store can be used on: a commit that failed for want of
    /// disk space works once there is space again.
    fn commit(&self, batch: Batch) -> Result<Commit, StorageError>;

    /// Forgets buckets and lookups by the beginning of their names, at most about `limit`; `true` while there are more.
    /// Stored rows no longer name the buckets as their outputs. To be called by whoever commits, between two commits, for
    /// what clients are not served any more.
    fn forget(&self, names: &NamePrefixes, limit: u32) -> Result<bool, StorageError>;

    /// Buckets of which a reader found operations damaged, or that were emptied and are not mended; at most `limit`. Quick
    /// where there are none.
    fn damaged_buckets(&self, limit: usize) -> Result<Vec<BucketName>, StorageError>;

    /// What was found damaged and is not whole again. Quick where there is nothing.
    fn damages(&self) -> Result<DamageReport, StorageError>;

    /// Deletes some of what a damaged bucket has, which nobody is served from now on, and says whether there is more. To be
    /// called until there is not, before it is emptied: no single commit deletes very much then.
    fn shrink_damaged(&self, name: &BucketName) -> Result<bool, StorageError>;

    /// Lets damaged buckets begin anew, durably: a CLEAR with a new op id takes the place of all their operations, and what
    /// is visible stays so. Nobody is served them before they are mended: views and readers of operations get
    /// [`StorageError::BucketDamaged`]. To be called by whoever commits, between two commits; publish what it gives.
    fn empty_buckets(&self, names: &[BucketName]) -> Result<Commit, StorageError>;

    /// Emptied buckets have all their operations again.
    fn buckets_mended(&self, names: &[BucketName]) -> Result<(), StorageError>;

    /// [`StorageError::RowsDamaged`] while stored rows are known to be damaged that are not dropped yet. Quick. An engine
    /// that keeps nothing on a disk has nothing to add to this and the next two.
    fn check_rows(&self) -> Result<(), StorageError> {
        Ok(())
    }

    /// Numbers of the tables of which stored rows are damaged. Quick where nobody has met any; else all stored rows are
    /// read, and the store must be soundly built. To be called by whoever commits, between two commits.
    fn lost_rows(&self) -> Result<Vec<RangeInclusive<TableId>>, StorageError> {
        Ok(Vec::new())
    }

    /// Drops the rows that [`lost_rows`](Self::lost_rows) found, and what depends on rows of these tables in the join index.
    /// Older states of them may come to light, so no row of these tables is of use any more. Gives how many pieces of the
    /// row store were dropped.
    fn drop_lost_rows(&self) -> Result<u64, StorageError> {
        Ok(0)
    }

    /// Forgets everything but the op id sequence and the write checkpoints, and begins a new generation: bucket names
    /// made with its prefix were never used before.
    fn reset(&self) -> Result<(), StorageError>;

    /// Prefix for bucket names of the current generation, a dozen characters ending in `#`. Unique over the life of this store and, being
    /// derived from its creation, practically also against stores deleted earlier.
    fn bucket_prefix(&self) -> Result<String, StorageError> {
        Ok(self.view()?.bucket_prefix())
    }

    /// Records that each key waits for replication to pass `head`, durably, and returns what is recorded then; all of
    /// them or none. Without a requested id the id grows by one. With one, what is recorded stays where its id is as
    /// large or larger.
    fn put_write_checkpoints(
        &self,
        wanted: &[(WriteCheckpointKey, Option<WriteCheckpointId>)],
        head: Lsn,
    ) -> Result<Vec<WriteCheckpoint>, StorageError>;

    /// One of [`put_write_checkpoints`](Self::put_write_checkpoints).
    #[cfg(test)]
    fn put_write_checkpoint(
        &self,
        key: &WriteCheckpointKey,
        head: Lsn,
        requested: Option<WriteCheckpointId>,
    ) -> Result<WriteCheckpoint, StorageError> {
        self.put_write_checkpoints(&[(key.clone(), requested)], head).map(|stored| stored[0])
    }

    /// Write checkpoints recorded so far count as reached: the positions they wait for are those of another source.
    fn release_write_checkpoints(&self) -> Result<(), StorageError>;

    /// The newest write checkpoint of `key`.
    fn write_checkpoint(&self, key: &WriteCheckpointKey) -> Result<Option<WriteCheckpoint>, StorageError> {
        self.view()?.write_checkpoint(key)
    }

    /// Does a bounded part of what compaction there is to do, for operations that are visible: those that were superseded
    /// become MOVE and CLEAR. Whether there may be more to do.
    ///
    /// Totals keep their checksum and last op id while the count falls; views keep the state they are of. What
    /// [`operations`](Self::operations) gives may change from one call to the next, and still adds up for a client that
    /// goes on from any position, see [`OperationRange::valid_from`].
    fn compact(&self) -> Result<bool, StorageError>;

    /// Size of the store. May be a few seconds old.
    fn stats(&self) -> Result<StoreStats, StorageError>;

    /// Size by definition, in the order of their names. Reads the whole row store, some seconds where that has millions of
    /// rows: not to be asked more often than every few minutes.
    fn definition_stats(&self) -> Result<Vec<DefinitionStats>, StorageError>;
}
