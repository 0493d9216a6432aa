//! The plans rows are evaluated by: of what is served, and of what is being built beside it.

use std::slice;

use kairos_sync_rules::{SourceTable, SyncPlan, TablePattern};

use crate::deployment::RulesState;

/// One plan, or two while rules are being built. The second has only what the first has not.
#[derive(Debug, Clone)]
pub(super) struct Plans(Vec<SyncPlan>);

impl Plans {
    /// Of these rules.
    pub(super) fn of(rules: &RulesState) -> Self {
        Self(rules.plans())
    }

    #[cfg(test)]
    pub(super) fn one(plan: SyncPlan) -> Self {
        Self(vec![plan])
    }

    #[cfg(test)]
    pub(super) fn both(serving: SyncPlan, building: SyncPlan) -> Self {
        Self(vec![serving, building])
    }

    pub(super) fn iter(&self) -> slice::Iter<'_, SyncPlan> {
        self.0.iter()
    }

    /// What is being built, without what is served already.
    pub(super) fn news(&self) -> Option<&SyncPlan> {
        self.0.get(1)
    }

    /// The tables the plans read, sorted, each pattern once.
    pub(super) fn source_tables(&self) -> Vec<TablePattern> {
        let mut tables: Vec<_> = self.iter().flat_map(SyncPlan::source_tables).collect();
        tables.sort_unstable();
        tables.dedup();
        tables
    }

    /// Whether a plan reads the table.
    pub(super) fn read(&self, table: &SourceTable) -> bool {
        self.iter().any(|plan| reads(plan, table))
    }

    /// As [`SyncPlan::join_depth`].
    pub(super) fn join_depth(&self, table: &SourceTable) -> usize {
        self.iter().map(|plan| plan.join_depth(table)).max().unwrap_or_default()
    }
}

/// Whether a plan reads the table.
pub(super) fn reads(plan: &SyncPlan, table: &SourceTable) -> bool {
    plan.source_tables().iter().any(|pattern| pattern.matches(table))
}
