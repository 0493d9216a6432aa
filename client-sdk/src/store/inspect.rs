//! What is in the database, for tools that show it.

use std::collections::BTreeMap;

use kairos_sync_protocol::{Checksum, OpId};
use rusqlite::{Connection, Row};

use super::{StoreError, oplog::unsigned, staging, views};

/// A bucket the database has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalBucket {
    /// Name as the service sent it.
    pub name: String,
    /// 0 syncs first, 3 last.
    pub priority: u8,
    /// The last operation received.
    pub last_op_id: OpId,
    /// Operations in the last checkpoint that became visible, as the service counts them.
    pub count: u64,
    /// Operations received since, which are not visible yet.
    pub count_since: u64,
    /// What the service announced with that checkpoint. `None` before the first.
    pub announced: Option<Checksum>,
}

/// A synced table of the app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalTable {
    /// Its name.
    pub name: String,
    /// Its columns, `id` first.
    pub columns: Vec<String>,
    /// Rows the app sees.
    pub rows: u64,
}

/// Columns of a query for [`bucket`], before any others.
pub(super) const BUCKET_COLUMNS: &str =
    "name, priority, last_op_id, count_at_last, count_since_last, announced_checksum";

pub(super) fn bucket(row: &Row<'_>) -> rusqlite::Result<LocalBucket> {
    Ok(LocalBucket {
        name: row.get(0)?,
        priority: row.get(1)?,
        last_op_id: OpId::new(unsigned(row, 2)?).unwrap_or_default(),
        count: unsigned(row, 3)?,
        count_since: unsigned(row, 4)?,
        announced: row.get::<_, Option<u32>>(5)?.map(Checksum::from_bits),
    })
}

pub(crate) fn buckets(connection: &Connection) -> Result<Vec<LocalBucket>, StoreError> {
    let mut statement =
        connection.prepare_cached(&format!("SELECT {BUCKET_COLUMNS} FROM kairos_bucket ORDER BY name"))?;
    Ok(statement.query_map([], bucket)?.collect::<Result<_, _>>()?)
}

pub(crate) fn tables(connection: &Connection) -> Result<Vec<LocalTable>, StoreError> {
    let names = views::names(connection, "SELECT name FROM kairos_table WHERE NOT local_only ORDER BY name")?;
    let installed: BTreeMap<String, bool> = views::installed(connection)?.into_iter().collect();
    let mut columns = connection.prepare_cached("SELECT name FROM pragma_table_info(?1) ORDER BY cid")?;
    let table = |name: String| {
        let is_raw = installed.get(&name).copied().unwrap_or_default();
        let shown = if is_raw || !staging::is_staged(connection, &name)? { "" } else { " WHERE NOT staged" };
        let count = format!("SELECT count(*) FROM {}{shown}", views::rows_table(&name, is_raw));
        let rows = connection.query_row(&count, [], |row| unsigned(row, 0))?;
        let columns = columns.query_map([&name], |row| row.get(0))?.collect::<Result<_, _>>()?;
        Ok(LocalTable { name, columns, rows })
    };
    names.into_iter().map(table).collect()
}

/// Sizes, without a value.
#[derive(Debug)]
pub(crate) struct Facts {
    pub(crate) tables: Vec<LocalTable>,
    pub(crate) rejected: Vec<(String, u64)>,
    pub(crate) bucket_count: u64,
    pub(crate) operation_count: u64,
    pub(crate) database_bytes: u64,
}

pub(crate) fn facts(connection: &Connection) -> Result<Facts, StoreError> {
    let count = |sql: &str| connection.query_row(sql, [], |row| unsigned(row, 0));
    let rejected = "SELECT coalesce(code, ''), count(*) FROM kairos_rejected_write GROUP BY 1 ORDER BY 1";
    let mut rejected = connection.prepare_cached(rejected)?;
    let rejected = rejected.query_map([], |row| Ok((row.get(0)?, unsigned(row, 1)?)))?;
    Ok(Facts {
        tables: tables(connection)?,
        rejected: rejected.collect::<Result<_, _>>()?,
        bucket_count: count("SELECT count(*) FROM kairos_bucket")?,
        operation_count: count("SELECT count(*) FROM kairos_oplog")?,
        database_bytes: count("SELECT page_count * page_size FROM pragma_page_count, pragma_page_size")?,
    })
}
