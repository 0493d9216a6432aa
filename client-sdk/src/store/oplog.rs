//! Keeps what the service sends, bucket by bucket.

use kairos_sync_protocol::{
    Checksum, OpId,
    operation::{OpKind, Operation},
};
use rusqlite::{Connection, OptionalExtension, Row, Statement, params};

use super::{StoreError, staging::Staging};
use crate::core::BucketState;

const PUT: &str = "INSERT INTO kairos_oplog (bucket, op_id, row_type, row_id, subkey, data, checksum)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT DO NOTHING";
const REPLACED: &str = "DELETE FROM kairos_oplog
    WHERE (bucket = ?1 AND op_id = ?2) OR (row_id = ?3 AND row_type = ?4 AND subkey = ?5 AND bucket = ?1)
    RETURNING checksum";
const REMOVE: &str = "DELETE FROM kairos_oplog
    WHERE row_id = ?3 AND row_type = ?4 AND subkey = ?5 AND bucket = ?1 AND op_id < ?2 RETURNING checksum";
/// Has the next whole checkpoint look at a row again.
pub(super) const TOUCH: &str = "INSERT OR IGNORE INTO kairos_touched_row (row_type, row_id) VALUES (?1, ?2)";

/// An id as SQLite stores it. Ids fit a signed integer by construction.
pub(super) const fn sql_id(id: u64) -> i64 {
    id.cast_signed()
}

/// A count or id that [`sql_id`] stored.
pub(super) fn unsigned(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    row.get(column).map(i64::cast_unsigned)
}

pub(super) fn bucket_states(connection: &Connection) -> Result<Vec<BucketState>, StoreError> {
    let mut statement = connection
        .prepare_cached("SELECT name, last_op_id, count_at_last, count_since_last FROM kairos_bucket ORDER BY name")?;
    let states = statement.query_map([], |row| {
        Ok(BucketState {
            name: row.get(0)?,
            last_op_id: OpId::new(unsigned(row, 1)?).unwrap_or_default(),
            count_at_last: unsigned(row, 2)?,
            count_since_last: unsigned(row, 3)?,
        })
    })?;
    Ok(states.collect::<Result<_, _>>()?)
}

/// Keeps operations of a bucket, in the order in which they came. Nothing becomes visible.
pub(super) fn apply(
    connection: &Connection,
    name: &str,
    operations: &[Operation],
    mut staging: Staging<'_>,
) -> Result<(), StoreError> {
    let Some(last) = operations.last() else { return Ok(()) };
    let (bucket, mut sums) = bucket(connection, name)?;
    let mut insert = connection.prepare_cached(PUT)?;
    let mut touch = connection.prepare_cached(TOUCH)?;
    for operation in operations {
        match operation.op {
            OpKind::Clear => {
                clear(connection, bucket)?;
                sums = Sums::default();
                sums.retired += operation.checksum;
            }
            OpKind::Move => sums.retired += operation.checksum,
            OpKind::Put => {
                let replaced = put(connection, &mut insert, bucket, operation)?;
                let (row_type, row_id, _) = key(operation);
                staging.put(row_type, row_id, data(operation), replaced.is_none())?;
                sums.retired += replaced.unwrap_or_default();
            }
            OpKind::Remove => {
                sums.retired += operation.checksum;
                if let Some(removed) = take(connection, REMOVE, bucket, operation)? {
                    sums.retired += removed;
                    let (row_type, row_id, _) = key(operation);
                    touch.execute(params![row_type, row_id])?;
                }
            }
        }
        sums.received += operation.checksum;
    }
    connection
        .prepare_cached(
            "UPDATE kairos_bucket SET last_op_id = ?2, checksum = ?3, retired_checksum = ?4,
             count_since_last = count_since_last + ?5, has_unstaged = has_unstaged OR ?6 WHERE id = ?1",
        )?
        .execute(params![
            bucket,
            sql_id(last.op_id.get()),
            sums.received.bits(),
            sums.retired.bits(),
            sql_id(operations.len() as u64),
            staging.finish()?
        ])?;
    Ok(())
}

/// Stores a PUT; returns the checksums of what it replaced, if anything. Most PUTs replace nothing, so that is looked for only where
/// the insert finds something in its place.
fn put(
    connection: &Connection,
    insert: &mut Statement<'_>,
    bucket: i64,
    operation: &Operation,
) -> Result<Option<Checksum>, StoreError> {
    let (row_type, row_id, subkey) = key(operation);
    let (op_id, checksum) = (sql_id(operation.op_id.get()), operation.checksum.bits());
    let values = params![bucket, op_id, row_type, row_id, subkey, data(operation), checksum];
    if insert.execute(values)? > 0 {
        return Ok(None);
    }
    let replaced = take(connection, REPLACED, bucket, operation)?;
    insert.execute(values)?;
    Ok(Some(replaced.unwrap_or_default()))
}

/// Runs a DELETE of operations with the place of this one; returns the sum of their checksums, if there are any.
fn take(
    connection: &Connection,
    sql: &str,
    bucket: i64,
    operation: &Operation,
) -> Result<Option<Checksum>, StoreError> {
    let (row_type, row_id, subkey) = key(operation);
    let mut statement = connection.prepare_cached(sql)?;
    let taken = statement
        .query_map(params![bucket, sql_id(operation.op_id.get()), row_id, row_type, subkey], |row| {
            Ok(Checksum::from_bits(row.get(0)?))
        })?
        .collect::<Result<Vec<_>, _>>()?;
    Ok((!taken.is_empty()).then(|| taken.into_iter().sum()))
}

/// Drops buckets. Their rows are looked at again with the next publish, and stay visible until then.
pub(super) fn delete_buckets(connection: &Connection, names: &[String]) -> Result<(), StoreError> {
    for name in names {
        let id: Option<i64> = connection
            .prepare_cached("DELETE FROM kairos_bucket WHERE name = ?1 RETURNING id")?
            .query_row([name], |row| row.get(0))
            .optional()?;
        if let Some(id) = id {
            clear(connection, id)?;
        }
    }
    Ok(())
}

fn clear(connection: &Connection, bucket: i64) -> Result<(), StoreError> {
    connection
        .prepare_cached(
            "INSERT OR IGNORE INTO kairos_touched_row (row_type, row_id) SELECT row_type, row_id FROM kairos_oplog WHERE bucket = ?1",
        )?
        .execute([bucket])?;
    connection.prepare_cached("DELETE FROM kairos_oplog WHERE bucket = ?1")?.execute([bucket])?;
    Ok(())
}

/// Sums over the operations of a bucket.
#[derive(Debug, Clone, Copy, Default)]
struct Sums {
    /// Of all that were received.
    received: Checksum,
    /// Of those that are not stored any more.
    retired: Checksum,
}

fn bucket(connection: &Connection, name: &str) -> Result<(i64, Sums), StoreError> {
    Ok(connection
        .prepare_cached(
            "INSERT INTO kairos_bucket (name) VALUES (?1) ON CONFLICT (name) DO UPDATE SET name = name
             RETURNING id, checksum, retired_checksum",
        )?
        .query_row([name], |row| {
            let sum = |column| row.get(column).map(Checksum::from_bits);
            Ok((row.get(0)?, Sums { received: sum(1)?, retired: sum(2)? }))
        })?)
}

fn data(operation: &Operation) -> &str {
    operation.data.as_deref().unwrap_or_default()
}

/// What identifies a row within its bucket. The machine has checked that table and id are there.
fn key(operation: &Operation) -> (&str, &str, &str) {
    (
        operation.object_type.as_deref().unwrap_or_default(),
        operation.object_id.as_deref().unwrap_or_default(),
        operation.subkey.as_deref().unwrap_or_default(),
    )
}
