//! Stores of former formats, brought to the present one when they are opened: in one transaction, so that an end amid it
//! leaves the store as it was. Meanwhile the file and its log together take up to twice the room.

use rusqlite::Connection;

use super::{
    super::{CompactionOptions, StorageError},
    BucketId, block,
    chunk::{Links, NewChunks},
    head::op_id,
    schema::FORMAT,
};

/// The oldest format that is upgraded.
pub(super) const FORMAT_MIN: u32 = 2;

/// From format 2: rules in the store, buckets that are forgotten.
const TO_3: &str = "
    ALTER TABLE head ADD COLUMN serving INTEGER NOT NULL DEFAULT 0;
    CREATE TABLE rules (id INTEGER PRIMARY KEY CHECK (id = 1), state BLOB NOT NULL);
    CREATE TABLE forgotten_bucket (id INTEGER PRIMARY KEY);";

/// From format 3: when a bucket is to be compacted. Chunks have links.
const TO_4: &str = "
    ALTER TABLE bucket ADD COLUMN due_count INTEGER NOT NULL DEFAULT 0;
    CREATE INDEX bucket_due ON bucket (id) WHERE operation_count >= due_count;";

/// Brings a store of an earlier format to this one.
pub(super) fn upgrade(conn: &Connection, from: u32) -> Result<(), StorageError> {
    let tx = conn.unchecked_transaction()?;
    if from < 3 {
        tx.execute_batch(TO_3)?;
    }
    if from < 4 {
        tx.execute_batch(TO_4)?;
        tx.execute("UPDATE bucket SET due_count = ?1", [CompactionOptions::default().due_count(0).cast_signed()])?;
        link_chunks(&tx)?;
    }
    tx.pragma_update(None, "user_version", FORMAT)?;
    Ok(tx.commit()?)
}

/// Writes every chunk again, with links, a bucket after the other.
fn link_chunks(conn: &Connection) -> Result<(), StorageError> {
    let next = "SELECT id, bucket_id, block, last_op_id FROM chunk WHERE (bucket_id, last_op_id) > (?1, ?2) \
                ORDER BY bucket_id, last_op_id LIMIT 1";
    let mut next = conn.prepare(next)?;
    let mut delete = conn.prepare("DELETE FROM chunk WHERE id = ?1")?;
    let mut place = (0_i64, 0_i64);
    loop {
        let mut rows = next.query(place)?;
        let Some(row) = rows.next()? else { return Ok(()) };
        let bucket = BucketId::from_column(row.get(1)?)?;
        let is_first = row.get::<_, i64>(1)? != place.0;
        let previous = if is_first { op_id(0)? } else { op_id(place.1)? };
        let operations = block::decode(row.get_ref(2)?.as_blob().map_err(rusqlite::Error::from)?)?;
        let id: i64 = row.get(0)?;
        place = (row.get(1)?, row.get(3)?);
        drop(rows);
        delete.execute([id])?;
        let links = Links { previous, ..Links::default() };
        let operations = operations.into_iter().map(|(_, operation)| operation);
        let mut chunks = NewChunks::of(bucket, 0, links, operations)?;
        chunks.close()?;
        chunks.store(conn)?;
    }
}
