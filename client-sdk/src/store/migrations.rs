//! The client's own tables, version by version.

use rusqlite::Connection;

use super::{StoreError, views};

/// Released migrations are never edited, only followed by new ones.
const MIGRATIONS: &[(u32, &str)] = &[
    (1, include_str!("migrations/0001_init.sql")),
    (2, include_str!("migrations/0002_verification.sql")),
    (3, include_str!("migrations/0003_app_side.sql")),
    (4, include_str!("migrations/0004_raw_tables_and_first_sync.sql")),
    (5, include_str!("migrations/0005_staging.sql")),
];

/// The version since which the tables of rows have a column for it. They are not in the migrations, as the app names them.
const STAGED_SINCE: u32 = 5;

/// Marks a database as ours (`KAIR`), so that another app's file is not taken for one.
const APPLICATION_ID: i32 = 0x4B41_4952;

/// Brings a database to the current version. Runs in one transaction: a crash leaves the old version.
pub(super) fn run(connection: &mut Connection) -> Result<(), StoreError> {
    let tx = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    let is_empty: bool = tx.query_row("SELECT NOT EXISTS (SELECT 1 FROM sqlite_schema)", [], |row| row.get(0))?;
    let version = if is_empty { 0 } else { version(&tx)? };
    for (_, sql) in MIGRATIONS.iter().filter(|(number, _)| *number > version) {
        tx.execute_batch(sql)?;
    }
    if (1..STAGED_SINCE).contains(&version) {
        views::add_staged_column(&tx)?;
    }
    tx.pragma_update(None, "application_id", APPLICATION_ID)?;
    tx.pragma_update(None, "user_version", known())?;
    tx.commit()?;
    Ok(())
}

/// Whether a database can be read as it is.
pub(crate) fn check_version(connection: &Connection) -> Result<(), StoreError> {
    let (found, known) = (version(connection)?, known());
    if found < known { Err(StoreError::Older { found, known }) } else { Ok(()) }
}

/// The version of a database of ours, if it is known here.
fn version(connection: &Connection) -> Result<u32, StoreError> {
    let application_id: i32 = connection.query_row("PRAGMA application_id", [], |row| row.get(0))?;
    if application_id != APPLICATION_ID {
        return Err(StoreError::NotOurs);
    }
    let found: u32 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    let known = known();
    if found > known { Err(StoreError::Newer { found, known }) } else { Ok(found) }
}

fn known() -> u32 {
    MIGRATIONS.last().map_or(0, |(version, _)| *version)
}
