//! The tables of an app.

use kairos_client::{RawValue, Schema, Table};

/// Type of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, uniffi::Enum)]
pub enum ColumnType {
    /// Also dates, UUIDs, JSON and numbers with arbitrary precision.
    Text,
    /// Also booleans, as 0 and 1.
    Integer,
    /// Floating point.
    Real,
}

/// A column.
#[derive(Debug, Clone, uniffi::Record)]
pub struct ColumnSchema {
    /// Its name.
    pub name: String,
    /// Its type.
    pub kind: ColumnType,
}

/// A table of the app's own design: see `Table::raw` in the documentation.
#[derive(Debug, Clone, uniffi::Record)]
pub struct RawSchema {
    /// SQL that makes it, and can run again.
    pub setup: String,
    /// What writes a row; without it, the declared columns are written.
    pub put: Option<RawStatement>,
    /// What deletes a row; without it, the row with the id.
    pub delete: Option<RawStatement>,
}

/// A statement, with what stands for `?1`, `?2`, …
#[derive(Debug, Clone, uniffi::Record)]
pub struct RawStatement {
    /// SQL.
    pub sql: String,
    /// Parameters.
    pub values: Vec<RawParameter>,
}

/// A parameter of a statement.
#[derive(Debug, Clone, uniffi::Enum)]
pub enum RawParameter {
    /// The row's id.
    Id,
    /// The value of a column.
    Column {
        /// Its name.
        name: String,
    },
    /// A JSON object of all other columns.
    Rest,
}

/// A table. Its `id` column is implied.
#[derive(Debug, Clone, uniffi::Record)]
pub struct TableSchema {
    /// As in the sync rules.
    pub name: String,
    /// Columns the app uses.
    pub columns: Vec<ColumnSchema>,
    /// Columns of each index.
    #[uniffi(default = [])]
    pub indexes: Vec<Vec<String>>,
    /// Rows stay on this device.
    #[uniffi(default = false)]
    pub local_only: bool,
    /// New rows are uploaded and not kept.
    #[uniffi(default = false)]
    pub insert_only: bool,
    /// Uploads carry the row as it was.
    #[uniffi(default = false)]
    pub track_previous: bool,
    /// Where the app makes the table itself.
    #[uniffi(default = None)]
    pub raw: Option<RawSchema>,
}

pub(crate) fn schema(tables: Vec<TableSchema>) -> Schema {
    Schema::new(tables.into_iter().map(table))
}

fn table(declared: TableSchema) -> Table {
    let TableSchema { name, columns, indexes, local_only, insert_only, track_previous, raw } = declared;
    let mut table = match raw {
        None => Table::new(name),
        Some(RawSchema { setup, put, delete }) => {
            let mut table = Table::raw(name, setup);
            if let Some(RawStatement { sql, values }) = put {
                table = table.put_with(sql, values.into_iter().map(parameter));
            }
            if let Some(RawStatement { sql, values }) = delete {
                table = table.delete_with(sql, values.into_iter().map(parameter));
            }
            table
        }
    };
    for ColumnSchema { name, kind } in columns {
        table = match kind {
            ColumnType::Text => table.text(name),
            ColumnType::Integer => table.integer(name),
            ColumnType::Real => table.real(name),
        };
    }
    table = indexes.into_iter().fold(table, Table::index);
    if local_only {
        table = table.local_only();
    }
    if insert_only {
        table = table.insert_only();
    }
    if track_previous {
        table = table.track_previous();
    }
    table
}

fn parameter(declared: RawParameter) -> RawValue {
    match declared {
        RawParameter::Id => RawValue::Id,
        RawParameter::Column { name } => RawValue::Column(name),
        RawParameter::Rest => RawValue::Rest,
    }
}
