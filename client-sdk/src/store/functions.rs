//! SQL functions that the triggers, and apps, call.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
};

use kairos_sync_protocol::Checksum;
use rusqlite::{
    Connection,
    functions::{Context, FunctionFlags},
    hooks::Action,
    types::ValueRef,
};
use serde_json::{Map, Value};

use super::{StoreError, raw::RawNames};

/// What the triggers of the writing connection share with the code around the transaction.
#[derive(Debug, Default)]
pub(super) struct WriteContext {
    /// All writes of one transaction carry the same number. Raised before each transaction.
    pub(super) tx_id: AtomicI64,
    /// Writes to the app's own tables are its writes, not those of the sync.
    pub(super) captures: AtomicBool,
    /// The app's tables written since the last look.
    changed: Mutex<BTreeSet<String>>,
}

impl WriteContext {
    /// Continues after the queue's last transaction, so that two of them never share a number.
    pub(super) fn resume_tx_ids(&self, connection: &Connection) -> Result<(), StoreError> {
        let last = connection.query_row("SELECT coalesce(max(tx_id), 0) FROM kairos_crud", [], |row| row.get(0))?;
        self.tx_id.store(last, Ordering::Relaxed);
        Ok(())
    }

    /// Collects the names of changed tables from here on.
    pub(super) fn watch_changes(
        self: &Arc<Self>,
        connection: &mut Connection,
        raw: RawNames,
    ) -> Result<(), StoreError> {
        let context = Arc::clone(self);
        connection.update_hook(Some(move |_: Action, _: &str, table: &str, _| {
            let Some(table) = raw.app_table(table) else { return };
            let mut changed = context.changed.lock().unwrap_or_else(PoisonError::into_inner);
            if !changed.contains(table) {
                changed.insert(table.to_owned());
            }
        }))?;
        Ok(())
    }

    pub(super) fn take_changed_tables(&self) -> BTreeSet<String> {
        std::mem::take(&mut self.changed.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Functions for every connection.
pub(super) fn register(connection: &Connection) -> Result<(), StoreError> {
    connection.create_scalar_function("uuid", 0, FunctionFlags::SQLITE_UTF8, |_| {
        Ok(uuid::Uuid::new_v4().hyphenated().to_string())
    })?;
    Ok(())
}

/// Functions for the connection that writes.
pub(super) fn register_for_writes(connection: &Connection) -> Result<Arc<WriteContext>, StoreError> {
    register(connection)?;
    let pure = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC;
    connection.create_scalar_function("kairos_row", -1, pure, row)?;
    connection.create_scalar_function("kairos_whole_row", -1, pure, whole_row)?;
    connection.create_scalar_function("kairos_changes", -1, pure, changes)?;
    connection.create_scalar_function("kairos_put_checksum", 3, pure, put_checksum)?;
    let context = Arc::new(WriteContext::default());
    let shared = Arc::clone(&context);
    connection.create_scalar_function("kairos_tx_id", 0, FunctionFlags::SQLITE_UTF8, move |_| {
        Ok(shared.tx_id.load(Ordering::Relaxed))
    })?;
    let shared = Arc::clone(&context);
    connection.create_scalar_function("kairos_captures", 0, FunctionFlags::SQLITE_UTF8, move |_| {
        Ok(shared.captures.load(Ordering::Relaxed))
    })?;
    Ok(context)
}

/// `kairos_put_checksum(table, id, data)`: the checksum of a PUT.
fn put_checksum(arguments: &Context<'_>) -> rusqlite::Result<u32> {
    let text = |index| Ok::<_, rusqlite::Error>(arguments.get_raw(index).as_str()?);
    Ok(Checksum::of_put(text(0)?, text(1)?, text(2)?).bits())
}

/// `kairos_row(name, value, …)`: a JSON object of the values that are not null.
fn row(arguments: &Context<'_>) -> rusqlite::Result<String> {
    let mut object = Map::new();
    for index in (0..arguments.len()).step_by(2) {
        let value = arguments.get_raw(index + 1);
        if value != ValueRef::Null {
            object.insert(arguments.get(index)?, json(value)?);
        }
    }
    Ok(Value::Object(object).to_string())
}

/// `kairos_whole_row(name, value, …)`: a JSON object of all values.
fn whole_row(arguments: &Context<'_>) -> rusqlite::Result<String> {
    let mut object = Map::new();
    for index in (0..arguments.len()).step_by(2) {
        object.insert(arguments.get(index)?, json(arguments.get_raw(index + 1))?);
    }
    Ok(Value::Object(object).to_string())
}

/// `kairos_changes(name, old, new, …)`: a JSON object of the new values that differ from the old ones, or NULL.
fn changes(arguments: &Context<'_>) -> rusqlite::Result<Option<String>> {
    let mut object = Map::new();
    for index in (0..arguments.len()).step_by(3) {
        let (old, new) = (arguments.get_raw(index + 1), arguments.get_raw(index + 2));
        if old != new {
            object.insert(arguments.get(index)?, json(new)?);
        }
    }
    Ok((!object.is_empty()).then(|| Value::Object(object).to_string()))
}

fn json(value: ValueRef<'_>) -> rusqlite::Result<Value> {
    let refuse = |what: &str| Err(rusqlite::Error::UserFunctionError(what.into()));
    match value {
        ValueRef::Null => Ok(Value::Null),
        ValueRef::Integer(number) => Ok(number.into()),
        ValueRef::Real(number) if number.is_finite() => Ok(number.into()),
        ValueRef::Real(_) => refuse("a synced column cannot hold an infinite number"),
        ValueRef::Text(text) => match std::str::from_utf8(text) {
            Ok(text) => Ok(text.into()),
            Err(_) => refuse("a synced column cannot hold text that is not UTF-8"),
        },
        ValueRef::Blob(_) => refuse("a synced column cannot hold a BLOB; store it as base64 or hex text"),
    }
}
