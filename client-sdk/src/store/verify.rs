//! Does what is stored still add up? A checksum tells what arrived; this tells what became of it on this disk.
//!
//! A bucket adds up to the checksums of its operations, of which those that were replaced are no longer stored. Their
//! sum is kept beside the bucket; those of the others are computed anew from table, id and data.

use kairos_sync_protocol::Checksum;
use rusqlite::Connection;

use super::{
    StoreError,
    inspect::{self, LocalBucket},
    oplog::{delete_buckets, unsigned},
    views,
};

/// What recomputing everything found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verification {
    /// All buckets, by name.
    pub buckets: Vec<BucketVerification>,
    /// All synced tables, by name.
    pub tables: Vec<TableVerification>,
}

impl Verification {
    /// Nothing differs.
    pub fn is_ok(&self) -> bool {
        self.buckets.iter().all(BucketVerification::is_ok) && self.tables.iter().all(|table| table.rows_differing == 0)
    }
}

/// A bucket, recomputed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BucketVerification {
    /// The bucket.
    pub bucket: LocalBucket,
    /// Operations of it that are stored: the latest of each row.
    pub stored: u64,
    /// What the service announced. Where operations of a later checkpoint have arrived, the sum of what it sent.
    pub expected: Checksum,
    /// What the stored operations add up to, computed from their content.
    pub recomputed: Checksum,
}

impl BucketVerification {
    /// It adds up.
    pub fn is_ok(&self) -> bool {
        self.expected == self.recomputed
    }
}

/// A table, compared with the operations that decide its rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableVerification {
    /// Its name.
    pub name: String,
    /// Rows that are missing, too many, or have another content. Rows that wait for their upload, or for the next
    /// checkpoint, are left out.
    pub rows_differing: u64,
}

/// Recomputes all buckets and compares all tables. Reads everything once; the memory it takes does not depend on how
/// much that is.
pub(crate) fn verify(connection: &Connection) -> Result<Verification, StoreError> {
    Ok(Verification { buckets: buckets(connection)?, tables: tables(connection)? })
}

/// Drops what does not verify, so that it is downloaded and published again.
pub(crate) fn repair(tx: &Connection) -> Result<Verification, StoreError> {
    let found = verify(tx)?;
    let damaged = found.buckets.iter().filter(|bucket| !bucket.is_ok()).map(|bucket| bucket.bucket.name.clone());
    delete_buckets(tx, &damaged.collect::<Vec<_>>())?;
    for table in found.tables.iter().filter(|table| table.rows_differing > 0) {
        let rows = differing_rows(&table.name);
        tx.execute(
            &format!("INSERT OR IGNORE INTO kairos_touched_row (row_type, row_id) SELECT ?1, id FROM ({rows})"),
            [&table.name],
        )?;
    }
    Ok(found)
}

fn buckets(connection: &Connection) -> Result<Vec<BucketVerification>, StoreError> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {}, id, checksum, retired_checksum FROM kairos_bucket ORDER BY name",
        inspect::BUCKET_COLUMNS
    ))?;
    let mut rows = statement.query([])?;
    let mut buckets = Vec::new();
    while let Some(row) = rows.next()? {
        let bucket = inspect::bucket(row)?;
        let sum = |column| row.get(column).map(Checksum::from_bits);
        let (received, retired) = (sum(7)?, sum(8)?);
        let (stored, content) = content(connection, row.get(6)?)?;
        let expected = bucket.announced.filter(|_| bucket.count_since == 0).unwrap_or(received);
        buckets.push(BucketVerification { bucket, stored, expected, recomputed: retired + content });
    }
    Ok(buckets)
}

/// The stored operations of a bucket: how many, and their sum.
fn content(connection: &Connection, bucket: i64) -> Result<(u64, Checksum), StoreError> {
    let mut statement =
        connection.prepare_cached("SELECT row_type, row_id, data FROM kairos_oplog WHERE bucket = ?1")?;
    let mut rows = statement.query([bucket])?;
    let (mut stored, mut sum) = (0, Checksum::ZERO);
    while let Some(row) = rows.next()? {
        // Whatever damage made of it, it is bytes.
        let text =
            |column| Ok::<_, StoreError>(String::from_utf8_lossy(row.get_ref(column)?.as_bytes().unwrap_or_default()));
        sum += Checksum::of_put(&text(0)?, &text(1)?, &text(2)?);
        stored += 1;
    }
    Ok((stored, sum))
}

fn tables(connection: &Connection) -> Result<Vec<TableVerification>, StoreError> {
    // What the app's own tables make of a row, only the app knows.
    let synced = "SELECT name FROM kairos_table WHERE NOT local_only AND NOT is_raw ORDER BY name";
    let names = views::names(connection, synced)?;
    let table = |name: String| {
        let count = format!("SELECT count(*) FROM ({})", differing_rows(&name));
        let rows_differing = connection.query_row(&count, [&name], |row| unsigned(row, 0))?;
        Ok(TableVerification { name, rows_differing })
    };
    names.into_iter().map(table).collect()
}

/// A query for the ids of rows of the table `?1` that are not what the latest operation says. What is not published yet
/// cannot be compared: rows with later operations, and those to be looked at with the next checkpoint.
fn differing_rows(table: &str) -> String {
    let data = views::data_table(table);
    format!(
        "SELECT id FROM (
            SELECT d.id, d.data FROM {data} d
            UNION ALL
            SELECT DISTINCT o.row_id, NULL FROM kairos_oplog o
            WHERE o.row_type = ?1 AND NOT EXISTS (SELECT 1 FROM {data} d WHERE d.id = o.row_id)
        ) AS shown
        WHERE data IS NOT (SELECT o.data FROM kairos_oplog o WHERE o.row_id = shown.id AND o.row_type = ?1
                           ORDER BY o.op_id DESC LIMIT 1)
          AND NOT EXISTS (SELECT 1 FROM kairos_touched_row t WHERE t.row_type = ?1 AND t.row_id = shown.id)
          AND NOT EXISTS (SELECT 1 FROM kairos_oplog o JOIN kairos_bucket b ON b.id = o.bucket
                          WHERE o.row_id = shown.id AND o.row_type = ?1 AND o.op_id > b.last_applied_op_id)"
    )
}
