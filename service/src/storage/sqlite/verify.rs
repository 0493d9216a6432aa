//! Reads a whole store that nobody uses, and says what is damaged.
//!
//! SQLite's own check looks at how the file is built; this one looks at every record: its sum, whether it can be read, and
//! whether all are there that others count.

use std::{collections::HashSet, ops::Bound, path::Path, thread};

use foldhash::fast::RandomState;
use kairos_sync_protocol::OpId;
use rusqlite::{Connection, Row};
use serde::Serialize;

use super::{
    super::{BucketTotals, StorageError, definition_of, generation},
    BucketId,
    bucket::Bucket,
    chunk::{self, Links},
    codec,
    head::Head,
    index, read,
    runs::{
        check::{check_places, check_run},
        list::{Run, RunList},
        lost::lost_blocks,
        read::MergedRuns,
    },
    schema::StoreFolder,
    tail::Tail,
    write_checkpoint,
};

/// Damages that are told one by one, at most.
const DAMAGES_TOLD: usize = 100;
/// What SQLite may use meanwhile.
const CACHE_BYTES: usize = 8 << 20;

/// What a store has, and what of it is damaged.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Verification {
    /// Buckets that were read.
    pub bucket_count: u64,
    /// Operations in them.
    pub operation_count: u64,
    /// Chunks of operations.
    pub chunk_count: u64,
    /// Rows of the row store.
    pub row_count: u64,
    /// Entries of the index of lookups.
    pub lookup_count: u64,
    /// Entries of the join index.
    pub dependent_count: u64,
    /// Write checkpoints.
    pub write_checkpoint_count: u64,
    /// Buckets whose operations are being written again because they were damaged.
    pub mending_count: u64,
    /// How many damages were found.
    pub damage_count: u64,
    /// How many of them are in operations of buckets, which the service builds again by itself.
    pub bucket_damage_count: u64,
    /// How many of them are in stored rows, whose tables the service copies again by itself.
    pub row_damage_count: u64,
    /// How many of them are in filters of rows, which the service makes again by itself.
    pub filter_damage_count: u64,
    /// The first hundred of them.
    pub damages: Vec<Damage>,
}

/// Something that is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Damage {
    /// Stable, as errors of the store: what a reader of this part would be told.
    pub code: &'static str,
    /// What it is.
    pub what: String,
    /// The definition of the bucket it is in, where it is in one and that can be said.
    pub definition: Option<String>,
}

/// How far it is, in records of all kinds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct VerifyProgress {
    /// Read.
    pub done: u64,
    /// To be read.
    pub total: u64,
}

impl Verification {
    /// Reads the store in `folder`. `progress` is told from time to time how far it is.
    ///
    /// # Errors
    /// Where there is no store, another process has it, or its format is another one. What is damaged is no error.
    pub fn of(folder: &Path, progress: &mut dyn FnMut(VerifyProgress)) -> Result<Self, StorageError> {
        let folder = StoreFolder::lock_existing(folder)?;
        let mut verifier = Verifier { found: Self::default(), progress, position: VerifyProgress::default() };
        match folder.reader_of_closed(CACHE_BYTES) {
            Ok(conn) => verifier.run(&conn),
            Err(error @ StorageError::Damaged { .. }) => verifier.note(&error, None),
            Err(error) => return Err(error),
        }
        Ok(verifier.found)
    }

    /// Whether nothing is damaged.
    pub fn is_whole(&self) -> bool {
        self.damage_count == 0
    }
}

/// Checks what readers of a store cannot notice themselves: that an entry is missing where they look for it by a name.
/// Reads the tables which decide what clients are told, and no operations: about a second for a million entries. Gives the
/// runs of rows, or a list that says why they cannot be read.
/// `other` is a connection of its own, since half of it is done beside the rest.
pub(super) fn check_names(conn: &Connection, other: Connection, head: &Head) -> Result<RunList, StorageError> {
    let tables = &["bucket", "lookup", "write_checkpoint", "row_run", "row_place"];
    thread::scope(|scope| {
        let structure = scope.spawn(move || check_structure(&other, tables));
        let records = check_records(conn, head).and_then(|()| runs(conn));
        let structure = structure.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        structure.and(records)
    })
}

/// What is damaged of filters is left out. It is replaced later, which must harm nothing beside it.
fn runs(conn: &Connection) -> Result<RunList, StorageError> {
    match read_runs(conn) {
        Ok((runs, damages)) => {
            if let Some(error) = damages.first() {
                check_structure(conn, &["row_filter"])?;
                let count = damages.len();
                tracing::warn!(code = error.code(), count, %error, "filters in the bucket store are damaged");
            }
            Ok(runs)
        }
        Err(error @ StorageError::RowsDamaged { .. }) => Ok(RunList::unread(error)),
        Err(error) => Err(error),
    }
}

/// The runs, of which all records are right, and what is damaged of their filters.
fn read_runs(conn: &Connection) -> Result<(RunList, Vec<StorageError>), StorageError> {
    let (runs, damages) = RunList::load(conn)?;
    check_places(conn, &runs)?;
    Ok((runs, damages))
}

fn check_structure(conn: &Connection, tables: &[&str]) -> Result<(), StorageError> {
    for table in tables {
        let says: String = conn.query_row(&format!("PRAGMA integrity_check({table})"), [], |row| row.get(0))?;
        if says != "ok" {
            return Err(damaged("the structure of the database file"));
        }
    }
    Ok(())
}

fn damaged(what: &str) -> StorageError {
    StorageError::Damaged { what: what.to_owned() }
}

fn check_records(conn: &Connection, head: &Head) -> Result<(), StorageError> {
    let buckets =
        count_read(conn, &format!("SELECT {} FROM bucket", Bucket::COLUMNS), |row| Bucket::read(row).map(|_| ()))?;
    let lookups = count_read(conn, LOOKUPS, |row| index::read_entry(row).map(|_| ()))?;
    count_read(conn, WRITE_CHECKPOINTS, |row| write_checkpoint::read(row).map(|_| ()))?;
    if (buckets, lookups) == (head.bucket_count, head.lookup_count) {
        return Ok(());
    }
    Err(damaged("buckets or lookups are not as many as the head says"))
}

const LOOKUPS: &str = "SELECT key, table_id, identity, value_list, sum FROM lookup";
const WRITE_CHECKPOINTS: &str = "SELECT key, id, lsn, sum FROM write_checkpoint";

/// How many rows a query gives, each of which can be read.
fn count_read(
    conn: &Connection,
    sql: &str,
    read: impl Fn(&Row) -> Result<(), StorageError>,
) -> Result<u64, StorageError> {
    let mut statement = conn.prepare(sql)?;
    let mut rows = statement.query([])?;
    let mut count = 0;
    while let Some(row) = rows.next()? {
        read(row)?;
        count += 1;
    }
    Ok(count)
}

struct Verifier<'a> {
    found: Verification,
    progress: &'a mut dyn FnMut(VerifyProgress),
    position: VerifyProgress,
}

impl Verifier<'_> {
    fn run(&mut self, conn: &Connection) {
        self.try_part(|verifier| verifier.structure(conn));
        let Some(head) = self.try_part(|_| Head::read(conn)) else { return };
        self.position.total = records(conn);
        self.tell();
        let tail = self.try_part(|_| Tail::load(conn, &head)).unwrap_or_else(|| Tail::empty(head.version));
        self.try_part(|verifier| verifier.buckets(conn, &head, &tail));
        self.try_part(|verifier| verifier.rows(conn, &head, &tail));
        self.try_part(|verifier| verifier.indexes(conn, &head));
        self.try_part(|verifier| verifier.states(conn, &head));
    }

    /// Goes on with the next part where one cannot be read to its end.
    fn try_part<T>(&mut self, part: impl FnOnce(&mut Self) -> Result<T, StorageError>) -> Option<T> {
        part(self).map_err(|error| self.note(&error, None)).ok()
    }

    fn note(&mut self, error: &StorageError, definition: Option<String>) {
        self.found.damage_count += 1;
        if self.found.damages.len() < DAMAGES_TOLD {
            let what = match error {
                StorageError::Damaged { what }
                | StorageError::RowsDamaged { what }
                | StorageError::FilterDamaged { what } => what.clone(),
                error => error.to_string(),
            };
            self.found.damages.push(Damage { code: error.code(), what, definition });
        }
    }

    fn expect(&mut self, holds: bool, what: &str) {
        if !holds {
            self.note(&StorageError::Damaged { what: what.to_owned() }, None);
        }
    }

    fn step(&mut self) {
        self.position.done += 1;
        if self.position.done.is_multiple_of(64) {
            self.tell();
        }
    }

    fn tell(&mut self) {
        (self.progress)(self.position);
    }

    /// Passes on the rows of a query; those that are damaged are noted.
    fn each(
        &mut self,
        conn: &Connection,
        sql: &str,
        mut visit: impl FnMut(&mut Self, &Row) -> Result<(), StorageError>,
    ) -> Result<(), StorageError> {
        let mut statement = conn.prepare(sql)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            if let Err(error) = visit(self, row) {
                self.note(&error, None);
            }
            self.step();
        }
        Ok(())
    }

    /// What SQLite says of its pages and indexes.
    fn structure(&mut self, conn: &Connection) -> Result<(), StorageError> {
        let mut statement = conn.prepare(&format!("PRAGMA integrity_check({DAMAGES_TOLD})"))?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let says: String = row.get(0)?;
            self.expect(says == "ok", "the structure of the database file");
        }
        Ok(())
    }

    fn buckets(&mut self, conn: &Connection, head: &Head, tail: &Tail) -> Result<(), StorageError> {
        let prefix = generation::bucket_prefix(&head.creation_id, head.generation);
        let mut ids: HashSet<BucketId, RandomState> = HashSet::default();
        let sql = format!("SELECT {} FROM bucket", Bucket::COLUMNS);
        self.each(conn, &sql, |verifier, row| {
            let bucket = Bucket::read(row)?;
            ids.insert(bucket.id);
            verifier.found.bucket_count += 1;
            verifier.found.mending_count += u64::from(bucket.is_mending);
            let found = Bucket::find(conn, &bucket.name)?;
            verifier.expect(found.as_ref() == Some(&bucket), "a bucket is not found under its name");
            // What cannot be read is there nevertheless.
            verifier.found.operation_count += bucket.folded.count;
            if let Err(error) = verifier.bucket(conn, &bucket) {
                verifier.found.bucket_damage_count += 1;
                verifier.note(&error, Some(definition_of(&bucket.name, &prefix).to_owned()));
            }
            Ok(())
        })?;
        let recent: u64 = tail.totals().values().map(|totals| totals.count).sum();
        self.found.operation_count += recent;
        self.expect(self.found.bucket_count == head.bucket_count, "buckets are not as many as the head says");
        self.expect(self.found.operation_count == head.operation_count, "operations are not as many as the head says");
        self.expect(tail.bucket_ids().iter().all(|id| ids.contains(id)), "the tail names an unknown bucket");
        let mut forgotten: HashSet<i64> = HashSet::new();
        self.each(conn, "SELECT id FROM forgotten_bucket", |_, row| {
            forgotten.insert(row.get(0)?);
            Ok(())
        })?;
        let is_known = |id: i64| forgotten.contains(&id) || BucketId::from_column(id).is_ok_and(|id| ids.contains(&id));
        self.each(conn, "SELECT DISTINCT bucket_id FROM chunk", |verifier, row| {
            verifier.expect(is_known(row.get(0)?), "a chunk is of an unknown bucket");
            Ok(())
        })?;
        let is_live = |id: i64| BucketId::from_column(id).is_ok_and(|id| ids.contains(&id));
        self.expect(!forgotten.iter().any(|id| is_live(*id)), "a bucket is forgotten that is there");
        Ok(())
    }

    /// All chunks of a bucket, and that there are no others.
    fn bucket(&mut self, conn: &Connection, bucket: &Bucket) -> Result<(), StorageError> {
        let expect = |holds: bool, what: &str| {
            let damaged = || StorageError::Damaged { what: what.to_owned() };
            holds.then_some(()).ok_or_else(damaged)
        };
        let columns = chunk::COLUMNS;
        let sql = format!("SELECT {columns} FROM chunk WHERE bucket_id = ?1 ORDER BY last_op_id");
        let mut statement = conn.prepare_cached(&sql)?;
        let mut rows = statement.query([bucket.id.column()])?;
        let (mut totals, mut previous) = (BucketTotals::default(), OpId::ZERO);
        while let Some(row) = rows.next()? {
            let chunk = chunk::read(row, bucket.id)?;
            let Links { previous: says, valid_from } = chunk.links;
            expect(says == previous, "a chunk is missing")?;
            expect(valid_from <= bucket.folded.last_op_id, "a chunk is valid in no state")?;
            let of_chunk = chunk.totals();
            previous = of_chunk.last_op_id;
            totals.extend(&of_chunk);
            self.found.chunk_count += 1;
            self.step();
        }
        expect(totals == bucket.folded, "a bucket contradicts its chunks")
    }

    fn rows(&mut self, conn: &Connection, head: &Head, tail: &Tail) -> Result<(), StorageError> {
        let Some(runs) = self.whole_runs(conn)? else { return Ok(()) };
        let mut block_count = 0;
        for run in runs.iter() {
            block_count += self.try_part(|verifier| verifier.run_of_rows(conn, run)).unwrap_or_default();
        }
        let blocks: i64 = conn.query_row("SELECT count(*) FROM row_block", [], |row| row.get(0))?;
        self.expect(blocks.unsigned_abs() == block_count, "blocks of rows are not as many as runs have");
        let mut rows = MergedRuns::of_all(conn, &runs, Bound::Unbounded)?;
        while let Some(key) = rows.row_key() {
            if let Some(state) = rows.state() {
                self.try_part(|_| codec::decode_row(state));
                // The tail has what is newer, and perhaps that it is gone.
                self.found.row_count += u64::from(tail.rows.is_there(&key).is_none());
            }
            rows.advance()?;
            self.step();
        }
        for (_, state) in tail.rows.iter() {
            if let Some(state) = state {
                self.try_part(|_| codec::decode_row(state));
                self.found.row_count += 1;
            }
        }
        self.expect(self.found.row_count == head.row_count, "rows are not as many as the head says");
        Ok(())
    }

    /// The runs, if all of them and all of their blocks can be read. Else nothing can be said of the rest.
    fn whole_runs(&mut self, conn: &Connection) -> Result<Option<RunList>, StorageError> {
        let (runs, filter_damages) = match read_runs(conn) {
            Err(error @ StorageError::RowsDamaged { .. }) => {
                self.found.row_damage_count += 1;
                self.note(&error, None);
                return Ok(None);
            }
            read => read?,
        };
        for error in &filter_damages {
            self.found.filter_damage_count += 1;
            self.note(error, None);
        }
        for run in runs.iter() {
            for lost in lost_blocks(conn, &runs, run, &mut || {})? {
                self.found.row_damage_count += 1;
                self.note(&lost.error, None);
            }
            self.tell();
        }
        Ok((self.found.row_damage_count == 0).then_some(runs))
    }

    /// All blocks of a run: whether each is where it belongs, and its keys ascend. Gives their number.
    fn run_of_rows(&mut self, conn: &Connection, run: &Run) -> Result<u64, StorageError> {
        let block_count = check_run(conn, run)?;
        self.position.done += block_count;
        self.tell();
        Ok(block_count)
    }

    fn indexes(&mut self, conn: &Connection, head: &Head) -> Result<(), StorageError> {
        self.each(conn, LOOKUPS, |verifier, row| {
            verifier.found.lookup_count += 1;
            index::read_entry(row).map(|_| ())
        })?;
        self.each(conn, "SELECT key, table_id, identity, sum FROM dependent", |verifier, row| {
            verifier.found.dependent_count += 1;
            index::read_dependent(row).map(|_| ())
        })?;
        self.expect(self.found.lookup_count == head.lookup_count, "lookups are not as many as the head says");
        let dependent_count = self.found.dependent_count;
        self.expect(dependent_count == head.dependent_count, "the join index has not as many as the head says");
        Ok(())
    }

    fn states(&mut self, conn: &Connection, head: &Head) -> Result<(), StorageError> {
        for (table, sum) in [("replication", head.replication_sum), ("rules", head.rules_sum)] {
            self.try_part(|_| read::single(conn, table, sum));
        }
        self.each(conn, WRITE_CHECKPOINTS, |verifier, row| {
            verifier.found.write_checkpoint_count += 1;
            write_checkpoint::read(row).map(|_| ())
        })?;
        self.tell();
        Ok(())
    }
}

/// About how many there are to be read; an estimate for those who wait.
fn records(conn: &Connection) -> u64 {
    let tables = ["bucket", "forgotten_bucket", "chunk", "row_place", "lookup", "dependent", "write_checkpoint"];
    let count = |table| {
        let sql = format!("SELECT count(*) FROM {table}");
        conn.query_row(&sql, [], |row| row.get::<_, i64>(0)).map_or(0, i64::unsigned_abs)
    };
    let rows = conn.query_row("SELECT coalesce(sum(entry_count), 0) FROM row_run", [], |row| row.get::<_, i64>(0));
    tables.into_iter().map(count).sum::<u64>() + rows.map_or(0, i64::unsigned_abs)
}
