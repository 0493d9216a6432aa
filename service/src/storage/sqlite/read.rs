//! What is read outside of views: operations for clients; rows, lookups and dependents for replication.

use std::{
    ops::Bound,
    sync::{Arc, PoisonError},
};

use bytes::Bytes;
use kairos_sync_protocol::{BucketName, OpId};
use rusqlite::{Connection, OptionalExtension};

use super::{
    super::{
        LookupKey, LookupValue, OperationRange, RANGE_OPERATIONS_MAX, RowKey, RowOutput, StorageError, StoredRow,
        StoredRules, TableId, range::RangeBuilder,
    },
    BucketId, Inner,
    bucket::Bucket,
    chunk,
    codec::{self, OutputRecord},
    head::{Head, RecordSum},
    index,
    rows::RecentPage,
    runs::{list::RunList, read::MergedRuns},
    sum::Sum,
};

impl Inner {
    pub(super) fn operations(
        &self,
        name: &BucketName,
        after: OpId,
        upto: OpId,
        bytes_max: usize,
    ) -> Result<OperationRange, StorageError> {
        let reader = self.reader()?;
        let mut range = RangeBuilder::new(bytes_max);
        let Some(found) = Bucket::find(reader.conn(), name)? else { return Ok(range.finish()) };
        let bucket = found.whole()?.id;
        // The tail first: what a fold moves after this look is in both, and then not taken from chunks.
        let (tail_first, recent) = {
            let tail = self.tail_read();
            // One more than fits, so that the range knows whether there is more.
            (tail.first_op_id(bucket), tail.range(bucket, after, upto, RANGE_OPERATIONS_MAX + 1))
        };
        let mut goes_on = true;
        if tail_first.is_none_or(|first| first.get() > after.get() + 1) {
            let is_older = |op_id| tail_first.is_none_or(|first| op_id < first);
            // One state of the file: chunks are replaced by others meanwhile. The connection ends it when it goes back.
            reader.conn().execute_batch("BEGIN")?;
            let visited = chunk::visit(reader.conn(), bucket, after, upto, &mut range, is_older);
            goes_on = visited.map_err(|error| self.noting(bucket, error))?;
        }
        if goes_on {
            let _ = recent.iter().all(|operation| range.push(operation.op_id, &operation.json));
        }
        Ok(range.finish())
    }

    pub(super) fn row(&self, key: &RowKey) -> Result<Option<StoredRow>, StorageError> {
        // The tail first, as for operations.
        let recent = self.tail_read().rows.get(key);
        let state = match recent {
            Some(state) => state,
            None if !self.runs.list().may_have(key) => None,
            None => self.row_reader.find(&self.folder, &self.blocks, key)?.flatten(),
        };
        state.map(|state| self.decode_row(&state)).transpose()
    }

    /// A stored row with its outputs' buckets by name.
    pub(super) fn decode_row(&self, state: &[u8]) -> Result<StoredRow, StorageError> {
        let (mut row, outputs) = codec::decode_row(state)?;
        for OutputRecord { bucket, object_type, object_id } in outputs {
            // Others were forgotten meanwhile.
            if let Some(bucket) = self.bucket_name(bucket)? {
                row.outputs.push(RowOutput { bucket, object_type, object_id });
            }
        }
        Ok(row)
    }

    /// The name of a bucket; `None` if it is not there, or no longer.
    fn bucket_name(&self, bucket: BucketId) -> Result<Option<BucketName>, StorageError> {
        let names = || self.bucket_names.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(name) = names().get(&bucket) {
            return Ok(Some(name.clone()));
        }
        let name = Bucket::load(self.reader()?.conn(), bucket)?.map(|bucket| bucket.name);
        if let Some(name) = &name {
            names().put(bucket, name.clone());
        }
        Ok(name)
    }

    pub(super) fn rows_of_table(
        &self,
        table: TableId,
        after: Option<&RowKey>,
        limit: usize,
    ) -> Result<Vec<RowKey>, StorageError> {
        let first = RowKey { table, identity: Arc::default() };
        let start = match after {
            Some(after) if after.table > table => return Ok(Vec::new()),
            Some(after) if after.table == table => Bound::Excluded(after),
            _ => Bound::Included(&first),
        };
        let reader = self.reader()?;
        // The tail first, as for operations. Keys forgotten in the tail may take places on the page.
        let RecentPage { present: mut keys, forgotten } = self.tail_read().rows.page(table, start, limit);
        // One state: a merge deletes blocks.
        reader.conn().execute_batch("BEGIN")?;
        let runs = RunList::load_with(reader.conn(), &self.runs.list())?;
        let mut placed = MergedRuns::of_all(reader.conn(), &runs, start)?;
        let mut placed_count = 0;
        while placed_count < limit
            && let Some(key) = placed.row_key().filter(|key| key.table == table)
        {
            if placed.state().is_some() && !forgotten.contains(&key) {
                placed_count += 1;
                keys.insert(key);
            }
            placed.advance()?;
        }
        Ok(keys.into_iter().take(limit).collect())
    }

    pub(super) fn lookup_entries(&self, key: &LookupKey) -> Result<Vec<(RowKey, Vec<LookupValue>)>, StorageError> {
        let reader = self.reader()?;
        let mut entries = Vec::new();
        index::visit_entries(reader.conn(), key, |row, values| entries.push((row, values)))?;
        Ok(entries)
    }

    pub(super) fn dependents(
        &self,
        key: &LookupKey,
        after: Option<&RowKey>,
        limit: usize,
    ) -> Result<Vec<RowKey>, StorageError> {
        index::dependents(self.reader()?.conn(), key, after, limit)
    }

    pub(super) fn rules(&self) -> Result<Option<StoredRules>, StorageError> {
        let reader = self.reader()?;
        reader.conn().execute_batch("BEGIN")?;
        let head = Head::read(reader.conn())?;
        let state = single(reader.conn(), "rules", head.rules_sum)?;
        Ok(state.map(|state| StoredRules { serving: head.serving, state }))
    }

    pub(super) fn replication_state(&self) -> Result<Option<Bytes>, StorageError> {
        let reader = self.reader()?;
        reader.conn().execute_batch("BEGIN")?;
        let head = Head::read(reader.conn())?;
        single(reader.conn(), "replication", head.replication_sum)
    }
}

/// The record of a table that has one at most, of which the head says this.
pub(super) fn single(conn: &Connection, table: &'static str, says: RecordSum) -> Result<Option<Bytes>, StorageError> {
    let mut statement = conn.prepare_cached(&format!("SELECT state FROM {table}"))?;
    let state: Option<Vec<u8>> = statement.query_row([], |row| row.get(0)).optional()?;
    let found = state.as_ref().map(|state| Sum::of(table).bytes(state).finish());
    if found == says {
        return Ok(state.map(Bytes::from));
    }
    Err(StorageError::Damaged { what: format!("the state of {table} contradicts its sum") })
}
