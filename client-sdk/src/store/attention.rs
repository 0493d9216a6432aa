//! Local writes that the service did not take, until the app has decided about them.

use std::time::SystemTime;

use kairos_sync_protocol::{
    conflict::{Choice, Columns},
    upload::{CrudOp, OpResult, Outcome},
};
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde_json::Value;

use super::{
    StoreError,
    crud::{object, op, time},
    rows::TableRows,
    staging,
};

/// A local write the service did not take. The row goes back to what the service has.
#[derive(Debug, Clone, PartialEq)]
pub struct RejectedWrite {
    /// Position in the list; see [`Client::resolve_rejected_write`](crate::Client::resolve_rejected_write).
    pub id: i64,
    /// What the write did.
    pub op: CrudOp,
    /// The table.
    pub table: String,
    /// The row.
    pub row_id: String,
    /// [`Outcome::Refused`], or [`Outcome::Conflict`] where others changed the row.
    pub outcome: Outcome,
    /// The values before the write, of tables that track them.
    pub base: Option<Columns>,
    /// The values written.
    pub data: Option<Columns>,
    /// What others made of the row, where the service said so.
    pub theirs: Option<Columns>,
    /// Stable code of the reason.
    pub code: Option<String>,
    /// The reason, for people.
    pub message: Option<String>,
    /// When the answer arrived.
    pub rejected_at: SystemTime,
}

const COLUMNS: &str = "id, op, row_type, row_id, outcome, base, data, theirs, code, message, rejected_at";

/// Keeps what the service did not take of the writes up to `last_id`, which are still queued.
pub(super) fn record(tx: &Connection, last_id: i64, results: &[OpResult]) -> Result<(), StoreError> {
    for result in results.iter().filter(|result| result.outcome.needs_attention()) {
        let Some(id) = result.op_id.as_deref().and_then(|id| id.parse::<i64>().ok()) else { continue };
        let outcome = if result.outcome == Outcome::Conflict { "conflict" } else { "refused" };
        let theirs = result.row.as_ref().map(|row| Value::Object(row.clone()).to_string());
        tx.prepare_cached(
            "INSERT INTO kairos_rejected_write (op, row_type, row_id, data, base, outcome, theirs, code, message, rejected_at)
             SELECT op, row_type, row_id, data, old, ?3, ?4, ?5, ?6, unixepoch() FROM kairos_crud
             WHERE id = ?1 AND id <= ?2",
        )?
        .execute(params![id, last_id, outcome, theirs, result.code, result.message])?;
    }
    Ok(())
}

/// All of them, oldest first.
pub(crate) fn list(connection: &Connection) -> Result<Vec<RejectedWrite>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM kairos_rejected_write ORDER BY id");
    let mut statement = connection.prepare_cached(&sql)?;
    Ok(statement.query_map([], rejected)?.collect::<Result<_, _>>()?)
}

fn rejected(row: &Row<'_>) -> rusqlite::Result<RejectedWrite> {
    Ok(RejectedWrite {
        id: row.get(0)?,
        op: op(row, 1)?,
        table: row.get(2)?,
        row_id: row.get(3)?,
        outcome: if row.get_ref(4)?.as_str()? == "conflict" { Outcome::Conflict } else { Outcome::Refused },
        base: object(row, 5)?,
        data: object(row, 6)?,
        theirs: object(row, 7)?,
        code: row.get(8)?,
        message: row.get(9)?,
        rejected_at: time(row.get(10)?),
    })
}

/// Takes one off the list.
pub(crate) fn forget(tx: &Connection, id: i64) -> Result<(), StoreError> {
    tx.prepare_cached("DELETE FROM kairos_rejected_write WHERE id = ?1")?.execute([id])?;
    Ok(())
}

/// Ends one: with what the service has, or by a new write of somebody who knows what others made of the row. False where
/// it is not on the list.
pub(crate) fn resolve(tx: &Connection, id: i64, choice: Choice, merged: Option<Columns>) -> Result<bool, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM kairos_rejected_write WHERE id = ?1");
    let Some(write) = tx.prepare_cached(&sql)?.query_row([id], rejected).optional()? else { return Ok(false) };
    match (choice, merged) {
        (Choice::Theirs, _) => {}
        (Choice::Merged, Some(columns)) => write_again(tx, &write, CrudOp::Patch, Some(columns))?,
        (Choice::Mine | Choice::Merged, _) => write_again(tx, &write, write.op, write.data.clone())?,
    }
    forget(tx, id)?;
    Ok(true)
}

fn write_again(tx: &Connection, write: &RejectedWrite, op: CrudOp, columns: Option<Columns>) -> Result<(), StoreError> {
    let rows = TableRows::of(tx, &write.table)?;
    let rows = rows.ok_or_else(|| StoreError::TableGone { table: write.table.clone() })?;
    let columns = columns.unwrap_or_default();
    staging::take_out(tx, &write.table, &write.row_id)?;
    let is_there = rows.has(&write.row_id)?;
    let (op, columns) = match op {
        CrudOp::Delete => {
            rows.delete(&write.row_id)?;
            (CrudOp::Delete, None)
        }
        CrudOp::Put | CrudOp::Patch if is_there => {
            rows.patch(&write.row_id, &columns)?;
            (if write.op == CrudOp::Put { CrudOp::Put } else { CrudOp::Patch }, Some(columns))
        }
        // The row is gone; whoever keeps a change to it wants it back, as far as it is known.
        CrudOp::Put | CrudOp::Patch => {
            let mut whole = write.base.clone().unwrap_or_default();
            whole.extend(columns);
            whole.retain(|_, value| !value.is_null());
            rows.insert(&write.row_id, &whole)?;
            (CrudOp::Put, Some(whole))
        }
    };
    let old = write.theirs.as_ref().or(write.base.as_ref()).filter(|_| is_there);
    let text = |columns: &Columns| Value::Object(columns.clone()).to_string();
    tx.prepare_cached(
        "INSERT INTO kairos_crud (tx_id, op, row_type, row_id, data, old) VALUES (kairos_tx_id(), ?1, ?2, ?3, ?4, ?5)",
    )?
    .execute(params![op.name(), write.table, write.row_id, columns.as_ref().map(text), old.map(text)])?;
    Ok(())
}
