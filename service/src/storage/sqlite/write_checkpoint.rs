//! Write checkpoints. Those asked for at the same time share one synced transaction.

use std::sync::{Arc, Mutex, PoisonError};

use kairos_sync_protocol::WriteCheckpointId;
use rusqlite::{Connection, OptionalExtension};

use super::{
    super::{StorageError, WriteCheckpoint, WriteCheckpointKey},
    Inner,
    head::number,
    sum::Sum,
    writer::{Durability, Writer},
};
use crate::{fault_point::fault_point, lsn::Lsn};

/// Requests that wait for the writer.
#[derive(Debug, Default)]
pub(super) struct WriteCheckpointQueue(Mutex<Vec<Arc<Request>>>);

#[derive(Debug)]
struct Request {
    wanted: Vec<(WriteCheckpointKey, Option<WriteCheckpointId>)>,
    head: Lsn,
    /// Set by whoever commits the group.
    result: Mutex<Option<Stored>>,
}

type Stored = Result<Vec<WriteCheckpoint>, StorageError>;

impl Inner {
    pub(super) fn put_write_checkpoints(
        &self,
        wanted: &[(WriteCheckpointKey, Option<WriteCheckpointId>)],
        head: Lsn,
    ) -> Result<Vec<WriteCheckpoint>, StorageError> {
        let request = Arc::new(Request { wanted: wanted.to_vec(), head, result: Mutex::default() });
        self.write_checkpoints.queue().push(Arc::clone(&request));
        // Whoever gets the writer first commits all that wait; the others find their result when their turn comes.
        let mut writer = self.writer();
        if request.result().is_none() {
            let group = std::mem::take(&mut *self.write_checkpoints.queue());
            commit_group(&mut writer, &group);
        }
        let forgotten = || Err(StorageError::Engine("a write checkpoint was forgotten".to_owned()));
        request.result().take().unwrap_or_else(forgotten)
    }

    pub(super) fn release_write_checkpoints(&self) -> Result<(), StorageError> {
        self.writer().transaction(Durability::Synced, |change| {
            let mut keys = change.tx.prepare("SELECT key FROM write_checkpoint WHERE lsn != 0")?;
            let keys: Vec<String> = keys.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
            keys.into_iter().map(WriteCheckpointKey).try_for_each(|key| {
                let released = find(change.tx, &key)?.map(|stored| WriteCheckpoint { lsn: Lsn::ZERO, ..stored });
                released.map_or(Ok(()), |released| store(change.tx, &key, released))
            })
        })
    }
}

impl WriteCheckpointQueue {
    fn queue(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Request>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Request {
    fn result(&self) -> std::sync::MutexGuard<'_, Option<Stored>> {
        self.result.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn commit_group(writer: &mut Writer, group: &[Arc<Request>]) {
    let stored = writer.transaction(Durability::Synced, |change| {
        let put = |request: &Arc<Request>| {
            let put = |(key, requested): &(_, _)| put(change.tx, key, request.head, *requested);
            request.wanted.iter().map(put).collect::<Result<Vec<_>, _>>()
        };
        group.iter().map(put).collect::<Result<Vec<_>, _>>()
    });
    fault_point("store.write-checkpoints-stored");
    match stored {
        Ok(stored) => group.iter().zip(stored).for_each(|(request, stored)| *request.result() = Some(Ok(stored))),
        Err(error) => group.iter().for_each(|request| *request.result() = Some(Err(error.clone()))),
    }
}

/// Records a write checkpoint of a key, and returns what is recorded then.
pub(super) fn put(
    conn: &Connection,
    key: &WriteCheckpointKey,
    head: Lsn,
    requested: Option<WriteCheckpointId>,
) -> Result<WriteCheckpoint, StorageError> {
    let stored = WriteCheckpoint::after(find(conn, key)?, head, requested);
    store(conn, key, stored)?;
    Ok(stored)
}

pub(super) fn store(conn: &Connection, key: &WriteCheckpointKey, stored: WriteCheckpoint) -> Result<(), StorageError> {
    let (id, lsn) = (stored.id.get(), stored.lsn.get());
    let sum = record_sum(&key.0, id, lsn).finish();
    let sql = "REPLACE INTO write_checkpoint (key, id, lsn, sum) VALUES (?1, ?2, ?3, ?4)";
    conn.prepare_cached(sql)?.execute((&key.0, id.cast_signed(), lsn.cast_signed(), sum))?;
    Ok(())
}

/// Over a record of the table.
pub(super) fn record_sum(key: &str, id: u64, lsn: u64) -> Sum {
    Sum::of("write_checkpoint").text(key).number(id).number(lsn)
}

/// The newest write checkpoint of a key.
pub(super) fn find(conn: &Connection, key: &WriteCheckpointKey) -> Result<Option<WriteCheckpoint>, StorageError> {
    let sql = "SELECT key, id, lsn, sum FROM write_checkpoint WHERE key = ?1";
    conn.prepare_cached(sql)?.query_row([&key.0], |row| Ok(read(row))).optional()?.transpose()
}

/// A record from all its columns.
pub(super) fn read(row: &rusqlite::Row) -> Result<WriteCheckpoint, StorageError> {
    let (key, id, lsn): (String, _, _) = (row.get(0)?, number(row, 1)?, row.get::<_, i64>(2)?.cast_unsigned());
    record_sum(&key, id, lsn).check(row.get(3)?, "a write checkpoint")?;
    let damaged = |_| StorageError::Damaged { what: "a write checkpoint has no valid id".to_owned() };
    Ok(WriteCheckpoint { id: WriteCheckpointId::new(id).map_err(damaged)?, lsn: Lsn::new(lsn) })
}
