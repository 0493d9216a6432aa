//! The lookup index as a batch being built sees it: the store's, with the batch's changes on top.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use foldhash::fast::RandomState;
use kairos_sync_rules::{LookupKey, LookupSource, LookupValue};

use crate::storage::{BucketStore, RowKey, StorageError};

/// The values of all lookups a batch has touched.
///
/// Most are only fed: nobody asks them in the batch and no row depends on them. Those are not read, because one may have
/// as many entries as a table has rows.
pub(super) struct Lookups<'s> {
    store: &'s dyn BucketStore,
    /// What was read of the store, with the batch's changes.
    read: HashMap<LookupKey, Lookup, RandomState>,
    /// What rows give now for lookups that were not read.
    unread: HashMap<LookupKey, HashMap<RowKey, Vec<LookupValue>, RandomState>, RandomState>,
    /// Lookups that were fed since dependents were last looked at, and not read.
    fed: BTreeSet<LookupKey>,
    /// Lookups whose values changed since then.
    changed: BTreeSet<LookupKey>,
}

/// One lookup: which rows give which values, and how many give each.
#[derive(Default)]
struct Lookup {
    by_row: HashMap<RowKey, Vec<LookupValue>, RandomState>,
    counts: BTreeMap<LookupValue, usize>,
}

impl Lookup {
    /// `true` if the set of values is another now.
    fn replace(&mut self, row: &RowKey, values: Vec<LookupValue>) -> bool {
        let mut touched = BTreeMap::new();
        for value in &values {
            *touched.entry(value.clone()).or_insert(0) += 1_isize;
        }
        let old = if values.is_empty() { self.by_row.remove(row) } else { self.by_row.insert(row.clone(), values) };
        for value in old.into_iter().flatten() {
            *touched.entry(value).or_insert(0) -= 1;
        }
        let mut is_changed = false;
        for (value, difference) in touched {
            let before = self.counts.get(&value).copied().unwrap_or(0);
            let after = before.saturating_add_signed(difference);
            is_changed |= (before == 0) != (after == 0);
            if after == 0 {
                self.counts.remove(&value);
            } else {
                self.counts.insert(value, after);
            }
        }
        is_changed
    }
}

impl<'s> Lookups<'s> {
    pub(super) fn new(store: &'s dyn BucketStore) -> Self {
        Self {
            store,
            read: HashMap::default(),
            unread: HashMap::default(),
            fed: BTreeSet::new(),
            changed: BTreeSet::new(),
        }
    }

    /// Reads a lookup, and brings it to where the batch is.
    fn read(&mut self, key: &LookupKey) -> Result<&mut Lookup, StorageError> {
        if !self.read.contains_key(key) {
            let mut lookup = Lookup::default();
            for (row, values) in self.store.lookup_entries(key)? {
                lookup.replace(&row, values);
            }
            let before: BTreeSet<_> = lookup.counts.keys().cloned().collect();
            for (row, values) in self.unread.remove(key).unwrap_or_default() {
                lookup.replace(&row, values);
            }
            if !lookup.counts.keys().eq(&before) {
                self.changed.insert(key.clone());
            }
            self.read.insert(key.clone(), lookup);
        }
        Ok(self.read.entry(key.clone()).or_default())
    }

    /// Sets what a row gives for one lookup.
    pub(super) fn replace(&mut self, key: &LookupKey, row: &RowKey, values: Vec<LookupValue>) {
        if let Some(lookup) = self.read.get_mut(key) {
            if lookup.replace(row, values) {
                self.changed.insert(key.clone());
            }
            return;
        }
        self.unread.entry(key.clone()).or_default().insert(row.clone(), values);
        self.fed.insert(key.clone());
    }

    /// Lookups whose values changed since the last call; of those that have no dependents only some.
    pub(super) fn take_changed(
        &mut self,
        has_dependents: impl Fn(&LookupKey) -> Result<bool, StorageError>,
    ) -> Result<BTreeSet<LookupKey>, StorageError> {
        for key in std::mem::take(&mut self.fed) {
            if self.unread.contains_key(&key) && has_dependents(&key)? {
                self.read(&key)?;
            }
        }
        Ok(std::mem::take(&mut self.changed))
    }
}

impl LookupSource for Lookups<'_> {
    type Error = StorageError;

    fn values(&mut self, key: &LookupKey) -> Result<Vec<LookupValue>, StorageError> {
        Ok(self.read(key)?.counts.keys().cloned().collect())
    }
}

/// Cannot answer: for who evaluates beside the stream's thread, which alone knows what lookups are.
pub(super) struct NoLookups;

/// A lookup was asked.
pub(super) struct Asked;

impl LookupSource for NoLookups {
    type Error = Asked;

    fn values(&mut self, _key: &LookupKey) -> Result<Vec<LookupValue>, Asked> {
        Err(Asked)
    }
}

/// A row's lookups by key, values sorted and without repetition.
pub(super) fn group(lookups: &[(LookupKey, LookupValue)]) -> BTreeMap<&LookupKey, Vec<LookupValue>> {
    let mut grouped: BTreeMap<&LookupKey, BTreeSet<&LookupValue>> = BTreeMap::new();
    for (key, value) in lookups {
        grouped.entry(key).or_default().insert(value);
    }
    grouped.into_iter().map(|(key, values)| (key, values.into_iter().cloned().collect())).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::storage::{Batch, MemoryStore, TableId};

    fn row(identity: u8) -> RowKey {
        RowKey { table: TableId(1), identity: Arc::from([identity]) }
    }

    fn value(text: &str) -> LookupValue {
        LookupValue(text.into())
    }

    #[test]
    fn a_value_two_rows_give_goes_only_with_the_second() {
        let store = MemoryStore::new();
        let key = LookupKey("owner".into());
        for is_read in [true, false] {
            let mut lookups = Lookups::new(&store);
            let mut set = |row: &RowKey, values: &[&str]| {
                if is_read {
                    lookups.values(&key).expect("memory");
                }
                lookups.replace(&key, row, values.iter().map(|text| value(text)).collect());
                !lookups.take_changed(|_| Ok(true)).expect("memory").is_empty()
            };
            assert!(set(&row(1), &["u1"]));
            assert!(!set(&row(2), &["u1"]), "the values are the same as before");
            assert!(!set(&row(1), &[]), "another row still gives it");
            assert!(set(&row(2), &["u2"]));
            assert_eq!(lookups.values(&key).expect("memory"), [value("u2")]);
        }
    }

    #[test]
    fn a_lookup_that_is_only_fed_is_read_when_it_is_asked() {
        let store = MemoryStore::new();
        let key = LookupKey("owner".into());
        let stored = vec![(key.clone(), row(1), vec![value("u1")])];
        store.commit(Batch { lookups: stored, ..Batch::default() }).expect("commits");
        let mut lookups = Lookups::new(&store);
        lookups.replace(&key, &row(1), vec![value("u2")]);
        lookups.replace(&key, &row(2), vec![value("u3")]);
        assert!(lookups.take_changed(|_| Ok(false)).expect("memory").is_empty(), "nobody depends on it");
        assert!(lookups.read.is_empty());
        assert_eq!(lookups.values(&key).expect("memory"), [value("u2"), value("u3")]);
        let changed = lookups.take_changed(|_| Ok(false)).expect("memory");
        assert_eq!(changed.into_iter().collect::<Vec<_>>(), [key], "whoever asked before the changes must ask again");
    }
}
