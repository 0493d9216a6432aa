//! What clients may write: the `write_rules` section.

use std::{borrow::Cow, collections::BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    conflict::ConflictStrategy,
    definition::RequestInput,
    evaluate::{ErrorKind, EvaluationError},
    expression::Expression,
    request::RequestContext,
    validator::Validator,
    value::{Failure, SqlValue},
};

/// A kind of write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
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
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WritePolicy {
    table: String,
    allow: Vec<WriteOp>,
    columns: Columns,
    stamps: Vec<(String, Expression<CheckInput>)>,
    check: Expression<CheckInput>,
    /// Whether the check itself speaks of the stored row.
    reads_old: bool,
    #[serde(default)]
    conflict: ConflictStrategy,
    /// By column.
    #[serde(default)]
    validators: Vec<(String, Vec<Validator>)>,
}

/// Columns clients may set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Columns {
    Only(Vec<String>),
    AllBut(Vec<String>),
}

/// What a check can read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum CheckInput {
    Row(String),
    Old(String),
    Request(RequestInput),
}

impl WritePolicy {
    pub(crate) fn new(
        table: &str,
        allow: Vec<WriteOp>,
        columns: Columns,
        stamps: Vec<(String, Expression<CheckInput>)>,
        check: Expression<CheckInput>,
        conflict: ConflictStrategy,
        validators: Vec<(String, Vec<Validator>)>,
    ) -> Self {
        let mut reads_old = false;
        check.visit_inputs(&mut |input| reads_old |= matches!(input, CheckInput::Old(_)));
        Self { table: table.to_owned(), allow, columns, stamps, check, reads_old, conflict, validators }
    }

    /// The table, as the rules have it.
    pub fn table(&self) -> &str {
        &self.table
    }

    /// Who wins where others changed the row as well.
    pub fn conflict(&self) -> &ConflictStrategy {
        &self.conflict
    }

    /// What a column's value from a device must be like.
    pub fn validators(&self, column: &str) -> &[Validator] {
        let found = self.validators.iter().find(|(name, _)| name == column);
        found.map_or(&[], |(_, validators)| validators)
    }

    /// The values without those that a `secrets` validator finds, for keeping what is not written.
    pub fn without_secrets(&self, values: &Map<String, Value>) -> Map<String, Value> {
        let is_secret = |column: &str, value: &Value| {
            self.validators(column).iter().any(|one| *one == Validator::Secrets && one.fault(value).is_some())
        };
        let kept = values.iter().filter(|(column, value)| !is_secret(column, value));
        kept.map(|(column, value)| (column.clone(), value.clone())).collect()
    }

    /// Whether the kind of write is allowed at all.
    pub fn allows(&self, op: WriteOp) -> bool {
        self.allow.contains(&op)
    }

    /// Columns the rule speaks of, sorted.
    pub(crate) fn named_columns(&self) -> BTreeSet<&str> {
        let listed = match &self.columns {
            Columns::Only(names) | Columns::AllBut(names) => names,
        };
        let listed = listed.iter().chain(self.conflict.columns()).map(String::as_str);
        let stamped = self.stamps.iter().map(|(name, _)| name.as_str());
        let validated = self.validators.iter().map(|(name, _)| name.as_str());
        let mut named: BTreeSet<&str> = listed.chain(stamped).chain(validated).collect();
        self.check.visit_inputs(&mut |input| {
            if let CheckInput::Row(name) | CheckInput::Old(name) = input {
                named.insert(name);
            }
        });
        named
    }

    /// Whether clients may set the column. They always name rows by `id`; columns the server sets are never theirs.
    pub fn allows_column(&self, column: &str) -> bool {
        if column == "id" {
            return true;
        }
        let is_named = |names: &[String]| names.iter().any(|name| name == column);
        let is_stamped = self.stamps.iter().any(|(name, _)| name == column);
        match &self.columns {
            Columns::Only(names) => is_named(names) && !is_stamped,
            Columns::AllBut(names) => !is_named(names) && !is_stamped,
        }
    }

    /// Columns the server sets itself, evaluated for the writer.
    ///
    /// # Errors
    /// When an expression fails.
    pub fn stamps(&self, token: &Map<String, Value>) -> Result<Vec<(String, SqlValue)>, EvaluationError> {
        let request = writer(token);
        self.stamps
            .iter()
            .map(|(column, value)| Ok((column.clone(), evaluate(value, &request, &[], &[])?.into_owned())))
            .collect::<Result<_, _>>()
            .map_err(|failure| EvaluationError::new(&self.table, "stamp", ErrorKind::Write, failure))
    }

    /// Whether the check compares the row as it becomes with the row as it is. It can then be asked only once both are
    /// known; without that, it may be asked about the row as it is before anything is written.
    pub fn compares_with_old(&self) -> bool {
        self.reads_old
    }

    /// Whether the writer may bring the row from `old` to `new`. A PUT of a new row has no `old`, a DELETE no `new`:
    /// the check is then asked about the row there is, `row.` standing for `new` or, without one, for `old`.
    ///
    /// A check that does not speak of `old.` must hold for the stored row as well: otherwise `row.user_id =
    /// auth.user_id()` would let a client take over any row by writing its own id into it.
    ///
    /// # Errors
    /// When the expression fails.
    pub fn check(
        &self,
        token: &Map<String, Value>,
        new: Option<CheckRow<'_>>,
        old: Option<CheckRow<'_>>,
    ) -> Result<bool, EvaluationError> {
        let request = writer(token);
        let holds = |row: CheckRow<'_>| -> Result<bool, Failure> {
            Ok(evaluate(&self.check, &request, row, old.unwrap_or_default())?.truth())
        };
        let verdict = match (new, old) {
            (None, None) => Ok(false),
            (Some(row), None) | (None, Some(row)) => holds(row),
            (Some(new), Some(_)) if self.reads_old => holds(new),
            (Some(new), Some(old)) => holds(new).and_then(|allowed| Ok(allowed && holds(old)?)),
        };
        verdict.map_err(|failure| EvaluationError::new(&self.table, "check", ErrorKind::Write, failure))
    }
}

fn writer(token: &Map<String, Value>) -> RequestContext {
    RequestContext { token: token.clone(), ..RequestContext::default() }
}

fn evaluate<'a>(
    expression: &'a Expression<CheckInput>,
    request: &'a RequestContext,
    row: CheckRow<'a>,
    old: CheckRow<'a>,
) -> Result<Cow<'a, SqlValue>, Failure> {
    let column = |row: CheckRow<'a>, name: &str| {
        let found = row.iter().find(|(column, _)| column == name);
        found.map_or(Cow::Owned(SqlValue::Null), |(_, value)| Cow::Borrowed(value))
    };
    expression.evaluate(&move |input| match input {
        CheckInput::Row(name) => column(row, name),
        CheckInput::Old(name) => column(old, name),
        CheckInput::Request(input) => Cow::Owned(input.read(request, None)),
    })
}
