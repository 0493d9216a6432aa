//! SQLite's write-ahead log, which is brought into the database file beside the writes: by itself SQLite has the write
//! do it that finds the log long, and whoever comes next waits for that.
//!
//! SQLite begins the log anew only where all of it is in the file when somebody writes. One write after the other can
//! keep that from happening, so a log that has become much longer is brought in while nobody else may write.

use std::{
    ffi::c_int,
    path::Path,
    sync::{
        Arc, Mutex, TryLockError,
        atomic::{AtomicI32, Ordering},
    },
};

use rusqlite::{Connection, OpenFlags, hooks::Wal};

use super::{StoreError, lock, prepare};

/// Pages of a log that is long; as many as SQLite would let it have.
const PAGES_MAX: c_int = 1_000;

/// Pages of a log that is too long.
const PAGES_LIMIT: c_int = 4 * PAGES_MAX;

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

    /// One writes faster than it is brought into the file.
    pub(super) fn is_too_long(&self) -> bool {
        self.pages.load(Ordering::Relaxed) >= PAGES_LIMIT
    }

    /// Brings all of it into the file that no reader needs, for somebody who holds the connection that writes.
    pub(super) fn empty(&self) {
        self.bring_in(&lock(&self.connection));
    }

    /// Brings it into the file, unless that is under way already. What is written meanwhile, or is read as it was before,
    /// stays for the next time.
    pub(super) fn shorten(&self) {
        match self.connection.try_lock() {
            Ok(connection) => self.bring_in(&connection),
            Err(TryLockError::Poisoned(poisoned)) => self.bring_in(&poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => {}
        }
    }

    fn bring_in(&self, connection: &Connection) {
        self.pages.store(0, Ordering::Relaxed); // the next commit counts what is left
        if let Err(error) = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())) {
            // Nothing is lost: the log is as good as the file.
            tracing::warn!(%error, "SQLite's log stays long for now");
        }
    }
}
