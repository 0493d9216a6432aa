//! What the file says of a bucket.

use kairos_sync_protocol::{BucketName, Checksum};
use rusqlite::{Connection, OptionalExtension};

use super::{
    super::{BucketTotals, StorageError},
    BucketId,
    head::{number, op_id},
    sum::Sum,
};

/// A record of table `bucket`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bucket {
    pub(super) id: BucketId,
    pub(super) name: BucketName,
    /// Of what is in chunks.
    pub(super) folded: BucketTotals,
    /// With so many operations in chunks compaction pays.
    pub(super) due_count: u64,
    /// It was emptied, and does not have all its operations again: nobody is to get it.
    pub(super) is_mending: bool,
}

impl Bucket {
    /// What [`Self::read`] reads.
    pub(super) const COLUMNS: &str = "id, name, operation_count, checksum, last_op_id, due_count, mending, sum";

    /// A bucket from a row of [`Self::COLUMNS`].
    pub(super) fn read(row: &rusqlite::Row) -> Result<Self, StorageError> {
        let bucket = Self {
            id: BucketId::from_column(row.get(0)?)?,
            name: BucketName::new(row.get::<_, String>(1)?),
            folded: BucketTotals {
                count: number(row, 2)?,
                checksum: Checksum::from_bits(row.get(3)?),
                last_op_id: op_id(row.get(4)?)?,
            },
            due_count: number(row, 5)?,
            is_mending: number(row, 6)? == 1,
        };
        bucket.sum().check(row.get(7)?, "a bucket")?;
        Ok(bucket)
    }

    fn sum(&self) -> Sum {
        let Self { id, name, folded: BucketTotals { count, checksum, last_op_id }, due_count, is_mending } = self;
        let sum = Sum::of("bucket").number(id.0).text(name.as_str());
        let sum = sum.number(*count).number(checksum.bits().into()).number(last_op_id.get()).number(*due_count);
        // Records of before format 5 stay as they are.
        if *is_mending { sum.number(1) } else { sum }
    }

    /// Itself, unless it is not to be served.
    pub(super) fn whole(self) -> Result<Self, StorageError> {
        let damaged = || StorageError::BucketDamaged { what: "its operations are being written again".to_owned() };
        (!self.is_mending).then_some(self).ok_or_else(damaged)
    }

    /// The bucket of this number.
    pub(super) fn load(conn: &Connection, id: BucketId) -> Result<Option<Self>, StorageError> {
        let sql = format!("SELECT {} FROM bucket WHERE id = ?1", Self::COLUMNS);
        conn.prepare_cached(&sql)?.query_row([id.column()], |row| Ok(Self::read(row))).optional()?.transpose()
    }

    /// The bucket of this name.
    pub(super) fn find(conn: &Connection, name: &BucketName) -> Result<Option<Self>, StorageError> {
        // One statement, which a reset or another change cannot come into.
        let sql = format!("SELECT {} FROM bucket WHERE name = ?1", Self::COLUMNS);
        let mut statement = conn.prepare_cached(&sql)?;
        let found = statement.query_row([name.as_str()], |row| Ok(Self::read(row))).optional()?.transpose()?;
        // Were the index damaged, it would be another one.
        if found.as_ref().is_some_and(|bucket| bucket.name != *name) {
            return Err(StorageError::Damaged { what: "a bucket is found under another name".to_owned() });
        }
        Ok(found)
    }

    /// Writes a new bucket.
    pub(super) fn insert(&self, conn: &Connection) -> Result<(), StorageError> {
        let sql = format!("INSERT INTO bucket ({}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)", Self::COLUMNS);
        self.write(conn, &sql)
    }

    /// Writes what has changed of a bucket that is there.
    pub(super) fn update(&self, conn: &Connection) -> Result<(), StorageError> {
        let sql = "UPDATE bucket SET name = ?2, operation_count = ?3, checksum = ?4, last_op_id = ?5, due_count = ?6, \
                   mending = ?7, sum = ?8 WHERE id = ?1";
        self.write(conn, sql)
    }

    fn write(&self, conn: &Connection, sql: &str) -> Result<(), StorageError> {
        let BucketTotals { count, checksum, last_op_id } = self.folded;
        conn.prepare_cached(sql)?.execute((
            self.id.column(),
            self.name.as_str(),
            count.cast_signed(),
            checksum.bits(),
            last_op_id.get().cast_signed(),
            self.due_count.cast_signed(),
            self.is_mending,
            self.sum().finish(),
        ))?;
        Ok(())
    }
}
