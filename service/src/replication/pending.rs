//! The rows a batch has looked at, in the order it met them.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

use foldhash::fast::RandomState;

use crate::storage::{BucketStore, RowKey, StorageError, StoredRow, TableId};

/// Rows by key, each as the store has it and as the batch leaves it.
///
/// In the order of their arrival, which mostly is that of their keys: a store likes neighbours together.
pub(super) struct PendingRows<'s> {
    store: &'s dyn BucketStore,
    places: HashMap<RowKey, usize, RandomState>,
    rows: Vec<(RowKey, PendingRow)>,
    bytes: usize,
}

/// A row before and after the batch. Shared, because most batches leave what they only looked at.
pub(super) struct PendingRow {
    before: Option<Arc<StoredRow>>,
    after: Option<Arc<StoredRow>>,
}

impl<'s> PendingRows<'s> {
    pub(super) fn new(store: &'s dyn BucketStore) -> Self {
        Self { store, places: HashMap::default(), rows: Vec::new(), bytes: 0 }
    }

    /// About how much memory the images hold that were read from the store.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The row as the batch sees it.
    pub(super) fn get(&mut self, key: &RowKey) -> Result<Option<&Arc<StoredRow>>, StorageError> {
        let place = self.place(key)?;
        Ok(self.rows[place].1.after.as_ref())
    }

    /// Brings a row to its new state.
    pub(super) fn set(&mut self, key: &RowKey, row: Option<StoredRow>) -> Result<(), StorageError> {
        let place = self.place(key)?;
        self.rows[place].1.after = row.map(Arc::new);
        Ok(())
    }

    /// A row of which is known that the store does not have it.
    pub(super) fn add_new(&mut self, key: &RowKey) {
        if let Entry::Vacant(entry) = self.places.entry(key.clone()) {
            entry.insert(self.rows.len());
            self.rows.push((key.clone(), PendingRow { before: None, after: None }));
        }
    }

    /// Keys of the table's rows that are in the batch already.
    pub(super) fn keys_of_table(&self, table: TableId) -> Vec<RowKey> {
        self.rows.iter().filter(|(key, _)| key.table == table).map(|(key, _)| key.clone()).collect()
    }

    /// Every row the batch changes, as it was and as it is now.
    pub(super) fn into_changed(self) -> impl Iterator<Item = (RowKey, Option<Arc<StoredRow>>, Option<Arc<StoredRow>>)> {
        let changed = |(key, PendingRow { before, after })| (before != after).then_some((key, before, after));
        self.rows.into_iter().filter_map(changed)
    }

    fn place(&mut self, key: &RowKey) -> Result<usize, StorageError> {
        let entry = match self.places.entry(key.clone()) {
            Entry::Occupied(entry) => return Ok(*entry.get()),
            Entry::Vacant(entry) => entry,
        };
        let before = self.store.row(key)?.map(Arc::new);
        self.bytes += before.as_ref().map_or(0, |row| row.image.len());
        self.rows.push((key.clone(), PendingRow { after: before.clone(), before }));
        Ok(*entry.insert(self.rows.len() - 1))
    }
}
