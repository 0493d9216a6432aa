//! The tables that publications offer.

use std::collections::{BTreeSet, HashMap};

use tokio_postgres::{Client, Row};

use crate::postgres::{
    error::PgError,
    membership::{Listing, Membership, Partition, as_streamed, membership},
    pgoutput::IdentitySetting,
    type_catalog::TypeCatalog,
    value::ColumnType,
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
    /// Columns of the key that are not published.
    pub unpublished_key: Vec<String>,
    /// Columns that the list of a publication leaves out.
    pub unlisted: Vec<String>,
    /// Condition of the publications on its rows, in SQL.
    pub row_filter: Option<String>,
    /// What each publication says of it.
    pub listings: Vec<Listing>,
    /// What makes it part of the publications, to be compared with what did earlier.
    pub published_by: String,
    /// A publication that has parts of it, while another publishes it whole; in order of their names the first.
    pub published_apart_by: Option<String>,
    /// Whether it is the root of partitions and published as one table.
    pub is_partitioned: bool,
    /// Its partitions at all levels, where it is published as one table; by object id.
    pub partitions: Vec<Partition>,
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
    /// Whether it is part of the primary key. One that may be violated within a transaction is none to the stream.
    pub in_primary_key: bool,
    /// Whether it is part of the index named by `REPLICA IDENTITY USING INDEX`.
    pub in_identity_index: bool,
}

impl Table {
    /// Whether it is the table it was: columns, key, filter, partitions, and published as it was.
    pub fn is_same_as(&self, other: &Self) -> bool {
        let likeness = |table: &Self| {
            let Self { oid, schema, name, identity, columns, row_filter, published_by, partitions, .. } = table.clone();
            (oid, schema, name, identity, columns, row_filter, published_by, partitions)
        };
        likeness(self) == likeness(other)
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
        let is_whole = self.unpublished_key.is_empty();
        match self.identity {
            IdentitySetting::Full if !is_whole || primary_key.is_empty() => (0..self.columns.len()).collect(),
            IdentitySetting::Index if is_whole => positions(|column| column.in_identity_index),
            IdentitySetting::Full | IdentitySetting::Default if is_whole => primary_key,
            _ => Vec::new(),
        }
    }

    /// Whether rows are told apart by nothing but all their values, so that equal ones are one.
    pub fn has_no_key(&self) -> bool {
        self.identity == IdentitySetting::Full && !self.columns.iter().any(|column| column.in_primary_key)
    }
}

/// What publications offer.
#[derive(Debug, Clone, Default)]
pub struct Published {
    /// The tables that are wanted, sorted by name.
    pub tables: Vec<Table>,
    /// Partitions of published tables: the stream describes them, and then has their changes as the whole table's.
    pub partitions: BTreeSet<u32>,
}

/// What [`read_table`] reads of a table.
const TABLE_SELECT: &str = "
    SELECT c.oid, n.nspname::text, c.relname::text, c.relreplident, c.relkind = 'p', row_security_active(c.oid),
           greatest(c.reltuples, 0)::bigint";

/// Lists the tables of publications which `wanted` accepts by schema and name, sorted; each as the stream has it when
/// all of them are read at once.
///
/// # Errors
/// [`PgError`].
pub async fn published_tables(
    client: &Client,
    publications: &[String],
    server_version: u32,
    wanted: impl Fn(&str, &str) -> bool,
) -> Result<Published, PgError> {
    // Row filters and column lists came with version 15.
    let (filter, columns) =
        if server_version >= 150_000 { ("p.rowfilter", "p.attnames::text[]") } else { ("NULL", "NULL::text[]") };
    let sql = format!(
        "{TABLE_SELECT}, p.pubname::text, {filter}, {columns},
                EXISTS (SELECT FROM pg_catalog.pg_publication_rel r JOIN pg_catalog.pg_publication pp ON pp.oid = r.prpubid
                         WHERE pp.pubname = p.pubname AND r.prrelid = c.oid)
           FROM pg_catalog.pg_publication_tables p
           JOIN pg_catalog.pg_namespace n ON n.nspname = p.schemaname
           JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = p.tablename
          WHERE p.pubname = ANY ($1) ORDER BY 2, 3, 8"
    );
    let mut tables: Vec<Table> = Vec::new();
    for row in client.query(&sql, &[&publications]).await? {
        let listing = Listing {
            publication: row.try_get(7)?,
            row_filter: row.try_get(8)?,
            columns: row.try_get(9)?,
            is_by_name: row.try_get(10)?,
        };
        let table = read_table(&row)?;
        match tables.last_mut() {
            Some(last) if last.oid == table.oid => last.listings.push(listing),
            _ => tables.push(Table { listings: vec![listing], ..table }),
        }
    }
    let mut found = membership(client, publications, server_version, &tables).await?;
    let partitions = found.values().flat_map(|found| &found.partitions).map(|partition| partition.oid).collect();
    let mut tables = as_streamed(tables, &found);
    tables.retain(|table| wanted(&table.schema, &table.name));
    for table in &mut tables {
        let Membership { published_by, partitions, .. } = found.remove(&table.oid).unwrap_or_default();
        (table.published_by, table.partitions) = (published_by, partitions);
    }
    Ok(Published { tables: fill_columns(client, server_version, tables).await?, partitions })
}

/// Lists tables by object id, as they would be if they were published whole, sorted.
///
/// # Errors
/// [`PgError`].
pub async fn unpublished_tables(client: &Client, server_version: u32, oids: &[u32]) -> Result<Vec<Table>, PgError> {
    let sql = format!(
        "{TABLE_SELECT}
           FROM pg_catalog.pg_class c
           JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
          WHERE c.oid = ANY ($1) ORDER BY 2, 3"
    );
    let rows = client.query(&sql, &[&oids]).await?;
    let tables = rows.iter().map(read_table).collect::<Result<_, _>>()?;
    fill_columns(client, server_version, tables).await
}

fn read_table(row: &Row) -> Result<Table, PgError> {
    let identity = match row.try_get::<_, i8>(3)?.cast_unsigned() {
        b'n' => IdentitySetting::Nothing,
        b'f' => IdentitySetting::Full,
        b'i' => IdentitySetting::Index,
        _ => IdentitySetting::Default,
    };
    Ok(Table {
        oid: row.try_get(0)?,
        schema: row.try_get(1)?,
        name: row.try_get(2)?,
        identity,
        columns: Vec::new(),
        unpublished_key: Vec::new(),
        unlisted: Vec::new(),
        row_filter: None,
        listings: Vec::new(),
        published_by: String::new(),
        published_apart_by: None,
        is_partitioned: row.try_get(4)?,
        partitions: Vec::new(),
        hides_rows: row.try_get(5)?,
        is_readable: true,
        rows_estimated: row.try_get::<_, i64>(6)?.unsigned_abs(),
    })
}

async fn fill_columns(client: &Client, server_version: u32, tables: Vec<Table>) -> Result<Vec<Table>, PgError> {
    let sql = "
        SELECT a.attrelid, a.attname::text, a.atttypid, a.attgenerated <> '',
               coalesce(a.attnum = ANY (pk.indkey), false), coalesce(a.attnum = ANY (ri.indkey), false),
               has_column_privilege(a.attrelid, a.attnum, 'SELECT')
          FROM pg_catalog.pg_attribute a
          LEFT JOIN pg_catalog.pg_index pk ON pk.indrelid = a.attrelid AND pk.indisprimary AND pk.indimmediate
          LEFT JOIN pg_catalog.pg_index ri ON ri.indrelid = a.attrelid AND ri.indisreplident
         WHERE a.attrelid = ANY ($1) AND a.attnum > 0 AND NOT a.attisdropped
         ORDER BY a.attrelid, a.attnum";
    let oids: Vec<u32> = tables.iter().map(|table| table.oid).collect();
    let mut rows: HashMap<u32, Vec<Row>> = HashMap::new();
    let mut type_oids = Vec::new();
    for row in client.query(sql, &[&oids]).await? {
        type_oids.push(row.try_get(2)?);
        rows.entry(row.try_get(0)?).or_default().push(row);
    }
    let types = TypeCatalog::read(client, type_oids).await?;
    // Up to version 17 generated columns are never streamed, though version 15 lists them. From 18 on they are where
    // they are listed, and a table that nobody lists would have none.
    let streams_generated = server_version >= 180_000;
    let mut filled = Vec::with_capacity(tables.len());
    for mut table in tables {
        for row in rows.remove(&table.oid).unwrap_or_default() {
            let name: String = row.try_get(1)?;
            let is_generated: bool = row.try_get(3)?;
            if is_generated && !streams_generated {
                table.listings.iter_mut().for_each(|listing| listing.remove(&name));
            }
            let is_listed = table.listings.iter().all(|listing| listing.has(&name));
            if !is_listed && !is_generated {
                table.unlisted.push(name.clone());
            }
            let type_oid = row.try_get(2)?;
            let column = Column {
                type_oid,
                read_as: types.column_type(type_oid),
                in_primary_key: row.try_get(4)?,
                in_identity_index: row.try_get(5)?,
                name,
            };
            if is_listed && !(is_generated && (!streams_generated || table.listings.is_empty())) {
                table.is_readable &= row.try_get::<_, bool>(6)?;
                table.columns.push(column);
            } else if match table.identity {
                IdentitySetting::Index => column.in_identity_index,
                _ => column.in_primary_key,
            } {
                table.unpublished_key.push(column.name);
            }
        }
        filled.push(table);
    }
    Ok(filled)
}
