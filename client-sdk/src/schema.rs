//! The tables an app sees.

use std::collections::BTreeSet;

use crate::raw_table::{RawStatement, RawTable, RawValue};

/// Every column is passed to SQL functions that take at most 1000 arguments, three per column.
const COLUMNS_MAX: usize = 300;

/// The tables of an app. Rows of tables that are not declared are kept, and appear once an app declares them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Schema {
    pub(crate) tables: Vec<Table>,
    pub(crate) is_learned: bool,
}

impl Schema {
    /// These tables.
    pub fn new(tables: impl IntoIterator<Item = Table>) -> Self {
        Self { tables: tables.into_iter().collect(), is_learned: false }
    }

    /// No tables are declared: there is a view for each table that rows came for, whose columns are `id` and those that
    /// its rows had, as SQLite reads them from JSON. Views are for reading only; they come and grow with checkpoints,
    /// and stay when a table is empty again. For tools that look at data of any app.
    ///
    /// A database that was opened with declared tables once cannot be opened so; the other way round is fine.
    pub const fn learned() -> Self {
        Self { tables: Vec::new(), is_learned: true }
    }

    pub(crate) fn validate(&self) -> Result<(), SchemaError> {
        let mut names = BTreeSet::new();
        for table in &self.tables {
            if !is_table_name(&table.name) {
                return Err(SchemaError::TableName { table: table.name.clone() });
            }
            if !names.insert(table.name.to_lowercase()) {
                return Err(SchemaError::DuplicateTable { table: table.name.clone() });
            }
            table.validate()?;
        }
        Ok(())
    }
}

/// A view can have this name.
pub(crate) fn is_table_name(name: &str) -> bool {
    let reserved = ["kairos_", "sqlite_"].iter().any(|prefix| name.to_lowercase().starts_with(prefix));
    !(name.is_empty() || name.contains('\0') || reserved)
}

/// A synced table. Its `id` column, the text that identifies a row, is implied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    pub(crate) name: String,
    pub(crate) columns: Vec<Column>,
    pub(crate) indexes: Vec<Vec<String>>,
    pub(crate) local_only: bool,
    pub(crate) track_previous: bool,
    pub(crate) insert_only: bool,
    pub(crate) raw: Option<RawTable>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Column {
    pub(crate) name: String,
    pub(crate) kind: ColumnKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ColumnKind {
    Text,
    Integer,
    Real,
}

impl ColumnKind {
    pub(crate) const fn sql(self) -> &'static str {
        match self {
            Self::Text => "TEXT",
            Self::Integer => "INTEGER",
            Self::Real => "REAL",
        }
    }
}

impl Table {
    /// A table with this name, as in the sync rules.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            columns: Vec::new(),
            indexes: Vec::new(),
            local_only: false,
            track_previous: false,
            insert_only: false,
            raw: None,
        }
    }

    /// A table of the app's own design: no view over JSON, but what `setup` makes, under this name and with a text `id`.
    /// `setup` is SQL that can run again, such as `CREATE TABLE IF NOT EXISTS`: it runs whenever the schema is another
    /// one than before, with all rows still there. Columns declared here are those that local writes upload, by triggers
    /// on the table; the others are for this device.
    ///
    /// Foreign keys are checked when a checkpoint is complete. A table without rowid does not tell
    /// [watchers](crate::Client::watch) of changes.
    pub fn raw(name: impl Into<String>, setup: impl Into<String>) -> Self {
        let raw = RawTable { setup: setup.into(), put: None, delete: None };
        Self { raw: Some(raw), ..Self::new(name) }
    }

    /// What writes a row of a [raw](Self::raw) table that came from the service, new or not. Without it, the declared
    /// columns are inserted or, where the id is there, updated.
    #[must_use]
    pub fn put_with(mut self, sql: impl Into<String>, values: impl IntoIterator<Item = RawValue>) -> Self {
        let statement = RawStatement { sql: sql.into(), values: values.into_iter().collect() };
        self.raw.get_or_insert_default().put = Some(statement);
        self
    }

    /// What deletes a row of a [raw](Self::raw) table. Without it, the row with the id.
    #[must_use]
    pub fn delete_with(mut self, sql: impl Into<String>, values: impl IntoIterator<Item = RawValue>) -> Self {
        let statement = RawStatement { sql: sql.into(), values: values.into_iter().collect() };
        self.raw.get_or_insert_default().delete = Some(statement);
        self
    }

    /// Adds a text column; also for dates, UUIDs, JSON and numbers with arbitrary precision.
    #[must_use]
    pub fn text(self, name: impl Into<String>) -> Self {
        self.column(name, ColumnKind::Text)
    }

    /// Adds an integer column; also for booleans, as 0 and 1.
    #[must_use]
    pub fn integer(self, name: impl Into<String>) -> Self {
        self.column(name, ColumnKind::Integer)
    }

    /// Adds a column of floating point numbers.
    #[must_use]
    pub fn real(self, name: impl Into<String>) -> Self {
        self.column(name, ColumnKind::Real)
    }

    fn column(mut self, name: impl Into<String>, kind: ColumnKind) -> Self {
        self.columns.push(Column { name: name.into(), kind });
        self
    }

    /// Adds an index over these columns.
    #[must_use]
    pub fn index<C: Into<String>>(mut self, columns: impl IntoIterator<Item = C>) -> Self {
        self.indexes.push(columns.into_iter().map(Into::into).collect());
        self
    }

    /// Rows stay on this device: nothing is uploaded.
    #[must_use]
    pub fn local_only(mut self) -> Self {
        self.local_only = true;
        self
    }

    /// Uploads carry the values from before the write, which three-way merges need.
    #[must_use]
    pub fn track_previous(mut self) -> Self {
        self.track_previous = true;
        self
    }

    /// New rows are uploaded and not kept here, unless they come back from the service; nothing is changed or deleted.
    /// For logs and measurements.
    #[must_use]
    pub fn insert_only(mut self) -> Self {
        self.insert_only = true;
        self
    }

    fn validate(&self) -> Result<(), SchemaError> {
        if self.insert_only && self.local_only {
            return Err(SchemaError::KeptNowhere { table: self.name.clone() });
        }
        if self.raw.is_some() && (self.insert_only || self.local_only || !self.indexes.is_empty()) {
            return Err(SchemaError::RawOptions { table: self.name.clone() });
        }
        let mut names = BTreeSet::from(["id".to_owned()]);
        for column in &self.columns {
            if column.name.is_empty() || column.name.contains(['"', '\0', '\\']) {
                return Err(SchemaError::ColumnName { table: self.name.clone(), column: column.name.clone() });
            }
            if !names.insert(column.name.to_lowercase()) {
                return Err(SchemaError::DuplicateColumn { table: self.name.clone(), column: column.name.clone() });
            }
        }
        if self.columns.len() > COLUMNS_MAX {
            return Err(SchemaError::TooManyColumns { table: self.name.clone() });
        }
        let missing = self.indexes.iter().flatten().find(|column| !names.contains(&column.to_lowercase()));
        if let Some(column) = missing {
            return Err(SchemaError::IndexColumn { table: self.name.clone(), column: column.clone() });
        }
        if self.indexes.iter().any(Vec::is_empty) {
            return Err(SchemaError::EmptyIndex { table: self.name.clone() });
        }
        Ok(())
    }
}

/// A declared schema that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SchemaError {
    /// Empty, or in the client's own name space.
    #[error("`{table}` cannot be the name of a table: it is empty or begins with `kairos_` or `sqlite_`")]
    TableName {
        /// The name.
        table: String,
    },
    /// SQLite does not distinguish case.
    #[error("table `{table}` is declared twice")]
    DuplicateTable {
        /// Its name.
        table: String,
    },
    /// Not usable in a JSON path.
    #[error("`{column}` cannot be the name of a column of table `{table}`: it is empty or has quotes or backslashes")]
    ColumnName {
        /// Name of the table.
        table: String,
        /// The name.
        column: String,
    },
    /// SQLite does not distinguish case, and `id` is implied.
    #[error("column `{column}` of table `{table}` is declared twice (`id` is always there)")]
    DuplicateColumn {
        /// Name of the table.
        table: String,
        /// The column.
        column: String,
    },
    /// More than 300.
    #[error("table `{table}` has more than 300 columns; declare only those the app uses")]
    TooManyColumns {
        /// Its name.
        table: String,
    },
    /// An index over a column that is not declared.
    #[error("an index of table `{table}` names column `{column}`, which is not declared")]
    IndexColumn {
        /// Name of the table.
        table: String,
        /// The column.
        column: String,
    },
    /// Rows that are neither uploaded nor kept.
    #[error("table `{table}` is both local-only and insert-only: its rows would be nowhere")]
    KeptNowhere {
        /// Its name.
        table: String,
    },
    /// A table of the app's own that is to be local, to take new rows only, or to have indexes.
    #[error(
        "table `{table}` is the app's own: it is neither local-only nor insert-only, and its setup makes its indexes"
    )]
    RawOptions {
        /// Its name.
        table: String,
    },
    /// An index over nothing.
    #[error("an index of table `{table}` has no columns")]
    EmptyIndex {
        /// Its name.
        table: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_sqlite_confuses_are_refused() {
        let check = |table: Table| Schema::new([table]).validate();
        assert!(matches!(check(Table::new("Kairos_kv")), Err(SchemaError::TableName { .. })));
        assert!(matches!(check(Table::new("t").text("ID")), Err(SchemaError::DuplicateColumn { .. })));
        assert!(matches!(check(Table::new("t").text("a\"b")), Err(SchemaError::ColumnName { .. })));
        assert!(matches!(check(Table::new("t").text("a").index(["b"])), Err(SchemaError::IndexColumn { .. })));
        assert!(matches!(check(Table::new("t").index::<&str>([])), Err(SchemaError::EmptyIndex { .. })));
        let nowhere = Table::new("t").insert_only().local_only();
        assert!(matches!(check(nowhere), Err(SchemaError::KeptNowhere { .. })));
        let own = Table::raw("t", "").text("a").index(["a"]);
        assert!(matches!(check(own), Err(SchemaError::RawOptions { .. })));
        let twice = Schema::new([Table::new("t"), Table::new("T")]);
        assert!(matches!(twice.validate(), Err(SchemaError::DuplicateTable { .. })));
        assert_eq!(check(Table::new("t").text("a").integer("B").index(["A", "id"])), Ok(()));
    }
}
