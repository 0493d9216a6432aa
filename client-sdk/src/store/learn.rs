//! Tables that nobody declared. Their columns are those of the rows that came, in the order in which they were first
//! seen; their views cannot be written to, and stay when the last row is gone.

use std::{collections::HashSet, fmt};

use rusqlite::{Connection, params};
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};

use super::{
    StoreError,
    oplog::sql_id,
    views::{self, identifier, literal},
};
use crate::schema;

/// Stands where the SQL of declared tables is noted, and is SQL that makes none.
pub(super) const DEFINITION: &str = "-- learned from what arrives";

/// SQLite's views have at most 2000 columns. Further ones are stored, but not shown.
const COLUMNS_MAX: usize = 1_999;

/// Makes room for the rows of `table`. False when no view can have this name, or one has it in other capitals: SQLite
/// does not tell those apart.
pub(super) fn register(tx: &Connection, table: &str) -> Result<bool, StoreError> {
    let is_taken: bool = tx
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM kairos_table WHERE name = ?1 COLLATE NOCASE)")?
        .query_row([table], |row| row.get(0))?;
    if is_taken || !schema::is_table_name(table) {
        tracing::warn!(table, "no view can have the name of this table; its rows are stored, but not shown");
        return Ok(false);
    }
    tx.execute_batch(&views::data_table_sql(table))?;
    tx.execute("INSERT INTO kairos_table (name, local_only) VALUES (?1, 0)", [table])?;
    Ok(true)
}

/// The columns of a table, and those that its new rows add.
#[derive(Debug)]
pub(super) struct Columns {
    known: HashSet<String>,
    added: Vec<String>,
    has_view: bool,
}

impl Columns {
    /// What is known of a registered table.
    pub(super) fn load(tx: &Connection, table: &str) -> Result<Self, StoreError> {
        let mut statement = tx.prepare_cached("SELECT name FROM kairos_column WHERE row_type = ?1")?;
        let known = statement.query_map([table], |row| row.get(0))?.collect::<Result<_, _>>()?;
        let has_view = tx
            .prepare_cached("SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE type = 'view' AND name = ?1)")?
            .query_row([table], |row| row.get(0))?;
        Ok(Self { known, added: Vec::new(), has_view })
    }

    /// Notes the columns of a row. What is no JSON object has none.
    pub(super) fn see(&mut self, data: &str) {
        let mut row = serde_json::Deserializer::from_str(data);
        // Broken data is shown as SQLite shows it, and is not for the publish to judge.
        let _ = (&mut row).deserialize_map(self);
    }

    /// Makes the view anew if it lacks columns.
    pub(super) fn save(&self, tx: &Connection, table: &str) -> Result<(), StoreError> {
        if self.added.is_empty() && self.has_view {
            return Ok(());
        }
        let first = self.known.len() - self.added.len();
        for (offset, column) in self.added.iter().enumerate() {
            tx.prepare_cached("INSERT INTO kairos_column (row_type, name, position) VALUES (?1, ?2, ?3)")?
                .execute(params![table, column, sql_id((first + offset) as u64)])?;
        }
        let mut statement =
            tx.prepare_cached("SELECT name FROM kairos_column WHERE row_type = ?1 ORDER BY position")?;
        let columns = statement.query_map([table], |row| row.get(0))?.collect::<Result<Vec<String>, _>>()?;
        let mut selected = vec!["id".to_owned()];
        selected.extend(columns.iter().map(|column| format!("{} AS {}", expression(column), identifier(column))));
        let (view, data, selected) = (identifier(table), views::data_table(table), selected.join(", "));
        tx.execute_batch(&format!("DROP VIEW IF EXISTS {view}; CREATE VIEW {view} AS SELECT {selected} FROM {data};"))?;
        Ok(())
    }

    fn add(&mut self, column: &str) {
        // The row's own `id` is that of the table; NUL ends an SQL text.
        if self.known.contains(column) || column == "id" || column.contains('\0') || self.known.len() == COLUMNS_MAX {
            return;
        }
        self.known.insert(column.to_owned());
        self.added.push(column.to_owned());
    }
}

/// The value of a column as JSON has it. A path cannot name every key.
fn expression(column: &str) -> String {
    if column.contains(['"', '\\']) || column.chars().any(char::is_control) {
        format!("(SELECT value FROM json_each(data) WHERE key = {})", literal(column))
    } else {
        format!("json_extract(data, {})", literal(&format!("$.\"{column}\"")))
    }
}

impl<'de> Visitor<'de> for &mut Columns {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a row")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut row: A) -> Result<(), A::Error> {
        while row.next_key_seed(Key(self))?.is_some() {
            row.next_value::<IgnoredAny>()?;
        }
        Ok(())
    }
}

/// A key that is looked at without being copied.
struct Key<'columns>(&'columns mut Columns);

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, key: D) -> Result<(), D::Error> {
        key.deserialize_str(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a column")
    }

    fn visit_str<E>(self, column: &str) -> Result<(), E> {
        self.0.add(column);
        Ok(())
    }
}
