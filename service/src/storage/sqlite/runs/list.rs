//! Which runs there are, and in which order they count.

use std::sync::Arc;

use rusqlite::{Connection, Row};

use super::{
    super::{
        super::{RowKey, StorageError, TableId},
        head::number,
        sum::Sum,
    },
    RunId,
    filter::{KeyFilter, KeyHash},
};

/// A run.
#[derive(Debug, Clone)]
pub(in super::super) struct Run {
    pub(in super::super) id: RunId,
    /// Newer runs have larger ones; only a run that is being written by a merge shares that of a source.
    pub(in super::super) position: u64,
    /// Entries, those that say that a row is gone included. Of a source of a merge: those it had when it began.
    pub(in super::super) entry_count: u64,
    pub(in super::super) block_count: u64,
    /// Of its blocks, compressed.
    pub(in super::super) byte_count: u64,
    /// The run that it is being merged into.
    pub(in super::super) merged_into: Option<RunId>,
    /// It has no keys before this one.
    pub(in super::super) first: Option<RowKey>,
    /// It has none after this one. Of one that a merge is writing: the last that it came to.
    pub(in super::super) last: Option<RowKey>,
    /// `None`: it may have any key.
    pub(in super::super) filter: Option<Arc<KeyFilter>>,
}

impl Run {
    const COLUMNS: &str = "id, position, entry_count, block_count, byte_count, merged_into, first_table_id, first_identity, \
        last_table_id, last_identity, sum";

    /// One that has nothing yet.
    pub(in super::super) fn new(id: RunId, position: u64, filter: Arc<KeyFilter>) -> Self {
        Self {
            id,
            position,
            entry_count: 0,
            block_count: 0,
            byte_count: 0,
            merged_into: None,
            first: None,
            last: None,
            filter: Some(filter),
        }
    }

    /// Without its filter.
    fn from_row(row: &Row) -> Result<Self, StorageError> {
        Self::checked(row).map_err(StorageError::of_rows)
    }

    fn checked(row: &Row) -> Result<Self, StorageError> {
        let key = |column: usize| -> Result<Option<RowKey>, StorageError> {
            let parts = row.get::<_, Option<u32>>(column)?.zip(row.get::<_, Option<Vec<u8>>>(column + 1)?);
            Ok(parts.map(|(table, identity)| RowKey { table: TableId(table), identity: identity.into() }))
        };
        let run = Self {
            id: RunId(number(row, 0)?),
            position: number(row, 1)?,
            entry_count: number(row, 2)?,
            block_count: number(row, 3)?,
            byte_count: number(row, 4)?,
            merged_into: row.get::<_, Option<i64>>(5)?.map(|id| RunId(id.cast_unsigned())),
            first: key(6)?,
            last: key(8)?,
            filter: None,
        };
        run.sum().check(row.get(10)?, "a run of rows")?;
        Ok(run)
    }

    fn sum(&self) -> Sum {
        let Self { id, position, entry_count, block_count, byte_count, merged_into, first, last, filter: _ } = self;
        let sum = [id.0, *position, *entry_count, *block_count, *byte_count]
            .into_iter()
            .fold(Sum::of("row_run"), Sum::number);
        let sum = sum.number(merged_into.map_or(0, |into| into.0));
        let add = |sum: Sum, key: &RowKey| sum.number(key.table.0.into()).bytes(&key.identity);
        first.iter().chain(last).fold(sum, add)
    }

    /// Writes its record.
    pub(in super::super) fn store(&self, conn: &Connection) -> Result<(), StorageError> {
        let sql = "REPLACE INTO row_run (id, position, entry_count, block_count, byte_count, merged_into, \
                   first_table_id, first_identity, last_table_id, last_identity, sum) \
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)";
        let table = |key: &Option<RowKey>| key.as_ref().map(|key| key.table.0);
        let [first, last] = [&self.first, &self.last].map(|key| key.as_ref().map(|key| &*key.identity));
        conn.prepare_cached(sql)?.execute((
            self.id.column(),
            self.position.cast_signed(),
            self.entry_count.cast_signed(),
            self.block_count.cast_signed(),
            self.byte_count.cast_signed(),
            self.merged_into.map(RunId::column),
            table(&self.first),
            first,
            table(&self.last),
            last,
            self.sum().finish(),
        ))?;
        Ok(())
    }

    /// Writes its filter, which from now on may not change, in the place of one that was damaged.
    pub(in super::super) fn store_filter(&self, conn: &Connection) -> Result<(), StorageError> {
        let Some(filter) = &self.filter else { return Ok(()) };
        let (bytes, sum) = filter.record();
        let sql = "REPLACE INTO row_filter (run_id, words, sum) VALUES (?1, ?2, ?3)";
        conn.prepare_cached(sql)?.execute((self.id.column(), bytes, sum))?;
        Ok(())
    }

    /// Forgets its record, and its filter.
    pub(in super::super) fn delete(&self, conn: &Connection) -> Result<(), StorageError> {
        for table in ["row_run WHERE id", "row_filter WHERE run_id"] {
            conn.prepare_cached(&format!("DELETE FROM {table} = ?1"))?.execute([self.id.column()])?;
        }
        Ok(())
    }

    /// Whether it may have keys from `first` to `last`.
    fn has_between(&self, first: &RowKey, last: &RowKey) -> bool {
        self.first.as_ref().is_some_and(|own| own <= last) && self.last.as_ref().is_some_and(|own| first <= own)
    }

    /// Whether it may have keys that another has.
    pub(in super::super) fn overlaps(&self, other: &Self) -> bool {
        other.first.as_ref().zip(other.last.as_ref()).is_some_and(|(first, last)| self.has_between(first, last))
    }

    pub(in super::super) fn may_have(&self, key: &RowKey, hash: KeyHash) -> bool {
        self.has_between(key, key) && self.filter.as_ref().is_none_or(|filter| filter.may_have(hash))
    }
}

/// All runs, the newest first.
#[derive(Debug, Clone, Default)]
pub(in super::super) struct RunList {
    runs: Vec<Run>,
    /// Why those of before cannot be read. What rows there are is not known then.
    unread: Option<StorageError>,
}

impl RunList {
    /// As the file has it, with filters from it; and what is damaged of filters, which their runs do without.
    pub(in super::super) fn load(conn: &Connection) -> Result<(Self, Vec<StorageError>), StorageError> {
        let mut list = Self::load_without_filters(conn)?;
        let damages = list.read_filters(conn)?;
        Ok((list, damages))
    }

    /// In place of one that cannot be read, for this reason.
    pub(in super::super) fn unread(reason: StorageError) -> Self {
        Self { runs: Vec::new(), unread: Some(reason) }
    }

    /// # Errors
    /// Where the runs of before cannot be read.
    pub(in super::super) fn check_read(&self) -> Result<(), StorageError> {
        self.unread.clone().map_or(Ok(()), Err)
    }

    /// A record that does not say whose it is tells nothing of any run.
    fn read_filters(&mut self, conn: &Connection) -> Result<Vec<StorageError>, StorageError> {
        let mut statement = conn.prepare("SELECT run_id, words, sum FROM row_filter ORDER BY run_id")?;
        let mut rows = statement.query([])?;
        let (mut damages, mut before) = (Vec::new(), None);
        while let Some(row) = rows.next()? {
            let id = RunId(row.get::<_, i64>(0)?.cast_unsigned());
            if before.replace(id).is_some_and(|before| before >= id) {
                damages.push(StorageError::FilterDamaged { what: "it is not where it belongs".to_owned() });
            }
            // One that a merge is writing gets its record at the end.
            let is_written = self.sources(id).next().is_some();
            let run = self.runs.iter_mut().find(|run| run.id == id && !is_written);
            match (read_filter(row), run) {
                (Ok(filter), Some(run)) => run.filter = Some(Arc::new(filter)),
                (Err(error), _) => damages.push(error),
                (Ok(_), None) => {
                    damages.push(StorageError::FilterDamaged { what: "it is of no run".to_owned() });
                }
            }
        }
        Ok(damages)
    }

    /// As the file has it.
    pub(in super::super) fn load_without_filters(conn: &Connection) -> Result<Self, StorageError> {
        let sql = format!("SELECT {} FROM row_run ORDER BY position DESC, id DESC", Run::COLUMNS);
        let mut statement = conn.prepare_cached(&sql)?;
        let mut rows = statement.query([])?;
        let mut runs = Vec::new();
        while let Some(row) = rows.next()? {
            runs.push(Run::from_row(row)?);
        }
        Ok(Self { runs, unread: None })
    }

    /// As the file has it, with the filters that are in memory; it is no more to be read than what is there.
    pub(in super::super) fn load_with(conn: &Connection, known: &Self) -> Result<Self, StorageError> {
        known.check_read()?;
        let mut list = Self::load_without_filters(conn)?;
        for run in &mut list.runs {
            run.filter = known.get(run.id).and_then(|known| known.filter.clone());
        }
        Ok(list)
    }

    /// One run alone.
    pub(in super::super) fn of(run: Run) -> Self {
        Self { runs: vec![run], unread: None }
    }

    pub(in super::super) fn iter(&self) -> impl DoubleEndedIterator<Item = &Run> {
        self.runs.iter()
    }

    pub(in super::super) fn len(&self) -> usize {
        self.runs.len()
    }

    pub(in super::super) fn get(&self, id: RunId) -> Option<&Run> {
        self.runs.iter().find(|run| run.id == id)
    }

    /// Whether some run may have the key.
    pub(in super::super) fn may_have(&self, key: &RowKey) -> bool {
        let hash = KeyHash::of_key(key);
        self.unread.is_some() || self.runs.iter().any(|run| run.may_have(key, hash))
    }

    /// Whether some run may have keys from `first` to `last`.
    pub(in super::super) fn may_have_between(&self, first: &RowKey, last: &RowKey) -> bool {
        self.unread.is_some() || self.runs.iter().any(|run| run.has_between(first, last))
    }

    /// The key up to which a run no longer counts, since another has what it had.
    pub(in super::super) fn hidden_upto(&self, run: &Run) -> Option<&RowKey> {
        self.get(run.merged_into?)?.last.as_ref()
    }

    /// Puts a run in its place, or in that of its former state.
    pub(in super::super) fn put(&mut self, run: Run) {
        self.remove(run.id);
        let newer = |known: &Run| (known.position, known.id) > (run.position, run.id);
        self.runs.insert(self.runs.partition_point(newer), run);
    }

    /// Sources of the run that a merge is writing, the newest first; none if it is not being written.
    pub(in super::super) fn sources(&self, of: RunId) -> impl Iterator<Item = &Run> {
        self.runs.iter().filter(move |run| run.merged_into == Some(of))
    }

    pub(in super::super) fn remove(&mut self, id: RunId) {
        self.runs.retain(|run| run.id != id);
    }
}

fn read_filter(row: &Row) -> Result<KeyFilter, StorageError> {
    let (Ok(Ok(words)), Ok(sum)) = (row.get_ref(1).map(|words| words.as_blob()), row.get(2)) else {
        return Err(StorageError::FilterDamaged { what: "it cannot be read".to_owned() });
    };
    KeyFilter::from_record(words, sum)
}
