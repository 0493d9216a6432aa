//! The tables a publication offers.

use std::collections::HashMap;

use tokio_postgres::{Client, Row};

use crate::postgres::{
    error::PgError, pgoutput::IdentitySetting, type_catalog::TypeCatalog, value::ColumnType,
    walsender::quote_identifier,
};

/// A published table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Its object id.
    pub oid: u32,
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// Which columns the stream shows of a row before an update or delete.
    pub identity: IdentitySetting,
    /// The published columns, in the order the stream has them.
    pub columns: Vec<Column>,
    /// Condition of the publication on its rows, in SQL.
    pub row_filter: Option<String>,
    /// Whether it is the root of partitions and published as one table.
    pub is_partitioned: bool,
    /// Whether row-level security hides rows from this session.
    pub hides_rows: bool,
    /// Whether this session may read all published columns.
    pub is_readable: bool,
    /// What the planner believes; for progress only.
    pub rows_estimated: u64,
}

/// A column of a [`Table`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Object id of its type.
    pub type_oid: u32,
    /// How its text is to be read.
    pub read_as: ColumnType,
    /// Whether it is part of the primary key.
    pub in_primary_key: bool,
    /// Whether it is part of the index named by `REPLICA IDENTITY USING INDEX`.
    pub in_identity_index: bool,
}

impl Table {
    /// Whether it is the table it was, with the columns, key and filter it had.
    pub fn is_same_as(&self, other: &Self) -> bool {
        (self.oid, &self.schema, &self.name, self.identity, &self.columns, &self.row_filter)
            == (other.oid, &other.schema, &other.name, other.identity, &other.columns, &other.row_filter)
    }

    /// Schema and name, quoted for SQL.
    pub fn sql_name(&self) -> String {
        format!("{}.{}", quote_identifier(&self.schema), quote_identifier(&self.name))
    }

    /// Positions of the columns that identify a row in the stream: the primary key where the stream is sure to show
    /// it, else the identity index, else the whole row. Empty when updates and deletes could not be followed.
    pub fn identity_columns(&self) -> Vec<usize> {
        let positions = |test: fn(&Column) -> bool| -> Vec<usize> {
            self.columns.iter().enumerate().filter(|(_, column)| test(column)).map(|(index, _)| index).collect()
        };
        let primary_key = positions(|column| column.in_primary_key);
        match self.identity {
            IdentitySetting::Nothing => Vec::new(),
            IdentitySetting::Index => positions(|column| column.in_identity_index),
            IdentitySetting::Full if primary_key.is_empty() => (0..self.columns.len()).collect(),
            IdentitySetting::Default | IdentitySetting::Full => primary_key,
        }
    }
}

/// What [`read_table`] reads of a table, without filter and column list.
const TABLE_SELECT: &str = "
    SELECT c.oid, n.nspname::text, c.relname::text, c.relreplident, c.relkind = 'p', row_security_active(c.oid),
           greatest(c.reltuples, 0)::bigint";

/// Lists the tables of a publication which `wanted` accepts by schema and name, sorted.
///
/// # Errors
/// [`PgError`].
pub async fn published_tables(
    client: &Client,
    publication: &str,
    server_version: u32,
    wanted: impl Fn(&str, &str) -> bool,
) -> Result<Vec<Table>, PgError> {
    // Row filters and column lists came with version 15.
    let (filter, columns) =
        if server_version >= 150_000 { ("p.rowfilter", "p.attnames::text[]") } else { ("NULL", "NULL::text[]") };
    let sql = format!(
        "{TABLE_SELECT}, {filter}, {columns}
           FROM pg_catalog.pg_publication_tables p
           JOIN pg_catalog.pg_namespace n ON n.nspname = p.schemaname
           JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = p.tablename
          WHERE p.pubname = $1 ORDER BY 2, 3"
    );
    let mut tables = Vec::new();
    for row in client.query(&sql, &[&publication]).await? {
        let (schema, name): (String, String) = (row.try_get(1)?, row.try_get(2)?);
        if wanted(&schema, &name) {
            tables.push((read_table(&row, schema, name)?, row.try_get::<_, Option<Vec<String>>>(8)?));
        }
    }
    fill_columns(client, server_version, tables).await
}

/// Lists tables by object id, as they would be if they were published whole, sorted.
///
/// # Errors
/// [`PgError`].
pub async fn unpublished_tables(client: &Client, server_version: u32, oids: &[u32]) -> Result<Vec<Table>, PgError> {
    let sql = format!(
        "{TABLE_SELECT}, NULL::text
           FROM pg_catalog.pg_class c
           JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
          WHERE c.oid = ANY ($1) ORDER BY 2, 3"
    );
    let mut tables = Vec::new();
    for row in client.query(&sql, &[&oids]).await? {
        tables.push((read_table(&row, row.try_get(1)?, row.try_get(2)?)?, None));
    }
    fill_columns(client, server_version, tables).await
}

fn read_table(row: &Row, schema: String, name: String) -> Result<Table, PgError> {
    let identity = match row.try_get::<_, i8>(3)?.cast_unsigned() {
        b'n' => IdentitySetting::Nothing,
        b'f' => IdentitySetting::Full,
        b'i' => IdentitySetting::Index,
        _ => IdentitySetting::Default,
    };
    Ok(Table {
        oid: row.try_get(0)?,
        schema,
        name,
        identity,
        columns: Vec::new(),
        row_filter: row.try_get(7)?,
        is_partitioned: row.try_get(4)?,
        hides_rows: row.try_get(5)?,
        is_readable: true,
        rows_estimated: row.try_get::<_, i64>(6)?.unsigned_abs(),
    })
}

/// `listed` names the columns of the publication's column list, where the server tells.
async fn fill_columns(
    client: &Client,
    server_version: u32,
    tables: Vec<(Table, Option<Vec<String>>)>,
) -> Result<Vec<Table>, PgError> {
    let sql = "
        SELECT a.attrelid, a.attname::text, a.atttypid, a.attgenerated <> '',
               coalesce(a.attnum = ANY (pk.indkey), false), coalesce(a.attnum = ANY (ri.indkey), false),
               has_column_privilege(a.attrelid, a.attnum, 'SELECT')
          FROM pg_catalog.pg_attribute a
          LEFT JOIN pg_catalog.pg_index pk ON pk.indrelid = a.attrelid AND pk.indisprimary
          LEFT JOIN pg_catalog.pg_index ri ON ri.indrelid = a.attrelid AND ri.indisreplident
         WHERE a.attrelid = ANY ($1) AND a.attnum > 0 AND NOT a.attisdropped
         ORDER BY a.attrelid, a.attnum";
    let oids: Vec<u32> = tables.iter().map(|(table, _)| table.oid).collect();
    let mut rows: HashMap<u32, Vec<Row>> = HashMap::new();
    let mut type_oids = Vec::new();
    for row in client.query(sql, &[&oids]).await? {
        type_oids.push(row.try_get(2)?);
        rows.entry(row.try_get(0)?).or_default().push(row);
    }
    let types = TypeCatalog::read(client, type_oids).await?;
    // Up to version 17 generated columns are never streamed, though version 15 lists them.
    let streams_generated = server_version >= 180_000;
    let mut filled = Vec::with_capacity(tables.len());
    for (mut table, listed) in tables {
        for row in rows.remove(&table.oid).unwrap_or_default() {
            let name: String = row.try_get(1)?;
            let is_generated: bool = row.try_get(3)?;
            let is_listed = listed.as_ref().is_none_or(|names| names.contains(&name));
            if !is_listed || (is_generated && !streams_generated) {
                continue;
            }
            table.is_readable &= row.try_get::<_, bool>(6)?;
            let type_oid = row.try_get(2)?;
            table.columns.push(Column {
                name,
                type_oid,
                read_as: types.column_type(type_oid),
                in_primary_key: row.try_get(4)?,
                in_identity_index: row.try_get(5)?,
            });
        }
        filled.push(table);
    }
    Ok(filled)
}
