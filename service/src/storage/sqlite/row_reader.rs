//! Reading rows of table `row` for replication, which asks for many between two commits.
//!
//! Beginning a read takes SQLite several system calls, so one transaction stays open from row to row. It is renewed when
//! a fold has placed rows meanwhile, and ended by the next commit: an open one would keep the log from beginning again.

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use rusqlite::Connection;

use super::{super::StorageError, schema::StoreFolder};

/// The connection, and what its open transaction can see.
#[derive(Debug)]
pub(super) struct RowReader {
    cache_bytes: usize,
    /// Grows with every change of table `row`, after its commit and before memory forgets what it placed.
    version: AtomicU64,
    open: Mutex<Option<OpenReader>>,
}

#[derive(Debug)]
struct OpenReader {
    conn: Connection,
    /// Of the table as the open transaction sees it; `None` if none is open.
    version: Option<u64>,
}

impl RowReader {
    pub(super) fn new(cache_bytes: usize) -> Self {
        Self { cache_bytes, version: AtomicU64::new(0), open: Mutex::default() }
    }

    /// Table `row` has changed. To be called before memory forgets the rows that were placed: who misses one there
    /// then finds it in the table.
    pub(super) fn table_changed(&self) {
        self.version.fetch_add(1, Ordering::Release);
    }

    /// Reads the table as it is now, or as it was when the last rows were placed.
    pub(super) fn read<T>(
        &self,
        folder: &StoreFolder,
        read: impl FnOnce(&Connection) -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        let mut open = self.open();
        let reader = match &mut *open {
            Some(reader) => reader,
            none => none.insert(OpenReader { conn: folder.reader(self.cache_bytes)?, version: None }),
        };
        // Before the transaction begins, which then sees at least this version.
        let version = self.version.load(Ordering::Acquire);
        if reader.version != Some(version) {
            reader.end()?;
            reader.conn.execute_batch("BEGIN")?;
            reader.version = Some(version);
        }
        read(&reader.conn)
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
        self.version = None;
        if !self.conn.is_autocommit() {
            self.conn.execute_batch("ROLLBACK")?;
        }
        Ok(())
    }
}
