//! Whose data this is.

use rusqlite::{Connection, OptionalExtension, params};

use super::{StoreError, views};

/// Notes the user at the first sync; says later whether it is the same one.
pub(crate) fn belongs_to(tx: &Connection, user: &str) -> Result<bool, StoreError> {
    let owner: Option<String> = tx
        .prepare_cached("SELECT value FROM kairos_kv WHERE key = 'user'")?
        .query_row([], |row| row.get(0))
        .optional()?;
    if let Some(owner) = owner {
        return Ok(owner == user);
    }
    tx.execute("INSERT INTO kairos_kv (key, value) VALUES ('user', ?1)", params![user])?;
    Ok(true)
}

/// Takes all rows, queued writes and whatever else is of the user out of the database; what it is keeps it as new.
pub(crate) fn clear(tx: &Connection) -> Result<(), StoreError> {
    for (table, is_raw) in views::installed(tx)? {
        tx.execute(&format!("DELETE FROM {}", views::rows_table(&table, is_raw)), [])?;
    }
    tx.execute_batch(
        "DELETE FROM kairos_crud;
         DELETE FROM kairos_rejected_write;
         DELETE FROM kairos_former_client;
         DELETE FROM kairos_oplog;
         DELETE FROM kairos_bucket;
         DELETE FROM kairos_touched_row;
         UPDATE kairos_table SET staged_rows = 0 WHERE staged_rows IS NOT NULL;
         DELETE FROM kairos_kv WHERE key IN ('user', 'last_synced_at', 'first_synced_priority');
         UPDATE kairos_subscription SET is_synced = 0;
         UPDATE kairos_gate SET target = NULL;",
    )?;
    Ok(())
}
