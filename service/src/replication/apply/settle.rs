//! Rows that depend on lookups which changed are evaluated again.

use std::collections::{BTreeSet, HashSet};

use kairos_sync_rules::LookupKey;

use super::{Applier, PAGE};
use crate::{
    replication::{
        error::ReplicationError,
        relations::Relations,
        unsettled::{Endless, Unsettled},
    },
    storage::{RowKey, StorageError},
};

/// Where a transaction, or what its changes bring about, is stored in parts.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct PartSize {
    /// About so many bytes make a part. Each takes several times as much memory while it is stored.
    pub(in super::super) bytes: usize,
    /// Or so many rows, which take memory however small they are.
    pub(in super::super) rows: usize,
}

impl Applier<'_> {
    /// Whether what it holds is to be stored before it takes more.
    pub(in super::super) fn is_full(&self, part: PartSize) -> bool {
        self.bytes() >= part.bytes || self.rows.len() >= part.rows
    }

    /// Evaluates the rows again that depend on lookups which changed, until nothing changes any more or the part is full.
    /// What is then left is in `unsettled`, to be gone on with once the part is stored, together with that.
    pub(in super::super) fn settle(
        &mut self,
        relations: &Relations<'_>,
        unsettled: &mut Unsettled,
        part: PartSize,
    ) -> Result<(), ReplicationError> {
        loop {
            let next = unsettled.next().filter(|_| !self.is_full(part));
            if let Some((lookup, after)) = next {
                let last = self.settle_page(relations, &lookup, after.as_ref())?;
                unsettled.advance(last.as_ref());
                continue;
            }
            let changed = self.take_changed()?;
            unsettled.add(changed).map_err(|Endless| ReplicationError::EndlessLookups)?;
            if unsettled.is_empty() || self.is_full(part) {
                return Ok(());
            }
        }
    }

    fn take_changed(&mut self) -> Result<BTreeSet<LookupKey>, StorageError> {
        let (store, consulting) = (self.store, &self.consulting);
        let has_dependents =
            |key: &LookupKey| Ok(consulting.contains_key(key) || !store.dependents(key, None, 1)?.is_empty());
        self.lookups.take_changed(has_dependents)
    }

    /// Evaluates the next rows that asked a lookup. Gives the last of them in the store; `None` when there are no more.
    fn settle_page(
        &mut self,
        relations: &Relations<'_>,
        lookup: &LookupKey,
        after: Option<&RowKey>,
    ) -> Result<Option<RowKey>, ReplicationError> {
        // Those of the batch are in memory as it is. Rows it meets later find the lookup as it is now.
        let pending = match after {
            None => self.consulting.get(lookup).cloned().unwrap_or_default(),
            Some(_) => HashSet::default(),
        };
        for row in &pending {
            self.evaluate_again(relations, row, lookup)?;
        }
        let page = self.store.dependents(lookup, after, PAGE)?;
        for row in page.iter().filter(|row| !pending.contains(*row)) {
            self.evaluate_again(relations, row, lookup)?;
        }
        Ok(page.last().cloned())
    }

    fn evaluate_again(
        &mut self,
        relations: &Relations<'_>,
        key: &RowKey,
        lookup: &LookupKey,
    ) -> Result<(), ReplicationError> {
        let Some(table) = relations.by_id(key.table) else {
            return Ok(());
        };
        let Some(stored) = self.rows.get(key)?.filter(|stored| stored.consulted.contains(lookup)) else {
            return Ok(());
        };
        let image = stored.image.clone();
        self.evaluate_image(table, key, image)
    }
}
