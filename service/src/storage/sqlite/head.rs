//! The one row of facts about the store.

use kairos_sync_protocol::OpId;
use rusqlite::{Connection, Row};

use super::{
    super::{Checkpoint, DeploymentNumber, StorageError, StoreStats},
    runs::{BlockId, RunId},
    schema::StoreFolder,
    sum::Sum,
};
use crate::lsn::Lsn;

/// State of the store that every commit changes.
#[derive(Debug, Clone, Default)]
pub(super) struct Head {
    pub(super) creation_id: String,
    pub(super) generation: u64,
    /// Grows with every change that a view can see.
    pub(super) version: u64,
    pub(super) last_op_id: OpId,
    pub(super) last_bucket_id: u64,
    pub(super) last_run_id: u64,
    pub(super) last_row_block_id: u64,
    pub(super) bucket_count: u64,
    pub(super) operation_count: u64,
    pub(super) row_count: u64,
    /// Entries of the index of lookups, and of the join index.
    pub(super) lookup_count: u64,
    pub(super) dependent_count: u64,
    /// Where the newest block of the tail begins, whether or not it is still there.
    pub(super) tail_op_id: OpId,
    /// Blocks of the tail with operations up to this one may be gone.
    pub(super) folded_op_id: OpId,
    /// The same of rows, whose blocks have versions.
    pub(super) row_tail_version: u64,
    pub(super) folded_version: u64,
    pub(super) replication_sum: RecordSum,
    pub(super) rules_sum: RecordSum,
    pub(super) checkpoint: Option<Checkpoint>,
    /// The deployment clients are served by.
    pub(super) serving: DeploymentNumber,
}

/// What the head says of another record: that it is there, and its sum.
pub(super) type RecordSum = Option<u32>;

impl Head {
    const COLUMNS: &str = "creation_id, generation, version, last_op_id, last_bucket_id, bucket_count, operation_count, \
        row_count, lookup_count, dependent_count, serving, tail_op_id, folded_op_id, row_tail_version, folded_version, \
        visible_op_id, visible_lsn, replication_sum, rules_sum, last_run_id, last_row_block_id, sum";

    pub(super) fn read(conn: &Connection) -> Result<Self, StorageError> {
        let sql = format!("SELECT {} FROM head", Self::COLUMNS);
        conn.prepare_cached(&sql)?.query_row([], |row| {
            Ok(Self::from_row(row).and_then(|head| head.sum().check(row.get(21)?, "the head").map(|()| head)))
        })?
    }

    /// As format 6 wrote it, once it has its new columns: their numbers are not in its sum.
    pub(super) fn read_without_runs(conn: &Connection) -> Result<Self, StorageError> {
        let sql = format!("SELECT {} FROM head", Self::COLUMNS);
        conn.prepare(&sql)?.query_row([], |row| {
            let checked = |head: Self| head.sum_of(18).check(row.get(21)?, "the head").map(|()| head);
            Ok(Self::from_row(row).and_then(checked))
        })?
    }

    fn from_row(row: &Row) -> Result<Self, StorageError> {
        let checkpoint = match (row.get::<_, Option<i64>>(15)?, row.get::<_, Option<i64>>(16)?) {
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
            lookup_count: number(row, 8)?,
            dependent_count: number(row, 9)?,
            serving: DeploymentNumber(number(row, 10)?),
            tail_op_id: op_id(row.get(11)?)?,
            folded_op_id: op_id(row.get(12)?)?,
            row_tail_version: number(row, 13)?,
            folded_version: number(row, 14)?,
            checkpoint,
            replication_sum: row.get(17)?,
            rules_sum: row.get(18)?,
            last_run_id: number(row, 19)?,
            last_row_block_id: number(row, 20)?,
        })
    }

    /// All but the first of [`Self::COLUMNS`], which never changes, and the sum.
    fn numbers(&self) -> [Option<i64>; 20] {
        let number = |number: u64| Some(number.cast_signed());
        let op_id = |id: OpId| Some(id.get().cast_signed());
        [
            number(self.generation),
            number(self.version),
            op_id(self.last_op_id),
            number(self.last_bucket_id),
            number(self.bucket_count),
            number(self.operation_count),
            number(self.row_count),
            number(self.lookup_count),
            number(self.dependent_count),
            number(self.serving.0),
            op_id(self.tail_op_id),
            op_id(self.folded_op_id),
            number(self.row_tail_version),
            number(self.folded_version),
            self.checkpoint.and_then(|checkpoint| op_id(checkpoint.op_id)),
            self.checkpoint.map(|checkpoint| checkpoint.lsn.get().cast_signed()),
            self.replication_sum.map(i64::from),
            self.rules_sum.map(i64::from),
            number(self.last_run_id),
            number(self.last_row_block_id),
        ]
    }

    fn sum(&self) -> Sum {
        self.sum_of(usize::MAX)
    }

    /// Over the first of its numbers.
    pub(super) fn sum_of(&self, count: usize) -> Sum {
        let sum = Sum::of("head").text(&self.creation_id);
        let add = |sum: Sum, number: Option<i64>| {
            sum.number(number.is_some().into()).number(number.unwrap_or_default().cast_unsigned())
        };
        self.numbers().into_iter().take(count).fold(sum, add)
    }

    pub(super) fn write(&self, conn: &Connection) -> Result<(), StorageError> {
        let sql = "UPDATE head SET generation = ?1, version = ?2, last_op_id = ?3, last_bucket_id = ?4, \
                   bucket_count = ?5, operation_count = ?6, row_count = ?7, lookup_count = ?8, dependent_count = ?9, \
                   serving = ?10, tail_op_id = ?11, folded_op_id = ?12, row_tail_version = ?13, folded_version = ?14, \
                   visible_op_id = ?15, visible_lsn = ?16, replication_sum = ?17, rules_sum = ?18, last_run_id = ?19, \
                   last_row_block_id = ?20, sum = ?21";
        let values = self.numbers().into_iter().chain([Some(self.sum().finish().into())]);
        conn.prepare_cached(sql)?.execute(rusqlite::params_from_iter(values))?;
        Ok(())
    }

    /// That of a store that begins anew. Numbers that are given once go on.
    pub(super) fn of_next_generation(&self) -> Self {
        let Self { generation, version, last_op_id, last_bucket_id, last_run_id, last_row_block_id, .. } = *self;
        Self {
            creation_id: self.creation_id.clone(),
            generation: generation + 1,
            version: version + 1,
            last_op_id,
            last_bucket_id,
            last_run_id,
            last_row_block_id,
            ..Self::default()
        }
    }

    /// A number for a new run of rows.
    pub(super) fn next_run_id(&mut self) -> RunId {
        self.last_run_id += 1;
        RunId(self.last_run_id)
    }

    /// A number for a new block of rows.
    pub(super) fn next_row_block_id(&mut self) -> BlockId {
        self.last_row_block_id += 1;
        BlockId(self.last_row_block_id)
    }

    /// What it says of the size of the store.
    pub(super) fn stats(&self, folder: &StoreFolder) -> StoreStats {
        let Self { bucket_count, operation_count, row_count, .. } = *self;
        let (size_bytes, free_bytes) = (folder.size_bytes(), folder.free_bytes());
        StoreStats { bucket_count, operation_count, row_count, size_bytes, free_bytes, ..StoreStats::default() }
    }

    /// Writes it where there is none.
    pub(super) fn insert(&self, conn: &Connection) -> Result<(), StorageError> {
        let sql = "INSERT INTO head (id, creation_id, generation, version, last_op_id, last_bucket_id, bucket_count, \
                   operation_count, row_count, lookup_count, dependent_count, serving, tail_op_id, folded_op_id, \
                   row_tail_version, folded_version, last_run_id, last_row_block_id, sum) VALUES (1, ?1, 0, 0, 0, 0, 0, \
                   0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)";
        conn.execute(sql, [&self.creation_id])?;
        self.write(conn)
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
