//! SQLite's write-ahead log, which is brought into the database file beside the writes: by itself SQLite has the write
//! do it that finds the log long, and whoever comes next waits for that.

use std::{
    ffi::c_int,
    path::Path,
    sync::{
        Arc, Mutex, TryLockError,
        atomic::{AtomicI32, Ordering},
    },
};

use rusqlite::{Connection, OpenFlags, hooks::Wal};

use super::{StoreError, prepare};

/// Pages of a log that is long; as many as SQLite would let it have.
const PAGES_MAX: c_int = 1_000;

#[derive(Debug)]
pub(super) struct Log {
    /// Pages in it after the last commit.
    pages: Arc<AtomicI32>,
    connection: Mutex<Connection>,
}

impl Log {
    /// The log of a database with one connection that writes.
    pub(super) fn of(writer: &mut Connection, path: &Path) -> Result<Self, StoreError> {
        let pages = Arc::new(AtomicI32::new(0));
        let counted = Arc::clone(&pages);
        writer.wal_hook(Some(move |_: &mut Wal, pages: c_int| {
            counted.store(pages, Ordering::Relaxed);
            Ok(())
        }))?;
        let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        prepare(&connection)?;
        Ok(Self { pages, connection: Mutex::new(connection) })
    }

    pub(super) fn is_long(&self) -> bool {
        self.pages.load(Ordering::Relaxed) >= PAGES_MAX
    }

    /// Brings it into the file, unless that is under way already. What is written meanwhile, or is read as it was before,
    /// stays for the next time.
    pub(super) fn shorten(&self) {
        let connection = match self.connection.try_lock() {
            Ok(connection) => connection,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        self.pages.store(0, Ordering::Relaxed); // the next commit counts what is left
        if let Err(error) = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())) {
            // Nothing is lost: the log is as good as the file.
            tracing::warn!(%error, "SQLite's log stays long for now");
        }
    }
}
