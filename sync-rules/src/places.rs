//! Where a rules file speaks of tables, columns and definitions, so that a finding made elsewhere, for example in the
//! database, can point at the line it is about.

use std::collections::BTreeMap;

use crate::{diagnostic::Span, plan::TablePattern};

/// The places of a rules file. There are tables only if it was compiled with a schema of the source.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Places {
    /// The bucket definitions, then the streams, each in the order of the file.
    pub definitions: Vec<DefinitionPlace>,
    /// The tables that queries read.
    pub tables: BTreeMap<TablePattern, TablePlace>,
}

/// A bucket definition or stream in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DefinitionPlace {
    /// Its name.
    pub name: String,
    /// Where its name stands.
    pub span: Span,
    /// Whether it says `accept_potentially_dangerous_queries: true`.
    pub accepts_dangerous: bool,
}

/// A table in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TablePlace {
    /// Where it is named first.
    pub span: Span,
    /// The columns that are read by name, and where first. `*` is not among them.
    pub columns: BTreeMap<String, Span>,
}

impl Places {
    /// Notes a table, or a column of it; the first place counts. Finding a place costs time, so `span` is asked only
    /// for what is new.
    pub(crate) fn note(&mut self, table: TablePattern, column: Option<String>, span: impl Fn() -> Span) {
        let table = self.tables.entry(table).or_insert_with(|| TablePlace { span: span(), columns: BTreeMap::new() });
        if let Some(column) = column {
            table.columns.entry(column).or_insert_with(span);
        }
    }
}
