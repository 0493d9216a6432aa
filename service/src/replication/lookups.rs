//! The lookup index as a batch being built sees it: the store's, with the batch's changes on top.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use foldhash::fast::RandomState;
use kairos_sync_rules::{LookupKey, LookupSource, LookupValue};

use crate::storage::{BucketStore, RowKey, StorageError};

/// The values of all lookups a batch has touched.
pub(super) struct Lookups<'s> {
    store: &'s dyn BucketStore,
    loaded: HashMap<LookupKey, Lookup, RandomState>,
    /// Lookups whose values changed since dependents were last looked at.
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
        Self { store, loaded: HashMap::default(), changed: BTreeSet::new() }
    }

    fn lookup(&mut self, key: &LookupKey) -> Result<&mut Lookup, StorageError> {
        if !self.loaded.contains_key(key) {
            let mut lookup = Lookup::default();
            for (row, values) in self.store.lookup_entries(key)? {
                lookup.replace(&row, values);
            }
            self.loaded.insert(key.clone(), lookup);
        }
        Ok(self.loaded.entry(key.clone()).or_default())
    }

    /// Sets what a row gives for one lookup.
    pub(super) fn replace(
        &mut self,
        key: &LookupKey,
        row: &RowKey,
        values: Vec<LookupValue>,
    ) -> Result<(), StorageError> {
        if self.lookup(key)?.replace(row, values) {
            self.changed.insert(key.clone());
        }
        Ok(())
    }

    /// Lookups whose values changed since the last call.
    pub(super) fn take_changed(&mut self) -> BTreeSet<LookupKey> {
        std::mem::take(&mut self.changed)
    }
}

impl LookupSource for Lookups<'_> {
    type Error = StorageError;

    fn values(&mut self, key: &LookupKey) -> Result<Vec<LookupValue>, StorageError> {
        Ok(self.lookup(key)?.counts.keys().cloned().collect())
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
    use crate::storage::{MemoryStore, TableId};

    fn row(identity: u8) -> RowKey {
        RowKey { table: TableId(1), identity: Arc::from([identity]) }
    }

    fn value(text: &str) -> LookupValue {
        LookupValue(text.into())
    }

    #[test]
    fn a_value_two_rows_give_goes_only_with_the_second() {
        let store = MemoryStore::new();
        let mut lookups = Lookups::new(&store);
        let key = LookupKey("owner".into());
        let mut set = |row: &RowKey, values: &[&str]| {
            lookups.replace(&key, row, values.iter().map(|text| value(text)).collect()).expect("memory");
            !lookups.take_changed().is_empty()
        };
        assert!(set(&row(1), &["u1"]));
        assert!(!set(&row(2), &["u1"]), "the values are the same as before");
        assert!(!set(&row(1), &[]), "another row still gives it");
        assert!(set(&row(2), &["u2"]));
        assert_eq!(lookups.values(&key).expect("memory"), [value("u2")]);
    }
}
