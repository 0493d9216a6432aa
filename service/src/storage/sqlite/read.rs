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
        DeploymentNumber, LookupKey, LookupValue, OperationRange, RANGE_OPERATIONS_MAX, RowKey, RowOutput,
        StorageError, StoredRow, StoredRules, TableId, wire::RangeBuilder,
    },
    BucketId, Inner, chunk,
    codec::{self, OutputRecord},
    head::number,
    rows::{RecentPage, RowState},
    writer::{find_bucket, find_name},
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
        let Some(bucket) = find_bucket(reader.conn(), name)? else { return Ok(range.finish()) };
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
            goes_on = chunk::visit(reader.conn(), bucket, after, upto, &mut range, is_older)?;
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
            None if !self.placed.may_have(key) => None,
            None => self.row_reader.read(&self.folder, |conn| placed_row(conn, key))?,
        };
        let Some(state) = state else { return Ok(None) };
        let (mut row, outputs) = codec::decode_row(&state)?;
        for OutputRecord { bucket, object_type, object_id } in outputs {
            // Others were forgotten meanwhile.
            if let Some(bucket) = self.bucket_name(bucket)? {
                row.outputs.push(RowOutput { bucket, object_type, object_id });
            }
        }
        Ok(Some(row))
    }

    /// The name of a bucket; `None` if it is not there, or no longer.
    fn bucket_name(&self, bucket: BucketId) -> Result<Option<BucketName>, StorageError> {
        let names = || self.bucket_names.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(name) = names().get(&bucket) {
            return Ok(Some(name.clone()));
        }
        let name = find_name(self.reader()?.conn(), bucket)?;
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
        let placed = placed_keys(reader.conn(), table, start, limit.saturating_add(forgotten.len()))?;
        keys.extend(placed.into_iter().filter(|key| !forgotten.contains(key)));
        Ok(keys.into_iter().take(limit).collect())
    }

    pub(super) fn lookup_entries(&self, key: &LookupKey) -> Result<Vec<(RowKey, Vec<LookupValue>)>, StorageError> {
        let reader = self.reader()?;
        let sql = "SELECT table_id, identity, value_list FROM lookup WHERE key = ?1 ORDER BY table_id, identity";
        let mut statement = reader.conn().prepare_cached(sql)?;
        let mut rows = statement.query([&*key.0])?;
        let mut entries = Vec::new();
        while let Some(row) = rows.next()? {
            let values = codec::decode_values(row.get_ref(2)?.as_blob().map_err(rusqlite::Error::from)?)?;
            entries.push((row_key(row)?, values));
        }
        Ok(entries)
    }

    pub(super) fn dependents(
        &self,
        key: &LookupKey,
        after: Option<&RowKey>,
        limit: usize,
    ) -> Result<Vec<RowKey>, StorageError> {
        let reader = self.reader()?;
        // Below every table.
        let (table, identity) = after.map_or((-1, &[][..]), |after| (i64::from(after.table.0), &*after.identity));
        let sql = "SELECT table_id, identity FROM dependent WHERE key = ?1 AND (table_id, identity) > (?2, ?3) \
                   ORDER BY table_id, identity LIMIT ?4";
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        row_keys(&mut reader.conn().prepare_cached(sql)?.query((&*key.0, table, identity, limit))?)
    }

    pub(super) fn rules(&self) -> Result<Option<StoredRules>, StorageError> {
        let reader = self.reader()?;
        let sql = "SELECT serving, state FROM head, rules";
        let rules = reader.conn().prepare_cached(sql)?.query_row([], |row| {
            let state: Vec<u8> = row.get(1)?;
            Ok(number(row, 0).map(|serving| StoredRules { serving: DeploymentNumber(serving), state: state.into() }))
        });
        rules.optional()?.transpose()
    }

    pub(super) fn replication_state(&self) -> Result<Option<Bytes>, StorageError> {
        let reader = self.reader()?;
        let mut statement = reader.conn().prepare_cached("SELECT state FROM replication")?;
        let state: Option<Vec<u8>> = statement.query_row([], |row| row.get(0)).optional()?;
        Ok(state.map(Bytes::from))
    }
}

/// The state of a row in the row store.
fn placed_row(conn: &Connection, key: &RowKey) -> Result<RowState, StorageError> {
    let sql = "SELECT state FROM row WHERE table_id = ?1 AND identity = ?2";
    let state = conn.prepare_cached(sql)?.query_row((key.table.0, &*key.identity), |row| row.get::<_, Vec<u8>>(0));
    Ok(state.optional()?.map(Bytes::from))
}

/// Keys of a table's rows in the row store, from `start` on.
fn placed_keys(
    conn: &Connection,
    table: TableId,
    start: Bound<&RowKey>,
    limit: usize,
) -> Result<Vec<RowKey>, StorageError> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let (comparison, identity) = match start {
        Bound::Excluded(key) => (">", &*key.identity),
        Bound::Included(key) => (">=", &*key.identity),
        Bound::Unbounded => (">=", &[][..]),
    };
    let sql = format!(
        "SELECT table_id, identity FROM row WHERE table_id = ?1 AND identity {comparison} ?2 ORDER BY identity LIMIT ?3"
    );
    row_keys(&mut conn.prepare_cached(&sql)?.query((table.0, identity, limit))?)
}

/// Reads rows of `(table_id, identity)`.
fn row_keys(rows: &mut rusqlite::Rows) -> Result<Vec<RowKey>, StorageError> {
    let mut keys = Vec::new();
    while let Some(row) = rows.next()? {
        keys.push(row_key(row)?);
    }
    Ok(keys)
}

fn row_key(row: &rusqlite::Row) -> Result<RowKey, StorageError> {
    let identity = row.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?;
    Ok(RowKey { table: TableId(row.get(0)?), identity: identity.into() })
}
