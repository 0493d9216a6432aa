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
    write_limits::WriteLimits,
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
    pub(crate) table: String,
    pub(crate) allow: Vec<WriteOp>,
    pub(crate) columns: Columns,
    pub(crate) stamps: Vec<(String, Expression<CheckInput>)>,
    pub(crate) check: Expression<CheckInput>,
    /// Whether the check itself speaks of the stored row.
    pub(crate) reads_old: bool,
    #[serde(default)]
    pub(crate) conflict: ConflictStrategy,
    /// By column.
    #[serde(default)]
    pub(crate) validators: Vec<(String, Vec<Validator>)>,
    #[serde(default)]
    pub(crate) soft_delete: Option<String>,
    #[serde(default)]
    pub(crate) limits: WriteLimits,
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
    Upload(UploadInput),
    Request(RequestInput),
}

/// What an expression can read of an upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum UploadInput {
    /// `upload.received_at()`
    ReceivedAt,
    /// `upload.client_id()`
    ClientId,
}

/// Where writes come from: what checks and stamps know besides rows.
#[derive(Debug, Clone, PartialEq)]
pub struct WriteOrigin {
    request: RequestContext,
    client_id: SqlValue,
    received_at: String,
}

impl WriteOrigin {
    /// `token` is the payload of the verified token. The device names itself by `client_id`, which nobody vouches for.
    /// `received_at` is the service's time, ISO 8601 in UTC with microseconds: one moment for a whole batch.
    pub fn new(token: Map<String, Value>, client_id: Option<&str>, received_at: String) -> Self {
        let client_id = client_id.map_or(SqlValue::Null, |id| SqlValue::Text(id.to_owned()));
        let request = RequestContext { token, ..RequestContext::default() };
        Self { request, client_id, received_at }
    }

    /// Payload of the verified token.
    pub fn token(&self) -> &Map<String, Value> {
        &self.request.token
    }

    /// When the service received the upload: ISO 8601 in UTC with microseconds.
    pub fn received_at(&self) -> &str {
        &self.received_at
    }

    fn read(&self, input: UploadInput) -> Cow<'_, SqlValue> {
        match input {
            UploadInput::ReceivedAt => Cow::Owned(SqlValue::Text(self.received_at.clone())),
            UploadInput::ClientId => Cow::Borrowed(&self.client_id),
        }
    }
}

impl WritePolicy {
    /// The table, as the rules have it.
    pub fn table(&self) -> &str {
        &self.table
    }

    /// Who wins where others changed the row as well.
    pub fn conflict(&self) -> &ConflictStrategy {
        &self.conflict
    }

    /// Whether conflicts wait for their user to decide.
    pub fn asks_user(&self) -> bool {
        self.conflict == ConflictStrategy::Manual
    }

    /// The column that a DELETE sets instead of deleting the row. A row in which it is set is no row to devices.
    pub fn soft_delete(&self) -> Option<&str> {
        self.soft_delete.as_deref()
    }

    /// How much may be written.
    pub fn limits(&self) -> WriteLimits {
        self.limits
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
        let mut named: BTreeSet<&str> = listed.chain(stamped).chain(validated).chain(self.soft_delete()).collect();
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
        let is_servers = is_stamped || self.soft_delete() == Some(column);
        match &self.columns {
            Columns::Only(names) => is_named(names) && !is_servers,
            Columns::AllBut(names) => !is_named(names) && !is_servers,
        }
    }

    /// Columns the server sets itself, evaluated for the writer.
    ///
    /// # Errors
    /// When an expression fails.
    pub fn stamps(&self, origin: &WriteOrigin) -> Result<Vec<(String, SqlValue)>, EvaluationError> {
        self.stamps
            .iter()
            .map(|(column, value)| Ok((column.clone(), evaluate(value, origin, &[], &[])?.into_owned())))
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
        origin: &WriteOrigin,
        new: Option<CheckRow<'_>>,
        old: Option<CheckRow<'_>>,
    ) -> Result<bool, EvaluationError> {
        let holds = |row: CheckRow<'_>| -> Result<bool, Failure> {
            Ok(evaluate(&self.check, origin, row, old.unwrap_or_default())?.truth())
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

fn evaluate<'a>(
    expression: &'a Expression<CheckInput>,
    origin: &'a WriteOrigin,
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
        CheckInput::Upload(input) => origin.read(*input),
        CheckInput::Request(input) => Cow::Owned(input.read(&origin.request, None)),
    })
}
