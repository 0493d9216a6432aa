//! What a source database looks like, for warnings: rules compile without it.

use crate::plan::{SourceTable, TablePattern};

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
}

impl SchemaTable {
    fn source_table(&self) -> SourceTable {
        SourceTable { connection: self.connection.clone(), schema: self.schema.clone(), name: self.name.clone() }
    }
}
