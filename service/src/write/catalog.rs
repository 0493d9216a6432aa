//! Tables as the source's catalog describes them.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use deadpool_postgres::Transaction;
use tokio_postgres::Error;

use super::value::Kind;

/// Older descriptions are read again. What changed earlier shows as an error of Postgres and is then read at once.
const AGE_MAX: Duration = Duration::from_mins(1);

const COLUMNS: &str = "
SELECT a.attname::text, b.typname::text, t.typcategory = 'A',
       -- As casts name it; without the length, to which a cast would cut.
       pg_catalog.format_type(b.oid, CASE WHEN b.typname IN ('varchar', 'bpchar', 'bit', 'varbit') THEN -1 ELSE b.modifier END),
       a.attgenerated <> '' OR a.attidentity = 'a',
       coalesce(bool_or(i.indisunique), false), coalesce(bool_or(i.indisprimary), false)
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
-- A domain's base, through domains over domains.
CROSS JOIN LATERAL (
    WITH RECURSIVE base AS (
        SELECT t.oid, t.typname, t.typbasetype, CASE t.typtype WHEN 'd' THEN t.typtypmod ELSE a.atttypmod END AS modifier
        UNION ALL
        SELECT p.oid, p.typname, p.typbasetype, CASE p.typtype WHEN 'd' THEN p.typtypmod ELSE base.modifier END
        FROM base JOIN pg_catalog.pg_type p ON p.oid = base.typbasetype
    )
    SELECT oid, typname, modifier FROM base WHERE typbasetype = 0
) b
-- Indexes which make this column alone unique, for all rows and at once.
LEFT JOIN pg_catalog.pg_index i
    ON i.indrelid = c.oid AND i.indnkeyatts = 1 AND i.indkey[0] = a.attnum
    AND i.indisunique AND i.indimmediate AND i.indisvalid AND i.indpred IS NULL
WHERE n.nspname = $1 AND c.relname = $2 AND c.relkind IN ('r', 'p')
GROUP BY a.attnum, a.attname, b.oid, b.typname, b.modifier, t.typcategory, a.attgenerated, a.attidentity
ORDER BY a.attnum";

/// A column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Column {
    pub(super) name: String,
    pub(super) kind: Kind,
    /// The type, of a domain its base, as SQL.
    pub(super) type_name: String,
    /// Only Postgres sets it.
    pub(super) generated: bool,
}

/// A table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Table {
    pub(super) schema: String,
    pub(super) name: String,
    pub(super) columns: Vec<Column>,
    /// Position of the column that holds a row's id: `id` where it is unique, else the primary key if that is one
    /// column.
    pub(super) key: Option<usize>,
}

impl Table {
    pub(super) fn position(&self, column: &str) -> Option<usize> {
        self.columns.iter().position(|known| known.name == column)
    }
}

/// Descriptions of the tables clients may write to; so there are no more of them than rules.
#[derive(Debug, Default)]
pub(super) struct Catalog {
    tables: Mutex<HashMap<(String, String), Known>>,
}

#[derive(Debug, Clone)]
struct Known {
    table: Arc<Table>,
    read_at: Instant,
}

impl Catalog {
    /// The moment since when a description is good enough as a rule.
    pub(super) fn recently() -> Option<Instant> {
        Instant::now().checked_sub(AGE_MAX)
    }

    /// The table as it was at `since` or later, or `None` if there is none of that name.
    pub(super) async fn table(
        &self,
        tx: &Transaction<'_>,
        schema: &str,
        name: &str,
        since: Option<Instant>,
    ) -> Result<Option<Arc<Table>>, Error> {
        let key = (schema.to_owned(), name.to_owned());
        let known = self.tables.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        if let Some(known) = known.filter(|known| since.is_none_or(|since| known.read_at >= since)) {
            return Ok(Some(known.table));
        }
        let read_at = Instant::now();
        let Some(table) = describe(tx, schema, name).await?.map(Arc::new) else { return Ok(None) };
        let entry = Known { table: Arc::clone(&table), read_at };
        self.tables.lock().unwrap_or_else(PoisonError::into_inner).insert(key, entry);
        Ok(Some(table))
    }

    /// Reads all tables again when they are next needed.
    pub(super) fn forget(&self) {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

async fn describe(tx: &Transaction<'_>, schema: &str, name: &str) -> Result<Option<Table>, Error> {
    let statement = tx.prepare_cached(COLUMNS).await?;
    let rows = tx.query(&statement, &[&schema, &name]).await?;
    if rows.is_empty() {
        return Ok(None);
    }
    let columns = rows.iter().map(|row| Column {
        name: row.get(0),
        kind: Kind::of(row.get(1), row.get(2)),
        type_name: row.get(3),
        generated: row.get(4),
    });
    let id = rows.iter().position(|row| row.get::<_, &str>(0) == "id" && row.get(5));
    let key = id.or_else(|| rows.iter().position(|row| row.get(6)));
    Ok(Some(Table { schema: schema.to_owned(), name: name.to_owned(), columns: columns.collect(), key }))
}
