//! Tells the app which of its tables changed.

use std::collections::{BTreeMap, BTreeSet};

use tokio::sync::watch;

/// A counter per table. Waiting on counters, not on messages, needs no queue: who is slow sees fewer, later changes.
#[derive(Debug)]
pub(crate) struct TableChanges(watch::Sender<BTreeMap<String, u64>>);

impl Default for TableChanges {
    fn default() -> Self {
        Self(watch::Sender::new(BTreeMap::new()))
    }
}

impl TableChanges {
    pub(crate) fn announce(&self, tables: BTreeSet<String>) {
        if tables.is_empty() {
            return;
        }
        self.0.send_modify(|counters| {
            for table in tables {
                *counters.entry(table).or_default() += 1;
            }
        });
    }

    pub(crate) fn watch(&self, tables: &[&str]) -> TableWatch {
        let mut counters = self.0.subscribe();
        let tables = tables.iter().map(|table| (*table).to_owned()).collect();
        let seen = relevant(&counters.borrow_and_update(), &tables);
        TableWatch { counters, tables, seen }
    }
}

/// Waits for committed changes of some tables, local and synced ones alike.
#[derive(Debug, Clone)]
pub struct TableWatch {
    counters: watch::Receiver<BTreeMap<String, u64>>,
    tables: BTreeSet<String>,
    seen: BTreeMap<String, u64>,
}

impl TableWatch {
    /// Waits until a table changed since the last call. Changes that happen meanwhile count as one.
    /// `false` when the client is gone and nothing will change any more.
    ///
    /// Cancel safe: a change is not lost when the future is dropped.
    pub async fn changed(&mut self) -> bool {
        loop {
            let now = relevant(&self.counters.borrow_and_update(), &self.tables);
            if now != self.seen {
                self.seen = now;
                return true;
            }
            if self.counters.changed().await.is_err() {
                return false;
            }
        }
    }
}

fn relevant(counters: &BTreeMap<String, u64>, tables: &BTreeSet<String>) -> BTreeMap<String, u64> {
    counters.iter().filter(|(table, _)| tables.contains(*table)).map(|(table, count)| (table.clone(), *count)).collect()
}
