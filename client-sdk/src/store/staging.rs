//! Rows that are in their tables before the checkpoint that shows them.
//!
//! A publish that copies a whole first sync would keep the app's writes waiting for as long as that takes. So rows of a
//! table without any go there as they arrive, marked, behind a view that leaves marked rows out; the checkpoint shows
//! them all by making the view anew.
//!
//! **Invariant**: of a table that is being staged, each row that some operation put is either marked and what that only
//! operation says, or visible, or noted in `kairos_touched_row`, so that the next whole checkpoint looks at it.

use std::collections::HashMap;

use rusqlite::{CachedStatement, Connection, OptionalExtension, params};

use super::{
    StoreError,
    oplog::{TOUCH, sql_id, unsigned},
    views,
};
use crate::schema::{Schema, Table};

/// A download of fewer operations than these at once is no reason to make views anew.
pub(super) const OPERATIONS_MIN: usize = 64;

/// Stages what a slice of one bucket's operations puts.
pub(super) struct Staging<'tx> {
    tx: &'tx Connection,
    schema: &'tx Schema,
    may_begin: bool,
    /// How many rows were staged, of the tables that are.
    by_name: HashMap<String, Option<Stage<'tx>>>,
    has_unstaged: bool,
}

struct Stage<'tx> {
    insert: CachedStatement<'tx>,
    row_count: u64,
}

impl<'tx> Staging<'tx> {
    /// `may_begin` with a table of which nothing is staged yet.
    pub(super) fn new(tx: &'tx Connection, schema: &'tx Schema, may_begin: bool) -> Self {
        Self { tx, schema, may_begin, by_name: HashMap::new(), has_unstaged: false }
    }

    /// An operation put this row. It is new where it replaced no other of its bucket.
    pub(super) fn put(&mut self, table: &str, id: &str, data: &str, is_new: bool) -> Result<(), StoreError> {
        if !self.by_name.contains_key(table) {
            let stage = self.stage(table)?;
            self.by_name.insert(table.to_owned(), stage);
        }
        match self.by_name.get_mut(table).and_then(Option::as_mut) {
            None => self.has_unstaged = true,
            Some(stage) => {
                if is_new && stage.insert.execute([id, data])? > 0 {
                    stage.row_count += 1;
                } else {
                    self.tx.prepare_cached(TOUCH)?.execute([table, id])?;
                }
            }
        }
        Ok(())
    }

    /// Whether the next checkpoint has to bring rows to their tables.
    pub(super) fn finish(self) -> Result<bool, StoreError> {
        for (name, stage) in self.by_name.iter().filter_map(|(name, stage)| Some((name, stage.as_ref()?))) {
            count(self.tx, name, sql_id(stage.row_count))?;
        }
        Ok(self.has_unstaged)
    }

    fn stage(&self, name: &str) -> Result<Option<Stage<'tx>>, StoreError> {
        // A learned table's view depends on what its rows have.
        let declared = self.schema.tables.iter().find(|table| table.name == name);
        let Some(table) = declared.filter(|table| !table.local_only && table.raw.is_none()) else { return Ok(None) };
        let data = views::data_table(name);
        if !is_staged(self.tx, name)? {
            let is_empty = format!("SELECT NOT EXISTS (SELECT 1 FROM {data})");
            if !self.may_begin || !self.tx.query_row(&is_empty, [], |row| row.get(0))? {
                return Ok(None);
            }
            begin(self.tx, table)?;
        }
        let insert = format!("INSERT INTO {data} (id, data, staged) VALUES (?1, ?2, 1) ON CONFLICT DO NOTHING");
        Ok(Some(Stage { insert: self.tx.prepare_cached(&insert)?, row_count: 0 }))
    }
}

fn begin(tx: &Connection, table: &Table) -> Result<(), StoreError> {
    tx.execute_batch(&views::replace_view_sql(table, true))?;
    tx.execute("UPDATE kairos_table SET staged_rows = 0 WHERE name = ?1", [&table.name])?;
    // What came in small pieces until now.
    tx.execute(
        "INSERT OR IGNORE INTO kairos_touched_row (row_type, row_id)
         SELECT o.row_type, o.row_id
         FROM kairos_bucket b CROSS JOIN kairos_oplog o ON o.bucket = b.id AND o.op_id > b.last_applied_op_id
         WHERE b.has_unstaged AND o.row_type = ?1",
        [&table.name],
    )?;
    Ok(())
}

pub(super) fn is_staged(tx: &Connection, table: &str) -> Result<bool, StoreError> {
    let sql = "SELECT staged_rows IS NOT NULL FROM kairos_table WHERE name = ?1";
    Ok(tx.prepare_cached(sql)?.query_row([table], |row| row.get(0)).optional()?.unwrap_or_default())
}

/// Takes a row out of those that wait, if it is one of them: somebody decides about it now.
pub(super) fn take_out(tx: &Connection, table: &str, id: &str) -> Result<(), StoreError> {
    if is_staged(tx, table)? {
        let taken = tx.prepare_cached(&take_out_sql(table))?.execute([id])?;
        note_taken(tx, table, taken as u64)?;
    }
    Ok(())
}

pub(super) fn take_out_sql(table: &str) -> String {
    format!("DELETE FROM {} WHERE id = ?1 AND staged", views::data_table(table))
}

/// So many rows of the table were taken out.
pub(super) fn note_taken(tx: &Connection, table: &str, row_count: u64) -> Result<(), StoreError> {
    count(tx, table, -sql_id(row_count))
}

fn count(tx: &Connection, table: &str, change: i64) -> Result<(), StoreError> {
    tx.prepare_cached("UPDATE kairos_table SET staged_rows = staged_rows + ?2 WHERE name = ?1")?
        .execute(params![table, change])?;
    Ok(())
}

/// Shows what was staged: the tables, and how many rows each has more.
pub(super) fn show(tx: &Connection, schema: &Schema) -> Result<Vec<(String, u64)>, StoreError> {
    let staged = staged_tables(tx)?;
    for table in schema.tables.iter().filter(|table| staged.iter().any(|(name, _)| *name == table.name)) {
        tx.execute_batch(&views::replace_view_sql(table, false))?;
    }
    if !staged.is_empty() {
        tx.execute("UPDATE kairos_table SET staged_rows = NULL WHERE staged_rows IS NOT NULL", [])?;
    }
    Ok(staged)
}

/// The views are about to be made for another schema: what was staged is left to the next checkpoint.
pub(super) fn abandon(tx: &Connection) -> Result<(), StoreError> {
    for (name, _) in staged_tables(tx)? {
        tx.execute(&format!("DELETE FROM {} WHERE staged", views::data_table(&name)), [])?;
        views::touch_operations(tx, &name)?;
    }
    Ok(())
}

fn staged_tables(tx: &Connection) -> Result<Vec<(String, u64)>, StoreError> {
    let mut statement =
        tx.prepare_cached("SELECT name, staged_rows FROM kairos_table WHERE staged_rows IS NOT NULL ORDER BY name")?;
    let tables = statement.query_map([], |row| Ok((row.get(0)?, unsigned(row, 1)?)))?;
    Ok(tables.collect::<Result<_, _>>()?)
}
