//! The checker: is a device's database what SQL on Postgres says? Shares no code with what it checks.

use std::path::Path;

use rusqlite::{Connection, OpenFlags, types::ValueRef};
use tokio_postgres::Client;

/// A table, and the SQL that says what a user's device must hold of it.
pub struct TableCheck {
    /// Name on the device.
    pub table: &'static str,
    /// Query on the device. Every column is compared as text.
    pub device_sql: &'static str,
    /// Query on Postgres for user `$1`, giving the same columns as text.
    pub source_sql: &'static str,
}

/// Why a comparison could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OracleError {
    /// Postgres refused the query.
    #[error("ask Postgres what device holds of `{table}`")]
    Source {
        /// Which table.
        table: &'static str,
        /// Why.
        #[source]
        source: tokio_postgres::Error,
    },
    /// The device's database refused the query.
    #[error("read `{table}` on the device")]
    Device {
        /// Which table.
        table: &'static str,
        /// Why.
        #[source]
        source: rusqlite::Error,
    },
}

type TextRow = Vec<Option<String>>;

/// Compares a device's database with Postgres. Returns how many rows are equal, and what differs, without row values.
///
/// # Errors
/// [`OracleError`] when one of the two cannot be read.
pub async fn compare(
    source: &Client,
    device: &Path,
    user_id: &str,
    checks: &[TableCheck],
) -> Result<(u64, Vec<String>), OracleError> {
    let (mut equal_count, mut differences) = (0, Vec::new());
    for check in checks {
        let table = check.table;
        let expected =
            source_rows(source, check, user_id).await.map_err(|source| OracleError::Source { table, source })?;
        let found = device_rows(device, check).map_err(|source| OracleError::Device { table, source })?;
        let missing = expected.iter().filter(|row| found.binary_search(row).is_err()).count();
        let surplus = found.iter().filter(|row| expected.binary_search(row).is_err()).count();
        if missing + surplus > 0 || expected.len() != found.len() {
            differences.push(format!(
                "{user_id}, {table}: {} rows in Postgres, {} on the device; {missing} missing or different, {surplus} too many",
                expected.len(),
                found.len()
            ));
        } else {
            equal_count += expected.len() as u64;
        }
    }
    Ok((equal_count, differences))
}

async fn source_rows(
    source: &Client,
    check: &TableCheck,
    user_id: &str,
) -> Result<Vec<TextRow>, tokio_postgres::Error> {
    let rows = source.query(check.source_sql, &[&user_id]).await?;
    let mut rows = rows
        .iter()
        .map(|row| (0..row.len()).map(|index| row.try_get(index)).collect::<Result<TextRow, _>>())
        .collect::<Result<Vec<_>, _>>()?;
    rows.sort_unstable();
    Ok(rows)
}

fn device_rows(device: &Path, check: &TableCheck) -> rusqlite::Result<Vec<TextRow>> {
    let database = Connection::open_with_flags(device, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let mut statement = database.prepare(check.device_sql)?;
    let column_count = statement.column_count();
    let mut rows = statement
        .query_map([], |row| (0..column_count).map(|index| Ok(text(row.get_ref(index)?))).collect())?
        .collect::<rusqlite::Result<Vec<TextRow>>>()?;
    rows.sort_unstable();
    Ok(rows)
}

fn text(value: ValueRef<'_>) -> Option<String> {
    match value {
        ValueRef::Null => None,
        ValueRef::Integer(number) => Some(number.to_string()),
        ValueRef::Real(number) => Some(number.to_string()),
        ValueRef::Text(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
        ValueRef::Blob(bytes) => Some(format!("{} bytes", bytes.len())),
    }
}
