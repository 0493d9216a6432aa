//! The database file: its format, who may open it, and how each connection is set up.

use std::{
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::{Connection, OpenFlags, config::DbConfig};

use super::{
    super::{StorageError, generation},
    head::Head,
    upgrade::{FORMAT_MIN, upgrade},
};

const FILE_NAME: &str = "buckets.sqlite3";
const LOCK_NAME: &str = "lock";
/// Says that the file is ours: `KAIR` in ASCII.
pub(super) const APPLICATION_ID: u32 = 0x4B41_4952;
/// Raised with every change of the tables below or of the records in them.
pub(super) const FORMAT: u32 = 7;
/// Only checkpoints of the log compete for SQLite's locks, and they are short.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// One row of facts about the store, which outlives a reset.
pub(super) const HEAD: &str = "
    CREATE TABLE head (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        creation_id TEXT NOT NULL,
        generation INTEGER NOT NULL,
        -- Grows with every change that a view can see; ties the tail in memory to a state of the file.
        version INTEGER NOT NULL,
        last_op_id INTEGER NOT NULL,
        -- Never reused, not even by later generations.
        last_bucket_id INTEGER NOT NULL,
        -- The same of runs, and of blocks of rows.
        last_run_id INTEGER NOT NULL DEFAULT 0,
        last_row_block_id INTEGER NOT NULL DEFAULT 0,
        bucket_count INTEGER NOT NULL,
        operation_count INTEGER NOT NULL,
        row_count INTEGER NOT NULL,
        lookup_count INTEGER NOT NULL,
        dependent_count INTEGER NOT NULL,
        -- Number of the deployment of rules that clients are served by.
        serving INTEGER NOT NULL,
        -- The newest blocks of the tails, and those up to which others may be gone.
        tail_op_id INTEGER NOT NULL,
        folded_op_id INTEGER NOT NULL,
        row_tail_version INTEGER NOT NULL,
        folded_version INTEGER NOT NULL,
        visible_op_id INTEGER,
        visible_lsn INTEGER,
        -- Sums over what the tables replication and rules have; null where they have nothing.
        replication_sum INTEGER,
        rules_sum INTEGER,
        -- Over this record. Others have one as well.
        sum INTEGER NOT NULL
    );
    CREATE TABLE write_checkpoint (
        key TEXT PRIMARY KEY,
        id INTEGER NOT NULL,
        lsn INTEGER NOT NULL,
        sum INTEGER NOT NULL
    ) WITHOUT ROWID;";

/// What a reset forgets.
pub(super) const GENERATION: &str = "
    CREATE TABLE replication (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        state BLOB NOT NULL
    );
    CREATE TABLE rules (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        state BLOB NOT NULL
    );
    -- Totals count what is in chunks; what is still in the tail comes on top.
    CREATE TABLE bucket (
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        operation_count INTEGER NOT NULL,
        checksum INTEGER NOT NULL,
        last_op_id INTEGER NOT NULL,
        -- With so many operations compaction pays.
        due_count INTEGER NOT NULL,
        -- 1: it was emptied because it was damaged, and does not have all its operations again.
        mending INTEGER NOT NULL,
        sum INTEGER NOT NULL
    );
    -- Numbers of buckets that are no more, while they have chunks.
    CREATE TABLE forgotten_bucket (
        id INTEGER PRIMARY KEY
    );
    CREATE INDEX bucket_due ON bucket (id) WHERE operation_count >= due_count;
    CREATE INDEX bucket_mending ON bucket (id) WHERE mending = 1;
    -- New operations of all buckets in the order of their ids.
    CREATE TABLE tail (
        first_op_id INTEGER PRIMARY KEY,
        block BLOB NOT NULL
    );
    -- Older operations, by bucket.
    CREATE TABLE chunk (
        id INTEGER PRIMARY KEY,
        bucket_id INTEGER NOT NULL,
        first_op_id INTEGER NOT NULL,
        last_op_id INTEGER NOT NULL,
        operation_count INTEGER NOT NULL,
        checksum INTEGER NOT NULL,
        json_bytes INTEGER NOT NULL,
        block BLOB NOT NULL
    );
    CREATE UNIQUE INDEX chunk_position ON chunk (bucket_id, last_op_id);
    -- States of rows in the order of commits, which are newer than those in runs.
    CREATE TABLE row_tail (
        version INTEGER PRIMARY KEY,
        block BLOB NOT NULL
    );
    CREATE TABLE lookup (
        key TEXT NOT NULL,
        table_id INTEGER NOT NULL,
        identity BLOB NOT NULL,
        value_list BLOB NOT NULL,
        sum INTEGER NOT NULL,
        PRIMARY KEY (key, table_id, identity)
    ) WITHOUT ROWID;
    CREATE TABLE dependent (
        key TEXT NOT NULL,
        table_id INTEGER NOT NULL,
        identity BLOB NOT NULL,
        sum INTEGER NOT NULL,
        PRIMARY KEY (key, table_id, identity)
    ) WITHOUT ROWID;";

/// Rows, which a reset forgets as well: sorted runs of states that are older than those in `row_tail`.
pub(super) const RUNS: &str = "
    CREATE TABLE row_run (
        id INTEGER PRIMARY KEY,
        position INTEGER NOT NULL,
        entry_count INTEGER NOT NULL,
        block_count INTEGER NOT NULL,
        byte_count INTEGER NOT NULL,
        merged_into INTEGER,
        first_table_id INTEGER,
        first_identity BLOB,
        last_table_id INTEGER,
        last_identity BLOB,
        sum INTEGER NOT NULL
    );
    -- Which keys a run may have. One that a merge is writing has none yet.
    CREATE TABLE row_filter (
        run_id INTEGER PRIMARY KEY,
        words BLOB NOT NULL,
        sum INTEGER NOT NULL
    );
    -- Blocks of runs by their last keys.
    CREATE TABLE row_place (
        run_id INTEGER NOT NULL,
        table_id INTEGER NOT NULL,
        identity BLOB NOT NULL,
        block_id INTEGER NOT NULL,
        entry_count INTEGER NOT NULL,
        byte_count INTEGER NOT NULL,
        sum INTEGER NOT NULL,
        PRIMARY KEY (run_id, table_id, identity)
    ) WITHOUT ROWID;
    CREATE TABLE row_block (
        id INTEGER PRIMARY KEY,
        block BLOB NOT NULL
    );";

const DROP_GENERATION: &str = "
    DROP TABLE replication; DROP TABLE rules; DROP TABLE bucket; DROP TABLE forgotten_bucket; DROP TABLE tail; DROP TABLE chunk;
    DROP TABLE row_tail; DROP TABLE row_run; DROP TABLE row_filter; DROP TABLE row_place; DROP TABLE row_block;
    DROP TABLE lookup; DROP TABLE dependent;";

/// The folder of a store, held by this process until dropped.
#[derive(Debug)]
pub(super) struct StoreFolder {
    file: PathBuf,
    _lock: File,
}

impl StoreFolder {
    /// Takes the folder of a store that is there.
    pub(super) fn lock_existing(folder: &Path) -> Result<Self, StorageError> {
        if !folder.join(FILE_NAME).exists() {
            return Err(StorageError::Missing { path: folder.display().to_string() });
        }
        Self::lock(folder)
    }

    /// Takes the folder, making it where it does not exist.
    pub(super) fn lock(folder: &Path) -> Result<Self, StorageError> {
        let failed = |error| StorageError::Engine(format!("open {}: {error}", folder.display()));
        fs::create_dir_all(folder).map_err(failed)?;
        let lock = File::create(folder.join(LOCK_NAME)).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { file: folder.join(FILE_NAME), _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(StorageError::Locked { path: folder.display().to_string() }),
            Err(TryLockError::Error(error)) => Err(failed(error)),
        }
    }

    /// Deletes the store, and what SQLite keeps beside it. The folder stays, with whatever else is in it.
    pub(super) fn delete(self) -> Result<(), StorageError> {
        // The file itself last: a store that is half deleted is still found.
        for end in ["-wal", "-shm", ""] {
            let mut file = self.file.clone().into_os_string();
            file.push(end);
            match fs::remove_file(&file) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(StorageError::Engine(format!("delete {}: {error}", file.display())));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// A connection that may write, to a file of our format.
    pub(super) fn writer(&self, cache_bytes: usize) -> Result<Connection, StorageError> {
        let conn = Connection::open(&self.file)?;
        set_up(&conn, cache_bytes)?;
        // Freed pages are given back in slices; must be chosen before the first table.
        conn.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
        self.check_format(&conn)?;
        conn.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
        conn.pragma_update(None, "synchronous", "FULL")?;
        // The log is checkpointed in the background, not by the commit that fills it.
        conn.pragma_update(None, "wal_autocheckpoint", 0)?;
        match format_of(&conn)? {
            (0, 0) => create(&conn)?,
            (APPLICATION_ID, format) if format < FORMAT => upgrade(&conn, format)?,
            _ => {}
        }
        Ok(conn)
    }

    /// A connection that only reads.
    pub(super) fn reader(&self, cache_bytes: usize) -> Result<Connection, StorageError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let conn = Connection::open_with_flags(&self.file, flags)?;
        set_up(&conn, cache_bytes)?;
        Ok(conn)
    }

    /// A connection that only reads, to a store that nobody has open. Writes nothing, unless it has to be upgraded first.
    pub(super) fn reader_of_closed(&self, cache_bytes: usize) -> Result<Connection, StorageError> {
        let conn = self.reader(cache_bytes)?;
        self.check_format(&conn)?;
        if format_of(&conn)? == (APPLICATION_ID, FORMAT) {
            return Ok(conn);
        }
        drop(self.writer(cache_bytes)?);
        Ok(conn)
    }

    /// Bytes on disk, with the log.
    pub(super) fn size_bytes(&self) -> u64 {
        let bytes = |file: &Path| fs::metadata(file).map_or(0, |file| file.len());
        bytes(&self.file) + bytes(&self.log_file())
    }

    /// Bytes that are free where it is, where the system tells.
    pub(super) fn free_bytes(&self) -> Option<u64> {
        let status = rustix::fs::statvfs(self.file.parent()?).ok()?;
        Some(status.f_bavail.saturating_mul(status.f_frsize))
    }

    fn log_file(&self) -> PathBuf {
        let mut name = self.file.clone().into_os_string();
        name.push("-wal");
        name.into()
    }

    /// Refuses files of others and of other releases; an empty file is welcome.
    fn check_format(&self, conn: &Connection) -> Result<(), StorageError> {
        let found = match format_of(conn)? {
            (APPLICATION_ID, FORMAT_MIN..=FORMAT) => return Ok(()),
            (0, 0) if table_count(conn)? == 0 => return Ok(()),
            (APPLICATION_ID, format) => format.to_string(),
            (application, _) => format!("of another program ({application:#x})"),
        };
        Err(StorageError::Format { path: self.file.display().to_string(), found, expected: FORMAT })
    }
}

/// Forgets all but the head, within the caller's transaction.
pub(super) fn recreate_generation(conn: &Connection) -> Result<(), StorageError> {
    conn.execute_batch(DROP_GENERATION)?;
    conn.execute_batch(GENERATION)?;
    Ok(conn.execute_batch(RUNS)?)
}

fn create(conn: &Connection) -> Result<(), StorageError> {
    let tx = conn.unchecked_transaction()?;
    tx.execute_batch(HEAD)?;
    tx.execute_batch(GENERATION)?;
    tx.execute_batch(RUNS)?;
    let head = Head { creation_id: generation::creation_id(), generation: 1, ..Head::default() };
    head.insert(&tx)?;
    tx.pragma_update(None, "application_id", APPLICATION_ID)?;
    tx.pragma_update(None, "user_version", FORMAT)?;
    Ok(tx.commit()?)
}

fn set_up(conn: &Connection, cache_bytes: usize) -> Result<(), StorageError> {
    conn.busy_timeout(BUSY_TIMEOUT)?;
    // Negative means KiB instead of pages.
    conn.pragma_update(None, "cache_size", -i64::try_from(cache_bytes / 1024).unwrap_or(i64::MAX))?;
    conn.pragma_update(None, "mmap_size", 0)?;
    // Rather an error than a wrong answer from a damaged page.
    conn.pragma_update(None, "cell_size_check", true)?;
    conn.pragma_update(None, "trusted_schema", false)?;
    // Otherwise a statement is prepared anew whenever a number that might change its plan is bound to it.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    Ok(())
}

fn format_of(conn: &Connection) -> Result<(u32, u32), StorageError> {
    let pragma = |name| conn.pragma_query_value(None, name, |row| row.get(0));
    Ok((pragma("application_id")?, pragma("user_version")?))
}

fn table_count(conn: &Connection) -> Result<u64, StorageError> {
    let count: i64 = conn.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    Ok(count.unsigned_abs())
}
