//! The one connection that writes, and what a commit writes.

use std::num::NonZeroUsize;

use bytes::Bytes;
use foldhash::fast::RandomState;
use kairos_sync_protocol::BucketName;
use lru::LruCache;
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior};

use super::{
    super::{
        Batch, BucketGrowth, Checkpoint, Dependency, LookupKey, LookupValue, NewOperation, RowKey, StorageError,
        StoredRow,
        wire::{WireOperation, write_json},
    },
    BucketId,
    block::BlockBuilder,
    codec::{encode_row, encode_values},
    error::is_sync_failure,
    head::Head,
    rows::{RowState, RowsBuilder},
};
use crate::fault_point::fault_point;

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
    /// Numbers of buckets that are committed, or about to be in the current transaction.
    names: BucketNumbers,
    /// A sync failed: nobody knows what reached the disk, so nothing may be written on top.
    failed: bool,
}

/// What a commit put into the tail.
pub(super) struct Appended {
    pub(super) operations: Vec<(BucketId, WireOperation)>,
    pub(super) rows: Vec<(RowKey, RowState)>,
    /// Each once.
    pub(super) buckets: Vec<BucketGrowth>,
    /// Each once.
    pub(super) lookups: Vec<LookupKey>,
}

impl Writer {
    pub(super) fn new(conn: Connection) -> Result<Self, StorageError> {
        conn.set_prepared_statement_cache_capacity(64);
        let head = Head::read(&conn)?;
        Ok(Self { conn, head, names: LruCache::with_hasher(NAMES_MAX, RandomState::default()), failed: false })
    }

    pub(super) fn head(&self) -> &Head {
        &self.head
    }

    pub(super) fn conn(&self) -> &Connection {
        &self.conn
    }

    /// Whether table `row` has any.
    pub(super) fn has_rows(&self) -> Result<bool, StorageError> {
        Ok(self.conn.prepare_cached("SELECT 1 FROM row LIMIT 1")?.exists([])?)
    }

    /// Runs a change in a transaction. After an error nothing of it is there.
    pub(super) fn transaction<T>(
        &mut self,
        durability: Durability,
        change: impl FnOnce(&mut Change) -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        if self.failed {
            let message = "an earlier sync to disk failed, so nothing more is written: check the disk, then restart";
            return Err(StorageError::Engine(message.to_owned()));
        }
        let result = self.try_transaction(durability, change);
        if result.is_err() {
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
        let mut change_state = Change { tx: &tx, head: self.head.clone(), names: &mut self.names };
        let value = change(&mut change_state)?;
        let head = change_state.head;
        head.write(&tx)?;
        fault_point("store.before-sync");
        if let Err(error) = tx.commit() {
            self.notice(&error);
            return Err(error.into());
        }
        self.head = head;
        Ok(value)
    }

    /// Writes nothing any more if this was a failed sync, here or of another connection.
    pub(super) fn notice(&mut self, error: &rusqlite::Error) {
        self.failed |= is_sync_failure(error);
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
    names: &'a mut BucketNumbers,
}

impl Change<'_> {
    /// `recent` says whether a row is there, for rows that changed lately.
    pub(super) fn apply(
        &mut self,
        batch: Batch,
        recent: impl Fn(&RowKey) -> Option<bool>,
    ) -> Result<Appended, StorageError> {
        let operations = self.append(&batch.operations)?;
        let named = operations.iter().zip(&batch.operations);
        let buckets = BucketGrowth::of(
            named.map(|((_, operation), new)| (&new.output.bucket, operation.op_id, operation.checksum)),
        );
        self.head.version += 1;
        let rows = self.append_rows(batch.rows, recent)?;
        let mut lookups = Vec::new();
        for (key, row, values) in batch.lookups {
            if self.set_lookup(&key, &row, values)? {
                lookups.push(key);
            }
        }
        lookups.sort_unstable();
        lookups.dedup();
        for (key, row, dependency) in &batch.dependents {
            self.set_dependent(key, row, *dependency)?;
        }
        if let Some(state) = batch.replication_state {
            self.set_replication_state(&state)?;
        }
        self.head.checkpoint = batch.visible_at.map(|lsn| Checkpoint { op_id: self.head.last_op_id, lsn });
        Ok(Appended { operations, rows, buckets, lookups })
    }

    /// Appends operations to the tail.
    fn append(&mut self, operations: &[NewOperation]) -> Result<Vec<(BucketId, WireOperation)>, StorageError> {
        let mut appended = Vec::with_capacity(operations.len());
        let mut block = BlockBuilder::default();
        let mut op_id = self.head.last_op_id;
        for operation in operations {
            op_id = op_id.next();
            let bucket = self.bucket_id(&operation.output.bucket)?;
            block.push(bucket.0, operation.checksum, |out| write_json(op_id, operation, out));
            if block.json_bytes() >= BLOCK_BYTES {
                self.append_block(std::mem::take(&mut block), &mut appended)?;
            }
        }
        if !block.is_empty() {
            self.append_block(block, &mut appended)?;
        }
        self.head.operation_count += operations.len() as u64;
        Ok(appended)
    }

    fn append_block(
        &mut self,
        block: BlockBuilder,
        appended: &mut Vec<(BucketId, WireOperation)>,
    ) -> Result<(), StorageError> {
        let (block, entries) = block.finish()?;
        let first_op_id = self.head.last_op_id.next();
        self.tx
            .prepare_cached("INSERT INTO tail (first_op_id, block) VALUES (?1, ?2)")?
            .execute((first_op_id.get().cast_signed(), block))?;
        for entry in entries {
            let op_id = self.head.last_op_id.next();
            self.head.last_op_id = op_id;
            let operation = WireOperation { op_id, checksum: entry.checksum, json: entry.json };
            appended.push((BucketId(entry.key), operation));
        }
        Ok(())
    }

    /// The number of a bucket, a new one if need be.
    fn bucket_id(&mut self, name: &BucketName) -> Result<BucketId, StorageError> {
        if let Some(id) = self.names.get(name) {
            return Ok(*id);
        }
        let id = match find_bucket(self.tx, name)? {
            Some(id) => id,
            None => self.add_bucket(name)?,
        };
        self.names.put(name.clone(), id);
        Ok(id)
    }

    fn add_bucket(&mut self, name: &BucketName) -> Result<BucketId, StorageError> {
        self.head.last_bucket_id += 1;
        self.head.bucket_count += 1;
        let id = BucketId(self.head.last_bucket_id);
        let sql = "INSERT INTO bucket (id, name, operation_count, checksum, last_op_id) VALUES (?1, ?2, 0, 0, 0)";
        self.tx.prepare_cached(sql)?.execute((id.column(), name.as_str()))?;
        Ok(id)
    }

    /// Appends states of rows to their tail.
    fn append_rows(
        &mut self,
        rows: Vec<(RowKey, Option<StoredRow>)>,
        recent: impl Fn(&RowKey) -> Option<bool>,
    ) -> Result<Vec<(RowKey, RowState)>, StorageError> {
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let mut builder = RowsBuilder::default();
        let mut buckets = Vec::new();
        for (key, row) in rows {
            let was_there = recent(&key).map_or_else(|| has_row(self.tx, &key), Ok)?;
            self.head.row_count = self.head.row_count.saturating_sub(u64::from(was_there)) + u64::from(row.is_some());
            buckets.clear();
            for output in row.iter().flat_map(|row| &row.outputs) {
                buckets.push(self.bucket_id(&output.bucket)?);
            }
            let buckets = &buckets;
            builder.push(key, row.map(|row| move |out: &mut Vec<u8>| encode_row(&row, buckets, out)));
        }
        let (record, appended) = builder.finish()?;
        let sql = "INSERT INTO row_tail (version, block) VALUES (?1, ?2)";
        self.tx.prepare_cached(sql)?.execute((self.head.version.cast_signed(), record))?;
        Ok(appended)
    }

    /// Writes a state to its place in the row store.
    pub(super) fn place_row(&mut self, key: &RowKey, state: &RowState) -> Result<(), StorageError> {
        if let Some(state) = state {
            let sql = "INSERT INTO row (table_id, identity, state) VALUES (?1, ?2, ?3) \
                       ON CONFLICT DO UPDATE SET state = excluded.state";
            self.tx.prepare_cached(sql)?.execute((key.table.0, &*key.identity, &**state))?;
        } else {
            let sql = "DELETE FROM row WHERE table_id = ?1 AND identity = ?2";
            self.tx.prepare_cached(sql)?.execute((key.table.0, &*key.identity))?;
        }
        Ok(())
    }

    /// Whether it changed anything.
    fn set_lookup(
        &mut self,
        key: &LookupKey,
        row: &RowKey,
        mut values: Vec<LookupValue>,
    ) -> Result<bool, StorageError> {
        values.sort_unstable();
        values.dedup();
        let entry = (&*key.0, row.table.0, &*row.identity);
        let sql = "SELECT value_list FROM lookup WHERE key = ?1 AND table_id = ?2 AND identity = ?3";
        let before: Option<Vec<u8>> = self.tx.prepare_cached(sql)?.query_row(entry, |row| row.get(0)).optional()?;
        let after = (!values.is_empty()).then(|| encode_values(&values));
        if before == after {
            return Ok(false);
        }
        if let Some(after) = after {
            let sql = "INSERT INTO lookup (key, table_id, identity, value_list) VALUES (?1, ?2, ?3, ?4) \
                       ON CONFLICT DO UPDATE SET value_list = excluded.value_list";
            self.tx.prepare_cached(sql)?.execute((entry.0, entry.1, entry.2, after))?;
        } else {
            let sql = "DELETE FROM lookup WHERE key = ?1 AND table_id = ?2 AND identity = ?3";
            self.tx.prepare_cached(sql)?.execute(entry)?;
        }
        Ok(true)
    }

    fn set_dependent(&mut self, key: &LookupKey, row: &RowKey, dependency: Dependency) -> Result<(), StorageError> {
        let sql = match dependency {
            Dependency::Added => {
                "INSERT INTO dependent (key, table_id, identity) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING"
            }
            Dependency::Removed => "DELETE FROM dependent WHERE key = ?1 AND table_id = ?2 AND identity = ?3",
        };
        self.tx.prepare_cached(sql)?.execute((&*key.0, row.table.0, &*row.identity))?;
        Ok(())
    }

    fn set_replication_state(&mut self, state: &Bytes) -> Result<(), StorageError> {
        let sql = "INSERT INTO replication (id, state) VALUES (1, ?1) ON CONFLICT DO UPDATE SET state = excluded.state";
        self.tx.prepare_cached(sql)?.execute([&**state])?;
        Ok(())
    }
}

fn has_row(conn: &Connection, key: &RowKey) -> Result<bool, StorageError> {
    let sql = "SELECT 1 FROM row WHERE table_id = ?1 AND identity = ?2";
    Ok(conn.prepare_cached(sql)?.exists((key.table.0, &*key.identity))?)
}

/// The number of a bucket that is in the file.
pub(super) fn find_bucket(conn: &Connection, name: &BucketName) -> Result<Option<BucketId>, StorageError> {
    let sql = "SELECT id FROM bucket WHERE name = ?1";
    let id: Option<i64> = conn.prepare_cached(sql)?.query_row([name.as_str()], |row| row.get(0)).optional()?;
    id.map(BucketId::from_column).transpose()
}
