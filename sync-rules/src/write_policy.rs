//! What clients may write: the `write_rules` section.

use std::{borrow::Cow, collections::BTreeSet};

use serde_json::{Map, Value};

use crate::{
    evaluate::EvaluationError, expression::Expr, request::RequestContext, scope::RequestInput, value::SqlValue,
};

/// A kind of write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
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
pub struct WritePolicy {
    pub(crate) table: String,
    pub(crate) operations: BTreeSet<WriteOp>,
    pub(crate) columns: ColumnRule,
    pub(crate) stamps: Vec<(String, Expr<RequestInput>)>,
    pub(crate) check: Expr<CheckInput>,
}

/// Which columns clients may set.
#[derive(Debug, Clone)]
pub(crate) enum ColumnRule {
    All,
    Only(BTreeSet<String>),
    AllBut(BTreeSet<String>),
}

/// What a check speaks of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CheckInput {
    /// A column of the row as it would be.
    Row(String),
    /// A column of the row as it is.
    Old(String),
    /// A fact of the writer's token.
    Token(RequestInput),
}

impl WritePolicy {
    /// Whether the kind of write is allowed at all.
    pub fn allows(&self, op: WriteOp) -> bool {
        self.operations.contains(&op)
    }

    /// Whether clients may set the column. The id always; a column the server stamps never.
    pub fn allows_column(&self, column: &str) -> bool {
        if column == "id" {
            return true;
        }
        let stamped = self.stamps.iter().any(|(name, _)| name == column);
        !stamped
            && match &self.columns {
                ColumnRule::All => true,
                ColumnRule::Only(names) => names.contains(column),
                ColumnRule::AllBut(names) => !names.contains(column),
            }
    }

    /// Columns the server sets itself, evaluated for the writer.
    ///
    /// # Errors
    /// When an expression fails.
    pub fn stamps(&self, token: &Map<String, Value>) -> Result<Vec<(String, SqlValue)>, EvaluationError> {
        let request = RequestContext { token: token.clone(), ..RequestContext::default() };
        let stamp = |(name, expr): &(String, Expr<RequestInput>)| {
            let value =
                expr.eval(&|input| Cow::Owned(input.value(&request))).map_err(|message| self.failed(message))?;
            Ok((name.clone(), value.into_owned()))
        };
        self.stamps.iter().map(stamp).collect()
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
        let request = RequestContext { token: token.clone(), ..RequestContext::default() };
        let column = |row: Option<CheckRow<'_>>, name: &str| {
            let found = row.and_then(|row| row.iter().find(|(column, _)| column == name));
            found.map_or(SqlValue::Null, |(_, value)| value.clone())
        };
        let input = |input: &CheckInput| {
            Cow::Owned(match input {
                CheckInput::Row(name) => column(new.or(old), name),
                CheckInput::Old(name) => column(old, name),
                CheckInput::Token(fact) => fact.value(&request),
            })
        };
        let verdict = self.check.eval(&input).map_err(|message| self.failed(message))?;
        Ok(verdict.truth())
    }

    fn failed(&self, message: &str) -> EvaluationError {
        EvaluationError { definition: format!("write_rules.{}", self.table), message: message.to_owned() }
    }
}
