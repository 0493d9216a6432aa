//! Tables of the app's own design: the app's statements write what arrives, triggers capture what the app writes.

use std::collections::BTreeSet;

use rusqlite::{
    Connection, Statement, ToSql, params_from_iter,
    types::{ToSqlOutput, Value as SqlValue, ValueRef},
};
use serde_json::{Map, Value};

use super::{
    StoreError,
    views::{self, changes_sql, id_must_be_text, id_must_stay, identifier, literal, old_sql, row_sql, trigger},
};
use crate::{
    raw_table::{RawStatement, RawTable, RawValue},
    schema::{Schema, Table},
};

/// Names of the app's own tables, to which SQLite's names of tables lead back.
#[derive(Debug, Clone, Default)]
pub(super) struct RawNames(BTreeSet<String>);

impl RawNames {
    pub(super) fn of(schema: &Schema) -> Self {
        Self(schema.tables.iter().filter(|table| table.raw.is_some()).map(|table| table.name.clone()).collect())
    }

    /// The app's table that this one of SQLite is, or whose rows it has.
    pub(super) fn app_table<'a>(&'a self, sqlite_table: &'a str) -> Option<&'a str> {
        let raw = || self.0.iter().find(|name| name.eq_ignore_ascii_case(sqlite_table)).map(String::as_str);
        views::app_table(sqlite_table).or_else(raw)
    }
}

/// The table of this name, if it is the app's own.
pub(super) fn declared<'a>(schema: &'a Schema, name: &str) -> Option<(&'a Table, &'a RawTable)> {
    let table = schema.tables.iter().find(|table| table.name == name)?;
    table.raw.as_ref().map(|raw| (table, raw))
}

/// All SQL that makes the table, and captures what is written to it.
pub(super) fn definition(table: &Table, raw: &RawTable) -> String {
    let (name, sqlite_table) = (literal(&table.name), identifier(&table.name));
    let old = if table.track_previous { old_sql(table) } else { "NULL".to_owned() };
    let changes = changes_sql(table, "OLD", "NEW");
    format!(
        "{setup};
CREATE TRIGGER {insert} AFTER INSERT ON {sqlite_table} WHEN kairos_captures() BEGIN
    {id_must_be_text}
    INSERT INTO kairos_crud (tx_id, op, row_type, row_id, data)
    VALUES (kairos_tx_id(), 'PUT', {name}, NEW.id, {new_row});
END;
CREATE TRIGGER {update} AFTER UPDATE ON {sqlite_table} WHEN kairos_captures() BEGIN
    {id_must_stay}
    INSERT INTO kairos_crud (tx_id, op, row_type, row_id, data, old)
    SELECT kairos_tx_id(), 'PATCH', {name}, NEW.id, {changes}, {old} WHERE {changes} IS NOT NULL;
END;
CREATE TRIGGER {delete} AFTER DELETE ON {sqlite_table} WHEN kairos_captures() BEGIN
    INSERT INTO kairos_crud (tx_id, op, row_type, row_id, old)
    VALUES (kairos_tx_id(), 'DELETE', {name}, OLD.id, {old});
END;
",
        setup = raw.setup,
        insert = trigger(&table.name, "INSERT"),
        update = trigger(&table.name, "UPDATE"),
        delete = trigger(&table.name, "DELETE"),
        id_must_be_text = id_must_be_text(&table.name),
        id_must_stay = id_must_stay(&table.name),
        new_row = row_sql(table, "NEW"),
    )
}

/// Takes the triggers off a table. The table stays: it is the app's.
pub(super) fn release(tx: &Connection, name: &str) -> Result<(), StoreError> {
    for event in ["INSERT", "UPDATE", "DELETE"] {
        tx.execute_batch(&format!("DROP TRIGGER IF EXISTS {}", trigger(name, event)))?;
    }
    Ok(())
}

/// A table that was a view before takes over its rows, those included that were not uploaded yet.
pub(super) fn take_over(tx: &Connection, table: &Table, raw: &RawTable) -> Result<(), StoreError> {
    let exists = "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?1)";
    let data = format!("{}{}", views::DATA_PREFIX, table.name);
    if !tx.query_row(exists, [&data], |row| row.get(0))? {
        return Ok(());
    }
    let data = identifier(&data);
    {
        let mut rows = Rows::prepare(tx, table, raw)?;
        let mut statement = tx.prepare(&format!("SELECT id, data FROM {data}"))?;
        let mut found = statement.query([])?;
        while let Some(row) = found.next()? {
            rows.put(row.get_ref(0)?, row.get_ref(1)?)?;
        }
    }
    tx.execute_batch(&format!("DROP TABLE {data}"))?;
    Ok(())
}

/// In the order in which rows come, some point to others that follow.
pub(super) fn defer_foreign_keys(tx: &Connection) -> Result<(), StoreError> {
    Ok(tx.pragma_update(None, "defer_foreign_keys", true)?)
}

/// Writes rows that came from the service.
pub(super) struct Rows<'tx> {
    table: String,
    put: Prepared<'tx>,
    delete: Prepared<'tx>,
}

/// A statement with its parameters.
struct Prepared<'tx> {
    statement: Statement<'tx>,
    values: Vec<RawValue>,
}

impl<'tx> Rows<'tx> {
    pub(super) fn prepare(tx: &'tx Connection, table: &Table, raw: &RawTable) -> Result<Self, StoreError> {
        let prepare = |given: Option<&RawStatement>, inferred: fn(&Table) -> RawStatement| {
            let RawStatement { sql, values } = given.cloned().unwrap_or_else(|| inferred(table));
            let statement = tx.prepare(&sql).map_err(|source| refused(&table.name, source))?;
            Ok::<_, StoreError>(Prepared { statement, values })
        };
        Ok(Self {
            put: prepare(raw.put.as_ref(), upsert)?,
            delete: prepare(raw.delete.as_ref(), delete_by_id)?,
            table: table.name.clone(),
        })
    }

    pub(super) fn put(&mut self, id: ValueRef<'_>, data: ValueRef<'_>) -> Result<usize, StoreError> {
        // A row that is no object has no columns: it is for the app's constraints to judge.
        let row = data.as_str().ok().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
        self.put.execute(id, &row).map_err(|source| refused(&self.table, source))
    }

    pub(super) fn delete(&mut self, id: ValueRef<'_>) -> Result<usize, StoreError> {
        self.delete.execute(id, &Map::new()).map_err(|source| refused(&self.table, source))
    }
}

impl Prepared<'_> {
    fn execute(&mut self, id: ValueRef<'_>, row: &Map<String, Value>) -> rusqlite::Result<usize> {
        let named = |name: &String| self.values.iter().any(|value| matches!(value, RawValue::Column(of) if of == name));
        let bind = |value: &RawValue| match value {
            RawValue::Id => ToSqlOutput::Borrowed(id),
            RawValue::Column(name) => ToSqlOutput::Owned(row.get(name).map_or(SqlValue::Null, sql_value)),
            RawValue::Rest => {
                let rest = row.iter().filter(|(name, _)| *name != "id" && !named(name));
                let rest: Map<String, Value> = rest.map(|(name, value)| (name.clone(), value.clone())).collect();
                ToSqlOutput::Owned(SqlValue::Text(Value::Object(rest).to_string()))
            }
        };
        let bound: Vec<ToSqlOutput<'_>> = self.values.iter().map(bind).collect();
        self.statement.execute(params_from_iter(bound.iter().map(|value| value as &dyn ToSql)))
    }
}

fn refused(table: &str, source: rusqlite::Error) -> StoreError {
    StoreError::RawTable { table: table.to_owned(), source }
}

/// As SQLite has what JSON says.
pub(super) fn sql_value(value: &Value) -> SqlValue {
    match value {
        Value::Null => SqlValue::Null,
        Value::Bool(truth) => SqlValue::Integer((*truth).into()),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => SqlValue::Integer(whole),
            (None, Some(real)) => SqlValue::Real(real),
            (None, None) => SqlValue::Text(number.to_string()),
        },
        Value::String(text) => SqlValue::Text(text.clone()),
        nested => SqlValue::Text(nested.to_string()),
    }
}

/// Writes the declared columns. A row that is as it was, is not written.
fn upsert(table: &Table) -> RawStatement {
    let name = identifier(&table.name);
    let columns: Vec<String> = table.columns.iter().map(|column| identifier(&column.name)).collect();
    let listed = |of: &dyn Fn(&String) -> String| columns.iter().map(of).collect::<Vec<_>>().join(", ");
    let numbers: Vec<String> = (1..=columns.len() + 1).map(|number| format!("?{number}")).collect();
    let on_conflict = if columns.is_empty() {
        "NOTHING".to_owned()
    } else {
        format!(
            "UPDATE SET {} WHERE ({}) IS NOT ({})",
            listed(&|column| format!("{column} = excluded.{column}")),
            listed(&|column| format!("{name}.{column}")),
            listed(&|column| format!("excluded.{column}")),
        )
    };
    let into: Vec<String> = std::iter::once("id".to_owned()).chain(columns.iter().cloned()).collect();
    let sql = format!(
        "INSERT INTO {name} ({}) VALUES ({}) ON CONFLICT (id) DO {on_conflict}",
        into.join(", "),
        numbers.join(", ")
    );
    let values = table.columns.iter().map(|column| RawValue::Column(column.name.clone()));
    RawStatement { sql, values: std::iter::once(RawValue::Id).chain(values).collect() }
}

fn delete_by_id(table: &Table) -> RawStatement {
    RawStatement { sql: format!("DELETE FROM {} WHERE id = ?1", identifier(&table.name)), values: vec![RawValue::Id] }
}
