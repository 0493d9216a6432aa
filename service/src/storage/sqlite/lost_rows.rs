//! Stored rows that turned out to be damaged, until they are dropped.
//!
//! ```text
//! a reader, a merge, the scrub, or who opens the store meets damage ─► noted; nothing is merged from then on
//! whoever commits, between two commits: which tables? ─► is the file built as it should be, and which blocks are lost?
//!                                       then they are copied anew, and the blocks dropped
//! ```
//!
//! Where the record of a run or the place of a block is damaged, nobody knows which blocks there should be: all are lost then.
//! What was only noted is found again after an end in between, and so is what was not dropped.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
    sync::Arc,
    time::{Duration, Instant},
};

use rusqlite::Connection;

use super::{
    super::{RowKey, StorageError, TableId},
    Inner,
    runs::{
        BlockId,
        check::load_checked,
        list::RunList,
        lost::{LostBlock, lost_blocks},
        read::MergedRuns,
    },
    writer::{Change, Durability},
};
use crate::fault_point::fault_point;

/// Blocks deleted at once: some megabytes.
const SLICE_BLOCKS: usize = 2_048;
/// How often the log says how far a look at all rows is.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// What is known of lost rows.
#[derive(Debug, Default)]
pub(super) struct LostRows {
    /// Somebody has met them; what.
    noted: Option<StorageError>,
    /// What a look at everything has found since.
    found: Option<Lost>,
}

/// Which rows are lost.
#[derive(Debug, Clone)]
enum Lost {
    /// Those of some blocks.
    Blocks {
        blocks: Arc<[LostBlock]>,
        /// How many rows there are without them.
        rows_left: u64,
    },
    /// All that are in runs.
    All,
}

impl LostRows {
    pub(super) fn is_known(&self) -> bool {
        self.noted.is_some()
    }
}

impl Lost {
    fn tables(&self) -> Vec<RangeInclusive<TableId>> {
        match self {
            Self::Blocks { blocks, .. } => blocks.iter().map(|block| block.tables.clone()).collect(),
            Self::All => vec![TableId(0)..=TableId(u32::MAX)],
        }
    }
}

impl Inner {
    /// Notes that stored rows are damaged, where that is what the error says.
    pub(super) fn noting_rows(&self, error: StorageError) -> StorageError {
        if !matches!(error, StorageError::RowsDamaged { .. }) {
            return error;
        }
        let mut lost = self.damages.lost_rows();
        if !lost.is_known() {
            tracing::error!(code = error.code(), %error, "the bucket store is damaged: check the disk");
        }
        // There may be others than those that were found.
        *lost = LostRows { noted: Some(error.clone()), found: None };
        error
    }

    pub(super) fn check_rows(&self) -> Result<(), StorageError> {
        self.damages.lost_rows().noted.clone().map_or(Ok(()), Err)
    }

    pub(super) fn lost_rows(self: &Arc<Self>) -> Result<Vec<RangeInclusive<TableId>>, StorageError> {
        {
            let lost = self.damages.lost_rows();
            match (&lost.noted, &lost.found) {
                (None, _) => return Ok(Vec::new()),
                (_, Some(found)) => return Ok(found.tables()),
                (Some(_), None) => {}
            }
        }
        // A fold would move rows meanwhile.
        let alone = self.maintenance();
        self.copy_whole_log(&alone.conn)?;
        if !self.is_sound(&["row_run", "row_place", "row_block", "row_filter"])? {
            return Err(self.damages.give_up());
        }
        let found = self.find_lost_rows()?;
        let tables = found.as_ref().map(Lost::tables).unwrap_or_default();
        if found.is_none() {
            self.read_runs_again()?;
            tracing::warn!("store: all stored rows can be read now");
        }
        let mut lost = self.damages.lost_rows();
        *lost = LostRows { noted: lost.noted.take().filter(|_| found.is_some()), found };
        Ok(tables)
    }

    /// Reads all stored rows, and says what of them is lost.
    fn find_lost_rows(&self) -> Result<Option<Lost>, StorageError> {
        // Connections of before may have pages in memory as they were.
        let conn = self.folder.reader(0)?;
        conn.execute_batch("BEGIN")?;
        let runs = match load_checked(&conn) {
            Err(StorageError::RowsDamaged { .. }) => return Ok(Some(Lost::All)),
            runs => runs?,
        };
        let mut progress = Progress::of("block by block", runs.iter().map(|run| run.block_count).sum());
        let mut blocks = Vec::new();
        for run in runs.iter() {
            blocks.extend(lost_blocks(&conn, &runs, run, &mut || progress.step())?);
        }
        if blocks.is_empty() {
            return Ok(None);
        }
        let recent = self.tail_read().rows.iter().map(|(key, state)| (key.clone(), state.is_some())).collect();
        let lost = blocks.iter().map(LostBlock::id).collect();
        let rows_left = count_rows(&conn, &runs, &lost, &recent)?;
        Ok(Some(Lost::Blocks { blocks: blocks.into(), rows_left }))
    }

    /// Has memory know the runs that could not be read when the store was opened.
    fn read_runs_again(&self) -> Result<(), StorageError> {
        let writer = self.writer();
        if self.runs.list().check_read().is_err() {
            let (runs, _) = RunList::load(writer.conn())?;
            self.runs.set(Arc::new(runs));
        }
        Ok(())
    }

    pub(super) fn drop_lost_rows(&self) -> Result<u64, StorageError> {
        let Some(found) = self.damages.lost_rows().found.clone() else { return Ok(0) };
        let alone = self.maintenance();
        self.row_reader.rest()?;
        let dropped = match found {
            Lost::Blocks { blocks, rows_left } => self.drop_blocks(&blocks, rows_left),
            Lost::All => self.drop_all_runs(&alone.conn),
        };
        let dropped = dropped.map_err(|error| self.noting_rows(error))?;
        self.blocks.clear();
        *self.damages.lost_rows() = LostRows::default();
        fault_point("lost-rows.dropped");
        Ok(dropped)
    }

    fn drop_blocks(&self, blocks: &[LostBlock], rows_left: u64) -> Result<u64, StorageError> {
        self.writer().transaction(Durability::Synced, |change| {
            blocks.iter().try_for_each(|block| change.drop_block(block))?;
            change.forget_dependents(blocks)?;
            change.head.row_count = rows_left;
            Ok(blocks.len() as u64)
        })
    }

    /// Drops all that runs have. The blocks first, some at a time: who writes need not wait for long, and after an end in
    /// between it is seen that some are missing.
    fn drop_all_runs(&self, log: &Connection) -> Result<u64, StorageError> {
        let sql = "DELETE FROM row_block WHERE id IN (SELECT id FROM row_block ORDER BY id LIMIT ?1)";
        let generation = self.writer().head().generation;
        let mut dropped = 0;
        while self.slice(generation, |writer| {
            let deleted = writer.transaction(Durability::Later, |change| {
                Ok(change.tx.prepare_cached(sql)?.execute([SLICE_BLOCKS.cast_signed()])?)
            })?;
            dropped += deleted as u64;
            Ok(deleted == SLICE_BLOCKS)
        })? {
            self.checkpoint_log(log)?;
        }
        let mut writer = self.writer();
        let tail = self.tail_read();
        writer.transaction(Durability::Synced, |change| {
            for table in ["row_block", "row_place", "row_filter", "row_run", "dependent"] {
                change.tx.execute(&format!("DELETE FROM {table}"), [])?;
            }
            *change.runs_mut() = RunList::default();
            change.head.dependent_count = 0;
            change.head.row_count = tail.rows.present().count() as u64;
            Ok(())
        })?;
        // Something was dropped, even if no block was there.
        Ok(dropped.max(1))
    }
}

impl Change<'_> {
    /// Which lookups the lost rows asked is not known, so all of their tables are taken out.
    fn forget_dependents(&mut self, lost: &[LostBlock]) -> Result<(), StorageError> {
        let mut delete = self.tx.prepare_cached("DELETE FROM dependent WHERE table_id BETWEEN ?1 AND ?2")?;
        for LostBlock { tables, .. } in lost {
            let count = delete.execute((tables.start().0, tables.end().0))? as u64;
            self.head.dependent_count = self.head.dependent_count.saturating_sub(count);
        }
        Ok(())
    }
}

/// How many rows a lost block showed, and how many older states come to light, is only found by looking at all keys.
/// `recent` are those of the tail, and whether they are there.
fn count_rows(
    conn: &Connection,
    runs: &RunList,
    lost: &BTreeSet<BlockId>,
    recent: &BTreeMap<RowKey, bool>,
) -> Result<u64, StorageError> {
    let mut progress = Progress::of("counting those that are left", runs.iter().map(|run| run.entry_count).sum());
    let mut count = recent.values().filter(|is_there| **is_there).count() as u64;
    let mut rows = MergedRuns::of_all_but(conn, runs, lost)?;
    while let Some(key) = rows.row_key() {
        count += u64::from(rows.state().is_some() && !recent.contains_key(&key));
        rows.advance()?;
        progress.step();
    }
    Ok(count)
}

/// Tells the log how far something is that takes long.
struct Progress {
    what: &'static str,
    done: u64,
    total: u64,
    told_at: Instant,
}

impl Progress {
    fn of(what: &'static str, total: u64) -> Self {
        Self { what, done: 0, total, told_at: Instant::now() }
    }

    fn step(&mut self) {
        self.done += 1;
        if self.done.is_multiple_of(1_024) && self.told_at.elapsed() >= TELL_EVERY {
            let Self { what, done, total, .. } = self;
            tracing::info!(done, total, "store: looking for lost rows, {what}");
            self.told_at = Instant::now();
        }
    }
}
