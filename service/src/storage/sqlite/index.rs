//! The index of lookups and the join index.

use rusqlite::Connection;

use super::{
    super::{LookupKey, LookupValue, RowKey, StorageError, TableId},
    codec,
    sum::Sum,
};

/// Over an entry of the index of lookups.
pub(super) fn entry_sum(key: &str, table: u32, identity: &[u8], value_list: &[u8]) -> Sum {
    Sum::of("lookup").text(key).number(table.into()).bytes(identity).bytes(value_list)
}

/// Over an entry of the join index.
pub(super) fn dependent_sum(key: &str, table: u32, identity: &[u8]) -> Sum {
    Sum::of("dependent").text(key).number(table.into()).bytes(identity)
}

/// Passes a lookup's values on by the rows that give them, in key order.
pub(super) fn visit_entries(
    conn: &Connection,
    key: &LookupKey,
    mut visit: impl FnMut(RowKey, Vec<LookupValue>),
) -> Result<(), StorageError> {
    let sql = "SELECT key, table_id, identity, value_list, sum FROM lookup WHERE key = ?1 ORDER BY table_id, identity";
    let mut statement = conn.prepare_cached(sql)?;
    let mut rows = statement.query([&*key.0])?;
    while let Some(row) = rows.next()? {
        let (_, row, values) = read_entry(row)?;
        visit(row, values);
    }
    Ok(())
}

/// An entry of the index of lookups, from all its columns.
pub(super) fn read_entry(row: &rusqlite::Row) -> Result<(String, RowKey, Vec<LookupValue>), StorageError> {
    let (key, row_key) = read_key(row)?;
    let value_list = row.get_ref(3)?.as_blob().map_err(rusqlite::Error::from)?;
    entry_sum(&key, row_key.table.0, &row_key.identity, value_list).check(row.get(4)?, "a lookup")?;
    Ok((key, row_key, codec::decode_values(value_list)?))
}

/// Rows that depend on a lookup, after `after` in key order.
pub(super) fn dependents(
    conn: &Connection,
    key: &LookupKey,
    after: Option<&RowKey>,
    limit: usize,
) -> Result<Vec<RowKey>, StorageError> {
    // Below every table.
    let (table, identity) = after.map_or((-1, &[][..]), |after| (i64::from(after.table.0), &*after.identity));
    let sql = "SELECT key, table_id, identity, sum FROM dependent WHERE key = ?1 AND (table_id, identity) > (?2, ?3) \
               ORDER BY table_id, identity LIMIT ?4";
    let mut statement = conn.prepare_cached(sql)?;
    let mut rows = statement.query((&*key.0, table, identity, i64::try_from(limit).unwrap_or(i64::MAX)))?;
    let mut keys = Vec::new();
    while let Some(row) = rows.next()? {
        keys.push(read_dependent(row)?.1);
    }
    Ok(keys)
}

/// An entry of the join index, from all its columns.
pub(super) fn read_dependent(row: &rusqlite::Row) -> Result<(String, RowKey), StorageError> {
    let (key, row_key) = read_key(row)?;
    dependent_sum(&key, row_key.table.0, &row_key.identity).check(row.get(3)?, "an entry of the join index")?;
    Ok((key, row_key))
}

fn read_key(row: &rusqlite::Row) -> Result<(String, RowKey), StorageError> {
    let identity = row.get_ref(2)?.as_blob().map_err(rusqlite::Error::from)?.into();
    Ok((row.get(0)?, RowKey { table: TableId(row.get(1)?), identity }))
}
