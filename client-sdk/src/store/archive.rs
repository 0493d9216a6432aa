//! A whole database in one file, for backups and for moving to another device.

use std::{fs, path::Path};

use rusqlite::{Connection, OpenFlags};

use super::{BUSY_TIMEOUT, StoreError, check_version};

/// Writes the database, rows and queue and all, to a new file. On a connection of its own, so that nothing waits.
pub(super) fn export(database: &Path, archive: &Path) -> Result<(), StoreError> {
    refuse_existing(archive)?;
    let connection = Connection::open_with_flags(database, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    copy(&connection, archive)
}

/// Makes a database of an archive. Opened, it has an id of its own.
pub(crate) fn import(archive: &Path, database: &Path) -> Result<(), StoreError> {
    refuse_existing(database)?;
    let connection = Connection::open_with_flags(archive, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    match check_version(&connection) {
        // It is brought to this version when it is opened.
        Ok(()) | Err(StoreError::Older { .. }) => {}
        Err(error) => return Err(error),
    }
    let verdict: String = connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
    if verdict != "ok" {
        return Err(StoreError::Damaged);
    }
    copy(&connection, database)
}

fn refuse_existing(path: &Path) -> Result<(), StoreError> {
    if path.try_exists().unwrap_or(true) { Err(StoreError::Exists) } else { Ok(()) }
}

/// All or nothing: half a file would pass for a database.
fn copy(connection: &Connection, to: &Path) -> Result<(), StoreError> {
    let name = to.to_str().ok_or(StoreError::Path)?;
    let copied = connection.execute("VACUUM INTO ?1", [name]).map(drop);
    if copied.is_err() {
        // Made by this call, as nothing was there before.
        let _ = fs::remove_file(to);
    }
    Ok(copied?)
}
