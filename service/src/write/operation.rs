//! One operation against its table's policy and description, before Postgres sees it. Pure.

use std::collections::BTreeMap;

use kairos_sync_protocol::upload::{CrudEntry, CrudOp};
use kairos_sync_rules::{ConflictStrategy, SqlValue, Validator, WriteOp, WriteOrigin, WritePolicy};
use serde_json::Value;

use super::{catalog::Table, refusal::Refusal, value::stamp_text};

/// A write that may go to Postgres, where checks and row-level security still decide.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Write {
    /// What to do.
    pub(super) op: WriteOp,
    /// Position of the key column.
    pub(super) key: usize,
    /// Id of the row.
    pub(super) id: String,
    /// Positions of the columns to set, ascending: one statement text for any order of the same columns.
    pub(super) columns: Vec<usize>,
    /// Their values, as text to bind.
    pub(super) values: Vec<Option<String>>,
    /// Positions of those the server sets itself.
    pub(super) stamped: Vec<usize>,
    /// What the device saw of columns it may write, as text to bind; `None` where it does not say.
    pub(super) base: Option<BTreeMap<usize, Option<String>>>,
}

/// What the rules call the operation.
pub(super) fn write_op(op: CrudOp) -> WriteOp {
    match op {
        CrudOp::Put => WriteOp::Put,
        CrudOp::Patch => WriteOp::Patch,
        CrudOp::Delete => WriteOp::Delete,
    }
}

/// Whether the table's rule allows the kind of operation.
pub(super) fn allow(entry: &CrudEntry, policy: &WritePolicy) -> Result<(), Refusal> {
    if policy.allows(write_op(entry.op)) {
        return Ok(());
    }
    let name = match entry.op {
        CrudOp::Put => "put",
        CrudOp::Patch => "patch",
        CrudOp::Delete => "delete",
    };
    let message =
        format!("the write rule of this table does not allow `{name}`: add it to `allow` under `write_rules`");
    Err(Refusal::new("WRITE_OP", message))
}

/// Prepares a write.
pub(super) fn prepare(
    entry: &CrudEntry,
    policy: &WritePolicy,
    table: &Table,
    origin: &WriteOrigin,
    value_bytes_max: usize,
) -> Result<Write, Refusal> {
    let key = table.key.ok_or_else(|| {
        let message = "the table has neither a unique column `id` nor a primary key of one column: add one";
        Refusal::new("WRITE_NO_KEY", message)
    })?;
    let id = row_id(entry)?;
    let op = write_op(entry.op);
    if op == WriteOp::Put && table.columns[key].generated {
        return Err(generated(&table.columns[key].name));
    }
    let version = match policy.conflict() {
        ConflictStrategy::Version { column } => Some(column),
        _ => None,
    };
    let stamps = stamps(op, policy, origin)?;
    let (mut values, mut stamped) = (Vec::new(), Vec::new());
    for (name, value) in entry.data.iter().flatten().filter(|_| op != WriteOp::Delete) {
        // The server's own value takes the place of whatever the device has there.
        if stamps.iter().any(|(stamped, _)| stamped == name)
            || Some(name) == version
            || is_no_deletion(policy, name, value)
            || is_key(table, key, name, value, &id)?
        {
            continue;
        }
        values.push(column(policy, table, name, value, value_bytes_max)?);
    }
    // A PATCH that changes nothing is not stamped either.
    if op != WriteOp::Patch || !values.is_empty() {
        for (name, value) in &stamps {
            let position = table.position(name).ok_or_else(|| unknown_column(name))?;
            values.push((position, stamp_text(value)));
            stamped.push(position);
        }
    }
    values.sort_unstable_by_key(|(position, _)| *position);
    let (columns, values) = values.into_iter().unzip();
    let base = base(entry, policy, table, version);
    Ok(Write { op, key, id, columns, values, stamped, base })
}

/// What the server sets. A row that is deleted for good bears nothing.
fn stamps(op: WriteOp, policy: &WritePolicy, origin: &WriteOrigin) -> Result<Vec<(String, SqlValue)>, Refusal> {
    if op == WriteOp::Delete && policy.soft_delete().is_none() {
        return Ok(Vec::new());
    }
    policy.stamps(origin).map_err(|error| {
        let message = format!("a `stamp` of the write rule failed: {}", error.message);
        Refusal::new("WRITE_STAMP", message)
    })
}

/// Whether a column only says that the row is not deleted, which devices need not leave out.
fn is_no_deletion(policy: &WritePolicy, name: &str, value: &Value) -> bool {
    policy.soft_delete() == Some(name) && (value.is_null() || *value == false || value.as_f64() == Some(0.0))
}

/// What the device saw. A version may come with the write itself, for devices that keep no old values.
fn base(
    entry: &CrudEntry,
    policy: &WritePolicy,
    table: &Table,
    version: Option<&String>,
) -> Option<BTreeMap<usize, Option<String>>> {
    let seen = |name: &String, value: &Value| {
        let is_known = policy.allows_column(name) || Some(name) == version;
        let position = table.position(name).filter(|&position| is_known && table.key != Some(position))?;
        Some((position, table.columns[position].kind.text(value)))
    };
    let old = entry.old.as_ref().map(|old| old.iter().filter_map(|(name, value)| seen(name, value)));
    let with_write = version.and_then(|name| seen(name, entry.data.as_ref()?.get(name)?));
    match (old, with_write) {
        (Some(old), with_write) => Some(with_write.into_iter().chain(old).collect()),
        (None, with_write) => with_write.map(|seen| BTreeMap::from([seen])),
    }
}

/// The row it is about.
pub(super) fn row_id(entry: &CrudEntry) -> Result<String, Refusal> {
    let in_data = || match entry.data.as_ref()?.get("id")? {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    };
    let id = entry.id.clone().or_else(in_data).filter(|id| !id.is_empty());
    id.ok_or_else(|| Refusal::new("WRITE_NO_ID", "the operation names no row: send `id`"))
}

/// Whether a column of the data is the row's id once more. It may be sent, not changed.
fn is_key(table: &Table, key: usize, name: &str, value: &Value, id: &str) -> Result<bool, Refusal> {
    let key_name = &table.columns[key].name;
    // Devices call the key `id`, whatever the source calls it.
    let is_key = name == key_name || (name == "id" && table.position("id").is_none());
    let is_same = match value {
        Value::String(text) => text == id,
        Value::Number(number) => number.to_string() == id,
        _ => false,
    };
    if is_key && !is_same {
        let message = format!("the key `{key_name}` of a row cannot be changed: delete the row and put another");
        return Err(Refusal::new("WRITE_KEY_CHANGE", message));
    }
    Ok(is_key)
}

fn column(
    policy: &WritePolicy,
    table: &Table,
    name: &str,
    value: &Value,
    value_bytes_max: usize,
) -> Result<(usize, Option<String>), Refusal> {
    if !policy.allows_column(name) {
        let message = format!("column {} is not for devices to write: see `columns` of the write rule", named(name));
        return Err(Refusal::new("WRITE_COLUMN", message));
    }
    let position = table.position(name).ok_or_else(|| unknown_column(name))?;
    let column = &table.columns[position];
    if column.generated {
        return Err(generated(&column.name));
    }
    let text = column.kind.text(value);
    if text.as_ref().is_some_and(|text| text.len() > value_bytes_max) {
        let message = format!("the value of column `{name}` is larger than {value_bytes_max} bytes");
        return Err(Refusal::new("WRITE_VALUE_TOO_LARGE", message));
    }
    for validator in policy.validators(name) {
        if let Some(demand) = validator.fault(value) {
            let code = if *validator == Validator::Secrets { "WRITE_SECRET" } else { "WRITE_VALIDATOR" };
            return Err(Refusal::new(code, format!("the value of column `{name}` is refused: {demand}")));
        }
    }
    Ok((position, text))
}

fn generated(column: &str) -> Refusal {
    let message = format!("column `{column}` is generated by Postgres: leave it out");
    Refusal::new("WRITE_COLUMN_GENERATED", message)
}

pub(super) const UNKNOWN_COLUMN: &str = "WRITE_UNKNOWN_COLUMN";

pub(super) fn unknown_column(name: &str) -> Refusal {
    let message = format!("the table has no column {}: migrate Postgres before the app, or leave it out", named(name));
    Refusal::new(UNKNOWN_COLUMN, message)
}

/// A name that came from outside and may be anything.
pub(super) fn named(name: &str) -> String {
    const SHOWN_MAX: usize = 64;
    let shown: String = name.chars().filter(|character| !character.is_control()).take(SHOWN_MAX).collect();
    format!("`{shown}`")
}
