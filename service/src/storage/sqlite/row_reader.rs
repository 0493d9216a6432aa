//! Reading rows of runs for replication, which asks for many between two commits.
//!
//! Beginning a read takes SQLite several system calls, so one transaction stays open from row to row. It is renewed when
//! runs have changed meanwhile, and ended by the next commit: an open one would keep the log from beginning again.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::Connection;

use super::{
    super::{RowKey, StorageError},
    rows::RowState,
    runs::{
        current::CurrentRuns,
        list::RunList,
        read::{RecentBlocks, find},
    },
    schema::StoreFolder,
};

/// The connection, and what its open transaction can see.
#[derive(Debug)]
pub(super) struct RowReader {
    cache_bytes: usize,
    runs: Arc<CurrentRuns>,
    open: Mutex<Option<OpenReader>>,
}

#[derive(Debug)]
struct OpenReader {
    conn: Connection,
    /// What the open transaction sees; `None` if none is open.
    seen: Option<Seen>,
}

/// The runs, and the version they have at least.
#[derive(Debug)]
struct Seen {
    version: u64,
    runs: RunList,
}

impl RowReader {
    pub(super) fn new(cache_bytes: usize, runs: Arc<CurrentRuns>) -> Self {
        Self { cache_bytes, runs, open: Mutex::default() }
    }

    /// What runs say of a row, as they are now or when they last changed; `None` if they say nothing.
    pub(super) fn find(
        &self,
        folder: &StoreFolder,
        blocks: &RecentBlocks,
        key: &RowKey,
    ) -> Result<Option<RowState>, StorageError> {
        let mut open = self.open();
        let reader = match &mut *open {
            Some(reader) => reader,
            none => none.insert(OpenReader { conn: folder.reader(self.cache_bytes)?, seen: None }),
        };
        // Before the transaction begins, which then sees at least this version.
        let version = self.runs.version();
        if reader.seen.as_ref().is_some_and(|seen| seen.version != version) {
            reader.end()?;
        }
        let OpenReader { conn, seen } = reader;
        let seen = match seen {
            Some(seen) => seen,
            none => {
                conn.execute_batch("BEGIN")?;
                none.insert(Seen { version, runs: RunList::load_with(conn, &self.runs.list())? })
            }
        };
        find(conn, &seen.runs, blocks, key)
    }

    /// Ends the open transaction.
    pub(super) fn rest(&self) -> Result<(), StorageError> {
        self.open().as_mut().map_or(Ok(()), OpenReader::end)
    }

    fn open(&self) -> MutexGuard<'_, Option<OpenReader>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OpenReader {
    fn end(&mut self) -> Result<(), StorageError> {
        self.seen = None;
        if !self.conn.is_autocommit() {
            self.conn.execute_batch("ROLLBACK")?;
        }
        Ok(())
    }
}
