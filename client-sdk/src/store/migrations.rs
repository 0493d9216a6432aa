//! The client's own tables, version by version.

use rusqlite::Connection;

use super::StoreError;

/// Released migrations are never edited, only followed by new ones.
const MIGRATIONS: &[(u32, &str)] = &[(1, include_str!("migrations/0001_init.sql"))];

/// Marks a database as ours (`KAIR`), so that another app's file is not taken for one.
const APPLICATION_ID: i32 = 0x4B41_4952;

/// Brings a database to the current version. Runs in one transaction: a crash leaves the old version.
pub(super) fn run(connection: &mut Connection) -> Result<(), StoreError> {
    let tx = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    let application_id: i32 = tx.query_row("PRAGMA application_id", [], |row| row.get(0))?;
    let version: u32 = tx.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    let is_empty: bool = tx.query_row("SELECT NOT EXISTS (SELECT 1 FROM sqlite_schema)", [], |row| row.get(0))?;
    if application_id != APPLICATION_ID && !is_empty {
        return Err(StoreError::NotOurs);
    }
    let known = MIGRATIONS.last().map_or(0, |(version, _)| *version);
    if version > known {
        return Err(StoreError::Newer { found: version, known });
    }
    for (_, sql) in MIGRATIONS.iter().filter(|(number, _)| *number > version) {
        tx.execute_batch(sql)?;
    }
    tx.pragma_update(None, "application_id", APPLICATION_ID)?;
    tx.pragma_update(None, "user_version", known)?;
    tx.commit()?;
    Ok(())
}
