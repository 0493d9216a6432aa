//! The one connection that writes, and what a commit writes.

use std::{collections::HashMap, num::NonZeroUsize, sync::Arc};

use bytes::Bytes;
use foldhash::fast::RandomState;
use kairos_sync_protocol::{BucketName, WriteCheckpointId};
use lru::LruCache;
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior};

use super::{
    super::{
        Batch, BucketGrowth, BucketTotals, Checkpoint, CompactionOptions, Dependency, LookupKey, LookupValue,
        NewOperation, RowKey, StorageError, StoredRow, StoredRules, WriteCheckpoint, WriteCheckpointKey,
        wire::{json_bytes, write_json},
    },
    BucketId, StraightLimits,
    block::{BlockBuilder, BlockOperations},
    bucket::Bucket,
    chunk::{self, Links, NewChunks},
    codec::{encode_row, encode_values},
    head::{Head, RecordSum},
    index,
    rows::{RowStates, RowsBuilder},
    runs::{
        build::RunBuilder,
        current::CurrentRuns,
        list::RunList,
        read::{RecentBlocks, find},
    },
    sum::Sum,
    tail::Tail,
    write_checkpoint,
};
use crate::{fault_point::fault_point, lsn::Lsn};

/// Bytes of JSON after which the tail begins a new block. Bounds what opening a store and a fold hold at once.
const BLOCK_BYTES: usize = 1 << 20;
/// Bucket names remembered with their numbers: enough for what is busy at a time, about 2 MiB at most.
pub(super) const NAMES_MAX: NonZeroUsize = NonZeroUsize::new(10_000).expect("not zero");

/// Whether a transaction must survive a power cut by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Durability {
    /// Synced before it returns.
    Synced,
    /// Synced with the next synced one, and never lost without all later ones: enough for a fold, which only moves
    /// what is durable already.
    Later,
}

type BucketNumbers = LruCache<BucketName, BucketId, RandomState>;

/// Owns the writing connection.
pub(super) struct Writer {
    conn: Connection,
    head: Head,
    runs: Arc<CurrentRuns>,
    /// Numbers of buckets that are committed, or about to be in the current transaction.
    names: BucketNumbers,
    compaction: CompactionOptions,
    /// A sync failed: nobody knows what reached the disk, so nothing may be written on top.
    failed: bool,
}

/// What a commit put into the tail, and what it changed.
pub(super) struct Appended {
    pub(super) operations: BlockOperations,
    pub(super) rows: RowStates,
    /// Buckets of which everything is in chunks now.
    pub(super) past_tail: Vec<BucketId>,
    /// Of all operations, each once.
    pub(super) buckets: Vec<BucketGrowth>,
    /// Each once.
    pub(super) lookups: Vec<LookupKey>,
    pub(super) write_checkpoints: Vec<(WriteCheckpointKey, WriteCheckpoint)>,
}

/// What became of the operations of a commit.
struct Operations {
    in_tail: BlockOperations,
    past_tail: Vec<BucketId>,
    buckets: Vec<BucketGrowth>,
}

impl Writer {
    pub(super) fn new(
        conn: Connection,
        runs: Arc<CurrentRuns>,
        compaction: CompactionOptions,
    ) -> Result<Self, StorageError> {
        conn.set_prepared_statement_cache_capacity(64);
        let head = Head::read(&conn)?;
        let names = LruCache::with_hasher(NAMES_MAX, RandomState::default());
        Ok(Self { conn, head, runs, names, compaction, failed: false })
    }

    pub(super) fn head(&self) -> &Head {
        &self.head
    }

    pub(super) fn conn(&self) -> &Connection {
        &self.conn
    }

    /// Runs a change in a transaction. After an error nothing of it is there.
    pub(super) fn transaction<T>(
        &mut self,
        durability: Durability,
        change: impl FnOnce(&mut Change) -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        if self.failed {
            return Err(StorageError::Unsynced);
        }
        let result = self.try_transaction(durability, change);
        if let Err(error) = &result {
            self.notice(error);
            // Some may be numbered by the transaction that is no more.
            self.names.clear();
        }
        result
    }

    fn try_transaction<T>(
        &mut self,
        durability: Durability,
        change: impl FnOnce(&mut Change) -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        let synchronous = if durability == Durability::Synced { "FULL" } else { "NORMAL" };
        self.conn.pragma_update(None, "synchronous", synchronous)?;
        let tx = self.conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut change_state = Change {
            tx: &tx,
            head: self.head.clone(),
            runs: self.runs.list(),
            changed_runs: false,
            names: &mut self.names,
            compaction: &self.compaction,
        };
        let value = change(&mut change_state)?;
        let Change { head, runs, changed_runs, .. } = change_state;
        head.write(&tx)?;
        fault_point("store.before-sync");
        tx.commit()?;
        self.head = head;
        if changed_runs {
            self.runs.set(runs);
        }
        Ok(value)
    }

    /// Writes nothing any more if this was a failed sync, here or of another connection.
    pub(super) fn notice(&mut self, error: &StorageError) {
        self.failed |= matches!(error, StorageError::Unsynced);
    }

    /// Forgets bucket names, as a reset does with the buckets.
    pub(super) fn forget_names(&mut self) {
        self.names.clear();
    }
}

/// A transaction under way.
pub(super) struct Change<'a> {
    pub(super) tx: &'a Transaction<'a>,
    /// As it will be.
    pub(super) head: Head,
    /// As they will be.
    pub(super) runs: Arc<RunList>,
    changed_runs: bool,
    names: &'a mut BucketNumbers,
    compaction: &'a CompactionOptions,
}

/// Numbers of the buckets of a batch by where their names are. A batch mostly shares names between its operations and
/// rows, and keeps them while it is applied.
type NumbersByPlace = HashMap<*const u8, BucketId, RandomState>;

/// What memory knows beside the file when a commit is applied.
pub(super) struct Memory<'a> {
    pub(super) tail: &'a Tail,
    pub(super) blocks: &'a RecentBlocks,
}

/// Where rows may be already. Those of a copy that come in the order of their keys are nowhere, and need not be looked for one
/// by one.
#[derive(Clone, Copy)]
struct Known {
    in_tail: bool,
    in_runs: bool,
}

impl Known {
    const ANYWHERE: Self = Self { in_tail: true, in_runs: true };
}

impl Change<'_> {
    /// The runs, to change them.
    pub(super) fn runs_mut(&mut self) -> &mut RunList {
        self.changed_runs = true;
        Arc::make_mut(&mut self.runs)
    }

    /// Writes all of a batch. What is much goes where it is kept, the rest into the tail.
    pub(super) fn apply(
        &mut self,
        batch: Batch,
        memory: &Memory<'_>,
        limits: &StraightLimits,
    ) -> Result<Appended, StorageError> {
        let mut numbers = NumbersByPlace::default();
        let Operations { in_tail: operations, past_tail, buckets } =
            self.append(&batch.operations, &mut numbers, memory.tail, limits)?;
        self.head.version += 1;
        let rows = self.append_rows(batch.rows, &mut numbers, memory, limits)?;
        let lookups = self.set_lookups(batch.lookups)?;
        self.set_dependents(batch.dependents)?;
        let write_checkpoints = self.set_write_checkpoints(batch.write_checkpoints)?;
        if let Some(state) = batch.replication_state {
            self.set_replication_state(&state)?;
        }
        if let Some(rules) = batch.rules {
            self.set_rules(&rules)?;
        }
        self.head.checkpoint = batch.visible_at.map(|lsn| Checkpoint { op_id: self.head.last_op_id, lsn });
        Ok(Appended { operations, rows, past_tail, buckets, lookups, write_checkpoints })
    }

    fn set_write_checkpoints(
        &self,
        reached: Vec<(WriteCheckpointKey, WriteCheckpointId)>,
    ) -> Result<Vec<(WriteCheckpointKey, WriteCheckpoint)>, StorageError> {
        let record = |(key, id)| {
            let stored = write_checkpoint::put(self.tx, &key, Lsn::ZERO, Some(id))?;
            Ok((key, stored))
        };
        reached.into_iter().map(record).collect()
    }

    /// Appends operations.
    fn append(
        &mut self,
        operations: &[NewOperation],
        numbers: &mut NumbersByPlace,
        tail: &Tail,
        limits: &StraightLimits,
    ) -> Result<Operations, StorageError> {
        let ids: Vec<_> = operations
            .iter()
            .map(|operation| self.bucket_id_at(&operation.output.bucket, numbers))
            .collect::<Result<_, _>>()?;
        let mut op_id = self.head.last_op_id;
        let buckets = BucketGrowth::of(operations.iter().map(|operation| {
            op_id = op_id.next();
            (&operation.output.bucket, op_id, operation.checksum)
        }));
        let mut chunks = new_chunks(self.tx, operations, &ids, tail, limits)?;
        let mut appended = Vec::new();
        let mut block = BlockBuilder::default();
        for (operation, bucket) in operations.iter().zip(&ids) {
            let op_id = self.head.last_op_id.next();
            self.head.last_op_id = op_id;
            let write = |out: &mut Vec<u8>| write_json(op_id, operation, out);
            if let Some(chunks) = chunks.get_mut(bucket) {
                chunks.push(op_id, operation.checksum, write)?;
                continue;
            }
            block.push(*bucket, op_id, operation.checksum, write);
            if block.json_bytes() >= BLOCK_BYTES {
                self.append_block(std::mem::take(&mut block), &mut appended)?;
            }
        }
        if !block.is_empty() {
            self.append_block(block, &mut appended)?;
        }
        // In the order of their numbers, so that neighbours in the file are written together.
        let mut chunks: Vec<_> = chunks.into_iter().collect();
        chunks.sort_unstable_by_key(|(bucket, _)| *bucket);
        let past_tail = chunks.iter().map(|(bucket, _)| *bucket).collect();
        for (_, chunks) in chunks {
            chunks.append(self.tx)?;
        }
        self.head.operation_count += operations.len() as u64;
        Ok(Operations { in_tail: appended, past_tail, buckets })
    }

    fn append_block(&mut self, block: BlockBuilder, appended: &mut BlockOperations) -> Result<(), StorageError> {
        let first_op_id = block.first_op_id();
        let (block, operations) = block.finish_shared_with(&self.head.tail_op_id.get().to_le_bytes())?;
        self.head.tail_op_id = first_op_id;
        self.tx
            .prepare_cached("INSERT INTO tail (first_op_id, block) VALUES (?1, ?2)")?
            .execute((first_op_id.get().cast_signed(), block))?;
        appended.extend(operations);
        Ok(())
    }

    fn bucket_id_at(&mut self, name: &BucketName, numbers: &mut NumbersByPlace) -> Result<BucketId, StorageError> {
        let place = name.as_str().as_ptr();
        if let Some(id) = numbers.get(&place) {
            return Ok(*id);
        }
        let id = self.bucket_id(name)?;
        numbers.insert(place, id);
        Ok(id)
    }

    /// The number of a bucket, a new one if need be.
    fn bucket_id(&mut self, name: &BucketName) -> Result<BucketId, StorageError> {
        if let Some(id) = self.names.get(name) {
            return Ok(*id);
        }
        let id = match Bucket::find(self.tx, name)? {
            Some(bucket) => bucket.id,
            None => self.add_bucket(name)?,
        };
        self.names.put(name.clone(), id);
        Ok(id)
    }

    /// With so many operations compaction of a new bucket pays.
    pub(super) fn due_count(&self) -> u64 {
        self.compaction.due_count(0)
    }

    fn add_bucket(&mut self, name: &BucketName) -> Result<BucketId, StorageError> {
        self.head.last_bucket_id += 1;
        self.head.bucket_count += 1;
        let id = BucketId(self.head.last_bucket_id);
        let (folded, due_count) = (BucketTotals::default(), self.due_count());
        Bucket { id, name: name.clone(), folded, due_count, is_mending: false }.insert(self.tx)?;
        Ok(id)
    }

    /// Where rows with the keys of these, which are in their order, or with keys between them may be.
    fn known_between(&self, rows: &[(RowKey, Option<StoredRow>)], memory: &Memory<'_>) -> Known {
        let [(first, _), .., (last, _)] = rows else { return Known::ANYWHERE };
        Known { in_tail: memory.tail.rows.has_between(first, last), in_runs: self.runs.may_have_between(first, last) }
    }

    /// Writes states of rows. Gives those that went to the tail.
    fn append_rows(
        &mut self,
        mut rows: Vec<(RowKey, Option<StoredRow>)>,
        numbers: &mut NumbersByPlace,
        memory: &Memory<'_>,
        limits: &StraightLimits,
    ) -> Result<RowStates, StorageError> {
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let bytes: usize =
            rows.iter().map(|(key, row)| key.identity.len() + row.as_ref().map_or(0, |row| row.image.len())).sum();
        let goes_straight = bytes >= limits.row_bytes;
        if goes_straight {
            rows.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        }
        let known = if goes_straight { self.known_between(&rows, memory) } else { Known::ANYWHERE };
        let mut tail = RowsBuilder::default();
        let (mut buckets, mut state) = (Vec::new(), Vec::new());
        let mut run = RunBuilder::new(if goes_straight { rows.len() } else { 0 });
        for (key, row) in rows {
            let in_tail = if known.in_tail { memory.tail.rows.is_there(&key) } else { None };
            let was_there = match in_tail {
                Some(is_there) => is_there,
                None => known.in_runs && find(self.tx, &self.runs, memory.blocks, &key)?.flatten().is_some(),
            };
            self.head.row_count = self.head.row_count.saturating_sub(u64::from(was_there)) + u64::from(row.is_some());
            buckets.clear();
            for output in row.iter().flat_map(|row| &row.outputs) {
                buckets.push(self.bucket_id_at(&output.bucket, numbers)?);
            }
            // The tail would hide an older state in its place.
            if goes_straight && in_tail.is_none() {
                state.clear();
                if let Some(row) = &row {
                    encode_row(row, &buckets, &mut state);
                }
                if row.is_some() || was_there {
                    run.push(&key, row.is_some().then_some(&state))?;
                }
                continue;
            }
            let buckets = &buckets;
            tail.push(key, row.map(|row| move |out: &mut Vec<u8>| encode_row(&row, buckets, out)));
        }
        run.finish()?.store(self)?;
        if tail.is_empty() {
            return Ok(Vec::new());
        }
        let (record, appended) = tail.finish(self.head.version, self.head.row_tail_version)?;
        self.head.row_tail_version = self.head.version;
        let sql = "INSERT INTO row_tail (version, block) VALUES (?1, ?2)";
        self.tx.prepare_cached(sql)?.execute((self.head.version.cast_signed(), record))?;
        Ok(appended)
    }

    /// Gives the lookups that changed, each once. Both indexes are written in the order of their keys, so that neighbours
    /// share the search for a page; several entries for one key keep their order.
    fn set_lookups(
        &mut self,
        mut entries: Vec<(LookupKey, RowKey, Vec<LookupValue>)>,
    ) -> Result<Vec<LookupKey>, StorageError> {
        if entries.is_empty() {
            return Ok(Vec::new());
        }
        entries.sort_by(|(key, row, _), (other_key, other_row, _)| (key, row).cmp(&(other_key, other_row)));
        let select = "SELECT value_list FROM lookup WHERE key = ?1 AND table_id = ?2 AND identity = ?3";
        let mut select = self.tx.prepare_cached(select)?;
        let replace = "REPLACE INTO lookup (key, table_id, identity, value_list, sum) VALUES (?1, ?2, ?3, ?4, ?5)";
        let mut replace = self.tx.prepare_cached(replace)?;
        let delete = "DELETE FROM lookup WHERE key = ?1 AND table_id = ?2 AND identity = ?3";
        let mut delete = self.tx.prepare_cached(delete)?;
        let mut changed: Vec<LookupKey> = Vec::new();
        for (key, row, mut values) in entries {
            values.sort_unstable();
            values.dedup();
            let entry = (&*key.0, row.table.0, &*row.identity);
            let before: Option<Vec<u8>> = select.query_row(entry, |row| row.get(0)).optional()?;
            let after = (!values.is_empty()).then(|| encode_values(&values));
            if before == after {
                continue;
            }
            let was_there = u64::from(before.is_some());
            self.head.lookup_count = self.head.lookup_count.saturating_sub(was_there) + u64::from(after.is_some());
            match after {
                Some(after) => {
                    let sum = index::entry_sum(entry.0, entry.1, entry.2, &after).finish();
                    replace.execute((entry.0, entry.1, entry.2, after, sum))?
                }
                None => delete.execute(entry)?,
            };
            if changed.last() != Some(&key) {
                changed.push(key);
            }
        }
        Ok(changed)
    }

    fn set_dependents(&mut self, mut entries: Vec<(LookupKey, RowKey, Dependency)>) -> Result<(), StorageError> {
        if entries.is_empty() {
            return Ok(());
        }
        entries.sort_by(|(key, row, _), (other_key, other_row, _)| (key, row).cmp(&(other_key, other_row)));
        let add = "INSERT INTO dependent (key, table_id, identity, sum) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING";
        let mut add = self.tx.prepare_cached(add)?;
        let remove = "DELETE FROM dependent WHERE key = ?1 AND table_id = ?2 AND identity = ?3";
        let mut remove = self.tx.prepare_cached(remove)?;
        for (key, row, dependency) in &entries {
            let entry = (&*key.0, row.table.0, &*row.identity);
            let count = &mut self.head.dependent_count;
            *count = match dependency {
                Dependency::Added => {
                    let sum = index::dependent_sum(entry.0, entry.1, entry.2).finish();
                    *count + add.execute((entry.0, entry.1, entry.2, sum))? as u64
                }
                Dependency::Removed => count.saturating_sub(remove.execute(entry)? as u64),
            };
        }
        Ok(())
    }

    fn set_rules(&mut self, rules: &StoredRules) -> Result<(), StorageError> {
        self.head.serving = rules.serving;
        self.head.rules_sum = self.set_single("rules", &rules.state)?;
        Ok(())
    }

    fn set_replication_state(&mut self, state: &Bytes) -> Result<(), StorageError> {
        self.head.replication_sum = self.set_single("replication", state)?;
        Ok(())
    }

    /// Writes the only record of a table, and gives what the head says of it.
    fn set_single(&self, table: &'static str, state: &[u8]) -> Result<RecordSum, StorageError> {
        let sql =
            format!("INSERT INTO {table} (id, state) VALUES (1, ?1) ON CONFLICT DO UPDATE SET state = excluded.state");
        self.tx.prepare_cached(&sql)?.execute([state])?;
        Ok(Some(Sum::of(table).bytes(state).finish()))
    }
}

/// Chunks for the buckets of which a commit has so much that it need not be collected first. They begin with what the tail
/// has of these buckets, which comes before.
fn new_chunks(
    conn: &Connection,
    operations: &[NewOperation],
    ids: &[BucketId],
    tail: &Tail,
    limits: &StraightLimits,
) -> Result<HashMap<BucketId, NewChunks, RandomState>, StorageError> {
    let mut bytes: HashMap<BucketId, usize, RandomState> = HashMap::default();
    for (operation, bucket) in operations.iter().zip(ids) {
        *bytes.entry(*bucket).or_default() += json_bytes(operation);
    }
    let buckets = bytes.into_iter().filter(|(_, bytes)| *bytes >= limits.chunk_bytes);
    let begin = |(bucket, bytes)| {
        let links = Links { previous: chunk::last_op_id(conn, bucket)?, ..Links::default() };
        Ok((bucket, NewChunks::of(bucket, bytes as u64, links, tail.all(bucket))?))
    };
    buckets.map(begin).collect()
}
