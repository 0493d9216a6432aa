//! Write checkpoints. Those asked for at the same time share one synced transaction.

use std::sync::{Arc, Mutex, PoisonError};

use kairos_sync_protocol::WriteCheckpointId;
use rusqlite::{Connection, OptionalExtension};

use super::{
    super::{StorageError, WriteCheckpoint, WriteCheckpointKey},
    Inner,
    head::number,
    writer::{Durability, Writer},
};
use crate::lsn::Lsn;

/// Requests that wait for the writer.
#[derive(Debug, Default)]
pub(super) struct WriteCheckpointQueue(Mutex<Vec<Arc<Request>>>);

#[derive(Debug)]
struct Request {
    key: WriteCheckpointKey,
    head: Lsn,
    requested: Option<WriteCheckpointId>,
    /// Set by whoever commits the group. The error is its text, since each of the group gets one.
    result: Mutex<Option<Result<WriteCheckpoint, String>>>,
}

impl Inner {
    pub(super) fn put_write_checkpoint(
        &self,
        key: &WriteCheckpointKey,
        head: Lsn,
        requested: Option<WriteCheckpointId>,
    ) -> Result<WriteCheckpoint, StorageError> {
        let request = Arc::new(Request { key: key.clone(), head, requested, result: Mutex::default() });
        self.write_checkpoints.queue().push(Arc::clone(&request));
        // Whoever gets the writer first commits all that wait; the others find their result when their turn comes.
        let mut writer = self.writer();
        if request.result().is_none() {
            let group = std::mem::take(&mut *self.write_checkpoints.queue());
            commit_group(&mut writer, &group);
        }
        let result = request.result().take().unwrap_or_else(|| Err("a write checkpoint was forgotten".to_owned()));
        result.map_err(StorageError::Engine)
    }

    pub(super) fn release_write_checkpoints(&self) -> Result<(), StorageError> {
        self.writer().transaction(Durability::Synced, |change| {
            change.tx.execute("UPDATE write_checkpoint SET lsn = 0", [])?;
            Ok(())
        })
    }
}

impl WriteCheckpointQueue {
    fn queue(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Request>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Request {
    fn result(&self) -> std::sync::MutexGuard<'_, Option<Result<WriteCheckpoint, String>>> {
        self.result.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn commit_group(writer: &mut Writer, group: &[Arc<Request>]) {
    let stored = writer.transaction(Durability::Synced, |change| {
        let put = |request: &Arc<Request>| put(change.tx, &request.key, request.head, request.requested);
        group.iter().map(put).collect::<Result<Vec<_>, _>>()
    });
    match stored {
        Ok(stored) => group.iter().zip(stored).for_each(|(request, stored)| *request.result() = Some(Ok(stored))),
        Err(error) => group.iter().for_each(|request| *request.result() = Some(Err(error.to_string()))),
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
    let sql = "INSERT INTO write_checkpoint (key, id, lsn) VALUES (?1, ?2, ?3) \
               ON CONFLICT DO UPDATE SET id = excluded.id, lsn = excluded.lsn";
    conn.prepare_cached(sql)?.execute((&key.0, stored.id.get().cast_signed(), stored.lsn.get().cast_signed()))?;
    Ok(stored)
}

/// The newest write checkpoint of a key.
pub(super) fn find(conn: &Connection, key: &WriteCheckpointKey) -> Result<Option<WriteCheckpoint>, StorageError> {
    let sql = "SELECT id, lsn FROM write_checkpoint WHERE key = ?1";
    let found =
        conn.prepare_cached(sql)?.query_row([&key.0], |row| Ok((number(row, 0), row.get::<_, i64>(1)?))).optional()?;
    let damaged = |_| StorageError::Damaged { what: "a write checkpoint has no valid id".to_owned() };
    found
        .map(|(id, lsn)| {
            let id = WriteCheckpointId::new(id?).map_err(damaged)?;
            Ok(WriteCheckpoint { id, lsn: Lsn::new(lsn.cast_unsigned()) })
        })
        .transpose()
}
