//! Keeps what the service sends, bucket by bucket.

use kairos_sync_protocol::{
    Checksum, OpId,
    line::BucketData,
    operation::{OpKind, Operation},
};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::StoreError;
use crate::core::BucketState;

const PUT: &str = "INSERT OR REPLACE INTO kairos_oplog (bucket, op_id, row_type, row_id, subkey, data)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
const REMOVE: &str =
    "DELETE FROM kairos_oplog WHERE row_id = ?4 AND row_type = ?3 AND subkey = ?5 AND bucket = ?1 AND op_id < ?2";
const TOUCH: &str = "INSERT OR IGNORE INTO kairos_touched_row (row_type, row_id) VALUES (?1, ?2)";

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

/// Keeps the operations of one line. Nothing becomes visible.
pub(super) fn apply(connection: &Connection, line: &BucketData) -> Result<(), StoreError> {
    let Some(last) = line.data.last() else { return Ok(()) };
    let (bucket, mut checksum) = bucket(connection, &line.bucket)?;
    let mut put = connection.prepare_cached(PUT)?;
    let mut remove = connection.prepare_cached(REMOVE)?;
    let mut touch = connection.prepare_cached(TOUCH)?;
    for operation in &line.data {
        match operation.op {
            OpKind::Clear => {
                clear(connection, bucket)?;
                checksum = Checksum::ZERO;
            }
            OpKind::Move => {}
            OpKind::Put => {
                let (row_type, row_id, subkey) = key(operation);
                let data = operation.data.as_deref().unwrap_or_default();
                put.execute(params![bucket, sql_id(operation.op_id.get()), row_type, row_id, subkey, data])?;
            }
            OpKind::Remove => {
                let (row_type, row_id, subkey) = key(operation);
                let removed =
                    remove.execute(params![bucket, sql_id(operation.op_id.get()), row_type, row_id, subkey])?;
                if removed > 0 {
                    touch.execute(params![row_type, row_id])?;
                }
            }
        }
        checksum += operation.checksum;
    }
    connection
        .prepare_cached(
            "UPDATE kairos_bucket SET last_op_id = ?2, checksum = ?3, count_since_last = count_since_last + ?4
             WHERE id = ?1",
        )?
        .execute(params![bucket, sql_id(last.op_id.get()), checksum.bits(), sql_id(line.data.len() as u64)])?;
    Ok(())
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
            "INSERT OR IGNORE INTO kairos_touched_row SELECT row_type, row_id FROM kairos_oplog WHERE bucket = ?1",
        )?
        .execute([bucket])?;
    connection.prepare_cached("DELETE FROM kairos_oplog WHERE bucket = ?1")?.execute([bucket])?;
    Ok(())
}

fn bucket(connection: &Connection, name: &str) -> Result<(i64, Checksum), StoreError> {
    Ok(connection
        .prepare_cached(
            "INSERT INTO kairos_bucket (name) VALUES (?1) ON CONFLICT (name) DO UPDATE SET name = name
             RETURNING id, checksum",
        )?
        .query_row([name], |row| Ok((row.get(0)?, Checksum::from_bits(row.get(1)?))))?)
}

/// What identifies a row within its bucket. The machine has checked that table and id are there.
fn key(operation: &Operation) -> (&str, &str, &str) {
    (
        operation.object_type.as_deref().unwrap_or_default(),
        operation.object_id.as_deref().unwrap_or_default(),
        operation.subkey.as_deref().unwrap_or_default(),
    )
}
