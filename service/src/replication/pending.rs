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

/// Where a row is among those of the batch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place(usize);

impl<'s> PendingRows<'s> {
    /// With room for so many rows.
    pub(super) fn new(store: &'s dyn BucketStore, row_count: usize) -> Self {
        let places = HashMap::with_capacity_and_hasher(row_count, RandomState::default());
        Self { store, places, rows: Vec::with_capacity(row_count), bytes: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// About how much memory the images hold that were read from the store.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The row as the batch sees it.
    pub(super) fn get(&mut self, key: &RowKey) -> Result<Option<&Arc<StoredRow>>, StorageError> {
        let place = self.place(key)?;
        Ok(self.at(place))
    }

    /// The row of a place as the batch sees it.
    pub(super) fn at(&self, Place(place): Place) -> Option<&Arc<StoredRow>> {
        self.rows[place].1.after.as_ref()
    }

    /// Brings the row of a place to its new state.
    pub(super) fn set(&mut self, Place(place): Place, row: Option<StoredRow>) {
        self.rows[place].1.after = row.map(Arc::new);
    }

    /// The place of a row of which is known that the store does not have it.
    pub(super) fn add_new(&mut self, key: &RowKey) -> Place {
        match self.places.entry(key.clone()) {
            Entry::Occupied(entry) => Place(*entry.get()),
            Entry::Vacant(entry) => {
                self.rows.push((key.clone(), PendingRow { before: None, after: None }));
                Place(*entry.insert(self.rows.len() - 1))
            }
        }
    }

    /// The place of a row that was read from the store for the batch.
    pub(super) fn add_stored(&mut self, key: &RowKey, row: StoredRow) -> Place {
        match self.places.entry(key.clone()) {
            Entry::Occupied(entry) => Place(*entry.get()),
            Entry::Vacant(entry) => {
                self.bytes += row.image.len();
                let row = Some(Arc::new(row));
                self.rows.push((key.clone(), PendingRow { before: row.clone(), after: row }));
                Place(*entry.insert(self.rows.len() - 1))
            }
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

    /// The place of a row, which is read from the store if need be.
    pub(super) fn place(&mut self, key: &RowKey) -> Result<Place, StorageError> {
        let entry = match self.places.entry(key.clone()) {
            Entry::Occupied(entry) => return Ok(Place(*entry.get())),
            Entry::Vacant(entry) => entry,
        };
        let before = self.store.row(key)?.map(Arc::new);
        self.bytes += before.as_ref().map_or(0, |row| row.image.len());
        self.rows.push((key.clone(), PendingRow { after: before.clone(), before }));
        Ok(Place(*entry.insert(self.rows.len() - 1)))
    }
}
