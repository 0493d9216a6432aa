//! The runs as of the last commit that changed them, for those who read.

use std::sync::{
    Arc, PoisonError, RwLock,
    atomic::{AtomicU64, Ordering},
};

use super::list::RunList;

/// Shared by the writer, which changes it right after its commit, and readers.
#[derive(Debug)]
pub(in super::super) struct CurrentRuns {
    list: RwLock<Arc<RunList>>,
    /// Grows with every change of runs.
    version: AtomicU64,
}

impl CurrentRuns {
    pub(in super::super) fn new(list: RunList) -> Self {
        Self { list: RwLock::new(Arc::new(list)), version: AtomicU64::new(0) }
    }

    /// After a commit that changed runs, and before memory forgets the rows that are in them now: who misses one there then
    /// finds it in a run.
    pub(in super::super) fn set(&self, list: Arc<RunList>) {
        *self.list.write().unwrap_or_else(PoisonError::into_inner) = list;
        self.version.fetch_add(1, Ordering::Release);
    }

    pub(in super::super) fn list(&self) -> Arc<RunList> {
        Arc::clone(&self.list.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Who begins to read after this sees the runs of this version, or newer ones.
    pub(in super::super) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }
}
