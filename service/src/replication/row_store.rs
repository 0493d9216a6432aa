//! The row store for those who look into it: which tables there are, and what is stored of a row.

use std::fmt;

use bytes::Bytes;
use kairos_sync_rules::{Compatibility, SourceTable, SqlValue};

use super::{
    copy_status::CopyStage,
    image::{Image, identity_key, identity_values},
    state::{ReplicationState, TableState},
};
use crate::{
    postgres::pgoutput::TupleValue,
    storage::{BucketStore, RowKey, RowOutput, StorageError, TableId},
};

/// The tables of the row store, as of a commit.
#[derive(Debug)]
pub struct RowStore {
    state: ReplicationState,
}

/// A table of the row store.
#[derive(Clone, Copy)]
pub struct StoredTable<'s> {
    state: &'s TableState,
}

/// A row of the row store.
#[derive(Debug, Clone, PartialEq)]
pub struct FoundRow {
    /// Names of its columns.
    pub columns: Vec<String>,
    /// A value for each; NULL also for what is not known yet.
    pub values: Vec<SqlValue>,
    /// Whether all values are known. Otherwise the stream has sent parts of the row, and its copy will bring the rest.
    pub is_complete: bool,
    /// Where clients have it.
    pub outputs: Vec<RowOutput>,
}

impl RowStore {
    /// The tables, as the store has them now; `None` before replication began.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn load(store: &dyn BucketStore) -> Result<Option<Self>, StorageError> {
        let stored = store.replication_state()?.map(|bytes| serde_json::from_slice(&bytes));
        let state = stored.transpose().map_err(|_| damaged("replication state"))?;
        Ok(state.map(|state| Self { state }))
    }

    /// The publications that are read.
    pub fn publications(&self) -> &[String] {
        &self.state.publications
    }

    /// Tables that are read, sorted by name.
    pub fn tables(&self) -> Vec<StoredTable<'_>> {
        let present = self.state.tables.iter().filter(|state| !state.is_gone);
        let mut tables: Vec<_> = present.map(|state| StoredTable { state }).collect();
        tables.sort_by(|one, other| (one.schema(), one.name()).cmp(&(other.schema(), other.name())));
        tables
    }

    /// The table of a row.
    pub fn table(&self, id: TableId) -> Option<StoredTable<'_>> {
        self.state.tables.iter().find(|state| state.id() == id).map(|state| StoredTable { state })
    }
}

impl fmt::Debug for StoredTable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.state.full_name())
    }
}

impl<'s> StoredTable<'s> {
    /// Its schema.
    pub fn schema(self) -> &'s str {
        &self.state.schema
    }

    /// Its name.
    pub fn name(self) -> &'s str {
        &self.state.name
    }

    /// As the rules know it.
    pub fn source_table(self) -> SourceTable {
        self.state.source_table()
    }

    /// Names of the columns that identify a row.
    pub fn identity(self) -> &'s [String] {
        &self.state.identity
    }

    /// What its copy does, if it is not copied yet.
    pub fn copy_stage(self) -> Option<CopyStage> {
        let (_, is_read) = self.state.copy_progress()?;
        Some(if is_read { CopyStage::Finishing } else { CopyStage::Copying })
    }

    /// The key of a row, from the texts of its identifying columns as Postgres prints them; `None` for NULL.
    pub fn key(self, identity: &[Option<&str>]) -> RowKey {
        let positions: Vec<usize> = (0..identity.len()).collect();
        identity_key(self.state.id(), &positions, |position| identity.get(position)?.map(str::as_bytes))
    }

    /// The identifying values of a row's key, with their columns.
    pub fn identity_of(self, key: &RowKey) -> Vec<(&'s str, Option<String>)> {
        let text = |value: Option<Bytes>| value.map(|value| String::from_utf8_lossy(&value).into_owned());
        let values = identity_values(&key.identity).unwrap_or_default();
        self.state.identity.iter().map(String::as_str).zip(values.into_iter().map(text)).collect()
    }

    /// What is stored of a row.
    ///
    /// # Errors
    /// When the store cannot be read, or what it says of the row.
    pub fn row(
        self,
        store: &dyn BucketStore,
        key: &RowKey,
        compatibility: Compatibility,
    ) -> Result<Option<FoundRow>, StorageError> {
        let Some(stored) = store.row(key)? else { return Ok(None) };
        let (layout, image) = Image::decode(&stored.image).ok_or_else(|| damaged("row image"))?;
        let columns = self.state.layouts.get(layout).map_or(&[][..], Vec::as_slice);
        let mut is_complete = true;
        let mut value = |position: usize| match image.value(position) {
            TupleValue::Text(text) => columns[position].decode(Some(&text), compatibility),
            TupleValue::Null => SqlValue::Null,
            TupleValue::Unchanged => {
                is_complete = false;
                SqlValue::Null
            }
        };
        let values = (0..columns.len()).map(&mut value).collect();
        let columns = columns.iter().map(|column| column.name.clone()).collect();
        Ok(Some(FoundRow { columns, values, is_complete, outputs: stored.outputs }))
    }
}

fn damaged(what: &str) -> StorageError {
    StorageError::Damaged { what: what.to_owned() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        replication::image::CompleteRow,
        storage::{Batch, MemoryStore, StoredRow},
    };

    #[test]
    fn a_row_is_found_by_its_key_and_read_with_its_columns() {
        let column = |name: &str| json!({"name": name, "type_oid": 25, "read_as": "Text"});
        let items = json!({"id": 3, "oid": 5, "schema": "public", "name": "items", "identity": ["id", "org"],
            "layouts": [[column("org"), column("id")]], "copy": null, "is_gone": false});
        let state = json!({"system_id": "7", "timeline": "1", "slot": "s", "slot_created_at": null, "publications": ["p"],
            "rules_fingerprint": "r", "tables": [items], "next_table_id": 4, "hides": false, "resume": "0/0"});
        let store = MemoryStore::new();
        let row = CompleteRow(vec![Some(Bytes::from("o1")), Some(Bytes::from("i1"))]);
        let stored = StoredRow { image: row.encode(0), ..StoredRow::default() };
        let rows = vec![(row.key(TableId(3), &[1, 0]), Some(stored))];
        let batch = Batch { rows, replication_state: Some(state.to_string().into()), ..Batch::default() };
        store.commit(batch).unwrap();

        let found = RowStore::load(&store).unwrap().unwrap();
        let [table] = found.tables()[..] else { panic!("one table") };
        let key = table.key(&[Some("i1"), Some("o1")]);
        assert_eq!(table.identity_of(&key), [("id", Some("i1".to_owned())), ("org", Some("o1".to_owned()))]);
        let compatibility =
            kairos_sync_rules::compile("bucket_definitions: {}", "public").plan.unwrap().compatibility();
        let row = table.row(&store, &key, compatibility).unwrap().unwrap();
        assert_eq!((row.columns, row.is_complete), (vec!["org".to_owned(), "id".to_owned()], true));
        assert_eq!(row.values, ["o1", "i1"].map(|text| SqlValue::Text(text.to_owned())));
        assert_eq!(table.row(&store, &table.key(&[Some("i1"), None]), compatibility).unwrap(), None);
    }
}
