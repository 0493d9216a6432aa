//! What clients may write: the `write_rules` section.

use serde_json::{Map, Value};

use crate::{evaluate::EvaluationError, value::SqlValue};

/// A kind of write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WriteOp {
    /// Insert, or update where the row exists.
    Put,
    /// Update.
    Patch,
    /// Delete.
    Delete,
}

/// A row as the check sees it: column names and values.
pub type CheckRow<'a> = &'a [(String, SqlValue)];

/// What clients may write to one table.
#[derive(Debug, Clone)]
pub struct WritePolicy {}

impl WritePolicy {
    /// Whether the kind of write is allowed at all.
    pub fn allows(&self, op: WriteOp) -> bool {
        let _ = op;
        false
    }

    /// Whether clients may set the column.
    pub fn allows_column(&self, column: &str) -> bool {
        let _ = column;
        false
    }

    /// Columns the server sets itself, evaluated for the writer.
    ///
    /// # Errors
    /// When an expression fails.
    pub fn stamps(&self, token: &Map<String, Value>) -> Result<Vec<(String, SqlValue)>, EvaluationError> {
        let _ = token;
        Ok(Vec::new())
    }

    /// Whether the writer may bring the row from `old` to `new`. A PUT of a new row has no `old`, a DELETE no `new`:
    /// the check is then asked about the row there is, `row.` standing for `new` or, without one, for `old`.
    ///
    /// # Errors
    /// When the expression fails.
    pub fn check(
        &self,
        token: &Map<String, Value>,
        new: Option<CheckRow<'_>>,
        old: Option<CheckRow<'_>>,
    ) -> Result<bool, EvaluationError> {
        let _ = (token, new, old);
        Ok(false)
    }
}
