//! Reading connections: a bounded pool, and the view of one consistent state.

use std::{
    collections::BTreeSet,
    sync::{Arc, Condvar, Mutex, PoisonError},
    time::{Duration, Instant},
};

use kairos_sync_protocol::{BucketName, Checksum};
use rusqlite::{Connection, OptionalExtension};

use super::{
    super::{BucketTotals, Checkpoint, LookupKey, LookupValue, StorageError, StoreView},
    BucketId, codec,
    head::{number, op_id},
    schema::StoreFolder,
    tail::TailTotals,
};

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

/// A read transaction with the tail's totals of the same version.
pub(super) struct SqliteView<'a> {
    pub(super) reader: PooledReader<'a>,
    pub(super) checkpoint: Option<Checkpoint>,
    pub(super) tail_totals: Arc<TailTotals>,
}

impl StoreView for SqliteView<'_> {
    fn checkpoint(&self) -> Option<Checkpoint> {
        self.checkpoint
    }

    fn lookup(&self, key: &LookupKey) -> Result<Vec<LookupValue>, StorageError> {
        if self.checkpoint.is_none() {
            return Ok(Vec::new());
        }
        let mut values = BTreeSet::new();
        let mut statement = self.reader.conn().prepare_cached("SELECT value_list FROM lookup WHERE key = ?1")?;
        let mut rows = statement.query([&*key.0])?;
        while let Some(row) = rows.next()? {
            values.extend(codec::decode_values(row.get_ref(0)?.as_blob().map_err(rusqlite::Error::from)?)?);
        }
        Ok(values.into_iter().collect())
    }

    fn bucket(&self, name: &BucketName) -> Result<BucketTotals, StorageError> {
        if self.checkpoint.is_none() {
            return Ok(BucketTotals::default());
        }
        let Some((id, mut totals)) = folded_totals(self.reader.conn(), name)? else {
            return Ok(BucketTotals::default());
        };
        if let Some(tail) = self.tail_totals.get(&id) {
            totals.count += tail.count;
            totals.checksum += tail.checksum;
            totals.last_op_id = tail.last_op_id;
        }
        Ok(totals)
    }
}

fn folded_totals(conn: &Connection, name: &BucketName) -> Result<Option<(BucketId, BucketTotals)>, StorageError> {
    let sql = "SELECT id, operation_count, checksum, last_op_id FROM bucket WHERE name = ?1";
    let mut statement = conn.prepare_cached(sql)?;
    let read = |row: &rusqlite::Row| -> Result<_, StorageError> {
        let totals = BucketTotals {
            count: number(row, 1)?,
            checksum: Checksum::from_bits(row.get(2)?),
            last_op_id: op_id(row.get(3)?)?,
        };
        Ok((BucketId::from_column(row.get(0)?)?, totals))
    };
    statement.query_row([name.as_str()], |row| Ok(read(row))).optional()?.transpose()
}

/// Repeats `attempt` until it gives something: for states that differ for an instant only.
pub(super) fn until_some<T>(mut attempt: impl FnMut() -> Result<Option<T>, StorageError>) -> Result<T, StorageError> {
    let deadline = Instant::now() + WAIT_MAX;
    loop {
        if let Some(value) = attempt()? {
            return Ok(value);
        }
        if Instant::now() > deadline {
            return Err(StorageError::Engine(format!("no consistent state could be read in {WAIT_MAX:?}")));
        }
        std::thread::yield_now();
    }
}
