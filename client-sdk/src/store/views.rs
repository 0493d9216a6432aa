//! The app's tables: views over JSON rows, with triggers that capture writes.
//!
//! A row is one JSON object as the service sent it, so a publish copies text, and a schema change only makes the views
//! anew. Columns the app does not declare survive its updates.

use rusqlite::{Connection, OptionalExtension, params};

use super::{StoreError, learn, raw, staging};
use crate::schema::{Column, Schema, Table};

/// Where the rows of a table are: `kairos_data__<table>`.
pub(super) const DATA_PREFIX: &str = "kairos_data__";

/// Makes the views and triggers of `schema`. Tables that were not declared before get their rows at the next publish.
pub(super) fn install(tx: &Connection, schema: &Schema) -> Result<(), StoreError> {
    let made: String =
        if schema.is_learned { learn::DEFINITION.to_owned() } else { schema.tables.iter().map(definition).collect() };
    let definitions = made.clone() + &statements(schema);
    let installed: Option<String> =
        tx.query_row("SELECT value FROM kairos_kv WHERE key = 'schema'", [], |row| row.get(0)).optional()?;
    if installed.as_ref() == Some(&definitions) {
        return Ok(());
    }
    if schema.is_learned && installed.is_some() {
        return Err(StoreError::Declared);
    }
    staging::abandon(tx)?;
    let before = names(tx, "SELECT name FROM kairos_table WHERE NOT local_only AND NOT is_raw")?;
    let local_before = names(tx, "SELECT name FROM kairos_table WHERE local_only")?;
    drop_views(tx)?;
    tx.execute_batch(&made)?;
    for table in &schema.tables {
        tx.execute(
            "INSERT INTO kairos_table (name, local_only, is_raw) VALUES (?1, ?2, ?3)",
            params![table.name, table.local_only, table.raw.is_some()],
        )?;
        if let Some(raw) = &table.raw {
            if local_before.contains(&table.name) {
                queue_rows(tx, table)?;
            }
            raw::take_over(tx, table, raw)?;
            touch_operations(tx, &table.name)?;
            continue;
        }
        if table.local_only || before.contains(&table.name) {
            continue;
        }
        touch_rows(tx, table)?;
        if local_before.contains(&table.name) {
            queue_rows(tx, table)?;
        }
    }
    tx.execute("INSERT OR REPLACE INTO kairos_kv (key, value) VALUES ('schema', ?1)", [definitions])?;
    Ok(())
}

/// What is run for rows of the app's own tables: where that is another one, the rows are written again.
fn statements(schema: &Schema) -> String {
    let of = |table: &Table| table.raw.as_ref().map(|raw| format!("-- {:?}\n", (&raw.put, &raw.delete)));
    schema.tables.iter().filter_map(of).collect()
}

/// The tables that are installed, and whether they are the app's own.
pub(super) fn installed(tx: &Connection) -> Result<Vec<(String, bool)>, StoreError> {
    let mut statement = tx.prepare_cached("SELECT name, is_raw FROM kairos_table ORDER BY name")?;
    Ok(statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<Result<_, _>>()?)
}

/// The quoted name of the table that has the rows of an installed one.
pub(super) fn rows_table(table: &str, is_raw: bool) -> String {
    if is_raw { identifier(table) } else { data_table(table) }
}

/// The app declared this table, or it was learned, and it is not for this device alone.
pub(super) fn is_synced(connection: &Connection, table: &str) -> Result<bool, StoreError> {
    let sql = "SELECT EXISTS (SELECT 1 FROM kairos_table WHERE name = ?1 AND NOT local_only)";
    Ok(connection.prepare_cached(sql)?.query_row([table], |row| row.get(0))?)
}

/// The app's table whose rows are in this one of SQLite.
pub(super) fn app_table(sqlite_table: &str) -> Option<&str> {
    sqlite_table.strip_prefix(DATA_PREFIX)
}

/// The quoted name of the table that has the rows of `table`.
pub(super) fn data_table(table: &str) -> String {
    identifier(&format!("{DATA_PREFIX}{table}"))
}

/// Makes the table that has the rows of `table`.
pub(super) fn data_table_sql(table: &str) -> String {
    format!(
        "CREATE TABLE IF NOT EXISTS {} (id TEXT PRIMARY KEY NOT NULL, data TEXT NOT NULL, {STAGED});",
        data_table(table)
    )
}

/// Whether the row came before the checkpoint that shows it, which matters until then.
const STAGED: &str = "staged INTEGER NOT NULL DEFAULT 0";

/// Tables of earlier versions do not have it.
pub(super) fn add_staged_column(tx: &Connection) -> Result<(), StoreError> {
    let tables = format!(
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND substr(name, 1, {}) = {}",
        DATA_PREFIX.len(),
        literal(DATA_PREFIX)
    );
    for table in names(tx, &tables)? {
        tx.execute_batch(&format!("ALTER TABLE {} ADD COLUMN {STAGED}", identifier(&table)))?;
    }
    Ok(())
}

/// Drops the views, and with them their triggers, and the indexes. The rows stay.
fn drop_views(tx: &Connection) -> Result<(), StoreError> {
    for (table, is_raw) in installed(tx)? {
        if is_raw {
            raw::release(tx, &table)?;
        } else {
            tx.execute_batch(&format!("DROP VIEW {}", identifier(&table)))?;
        }
    }
    tx.execute("DELETE FROM kairos_table", [])?;
    tx.execute("DELETE FROM kairos_column", [])?;
    let indexes = "SELECT name FROM sqlite_schema WHERE type = 'index' AND substr(name, 1, 14) = 'kairos_index__'";
    for index in names(tx, indexes)? {
        tx.execute_batch(&format!("DROP INDEX {}", identifier(&index)))?;
    }
    Ok(())
}

pub(super) fn names(tx: &Connection, sql: &str) -> Result<Vec<String>, StoreError> {
    let mut statement = tx.prepare(sql)?;
    Ok(statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?)
}

/// While a table was not declared nothing was published to it, so all of its rows are to be looked at.
fn touch_rows(tx: &Connection, table: &Table) -> Result<(), StoreError> {
    touch_operations(tx, &table.name)?;
    let data = data_table(&table.name);
    tx.execute(
        &format!("INSERT OR IGNORE INTO kairos_touched_row (row_type, row_id) SELECT ?1, id FROM {data}"),
        [&table.name],
    )?;
    Ok(())
}

/// Has the next whole checkpoint look at all that was received of a table.
pub(super) fn touch_operations(tx: &Connection, table: &str) -> Result<(), StoreError> {
    tx.execute(
        "INSERT OR IGNORE INTO kairos_touched_row (row_type, row_id) SELECT row_type, row_id FROM kairos_oplog WHERE row_type = ?1",
        [table],
    )?;
    Ok(())
}

/// What was on this device alone is now to be everywhere: its rows are uploaded as if they were written now.
fn queue_rows(tx: &Connection, table: &Table) -> Result<(), StoreError> {
    let data = data_table(&table.name);
    let sql = format!(
        "INSERT INTO kairos_crud (tx_id, op, row_type, row_id, data)
         SELECT (SELECT coalesce(max(tx_id), 0) + 1 FROM kairos_crud), 'PUT', ?1, id, data FROM {data} ORDER BY id"
    );
    tx.execute(&sql, [&table.name])?;
    Ok(())
}

/// All SQL that makes a table. Also what tells whether the installed schema is the declared one.
fn definition(table: &Table) -> String {
    if let Some(raw) = &table.raw {
        return raw::definition(table, raw);
    }
    let indexes: String = table.indexes.iter().enumerate().map(|(n, index)| index_sql(table, n, index)).collect();
    format!("{}\n{indexes}{}", data_table_sql(&table.name), view_sql(table, false))
}

/// Makes the view anew, over all rows or without those that are staged.
pub(super) fn replace_view_sql(table: &Table, is_staged: bool) -> String {
    format!("DROP VIEW {};\n{}", identifier(&table.name), view_sql(table, is_staged))
}

/// The view with its triggers.
fn view_sql(table: &Table, is_staged: bool) -> String {
    let name = &table.name;
    let view = identifier(name);
    let data = data_table(name);
    let mut columns = vec!["id".to_owned()];
    columns
        .extend(table.columns.iter().map(|column| format!("{} AS {}", expression(column), identifier(&column.name))));
    let id_must_be_text = id_must_be_text(name);
    let id_must_stay = id_must_stay(name);
    let filter = if is_staged { " WHERE NOT staged" } else { "" };
    let made = format!("CREATE VIEW {view} AS SELECT {} FROM {data}{filter};\n", columns.join(", "));
    if table.insert_only {
        return made + &insert_only_triggers(table, &id_must_be_text);
    }
    let changes = changes_sql(table, "OLD", "NEW");
    format!(
        "{made}CREATE TRIGGER {insert} INSTEAD OF INSERT ON {view} BEGIN
    {id_must_be_text}
    {make_room}INSERT INTO {data} (id, data) VALUES (NEW.id, {new_row});
    {queue_put}
END;
CREATE TRIGGER {update} INSTEAD OF UPDATE ON {view} BEGIN
    {id_must_stay}
    UPDATE {data} SET data = json_patch(data, {changes}) WHERE id = OLD.id AND {changes} IS NOT NULL;
    {queue_patch}
END;
CREATE TRIGGER {delete} INSTEAD OF DELETE ON {view} BEGIN
    DELETE FROM {data} WHERE id = OLD.id;
    {queue_delete}
END;
",
        insert = trigger(name, "INSERT"),
        update = trigger(name, "UPDATE"),
        delete = trigger(name, "DELETE"),
        make_room = if is_staged { make_room_sql(name) } else { String::new() },
        new_row = row_sql(table, "NEW"),
        queue_put = queue_sql(table, "PUT", "NEW", &row_sql(table, "NEW"), "NULL"),
        queue_patch = queue_sql(table, "PATCH", "NEW", &changes, &old_sql(table)),
        queue_delete = queue_sql(table, "DELETE", "OLD", "NULL", &old_sql(table)),
    )
}

/// An app's row takes the place of a staged one, of which the app does not know.
fn make_room_sql(table: &str) -> String {
    let (data, name) = (data_table(table), literal(table));
    format!(
        "UPDATE kairos_table SET staged_rows = staged_rows - 1
    WHERE name = {name} AND EXISTS (SELECT 1 FROM {data} WHERE id = NEW.id AND staged);
    DELETE FROM {data} WHERE id = NEW.id AND staged;
    "
    )
}

/// The quoted name of the trigger that captures these writes.
pub(super) fn trigger(table: &str, event: &str) -> String {
    identifier(&format!("kairos_{}__{table}", event.to_lowercase()))
}

pub(super) fn id_must_be_text(table: &str) -> String {
    format!(
        "SELECT RAISE(ABORT, {}) WHERE typeof(NEW.id) <> 'text' OR NEW.id = '';",
        literal(&format!("{table}.id must be a text that is not empty, for example uuid()"))
    )
}

pub(super) fn id_must_stay(table: &str) -> String {
    format!(
        "SELECT RAISE(ABORT, {}) WHERE NEW.id IS NOT OLD.id;",
        literal(&format!("{table}.id cannot change; delete the row and insert another"))
    )
}

/// New rows go to the queue alone.
fn insert_only_triggers(table: &Table, id_must_be_text: &str) -> String {
    let view = identifier(&table.name);
    let refusal = literal(&format!("{} takes new rows only", table.name));
    let refused = |event: &str| {
        let trigger = trigger(&table.name, event);
        format!("CREATE TRIGGER {trigger} INSTEAD OF {event} ON {view} BEGIN SELECT RAISE(ABORT, {refusal}); END;\n")
    };
    format!(
        "CREATE TRIGGER {insert} INSTEAD OF INSERT ON {view} BEGIN
    {id_must_be_text}
    INSERT INTO kairos_crud (tx_id, op, row_type, row_id, data)
    VALUES (kairos_tx_id(), 'PUT', {name}, NEW.id, {row});
END;
{update}{delete}",
        insert = trigger(&table.name, "INSERT"),
        name = literal(&table.name),
        row = row_sql(table, "NEW"),
        update = refused("UPDATE"),
        delete = refused("DELETE"),
    )
}

/// Queues a write, unless the statement before did nothing (`OR IGNORE`, no difference, no such row).
fn queue_sql(table: &Table, op: &str, row: &str, data: &str, old: &str) -> String {
    if table.local_only {
        return String::new();
    }
    let old = if table.track_previous { old } else { "NULL" };
    format!(
        "INSERT INTO kairos_crud (tx_id, op, row_type, row_id, data, old)
    SELECT kairos_tx_id(), '{op}', {}, {row}.id, {data}, {old} WHERE changes() > 0;",
        literal(&table.name)
    )
}

/// A new row: what it leaves out is null.
pub(super) fn row_sql(table: &Table, row: &str) -> String {
    format!("kairos_row({})", columns_sql(table, row))
}

/// What was there before a write, whole: some conflict strategies look at columns that the write leaves alone.
pub(super) fn old_sql(table: &Table) -> String {
    format!("kairos_whole_row({})", columns_sql(table, "OLD"))
}

fn columns_sql(table: &Table, row: &str) -> String {
    let pair = |column: &Column| format!("{}, {row}.{}", literal(&column.name), identifier(&column.name));
    table.columns.iter().map(pair).collect::<Vec<_>>().join(", ")
}

pub(super) fn changes_sql(table: &Table, from: &str, to: &str) -> String {
    let triple = |column: &Column| {
        let name = identifier(&column.name);
        format!("{}, {from}.{name}, {to}.{name}", literal(&column.name))
    };
    format!("kairos_changes({})", table.columns.iter().map(triple).collect::<Vec<_>>().join(", "))
}

/// The view's column. An index uses the very same expression, so that SQLite recognises it.
fn expression(column: &Column) -> String {
    let path = literal(&format!("$.\"{}\"", column.name));
    format!("CAST(json_extract(data, {path}) AS {})", column.kind.sql())
}

fn index_sql(table: &Table, number: usize, columns: &[String]) -> String {
    let part = |name: &String| {
        let declared = table.columns.iter().find(|column| column.name.eq_ignore_ascii_case(name));
        declared.map_or_else(|| "id".to_owned(), expression)
    };
    format!(
        "CREATE INDEX {} ON {} ({});\n",
        identifier(&format!("kairos_index__{}_{number}", table.name)),
        data_table(&table.name),
        columns.iter().map(part).collect::<Vec<_>>().join(", ")
    )
}

pub(super) fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

pub(super) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
