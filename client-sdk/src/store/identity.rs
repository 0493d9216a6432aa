//! By which id the service knows this database. A copy of the file is another database.

use std::{fs, path::Path, time::UNIX_EPOCH};

use rusqlite::{Connection, OptionalExtension, params};

use super::StoreError;

/// The id now.
pub(crate) fn client_id(connection: &Connection) -> Result<String, StoreError> {
    Ok(connection.query_row("SELECT value FROM kairos_kv WHERE key = 'client_id'", [], |row| row.get(0))?)
}

/// The id under which an entry of the queue is uploaded, and the last entry of that id if there are newer ones.
pub(super) fn of_entry(connection: &Connection, crud_id: i64) -> Result<(String, Option<i64>), StoreError> {
    let sql = "SELECT client_id, last_crud_id FROM kairos_former_client WHERE last_crud_id >= ?1 ORDER BY 2 LIMIT 1";
    let former = connection.prepare_cached(sql)?.query_row([crud_id], |row| Ok((row.get(0)?, row.get(1)?)));
    match former.optional()? {
        Some((client_id, last)) => Ok((client_id, Some(last))),
        None => Ok((client_id(connection)?, None)),
    }
}

/// Forgets ids whose entries have left the queue.
pub(super) fn forget_former(tx: &Connection, last_crud_id: i64) -> Result<(), StoreError> {
    tx.prepare_cached("DELETE FROM kairos_former_client WHERE last_crud_id <= ?1")?.execute([last_crud_id])?;
    Ok(())
}

/// Gives the database a new id where its file is not the one it was: it was copied, or restored from a backup. Two
/// databases with one id would take each other's uploads for their own.
pub(super) fn settle(tx: &Connection, path: &Path) -> Result<(), StoreError> {
    let Some(now) = mark(path) else { return Ok(()) };
    let before: Option<String> =
        tx.query_row("SELECT value FROM kairos_kv WHERE key = 'file'", [], |row| row.get(0)).optional()?;
    if before.as_ref() == Some(&now) {
        return Ok(());
    }
    if before.is_some() {
        tx.execute(
            "INSERT OR REPLACE INTO kairos_former_client (last_crud_id, client_id)
             SELECT max(id), (SELECT value FROM kairos_kv WHERE key = 'client_id') FROM kairos_crud HAVING max(id) > 0",
            [],
        )?;
        tx.execute("UPDATE kairos_kv SET value = uuid() WHERE key = 'client_id'", [])?;
    }
    tx.execute("INSERT OR REPLACE INTO kairos_kv (key, value) VALUES ('file', ?1)", params![now])?;
    Ok(())
}

/// What tells a file from its copy; nothing where the platform does not say.
#[cfg(unix)]
fn mark(path: &Path) -> Option<String> {
    use std::os::unix::fs::MetadataExt as _;
    let file = fs::metadata(path).ok().filter(fs::Metadata::is_file)?;
    // A number may be given again after a file is gone, its moment not.
    let born = file.created().ok().and_then(|born| born.duration_since(UNIX_EPOCH).ok());
    Some(format!("{}:{}:{}", file.dev(), file.ino(), born.map_or(0, |born| born.as_nanos())))
}

#[cfg(not(unix))]
fn mark(path: &Path) -> Option<String> {
    let file = fs::metadata(path).ok().filter(fs::Metadata::is_file)?;
    let born = file.created().ok()?.duration_since(UNIX_EPOCH).ok()?;
    Some(born.as_nanos().to_string())
}
