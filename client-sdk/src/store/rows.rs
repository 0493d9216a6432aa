//! Rows of the app's tables, written by their columns.

use kairos_sync_protocol::conflict::Columns;
use rusqlite::{Connection, OptionalExtension, ToSql, params_from_iter, types::Value as SqlValue};
use serde_json::Value;

use super::{
    StoreError, raw,
    views::{self, identifier},
};

/// A synced table whose rows are written; nothing is queued for that.
pub(super) struct TableRows<'tx> {
    tx: &'tx Connection,
    /// Quoted name of the table that has the rows.
    table: String,
    is_raw: bool,
}

impl<'tx> TableRows<'tx> {
    /// `None` where it is not declared any more, or is for this device alone.
    pub(super) fn of(tx: &'tx Connection, name: &str) -> Result<Option<Self>, StoreError> {
        let sql = "SELECT is_raw FROM kairos_table WHERE name = ?1 AND NOT local_only";
        let is_raw: Option<bool> = tx.prepare_cached(sql)?.query_row([name], |row| row.get(0)).optional()?;
        Ok(is_raw.map(|is_raw| Self { tx, table: views::rows_table(name, is_raw), is_raw }))
    }

    pub(super) fn has(&self, id: &str) -> Result<bool, StoreError> {
        let sql = format!("SELECT EXISTS (SELECT 1 FROM {} WHERE id = ?1)", self.table);
        Ok(self.tx.query_row(&sql, [id], |row| row.get(0))?)
    }

    pub(super) fn delete(&self, id: &str) -> Result<(), StoreError> {
        self.tx.execute(&format!("DELETE FROM {} WHERE id = ?1", self.table), [id])?;
        Ok(())
    }

    /// Changes columns of a row.
    pub(super) fn patch(&self, id: &str, columns: &Columns) -> Result<(), StoreError> {
        if !self.is_raw {
            let patch = Value::Object(columns.clone()).to_string();
            let sql = format!("UPDATE {} SET data = json_patch(data, ?2) WHERE id = ?1", self.table);
            self.tx.execute(&sql, [id, &patch])?;
        } else if !columns.is_empty() {
            let set = |(number, name): (usize, &String)| format!("{} = ?{}", identifier(name), number + 2);
            let set: Vec<String> = columns.keys().enumerate().map(set).collect();
            let sql = format!("UPDATE {} SET {} WHERE id = ?1", self.table, set.join(", "));
            self.tx.execute(&sql, params_from_iter(values(id, columns)))?;
        }
        Ok(())
    }

    /// Makes a row that is not there.
    pub(super) fn insert(&self, id: &str, columns: &Columns) -> Result<(), StoreError> {
        if self.is_raw {
            let names: Vec<String> =
                std::iter::once("id").chain(columns.keys().map(String::as_str)).map(identifier).collect();
            let numbers = vec!["?"; names.len()].join(", ");
            let sql = format!("INSERT INTO {} ({}) VALUES ({numbers})", self.table, names.join(", "));
            self.tx.execute(&sql, params_from_iter(values(id, columns)))?;
        } else {
            let row = Value::Object(columns.clone()).to_string();
            self.tx.execute(&format!("INSERT INTO {} (id, data) VALUES (?1, ?2)", self.table), [id, &row])?;
        }
        Ok(())
    }
}

/// The id, then the columns.
fn values(id: &str, columns: &Columns) -> Vec<impl ToSql + use<>> {
    std::iter::once(SqlValue::Text(id.to_owned())).chain(columns.values().map(raw::sql_value)).collect()
}
