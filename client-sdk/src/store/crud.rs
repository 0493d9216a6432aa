//! Local writes on their way up, and the gate they keep closed.

use std::time::{Duration, SystemTime};

use kairos_sync_protocol::{
    WriteCheckpointId,
    upload::{CrudEntry, CrudOp, OpResult, UploadBatch},
};
use rusqlite::{Connection, OptionalExtension, Row};
use serde_json::{Map, Value};

use super::{
    StoreError, attention, identity,
    oplog::{sql_id, unsigned},
};

/// The gate's target while local writes are not uploaded.
const NOT_UPLOADED: i64 = i64::MAX;

/// Entries of one upload. Whole local transactions are sent together as far as they fit.
pub(crate) const UPLOAD_ENTRIES_MAX: usize = 500;
/// Bytes of row data of one upload, unless a single entry is larger.
pub(crate) const UPLOAD_BYTES_MAX: usize = 512 * 1024;

/// The oldest writes of the queue.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct UploadSlice {
    /// What to send.
    pub(crate) batch: UploadBatch,
    /// Id of the last entry in it.
    pub(crate) last_id: i64,
}

/// What the status depends on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct LocalState {
    /// Local writes in the queue.
    pub(crate) pending: u64,
    /// Uploaded writes were not seen coming back yet.
    pub(crate) awaiting: bool,
    /// When the app last saw a whole checkpoint for the first time.
    pub(crate) last_synced_at: Option<SystemTime>,
    /// See [`Status::first_synced_priority`](crate::Status::first_synced_priority).
    pub(crate) first_synced_priority: Option<u8>,
}

pub(crate) fn local_state(connection: &Connection) -> Result<LocalState, StoreError> {
    let sql = "SELECT (SELECT count(*) FROM kairos_crud), target IS NOT NULL,
        (SELECT value FROM kairos_kv WHERE key = 'last_synced_at'),
        (SELECT value FROM kairos_kv WHERE key = 'first_synced_priority') FROM kairos_gate";
    Ok(connection.prepare_cached(sql)?.query_row([], |row| {
        let seconds: Option<i64> = row.get(2)?;
        Ok(LocalState {
            pending: unsigned(row, 0)?,
            awaiting: row.get(1)?,
            last_synced_at: seconds.map(time),
            first_synced_priority: row.get(3)?,
        })
    })?)
}

/// Nothing waits for upload, and the checkpoint contains what was uploaded.
pub(super) fn may_publish(tx: &Connection, seen: Option<WriteCheckpointId>) -> Result<bool, StoreError> {
    let sql = "SELECT target IS NULL OR (target <= ?1 AND NOT EXISTS (SELECT 1 FROM kairos_crud)) FROM kairos_gate";
    // Ids start at 1, and no id is as large as that of writes not uploaded.
    let seen = seen.map_or(0, |id| sql_id(id.get())).min(NOT_UPLOADED - 1);
    Ok(tx.prepare_cached(sql)?.query_row([seen], |row| row.get(0))?)
}

/// The app sees what it wrote come back: nothing is awaited any more.
pub(super) fn open_gate(tx: &Connection) -> Result<(), StoreError> {
    tx.execute("UPDATE kairos_gate SET target = NULL WHERE target IS NOT NULL", [])?;
    Ok(())
}

/// The oldest local writes: whole transactions as far as they fit, part of one only where it alone is too large.
pub(crate) fn next_upload(connection: &Connection) -> Result<Option<UploadSlice>, StoreError> {
    let mut statement = connection
        .prepare_cached("SELECT id, tx_id, op, row_type, row_id, data, old FROM kairos_crud ORDER BY id LIMIT ?1")?;
    let mut rows = statement.query([sql_id(UPLOAD_ENTRIES_MAX as u64 + 1)])?;
    let (mut entries, mut bytes, mut is_cut) = (Vec::new(), 0, false);
    let mut identity = None;
    while let Some(row) = rows.next()? {
        let id: i64 = row.get(0)?;
        let (_, last_of_id) = match &identity {
            Some(identity) => identity,
            None => identity.insert(identity::of_entry(connection, id)?),
        };
        if last_of_id.is_some_and(|last| id > last) {
            break;
        }
        let length = |column| Ok::<_, rusqlite::Error>(row.get_ref(column)?.as_str_or_null()?.map_or(0, str::len));
        bytes += length(5)? + length(6)?;
        if !entries.is_empty() && (bytes > UPLOAD_BYTES_MAX || entries.len() == UPLOAD_ENTRIES_MAX) {
            let next_tx: i64 = row.get(1)?;
            is_cut = entries.last().is_some_and(|(_, tx_id, _)| *tx_id == next_tx);
            break;
        }
        entries.push((id, row.get::<_, i64>(1)?, entry(row)?));
    }
    if is_cut {
        keep_whole_transactions(&mut entries);
    }
    let (Some(&(last_id, ..)), Some((client_id, _))) = (entries.last(), identity) else { return Ok(None) };
    let batch = entries.into_iter().map(|(_, _, entry)| entry).collect();
    Ok(Some(UploadSlice { batch: UploadBatch { client_id: Some(client_id), batch }, last_id }))
}

/// Leaves the last transaction, which is not complete, for the next upload, unless there is nothing else.
fn keep_whole_transactions(entries: &mut Vec<(i64, i64, CrudEntry)>) {
    let Some(&(_, last_tx, _)) = entries.last() else { return };
    let whole = entries.iter().take_while(|(_, tx_id, _)| *tx_id != last_tx).count();
    if whole > 0 {
        entries.truncate(whole);
    }
}

fn entry(row: &Row<'_>) -> rusqlite::Result<CrudEntry> {
    Ok(CrudEntry {
        op: op(row, 2)?,
        table: row.get(3)?,
        id: Some(row.get(4)?),
        data: object(row, 5)?,
        op_id: Some(row.get::<_, i64>(0)?.to_string()),
        tx_id: Some(row.get::<_, i64>(1)?.to_string()),
        old: object(row, 6)?,
        metadata: None,
    })
}

pub(super) fn op(row: &Row<'_>, column: usize) -> rusqlite::Result<CrudOp> {
    match row.get_ref(column)?.as_str()? {
        "PUT" => Ok(CrudOp::Put),
        "PATCH" => Ok(CrudOp::Patch),
        "DELETE" => Ok(CrudOp::Delete),
        _ => Err(rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, "not a write".into())),
    }
}

pub(super) fn object(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Map<String, Value>>> {
    let parse = |text| serde_json::from_str(text);
    row.get_ref(column)?.as_str_or_null()?.map(parse).transpose().map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, Box::new(error))
    })
}

/// The service has answered for all writes up to `last_id`: they leave the queue, and refused ones are recorded.
///
/// With the write checkpoint of the upload, the gate waits for that from now on, if nothing else was written meanwhile.
pub(crate) fn acknowledge(
    tx: &Connection,
    last_id: i64,
    results: &[OpResult],
    write_checkpoint: Option<WriteCheckpointId>,
) -> Result<(), StoreError> {
    attention::record(tx, last_id, results)?;
    tx.prepare_cached("DELETE FROM kairos_crud WHERE id <= ?1")?.execute([last_id])?;
    identity::forget_former(tx, last_id)?;
    match write_checkpoint {
        Some(id) => await_write_checkpoint(tx, id),
        None => Ok(()),
    }
}

/// Everything queued is uploaded, and `id` was given out afterwards: checkpoints that contain it may be published.
/// Does nothing while writes are queued; only the upload loop takes writes out of the queue, so none was missed.
pub(crate) fn await_write_checkpoint(tx: &Connection, id: WriteCheckpointId) -> Result<(), StoreError> {
    tx.prepare_cached(
        "UPDATE kairos_gate SET target = ?1 WHERE target IS NOT NULL AND NOT EXISTS (SELECT 1 FROM kairos_crud)",
    )?
    .execute([sql_id(id.get()).min(NOT_UPLOADED - 1)])?;
    Ok(())
}

/// Everything is uploaded, but no write checkpoint to wait for is known.
pub(crate) fn lacks_write_checkpoint(connection: &Connection) -> Result<bool, StoreError> {
    let target: Option<i64> =
        connection.query_row("SELECT target FROM kairos_gate", [], |row| row.get(0)).optional()?.flatten();
    Ok(target == Some(NOT_UPLOADED))
}

/// A moment as it is stored.
pub(super) fn time(seconds: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.unsigned_abs())
}
