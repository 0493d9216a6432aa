//! What write rules say of the number of writes to a table. Pure.

use std::collections::{BTreeMap, HashSet};

use kairos_sync_protocol::upload::CrudEntry;
use kairos_sync_rules::{SyncPlan, WritePolicy};

use super::refusal::Refusal;
use crate::rate_limit::TableWrites;

/// The writes of a batch to tables of which a user may write only so many rows a minute.
pub(super) fn rated<'a>(plan: &SyncPlan, entries: &'a [CrudEntry]) -> Vec<TableWrites<'a>> {
    let mut rated: BTreeMap<&str, TableWrites<'a>> = BTreeMap::new();
    for entry in entries {
        let limits = plan.write_policy(&entry.table).map(WritePolicy::limits);
        if let Some(per_minute) = limits.and_then(|limits| limits.operations_per_minute) {
            let table = entry.table.as_str();
            rated.entry(table).or_insert(TableWrites { table, per_minute, count: 0 }).count += 1;
        }
    }
    rated.into_values().collect()
}

/// Positions in the batch of writes that are more than their table takes at a time.
pub(super) fn beyond(plan: &SyncPlan, entries: &[CrudEntry]) -> HashSet<usize> {
    let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
    let mut beyond = HashSet::new();
    for (position, entry) in entries.iter().enumerate() {
        let limits = plan.write_policy(&entry.table).map(WritePolicy::limits);
        if let Some(max) = limits.and_then(|limits| limits.operations_per_batch) {
            let count = counts.entry(&entry.table).or_default();
            *count += 1;
            if *count > max.get() {
                beyond.insert(position);
            }
        }
    }
    beyond
}

pub(super) fn too_many() -> Refusal {
    let message = "the upload has more writes to this table than `limits.operations_per_batch` of its write rule says";
    Refusal::new("WRITE_TOO_MANY", message)
}
