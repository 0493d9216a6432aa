//! Tables of the app's own design, for what views over JSON cannot have: types, constraints, foreign keys, full-text
//! search, rows of other shapes.

/// A statement that the sync runs for each row, and what its parameters are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RawStatement {
    pub(crate) sql: String,
    pub(crate) values: Vec<RawValue>,
}

/// A parameter of a statement: what stands for `?1`, `?2`, …
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RawValue {
    /// The row's id.
    Id,
    /// The value of a column as the service sent it. NULL where it sent none, and when a row is deleted.
    Column(String),
    /// A JSON object of all columns but the id and those of other parameters.
    Rest,
}

impl RawValue {
    /// The value of this column.
    pub fn column(name: impl Into<String>) -> Self {
        Self::Column(name.into())
    }
}

/// What makes a table the app's own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct RawTable {
    pub(crate) setup: String,
    pub(crate) put: Option<RawStatement>,
    pub(crate) delete: Option<RawStatement>,
}
