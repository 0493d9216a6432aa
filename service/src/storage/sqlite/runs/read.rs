//! Reading runs: one row, or rows in the order of their keys.

use std::{
    collections::BTreeSet,
    num::NonZeroUsize,
    ops::Bound,
    sync::{Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use lru::LruCache;
use rusqlite::{Connection, OptionalExtension, Row};

use super::{
    super::{
        super::{RowKey, StorageError, TableId},
        block::unpack,
        head::number,
        rows::RowState,
    },
    BlockId, RunId,
    block::Entries,
    build::BlockPlace,
    filter::KeyHash,
    list::{Run, RunList},
};

/// Blocks kept in memory: what changes now often changes again, and its neighbours with it.
const BLOCKS_KEPT: NonZeroUsize = NonZeroUsize::new(384).expect("not zero");
/// Larger blocks, of large rows, are not kept: 7.5 MiB in all, but mostly 2.
const KEPT_BYTES_MAX: usize = 20 << 10;
/// Runs of which is remembered where the last row was found: more than there are, mostly.
const PLACES_KEPT: NonZeroUsize = NonZeroUsize::new(64).expect("not zero");

/// Columns of a block's place.
const PLACE: &str = "table_id, identity, block_id, entry_count, byte_count, sum";

/// A key in parts.
type KeyParts<'k> = (TableId, &'k [u8]);

/// What was read of late.
#[derive(Debug)]
pub(in super::super) struct RecentBlocks {
    // Each locked for one look at a time.
    blocks: Mutex<LruCache<BlockId, Bytes>>,
    /// Who looks for rows in the order of their keys mostly finds the next one there.
    found: Mutex<LruCache<RunId, Found>>,
}

/// A block of a run, and an entry in it.
#[derive(Debug)]
struct Found {
    first: RowKey,
    last: RowKey,
    entries: Entries,
}

impl Default for RecentBlocks {
    fn default() -> Self {
        Self { blocks: Mutex::new(LruCache::new(BLOCKS_KEPT)), found: Mutex::new(LruCache::new(PLACES_KEPT)) }
    }
}

impl RecentBlocks {
    /// Forgets all, since blocks were taken out of runs.
    pub(in super::super) fn clear(&self) {
        locked(&self.blocks).clear();
        locked(&self.found).clear();
    }

    /// The entries of a block.
    fn block(&self, conn: &Connection, id: BlockId) -> Result<Bytes, StorageError> {
        if let Some(content) = locked(&self.blocks).get(&id) {
            return Ok(content.clone());
        }
        let content = read_block(conn, id)?;
        if content.len() <= KEPT_BYTES_MAX {
            locked(&self.blocks).put(id, content.clone());
        }
        Ok(content)
    }

    /// The block of a run in which the key is, if it is in any, at an entry that does not come after it.
    fn look(&self, conn: &Connection, run: RunId, key: &RowKey) -> Result<Option<Found>, StorageError> {
        let found = locked(&self.found).pop(&run).filter(|found| found.first <= *key && *key <= found.last);
        if let Some(Found { first, last, entries }) = found {
            let is_past = entries.key().is_some_and(|current| current > (key.table, &*key.identity));
            let entries = if is_past { at_first(entries.content().clone())? } else { entries };
            return Ok(Some(Found { first, last, entries }));
        }
        let Some(place) = first_place(conn, run, Bound::Included(key))? else { return Ok(None) };
        let entries = at_first(self.block(conn, place.id)?)?;
        let first = entries.row_key().ok_or_else(misplaced)?;
        Ok(Some(Found { first, last: place.last, entries }))
    }
}

fn locked<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

fn at_first(content: Bytes) -> Result<Entries, StorageError> {
    let mut entries = Entries::of(content);
    entries.advance()?;
    Ok(entries)
}

/// What the newest run says that has the row; `None` if none has.
pub(in super::super) fn find(
    conn: &Connection,
    runs: &RunList,
    recent: &RecentBlocks,
    key: &RowKey,
) -> Result<Option<RowState>, StorageError> {
    runs.check_read()?;
    let hash = KeyHash::of_key(key);
    for run in runs.iter() {
        if !run.may_have(key, hash) || runs.hidden_upto(run).is_some_and(|upto| key <= upto) {
            continue;
        }
        let Some(mut found) = recent.look(conn, run.id, key)? else { continue };
        let wanted = (key.table, &*key.identity);
        while found.entries.key().is_some_and(|current| current < wanted) {
            found.entries.advance()?;
        }
        let current = found.entries.key().ok_or_else(misplaced)?;
        let state = (current == wanted).then(|| found.entries.shared_state());
        if found.entries.content().len() <= KEPT_BYTES_MAX {
            locked(&recent.found).put(run.id, found);
        }
        if state.is_some() {
            return Ok(state);
        }
    }
    Ok(None)
}

/// The first block of a run whose last key is not before this bound.
pub(super) fn first_place(
    conn: &Connection,
    run: RunId,
    start: Bound<&RowKey>,
) -> Result<Option<BlockPlace>, StorageError> {
    let (comparison, key) = match start {
        Bound::Included(key) => (">=", Some(key)),
        Bound::Excluded(key) => (">", Some(key)),
        Bound::Unbounded => (">=", None),
    };
    let (table, identity) = key.map_or((0, &[][..]), |key| (key.table.0, &*key.identity));
    let sql = format!(
        "SELECT {PLACE} FROM row_place WHERE run_id = ?1 AND (table_id, identity) {comparison} (?2, ?3) \
         ORDER BY table_id, identity LIMIT 1"
    );
    let place = |row: &Row| Ok(place_of(row, run));
    conn.prepare_cached(&sql)?.query_row((run.column(), table, identity), place).optional()?.transpose()
}

fn place_of(row: &Row, run: RunId) -> Result<BlockPlace, StorageError> {
    checked_place(row, run).map_err(StorageError::of_rows)
}

fn checked_place(row: &Row, run: RunId) -> Result<BlockPlace, StorageError> {
    let identity = row.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?.into();
    let last = RowKey { table: TableId(row.get(0)?), identity };
    let place =
        BlockPlace { last, id: BlockId(number(row, 2)?), entry_count: number(row, 3)?, byte_count: number(row, 4)? };
    place.sum(run).check(row.get(5)?, "the place of a block of rows")?;
    Ok(place)
}

/// All places of a run's blocks, in their order.
pub(in super::super) fn places(
    conn: &Connection,
    run: RunId,
    mut visit: impl FnMut(BlockPlace) -> Result<(), StorageError>,
) -> Result<(), StorageError> {
    let sql = format!("SELECT {PLACE} FROM row_place WHERE run_id = ?1 ORDER BY table_id, identity");
    let mut statement = conn.prepare_cached(&sql)?;
    let mut rows = statement.query([run.column()])?;
    while let Some(row) = rows.next()? {
        visit(place_of(row, run)?)?;
    }
    Ok(())
}

/// The entries of a block.
pub(super) fn read_block(conn: &Connection, id: BlockId) -> Result<Bytes, StorageError> {
    let mut statement = conn.prepare_cached("SELECT block FROM row_block WHERE id = ?1")?;
    let mut rows = statement.query([id.column()])?;
    let Some(row) = rows.next()? else {
        return Err(StorageError::RowsDamaged { what: "a block of rows is missing".to_owned() });
    };
    unpack_rows(row.get_ref(0)?.as_blob().map_err(rusqlite::Error::from)?)
}

/// The entries of a block as it is stored.
pub(in super::super) fn unpack_rows(block: &[u8]) -> Result<Bytes, StorageError> {
    unpack(block).map_err(|_| StorageError::RowsDamaged { what: "a block of rows cannot be read".to_owned() })
}

/// Where none is lost.
static NO_BLOCKS: BTreeSet<BlockId> = BTreeSet::new();

/// Goes through the entries of a run, in the order of their keys.
#[derive(Debug)]
pub(in super::super) struct RunCursor<'c> {
    conn: &'c Connection,
    /// Blocks that it goes past.
    lost: &'c BTreeSet<BlockId>,
    run: RunId,
    entries: Entries,
    /// Where the current entry is.
    place: Option<BlockPlace>,
    /// Whether the current entry is the first of its block.
    is_first: bool,
}

impl<'c> RunCursor<'c> {
    /// At the first entry from this bound on.
    fn at(
        conn: &'c Connection,
        run: RunId,
        start: Bound<&RowKey>,
        lost: &'c BTreeSet<BlockId>,
    ) -> Result<Self, StorageError> {
        let mut cursor = Self { conn, lost, run, entries: Entries::default(), place: None, is_first: false };
        cursor.enter(first_place(conn, run, start)?)?;
        let is_before = |key: KeyParts| match start {
            Bound::Included(start) => key < (start.table, &*start.identity),
            Bound::Excluded(start) => key <= (start.table, &*start.identity),
            Bound::Unbounded => false,
        };
        while cursor.key().is_some_and(is_before) {
            cursor.advance()?;
        }
        Ok(cursor)
    }

    /// Goes to the first entry of a block; `None` is the end.
    fn enter(&mut self, mut place: Option<BlockPlace>) -> Result<(), StorageError> {
        while let Some(lost) = place.take_if(|place| self.lost.contains(&place.id)) {
            place = first_place(self.conn, self.run, Bound::Excluded(&lost.last))?;
        }
        self.entries = match &place {
            Some(place) => Entries::of(read_block(self.conn, place.id)?),
            None => Entries::default(),
        };
        self.place = place;
        self.is_first = self.entries.advance()?;
        match (self.place.is_some(), self.is_first) {
            (true, false) => Err(StorageError::RowsDamaged { what: "a block of rows is empty".to_owned() }),
            _ => Ok(()),
        }
    }

    fn advance(&mut self) -> Result<(), StorageError> {
        if !self.entries.is_last() {
            self.is_first = false;
            return self.entries.advance().map(|_| ());
        }
        self.skip_block()
    }

    /// Goes to the first entry of the next block.
    fn skip_block(&mut self) -> Result<(), StorageError> {
        let Some(place) = self.place.take() else { return Ok(()) };
        if self.entries.is_last() && self.entries.row_key().as_ref() != Some(&place.last) {
            return Err(misplaced());
        }
        self.enter(first_place(self.conn, self.run, Bound::Excluded(&place.last))?)
    }

    fn key(&self) -> Option<KeyParts<'_>> {
        self.entries.key()
    }
}

/// Goes through the rows of several runs as one: in the order of their keys, each as the newest run has it.
#[derive(Debug)]
pub(in super::super) struct MergedRuns<'c> {
    /// The newest first.
    cursors: Vec<RunCursor<'c>>,
    /// The one whose entry is the current one.
    leader: usize,
    /// The one whose entry comes next if the leader's does not.
    second: Option<usize>,
}

impl<'c> MergedRuns<'c> {
    /// At the first row from this bound on, in all of these runs.
    pub(in super::super) fn of_all(
        conn: &'c Connection,
        runs: &RunList,
        start: Bound<&RowKey>,
    ) -> Result<Self, StorageError> {
        Self::of(conn, runs, runs.iter(), start)
    }

    /// At the first row in all of these runs, as if they did not have some blocks.
    pub(in super::super) fn of_all_but(
        conn: &'c Connection,
        runs: &RunList,
        lost: &'c BTreeSet<BlockId>,
    ) -> Result<Self, StorageError> {
        Self::begin(conn, runs, runs.iter(), Bound::Unbounded, lost)
    }

    /// At the first row from this bound on, in some of the runs, which are given newest first.
    pub(in super::super) fn of<'r>(
        conn: &'c Connection,
        runs: &RunList,
        some: impl Iterator<Item = &'r Run>,
        start: Bound<&RowKey>,
    ) -> Result<Self, StorageError> {
        Self::begin(conn, runs, some, start, &NO_BLOCKS)
    }

    fn begin<'r>(
        conn: &'c Connection,
        runs: &RunList,
        some: impl Iterator<Item = &'r Run>,
        start: Bound<&RowKey>,
        lost: &'c BTreeSet<BlockId>,
    ) -> Result<Self, StorageError> {
        runs.check_read()?;
        let cursor = |run: &Run| RunCursor::at(conn, run.id, later(start, runs.hidden_upto(run)), lost);
        let cursors = some.map(cursor).collect::<Result<_, _>>()?;
        let mut merged = Self { cursors, leader: 0, second: None };
        merged.settle()?;
        Ok(merged)
    }

    /// Of the current row; `None` at the end.
    pub(in super::super) fn key(&self) -> Option<KeyParts<'_>> {
        self.cursors.get(self.leader)?.key()
    }

    /// Of the current row, in memory of its own.
    pub(in super::super) fn row_key(&self) -> Option<RowKey> {
        self.cursors.get(self.leader)?.entries.row_key()
    }

    /// Of the current row; `None` if it is gone.
    pub(in super::super) fn state(&self) -> Option<&[u8]> {
        self.cursors.get(self.leader)?.entries.state()
    }

    /// As [`Self::state`], sharing the memory of its block.
    pub(in super::super) fn shared_state(&self) -> RowState {
        self.cursors.get(self.leader)?.entries.shared_state()
    }

    /// Goes to the next row.
    pub(in super::super) fn advance(&mut self) -> Result<(), StorageError> {
        match self.cursors.get_mut(self.leader) {
            Some(leader) => leader.advance()?,
            None => return Ok(()),
        }
        self.follow()
    }

    /// The block whose first row is the current one, with all its entries, if no other run has a row amid them.
    pub(super) fn whole_block(&self) -> Option<(RunId, &BlockPlace, &Bytes)> {
        let leader = self.cursors.get(self.leader).filter(|leader| leader.is_first)?;
        let place = leader.place.as_ref()?;
        let last = (place.last.table, &*place.last.identity);
        self.second_key().is_none_or(|next| last < next).then_some((leader.run, place, leader.entries.content()))
    }

    /// Goes to the first row after the current block, which is whole.
    pub(super) fn skip_block(&mut self) -> Result<(), StorageError> {
        match self.cursors.get_mut(self.leader) {
            Some(leader) => leader.skip_block()?,
            None => return Ok(()),
        }
        self.follow()
    }

    fn second_key(&self) -> Option<KeyParts<'_>> {
        self.cursors.get(self.second?)?.key()
    }

    /// Looks for a new leader where this one has gone past the next.
    fn follow(&mut self) -> Result<(), StorageError> {
        let leads = match (self.key(), self.second_key()) {
            (Some(own), Some(next)) => own < next,
            (_, next) => next.is_none(),
        };
        if leads { Ok(()) } else { self.settle() }
    }

    /// Finds out who leads, and skips what older runs have of the same row.
    fn settle(&mut self) -> Result<(), StorageError> {
        let first = |cursors: &[RunCursor], but: Option<usize>| {
            let keys = cursors.iter().enumerate().filter(|(number, _)| Some(*number) != but);
            let keys = keys.filter_map(|(number, cursor)| Some((cursor.key()?, number)));
            // Of equal keys the newest run's, which comes first.
            keys.min().map(|(_, number)| number)
        };
        let Some(leader) = first(&self.cursors, None) else {
            (self.leader, self.second) = (0, None);
            return Ok(());
        };
        for number in leader + 1..self.cursors.len() {
            if self.cursors[number].key() == self.cursors[leader].key() {
                self.cursors[number].advance()?;
            }
        }
        (self.leader, self.second) = (leader, first(&self.cursors, Some(leader)));
        Ok(())
    }
}

/// The later of a bound and of a key that does not count any more.
fn later<'k>(start: Bound<&'k RowKey>, hidden_upto: Option<&'k RowKey>) -> Bound<&'k RowKey> {
    match (start, hidden_upto) {
        (Bound::Included(key) | Bound::Excluded(key), Some(upto)) if key > upto => start,
        (_, Some(upto)) => Bound::Excluded(upto),
        (_, None) => start,
    }
}

pub(super) fn misplaced() -> StorageError {
    StorageError::RowsDamaged { what: "a block of rows is not where its last row belongs".to_owned() }
}
