//! Reading connections: a bounded pool.

use std::{
    sync::{Condvar, Mutex, PoisonError},
    time::Duration,
};

use rusqlite::Connection;

use super::{super::StorageError, schema::StoreFolder};

/// Longest wait for a free connection. Views are short, so more than this is a fault.
const WAIT_MAX: Duration = Duration::from_secs(10);

/// Reading connections, opened as they are needed and kept.
pub(super) struct ReaderPool {
    free: Mutex<Free>,
    returned: Condvar,
    cache_bytes: usize,
}

struct Free {
    connections: Vec<Connection>,
    unopened: usize,
}

impl ReaderPool {
    /// At most `count` connections, each with its own page cache.
    pub(super) fn new(count: usize, cache_bytes: usize) -> Self {
        let free = Free { connections: Vec::new(), unopened: count.max(1) };
        Self { free: Mutex::new(free), returned: Condvar::new(), cache_bytes }
    }

    /// A connection of one's own, until dropped.
    pub(super) fn get(&self, folder: &StoreFolder) -> Result<PooledReader<'_>, StorageError> {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let nothing_free = |free: &mut Free| free.connections.is_empty() && free.unopened == 0;
        let (mut free, _) =
            self.returned.wait_timeout_while(free, WAIT_MAX, nothing_free).unwrap_or_else(PoisonError::into_inner);
        if let Some(conn) = free.connections.pop() {
            return Ok(PooledReader { pool: self, conn: Some(conn) });
        }
        if free.unopened == 0 {
            return Err(StorageError::Engine(format!("no reading connection became free in {WAIT_MAX:?}")));
        }
        free.unopened -= 1;
        drop(free);
        // Without a connection the guard gives the right to open one back.
        let mut reader = PooledReader { pool: self, conn: None };
        reader.conn = Some(folder.reader(self.cache_bytes)?);
        Ok(reader)
    }
}

/// A connection that goes back to its pool when dropped.
pub(super) struct PooledReader<'a> {
    pool: &'a ReaderPool,
    conn: Option<Connection>,
}

impl PooledReader<'_> {
    pub(super) fn conn(&self) -> &Connection {
        self.conn.as_ref().expect("only taken when dropped")
    }
}

impl Drop for PooledReader<'_> {
    fn drop(&mut self) {
        // A transaction left open would keep the log from shrinking, so a connection that cannot end it is closed.
        let clean = |conn: &Connection| conn.is_autocommit() || conn.execute_batch("ROLLBACK").is_ok();
        let conn = self.conn.take().filter(clean);
        let mut free = self.pool.free.lock().unwrap_or_else(PoisonError::into_inner);
        match conn {
            Some(conn) => free.connections.push(conn),
            None => free.unopened += 1,
        }
        self.pool.returned.notify_one();
    }
}
