//! What is left to be done for rules that are being built: stored rows are to be taken through them once more. Pure.
//!
//! Rows that the stream or a copy brings meanwhile go through them anyway, so whatever was stored before the build began
//! is all there is to look at.

use std::collections::VecDeque;

use kairos_sync_rules::SyncPlan;
use serde::{Deserialize, Serialize};

use super::{page::PageStart, plans::reads, state::TableState, status::RebuildStatus};
use crate::{
    postgres::catalog::Table,
    storage::{DeploymentNumber, RowKey, TableId},
};

/// How far a build is. Stored with every step, so that it goes on after a restart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Rebuild {
    /// The deployment it is for.
    pub(super) deployment: DeploymentNumber,
    /// Tables whose rows are to be evaluated again, in this order.
    tables: VecDeque<u32>,
    /// Identity of the last row of the first table that was.
    after: Option<Vec<u8>>,
    /// Rows that were.
    pub(super) rows_done: u64,
    /// Rows the source believes the tables to have; may be far off.
    pub(super) rows_estimated: u64,
}

impl Rebuild {
    /// For a deployment that brings `news`. Tables whose rows others join come first: a row that finds its answers is
    /// evaluated once.
    pub(super) fn of(deployment: DeploymentNumber, news: &SyncPlan, tables: &[TableState], catalog: &[Table]) -> Self {
        let mut read: Vec<_> =
            tables.iter().filter(|table| !table.is_gone && reads(news, &table.source_table())).collect();
        read.sort_by_key(|table| news.join_depth(&table.source_table()));
        let found = catalog.iter().filter(|found| read.iter().any(|table| table.has_name_of(found)));
        let rows_estimated = found.map(|found| found.rows_estimated).sum();
        let tables = read.into_iter().map(|table| table.id().0).collect();
        Self { deployment, tables, after: None, rows_done: 0, rows_estimated }
    }

    /// For those who watch.
    pub(super) fn status(&self) -> RebuildStatus {
        RebuildStatus {
            deployment: self.deployment.0,
            rows_done: self.rows_done,
            rows_estimated: self.rows_estimated,
            tables_left: self.tables.len(),
        }
    }

    /// Where to go on. `None` when all rows were evaluated.
    pub(super) fn next(&self) -> Option<PageStart> {
        let table = TableId(*self.tables.front()?);
        let after = self.after.as_ref().map(|identity| RowKey { table, identity: identity.as_slice().into() });
        Some(PageStart { table, after })
    }

    /// Rows up to this one were evaluated; `None`: there are no more in the table.
    pub(super) fn advance(&mut self, row_count: u64, last: Option<&RowKey>) {
        self.rows_done += row_count;
        self.after = last.map(|row| row.identity.to_vec());
        if last.is_none() {
            self.tables.pop_front();
        }
    }
}
