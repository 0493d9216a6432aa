//! Tables and columns of the source.

use tokio_postgres::Client;

use super::{
    Admin,
    shape::{CONNECTION, ConnectionSchemas, NamedColumn, NamedSchema, NamedTable, SourceSchemas},
    within_deadline,
};
use crate::{
    postgres::{PgError, type_catalog::TypeCatalog, value::ColumnType},
    rules_check::DEFAULT_SCHEMA,
};

/// Columns that are listed; a database with more is cut, by name.
const COLUMNS_MAX: i64 = 100_000;

impl Admin {
    /// All tables and columns that rules could name.
    ///
    /// # Errors
    /// When the source cannot be asked.
    pub async fn schema(&self) -> Result<SourceSchemas, PgError> {
        let schemas = within_deadline(async { schemas(&self.source.connect().await?).await }).await?;
        Ok(SourceSchemas {
            connections: vec![ConnectionSchemas { id: CONNECTION, tag: CONNECTION, schemas }],
            default_connection_tag: CONNECTION,
            default_schema: DEFAULT_SCHEMA,
        })
    }
}

async fn schemas(client: &Client) -> Result<Vec<NamedSchema>, PgError> {
    let sql = "
        SELECT n.nspname::text, c.relname::text, a.attname::text, a.atttypid, pg_catalog.format_type(a.atttypid, NULL)
          FROM pg_catalog.pg_class c
          JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
          JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
         WHERE c.relkind IN ('r', 'p') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
         ORDER BY 1, 2, a.attnum LIMIT $1";
    let rows = client.query(sql, &[&COLUMNS_MAX]).await?;
    let oids = rows.iter().map(|row| row.try_get::<_, u32>(3)).collect::<Result<Vec<_>, _>>()?;
    let types = TypeCatalog::read(client, oids).await?;
    let mut schemas: Vec<NamedSchema> = Vec::new();
    for row in rows {
        let (schema, table): (String, String) = (row.try_get(0)?, row.try_get(1)?);
        let kind: String = row.try_get(4)?;
        let column = NamedColumn {
            name: row.try_get(2)?,
            sqlite_type: sqlite_type(&types.column_type(row.try_get(3)?)),
            internal_type: kind.clone(),
            pg_type: kind.clone(),
            kind,
        };
        if schemas.last().is_none_or(|last| last.name != schema) {
            schemas.push(NamedSchema { name: schema, tables: Vec::new() });
        }
        let tables = schemas.last_mut().map(|last| &mut last.tables).expect("one was pushed if there was none");
        match tables.last_mut() {
            Some(last) if last.name == table => last.columns.push(column),
            _ => tables.push(NamedTable { name: table, columns: vec![column] }),
        }
    }
    Ok(schemas)
}

/// Flags as the reference service has them.
fn sqlite_type(column: &ColumnType) -> u8 {
    match column {
        ColumnType::Bytes => 1,
        ColumnType::Bool | ColumnType::Integer => 4,
        ColumnType::Real => 8,
        _ => 2,
    }
}
