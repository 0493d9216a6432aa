//! What lookups answer: read once each for all who ask, and the rows behind an answer. Blocks on disk.

use std::collections::HashMap;

use kairos_sync_rules::{LookupKey, LookupSource, LookupValue, explain::UsedLookup};

use super::{
    answer::{BucketAnswer, LookupAnswer},
    row::key_text,
};
use crate::{
    replication::RowStore,
    storage::{BucketStore, RowKey, StorageError, StoreView},
};

/// Rows that are named per answer.
const ROWS_MAX: usize = 5;

/// The lookups of a view, each read once.
pub(super) struct CachedLookups<'v> {
    pub(super) view: &'v dyn StoreView,
    known: HashMap<LookupKey, Vec<LookupValue>>,
}

impl<'v> CachedLookups<'v> {
    pub(super) fn new(view: &'v dyn StoreView) -> Self {
        Self { view, known: HashMap::new() }
    }
}

impl LookupSource for CachedLookups<'_> {
    type Error = StorageError;

    fn values(&mut self, key: &LookupKey) -> Result<Vec<LookupValue>, StorageError> {
        if let Some(values) = self.known.get(key) {
            return Ok(values.clone());
        }
        let values = self.view.lookup(key)?;
        self.known.insert(key.clone(), values.clone());
        Ok(values)
    }
}

/// A bucket of the page, and for each of its origins what was asked on the way.
pub(super) type BucketWithLookups = (BucketAnswer, Vec<Vec<UsedLookup>>);

/// Names the rows behind each answer.
pub(super) fn with_rows(
    store: &dyn BucketStore,
    page: Vec<BucketWithLookups>,
) -> Result<Vec<BucketAnswer>, StorageError> {
    let Some(tables) = RowStore::load(store)? else { return Ok(page.into_iter().map(|(bucket, _)| bucket).collect()) };
    let mut known: HashMap<LookupKey, Vec<(RowKey, Vec<LookupValue>)>> = HashMap::new();
    let mut buckets = Vec::with_capacity(page.len());
    for (mut bucket, lookups) in page {
        for (origin, used) in bucket.origins.iter_mut().zip(lookups) {
            for UsedLookup { step, table, key, value } in used {
                if !known.contains_key(&key) {
                    known.insert(key.clone(), store.lookup_entries(&key)?);
                }
                let entries = known.get(&key).map_or(&[][..], Vec::as_slice);
                let mut rows = entries.iter().filter(|(_, values)| values.contains(&value));
                let shown = rows.by_ref().take(ROWS_MAX).map(|(row, _)| {
                    tables.table(row.table).map_or_else(String::new, |table| key_text(&table.identity_of(row)))
                });
                let shown: Vec<_> = shown.collect();
                let row_count = shown.len() + rows.count();
                origin.lookups.push(LookupAnswer { step, table, value: value.0.to_string(), rows: shown, row_count });
            }
        }
        buckets.push(bucket);
    }
    Ok(buckets)
}
