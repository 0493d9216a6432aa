//! Reads what nobody asks for: chunks that have become damaged on the disk are found before a device needs them.
//!
//! A thread of its own, since it also examines the whole file where damage was found, which may take long; it never takes the
//! writer.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use kairos_sync_protocol::OpId;
use rusqlite::Connection;

use super::{
    super::StorageError,
    BucketId, Inner,
    chunk::{self, Links},
    head::op_id,
    runs::{check::load_checked, read::unpack_rows},
};
use crate::fault_point::fault_point;

/// Chunks read in one step, at most.
const STEP_CHUNKS: i64 = 16;
/// Between two passes over all.
const PASS_REST: Duration = Duration::from_hours(1);
/// Rest after a failure.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Where the scrub is: chunks come first, then blocks of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Position {
    Chunks(Place),
    /// After the block of this number.
    Rows(i64),
}

/// A chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    bucket: BucketId,
    last_op_id: OpId,
}

impl Place {
    const START: Self = Self { bucket: BucketId(0), last_op_id: OpId::ZERO };
}

impl Inner {
    /// Runs until the store is closed.
    pub(super) fn look_after(self: &Arc<Self>) {
        let (mut position, mut next) = (Position::Chunks(Place::START), Instant::now());
        let mut failing = false;
        let rest = |next: Instant| {
            let is_off = self.options.scrub_bytes_per_second == 0;
            if is_off { PASS_REST } else { next.saturating_duration_since(Instant::now()) }
        };
        while self.scrub_signal.wait_for_work(rest(next), || self.damages.has_noted()) {
            let done = if self.damages.has_noted() {
                self.examine()
            } else if rest(next).is_zero() {
                self.scrub_step(&mut position).map(|pause| next = Instant::now() + pause)
            } else {
                Ok(())
            };
            match done {
                Ok(()) => failing = false,
                Err(error) => {
                    if !failing && !self.scrub_signal.is_closing() {
                        tracing::warn!(code = error.code(), %error, "bucket store cannot be scrubbed; trying again");
                    }
                    failing = true;
                    self.scrub_signal.rest(RETRY_AFTER);
                }
            }
        }
    }

    /// Reads some chunks, or blocks of rows; how long to rest then.
    fn scrub_step(&self, position: &mut Position) -> Result<Duration, StorageError> {
        fault_point("store.scrubbing");
        let reader = self.reader()?;
        let bytes;
        match *position {
            Position::Chunks(place) => {
                let (read, last, damaged) = read_after(reader.conn(), place)?;
                drop(reader);
                for (bucket, error) in damaged {
                    self.noting(bucket, error);
                }
                (bytes, *position) = (read, last.map_or(Position::Rows(0), Position::Chunks));
            }
            Position::Rows(after) => {
                let (read, last, damaged) = read_rows_after(reader.conn(), after)?;
                let damaged = if last.is_some() { damaged } else { places_damage(reader.conn())? };
                drop(reader);
                damaged.map(|error| self.noting_rows(error));
                let Some(last) = last else {
                    *position = Position::Chunks(Place::START);
                    return Ok(PASS_REST);
                };
                (bytes, *position) = (read, Position::Rows(last));
            }
        }
        self.scrubbed_bytes.fetch_add(bytes, Ordering::Relaxed);
        Ok(Duration::from_millis(bytes.saturating_mul(1_000) / self.options.scrub_bytes_per_second.max(1)))
    }
}

/// Reads the chunks after a place: their bytes, where they end, if there were any, and the buckets of damaged ones. All of
/// one state of the file. Those of buckets that are forgotten or being mended are left out: they are being deleted.
#[expect(clippy::type_complexity, reason = "what one look gives")]
fn read_after(
    conn: &Connection,
    place: Place,
) -> Result<(u64, Option<Place>, Vec<(BucketId, StorageError)>), StorageError> {
    let columns = chunk::COLUMNS;
    let sql = format!(
        "SELECT {columns}, bucket_id FROM chunk WHERE (bucket_id, last_op_id) > (?1, ?2) \
         AND EXISTS (SELECT 1 FROM bucket WHERE bucket.id = bucket_id AND mending = 0) \
         ORDER BY bucket_id, last_op_id LIMIT {STEP_CHUNKS}"
    );
    let mut statement = conn.prepare_cached(&sql)?;
    let mut rows = statement.query((place.bucket.column(), place.last_op_id.get().cast_signed()))?;
    let (mut bytes, mut last, mut damaged) = (0, None, Vec::new());
    while let Some(row) = rows.next()? {
        let here = Place { bucket: BucketId::from_column(row.get("bucket_id")?)?, last_op_id: op_id(row.get(4)?)? };
        bytes += row.get_ref(0)?.as_blob().map_or(0, |block| block.len() as u64);
        let follows = |links: Links| match last {
            Some(Place { bucket, last_op_id }) if bucket == here.bucket => links.previous == last_op_id,
            // Where the place was taken chunks may be others by now.
            _ => here.bucket == place.bucket || links.previous == OpId::ZERO,
        };
        let read = chunk::read(row, here.bucket).and_then(|chunk| {
            let missing = || StorageError::Damaged { what: "a chunk is missing".to_owned() };
            follows(chunk.links).then_some(()).ok_or_else(missing)
        });
        damaged.extend(read.err().map(|error| (here.bucket, error)));
        last = Some(here);
    }
    Ok((bytes, last, damaged))
}

/// Reads the blocks of rows after one: their bytes, the last one's number, if there was any, and what is wrong with some.
/// Whether they are where they belong is seen when all are read.
fn read_rows_after(conn: &Connection, after: i64) -> Result<(u64, Option<i64>, Option<StorageError>), StorageError> {
    let sql = format!("SELECT id, block FROM row_block WHERE id > ?1 ORDER BY id LIMIT {STEP_CHUNKS}");
    let mut statement = conn.prepare_cached(&sql)?;
    let mut rows = statement.query([after])?;
    let (mut bytes, mut last, mut damaged) = (0, None, None);
    while let Some(row) = rows.next()? {
        let block = row.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?;
        bytes += block.len() as u64;
        damaged = damaged.or(unpack_rows(block).err());
        last = Some(row.get(0)?);
    }
    Ok((bytes, last, damaged))
}

/// What is wrong with records of runs, and with the places of their blocks: they are few, and read at once.
fn places_damage(conn: &Connection) -> Result<Option<StorageError>, StorageError> {
    // One state. The connection ends it when it goes back.
    conn.execute_batch("BEGIN")?;
    match load_checked(conn) {
        Err(error @ StorageError::RowsDamaged { .. }) => Ok(Some(error)),
        checked => checked.map(|_| None),
    }
}

#[cfg(test)]
mod tests {
    use kairos_sync_protocol::{BucketName, Checksum};

    use super::super::StraightLimits;
    use super::*;
    use crate::storage::{
        Batch, BucketStore, NewOperation, RowKey, RowOutput, SqliteOptions, SqliteStore, StoredRow, TableId,
    };

    fn operation(number: u32) -> NewOperation {
        let (bucket, object_id) = (BucketName::new("a[]"), number.to_string().into());
        let output = RowOutput { bucket, object_type: "items".into(), object_id };
        NewOperation { output, data: None, checksum: Checksum::from_bits(number), subkey: "s".into() }
    }

    #[test]
    fn it_rests_for_as_long_as_what_it_read_takes_at_its_rate() {
        let folder = tempfile::tempdir().unwrap();
        for rate in [500, 4_000] {
            let straight = StraightLimits { chunk_bytes: 0, ..StraightLimits::default() };
            let options = SqliteOptions { scrub_bytes_per_second: rate, straight, ..SqliteOptions::default() };
            let store = SqliteStore::open(&folder.path().join(rate.to_string()), options).unwrap();
            store.commit(Batch { operations: (0..100).map(operation).collect(), ..Batch::default() }).unwrap();
            let (bytes, ..) = read_after(store.inner.reader().unwrap().conn(), Place::START).unwrap();
            assert!(bytes > 100, "{bytes}");
            let mut position = Position::Chunks(Place::START);
            let pause = store.inner.scrub_step(&mut position).unwrap();
            assert_eq!(pause, Duration::from_millis(bytes * 1_000 / rate));
        }
    }

    /// Not a row is missed by whoever reads, since the next block is taken for it.
    #[test]
    fn the_place_of_a_block_that_is_missing_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let straight = StraightLimits { row_bytes: 0, ..StraightLimits::default() };
        let options = SqliteOptions { scrub_bytes_per_second: 0, straight, ..SqliteOptions::default() };
        let store = SqliteStore::open(folder.path(), options).unwrap();
        let key = RowKey { table: TableId(1), identity: [1].into() };
        store.commit(Batch { rows: vec![(key, Some(StoredRow::default()))], ..Batch::default() }).unwrap();
        let mut position = Position::Rows(0);
        while position != Position::Chunks(Place::START) {
            store.inner.scrub_step(&mut position).unwrap();
        }
        assert!(store.check_rows().is_ok());
        assert_eq!(store.inner.writer().conn().execute("DELETE FROM row_place", []).unwrap(), 1);
        position = Position::Rows(i64::MAX);
        store.inner.scrub_step(&mut position).unwrap();
        assert_eq!(store.check_rows().unwrap_err().code(), "STORE-0109");
    }

    #[test]
    fn what_is_left_of_a_forgotten_bucket_is_no_damage() {
        let folder = tempfile::tempdir().unwrap();
        let straight = StraightLimits { chunk_bytes: 0, ..StraightLimits::default() };
        let options = SqliteOptions { scrub_bytes_per_second: 0, straight, ..SqliteOptions::default() };
        let store = SqliteStore::open(folder.path(), options).unwrap();
        for number in 0..3 {
            store.commit(Batch { operations: vec![operation(number)], ..Batch::default() }).unwrap();
        }
        let damages = || read_after(store.inner.reader().unwrap().conn(), Place::START).unwrap().2.len();
        let run = |sql: &str| store.inner.writer().conn().execute(sql, []).unwrap();
        assert_eq!(run("DELETE FROM chunk WHERE id = (SELECT min(id) FROM chunk)"), 1);
        assert_eq!(damages(), 1);
        assert_eq!(run("DELETE FROM bucket"), 1);
        assert_eq!(damages(), 0);
    }
}
