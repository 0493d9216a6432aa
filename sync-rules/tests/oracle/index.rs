//! The index of lookups, as a service keeps it.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
};

use kairos_sync_rules::{LookupKey, LookupSource, LookupValue};

/// What all rows said. A value may have been said by several rows.
#[derive(Default)]
pub(crate) struct Index(BTreeMap<LookupKey, BTreeMap<LookupValue, usize>>);

impl LookupSource for Index {
    type Error = Infallible;

    fn values(&mut self, key: &LookupKey) -> Result<Vec<LookupValue>, Infallible> {
        Ok(self.0.get(key).into_iter().flat_map(BTreeMap::keys).cloned().collect())
    }
}

impl Index {
    /// Replaces what a row said; returns the lookups whose values changed.
    pub(crate) fn replace(
        &mut self,
        before: &[(LookupKey, LookupValue)],
        after: &[(LookupKey, LookupValue)],
    ) -> BTreeSet<LookupKey> {
        let touched: BTreeSet<_> = before.iter().chain(after).map(|(key, _)| key.clone()).collect();
        let values = |index: &Self| -> Vec<BTreeSet<LookupValue>> {
            let of = |key| index.0.get(key).map(|values| values.keys().cloned().collect()).unwrap_or_default();
            touched.iter().map(of).collect()
        };
        let old = values(self);
        for (key, value) in after {
            *self.0.entry(key.clone()).or_default().entry(value.clone()).or_default() += 1;
        }
        for (key, value) in before {
            let values = self.0.get_mut(key).expect("a row takes back only what it said");
            let count = values.get_mut(value).expect("a row takes back only what it said");
            *count -= 1;
            if *count == 0 {
                values.remove(value);
            }
        }
        let new = values(self);
        touched
            .into_iter()
            .zip(old.into_iter().zip(new))
            .filter(|(_, (old, new))| old != new)
            .map(|(key, _)| key)
            .collect()
    }
}
