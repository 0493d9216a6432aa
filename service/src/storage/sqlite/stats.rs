//! How much there is of what.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Bound,
    path::Path,
};

use foldhash::fast::RandomState;
use kairos_sync_protocol::BucketName;
use rusqlite::Connection;

use super::{
    super::{DefinitionStats, RowKey, StorageError, StoreStats, definition_of, generation},
    BucketId, Inner,
    bucket::Bucket,
    codec,
    head::{Head, number},
    runs::{check::load_checked, list::RunList, read::MergedRuns},
    schema::StoreFolder,
    tail::Tail,
};

/// What SQLite may use to count what is in a folder.
const CACHE_BYTES: usize = 8 << 20;

/// Counts by definition.
#[derive(Default)]
pub(super) struct Definitions {
    stats: BTreeMap<String, DefinitionStats>,
    of_bucket: HashMap<BucketId, String, RandomState>,
}

/// Sizes of the store in `folder`, which is not open. Reads the whole row store.
pub(super) fn of_folder(folder: &Path) -> Result<(StoreStats, Vec<DefinitionStats>), StorageError> {
    let folder = StoreFolder::lock_existing(folder)?;
    let conn = folder.reader_of_closed(CACHE_BYTES)?;
    let head = Head::read(&conn)?;
    let tail = Tail::load(&conn, &head)?;
    let mut definitions = Definitions::of(&conn, &head, &tail)?;
    tail.rows.present().try_for_each(|state| definitions.count_row(&state))?;
    definitions.count_rows(&conn, &load_checked(&conn)?, |key| tail.rows.is_there(key).is_none())?;
    Ok((head.stats(&folder), definitions.finish()))
}

impl Inner {
    pub(super) fn definition_stats(&self) -> Result<Vec<DefinitionStats>, StorageError> {
        let reader = self.reader()?;
        // What is folded meanwhile may be missed or counted twice: these are figures for people.
        reader.conn().execute_batch("BEGIN")?;
        let mut definitions = Definitions::of(reader.conn(), &Head::read(reader.conn())?, &self.tail_read())?;
        let recent: Vec<_> = self.tail_read().rows.present().collect();
        recent.iter().try_for_each(|state| definitions.count_row(state))?;
        let runs = RunList::load_with(reader.conn(), &self.runs.list())?;
        definitions.count_rows(reader.conn(), &runs, |key| self.tail_read().rows.is_there(key).is_none())?;
        Ok(definitions.finish())
    }
}

impl Definitions {
    /// All but rows.
    pub(super) fn of(conn: &Connection, head: &Head, tail: &Tail) -> Result<Self, StorageError> {
        let prefix = generation::bucket_prefix(&head.creation_id, head.generation);
        let mut definitions = Self::default();
        let mut statement = conn.prepare(&format!("SELECT {} FROM bucket", Bucket::COLUMNS))?;
        let mut rows = statement.query([])?;
        let totals = tail.totals();
        while let Some(row) = rows.next()? {
            let bucket = Bucket::read(row)?;
            let recent = totals.get(&bucket.id).copied().unwrap_or_default();
            let stats = definitions.add_bucket(bucket.id, &bucket.name, &prefix);
            stats.bucket_count += 1;
            stats.operation_count += bucket.folded.count + recent.count;
            let bytes = tail.json_bytes(bucket.id);
            stats.json_bytes += bytes;
            stats.stored_bytes += bytes;
        }
        let sql = "SELECT bucket_id, count(*), sum(json_bytes), sum(length(block)) FROM chunk GROUP BY bucket_id";
        let mut statement = conn.prepare(sql)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let Some(stats) = definitions.of_bucket(BucketId::from_column(row.get(0)?)?) else { continue };
            stats.chunk_count += number(row, 1)?;
            stats.json_bytes += number(row, 2)?;
            stats.stored_bytes += number(row, 3)?;
        }
        Ok(definitions)
    }

    fn add_bucket(&mut self, id: BucketId, name: &BucketName, prefix: &str) -> &mut DefinitionStats {
        let definition = definition_of(name, prefix);
        self.of_bucket.insert(id, definition.to_owned());
        self.stats
            .entry(definition.to_owned())
            .or_insert_with(|| DefinitionStats { definition: definition.to_owned(), ..DefinitionStats::default() })
    }

    fn of_bucket(&mut self, id: BucketId) -> Option<&mut DefinitionStats> {
        self.stats.get_mut(self.of_bucket.get(&id)?)
    }

    /// Counts the rows of runs whose keys are `wanted`.
    fn count_rows(
        &mut self,
        conn: &Connection,
        runs: &RunList,
        wanted: impl Fn(&RowKey) -> bool,
    ) -> Result<(), StorageError> {
        let mut rows = MergedRuns::of_all(conn, runs, Bound::Unbounded)?;
        while let Some(key) = rows.row_key() {
            if let Some(state) = rows.state()
                && wanted(&key)
            {
                self.count_row(state)?;
            }
            rows.advance()?;
        }
        Ok(())
    }

    /// Counts the state of a row.
    fn count_row(&mut self, state: &[u8]) -> Result<(), StorageError> {
        let (_, outputs) = codec::decode_row(state)?;
        for output in outputs {
            if let Some(stats) = self.of_bucket(output.bucket) {
                stats.row_count += 1;
            }
        }
        Ok(())
    }

    /// In the order of their names.
    pub(super) fn finish(self) -> Vec<DefinitionStats> {
        self.stats.into_values().collect()
    }
}
