//! The one row of facts about the store.

use kairos_sync_protocol::OpId;
use rusqlite::{Connection, Row};

use super::super::{Checkpoint, DeploymentNumber, StorageError};
use crate::lsn::Lsn;

/// State of the store that every commit changes.
#[derive(Debug, Clone)]
pub(super) struct Head {
    pub(super) creation_id: String,
    pub(super) generation: u64,
    /// Grows with every change that a view can see.
    pub(super) version: u64,
    pub(super) last_op_id: OpId,
    pub(super) last_bucket_id: u64,
    pub(super) bucket_count: u64,
    pub(super) operation_count: u64,
    pub(super) row_count: u64,
    pub(super) checkpoint: Option<Checkpoint>,
    /// The deployment clients are served by.
    pub(super) serving: DeploymentNumber,
}

impl Head {
    pub(super) fn read(conn: &Connection) -> Result<Self, StorageError> {
        let sql = "SELECT creation_id, generation, version, last_op_id, last_bucket_id, bucket_count, operation_count, \
                   row_count, visible_op_id, visible_lsn, serving FROM head";
        conn.prepare_cached(sql)?.query_row([], |row| Ok(Self::from_row(row)))?
    }

    fn from_row(row: &Row) -> Result<Self, StorageError> {
        let checkpoint = match (row.get::<_, Option<i64>>(8)?, row.get::<_, Option<i64>>(9)?) {
            (Some(id), Some(lsn)) => Some(Checkpoint { op_id: op_id(id)?, lsn: Lsn::new(lsn.cast_unsigned()) }),
            _ => None,
        };
        Ok(Self {
            creation_id: row.get(0)?,
            generation: number(row, 1)?,
            version: number(row, 2)?,
            last_op_id: op_id(row.get(3)?)?,
            last_bucket_id: number(row, 4)?,
            bucket_count: number(row, 5)?,
            operation_count: number(row, 6)?,
            row_count: number(row, 7)?,
            checkpoint,
            serving: DeploymentNumber(number(row, 10)?),
        })
    }

    pub(super) fn write(&self, conn: &Connection) -> Result<(), StorageError> {
        let sql = "UPDATE head SET generation = ?1, version = ?2, last_op_id = ?3, last_bucket_id = ?4, \
                   bucket_count = ?5, operation_count = ?6, row_count = ?7, visible_op_id = ?8, visible_lsn = ?9, \
                   serving = ?10";
        conn.prepare_cached(sql)?.execute((
            self.generation.cast_signed(),
            self.version.cast_signed(),
            self.last_op_id.get().cast_signed(),
            self.last_bucket_id.cast_signed(),
            self.bucket_count.cast_signed(),
            self.operation_count.cast_signed(),
            self.row_count.cast_signed(),
            self.checkpoint.map(|checkpoint| checkpoint.op_id.get().cast_signed()),
            self.checkpoint.map(|checkpoint| checkpoint.lsn.get().cast_signed()),
            self.serving.0.cast_signed(),
        ))?;
        Ok(())
    }
}

/// An op id as SQLite holds it.
pub(super) fn op_id(id: i64) -> Result<OpId, StorageError> {
    let damaged = || StorageError::Damaged { what: "an op id is negative".to_owned() };
    OpId::new(u64::try_from(id).map_err(|_| damaged())?).map_err(|_| damaged())
}

/// A column that is never negative.
pub(super) fn number(row: &Row, column: usize) -> Result<u64, StorageError> {
    u64::try_from(row.get::<_, i64>(column)?)
        .map_err(|_| StorageError::Damaged { what: "a count is negative".to_owned() })
}
