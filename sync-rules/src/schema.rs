//! What a source database looks like, for warnings: rules compile without it.

use crate::{
    plan::{SourceTable, TablePattern},
    suggest::nearest,
};

/// The tables of a source database.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SourceSchema {
    /// All tables rules could read.
    pub tables: Vec<SchemaTable>,
}

/// A table of a source database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchemaTable {
    /// Connection tag, `default` unless configured otherwise.
    pub connection: String,
    /// Schema.
    pub schema: String,
    /// Table.
    pub name: String,
    /// Its columns.
    pub columns: Vec<String>,
}

impl SourceSchema {
    /// The tables a pattern names.
    pub(crate) fn matching<'s>(&'s self, pattern: &'s TablePattern) -> impl Iterator<Item = &'s SchemaTable> {
        self.tables.iter().filter(|table| pattern.matches(&table.source_table()))
    }

    /// Tells if no table is one that the pattern names.
    pub(crate) fn missing_table(&self, pattern: &TablePattern) -> Option<Missing> {
        if self.matching(pattern).next().is_some() {
            return None;
        }
        let message = format!("the database has no table {}.{}", pattern.schema, pattern.name);
        let similar = self.similar_table(pattern).map(|similar| format!("there is a table {similar}"));
        Some(Missing { message, similar })
    }

    fn similar_table(&self, pattern: &TablePattern) -> Option<String> {
        let elsewhere = self.tables.iter().find(|table| table.name == pattern.name);
        if let Some(table) = elsewhere {
            return Some(format!("{}.{}", table.schema, table.name));
        }
        let in_schema = self.tables.iter().filter(|table| table.schema == pattern.schema);
        let name = nearest(&pattern.name, in_schema.map(|table| table.name.as_str()))?;
        Some(format!("{}.{name}", pattern.schema))
    }

    /// Tells if the table is there and has no such column.
    pub(crate) fn missing_column(&self, pattern: &TablePattern, column: &str) -> Option<Missing> {
        let columns = || self.matching(pattern).flat_map(|table| table.columns.iter().map(String::as_str));
        if self.matching(pattern).next().is_none() || columns().any(|known| known == column) {
            return None;
        }
        let message = format!("the table {}.{} has no column {column}", pattern.schema, pattern.name);
        let similar = nearest(column, columns()).map(|similar| format!("there is a column {similar}"));
        Some(Missing { message, similar })
    }
}

/// A name that the source does not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Missing {
    pub message: String,
    /// What it has instead.
    pub similar: Option<String>,
}

impl SchemaTable {
    fn source_table(&self) -> SourceTable {
        SourceTable { connection: self.connection.clone(), schema: self.schema.clone(), name: self.name.clone() }
    }
}
