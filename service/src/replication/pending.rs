//! The rows a batch has looked at, in the order it met them.

use std::sync::Arc;

use foldhash::fast::RandomState;
use indexmap::{IndexMap, map::Entry};

use crate::storage::{BucketStore, RowKey, StorageError, StoredRow, TableId};

/// Rows by key, each as the store has it and as the batch leaves it.
///
/// In the order of their arrival, which mostly is that of their keys: a store likes neighbours together.
pub(super) struct PendingRows<'s> {
    store: &'s dyn BucketStore,
    rows: IndexMap<RowKey, PendingRow, RandomState>,
    /// New rows that the batch does not look at again, as they are to be stored.
    alone: Vec<(RowKey, Option<StoredRow>)>,
    bytes: usize,
}

/// A row before and after the batch. Shared, because most batches leave what they only looked at.
#[derive(Default)]
struct PendingRow {
    before: Option<Arc<StoredRow>>,
    after: Option<Arc<StoredRow>>,
}

impl PendingRow {
    fn unchanged(row: Option<Arc<StoredRow>>) -> Self {
        Self { before: row.clone(), after: row }
    }
}

/// A row with its state before and after.
type ChangedRow = (RowKey, Option<Arc<StoredRow>>, Option<Arc<StoredRow>>);

/// Where a row is among those of the batch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place(usize);

impl<'s> PendingRows<'s> {
    /// With room for so many rows.
    pub(super) fn new(store: &'s dyn BucketStore, row_count: usize) -> Self {
        let rows = IndexMap::with_capacity_and_hasher(row_count, RandomState::default());
        Self { store, rows, alone: Vec::new(), bytes: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len() + self.alone.len()
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
        self.rows[place].after.as_ref()
    }

    /// Brings the row of a place to its new state.
    pub(super) fn set(&mut self, Place(place): Place, row: Option<StoredRow>) {
        self.rows[place].after = row.map(Arc::new);
    }

    /// The place of a row of which is known that the store does not have it.
    pub(super) fn add_new(&mut self, key: &RowKey) -> Place {
        let entry = self.rows.entry(key.clone());
        let place = Place(entry.index());
        entry.or_default();
        place
    }

    /// Adds a row of which is known that the store does not have it, and that nothing in the batch concerns it again.
    pub(super) fn add_alone(&mut self, key: RowKey, row: StoredRow) {
        self.alone.push((key, Some(row)));
    }

    /// The place of a row that was read from the store for the batch.
    pub(super) fn add_stored(&mut self, key: &RowKey, row: StoredRow) -> Place {
        let entry = self.rows.entry(key.clone());
        let place = Place(entry.index());
        entry.or_insert_with(|| {
            self.bytes += row.image.len();
            PendingRow::unchanged(Some(Arc::new(row)))
        });
        place
    }

    /// Keys of the table's rows that are in the batch already.
    pub(super) fn keys_of_table(&self, table: TableId) -> Vec<RowKey> {
        self.rows.keys().filter(|key| key.table == table).cloned().collect()
    }

    /// New rows that stand alone, and every other row the batch changes, as it was and as it is now.
    pub(super) fn into_changed(self) -> (Vec<(RowKey, Option<StoredRow>)>, impl Iterator<Item = ChangedRow>) {
        let changed = |(key, PendingRow { before, after })| (before != after).then_some((key, before, after));
        (self.alone, self.rows.into_iter().filter_map(changed))
    }

    /// The place of a row, which is read from the store if need be.
    pub(super) fn place(&mut self, key: &RowKey) -> Result<Place, StorageError> {
        let entry = self.rows.entry(key.clone());
        let place = Place(entry.index());
        if let Entry::Vacant(entry) = entry {
            let row = self.store.row(key)?.map(Arc::new);
            self.bytes += row.as_ref().map_or(0, |row| row.image.len());
            entry.insert(PendingRow::unchanged(row));
        }
        Ok(place)
    }
}
