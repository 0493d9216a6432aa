//! Stored rows that turned out to be damaged, until they are dropped.
//!
//! ```text
//! a reader, a merge or the scrub meets damage ─► noted
//! whoever commits, between two commits: which tables? ─► is the file built as it should be, and which blocks are lost?
//!                                       then they are copied anew, and the blocks dropped
//! ```
//!
//! What was only noted is found again after an end in between, and so is a block that was not dropped.

use std::{
    ops::{Bound, RangeInclusive},
    sync::Arc,
};

use super::{
    super::{StorageError, TableId},
    Inner,
    runs::{
        list::RunList,
        lost::{LostBlock, lost_blocks},
        read::MergedRuns,
    },
    tail::Tail,
    writer::{Change, Durability},
};
use crate::fault_point::fault_point;

/// What is known of lost rows.
#[derive(Debug, Default)]
pub(super) struct LostRows {
    /// Somebody has met them; what.
    noted: Option<StorageError>,
    /// What a look at everything has found since.
    blocks: Vec<LostBlock>,
}

impl LostRows {
    pub(super) fn is_known(&self) -> bool {
        self.noted.is_some()
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
        *lost = LostRows { noted: Some(error.clone()), blocks: Vec::new() };
        error
    }

    pub(super) fn check_rows(&self) -> Result<(), StorageError> {
        self.damages.lost_rows().noted.clone().map_or(Ok(()), Err)
    }

    pub(super) fn lost_rows(self: &Arc<Self>) -> Result<Vec<RangeInclusive<TableId>>, StorageError> {
        let tables = |blocks: &[LostBlock]| blocks.iter().map(|block| block.tables.clone()).collect();
        {
            let lost = self.damages.lost_rows();
            if !lost.is_known() || !lost.blocks.is_empty() {
                return Ok(tables(&lost.blocks));
            }
        }
        // Merges would move blocks.
        let alone = self.maintenance();
        self.copy_whole_log(&alone.conn)?;
        if !self.is_sound(&["row_run", "row_place", "row_block"])? {
            return Err(self.damages.give_up());
        }
        // Connections of before may have pages in memory as they were.
        let conn = self.folder.reader(0)?;
        conn.execute_batch("BEGIN")?;
        let runs = RunList::load_without_filters(&conn)?;
        let mut blocks = Vec::new();
        for run in runs.iter() {
            blocks.extend(lost_blocks(&conn, &runs, run)?);
        }
        let mut lost = self.damages.lost_rows();
        if blocks.is_empty() {
            tracing::warn!("store: all stored rows can be read now");
            *lost = LostRows::default();
        }
        lost.blocks.clone_from(&blocks);
        Ok(tables(&blocks))
    }

    pub(super) fn drop_lost_rows(&self) -> Result<u64, StorageError> {
        let blocks = self.damages.lost_rows().blocks.clone();
        if blocks.is_empty() {
            return Ok(0);
        }
        let _alone = self.maintenance();
        self.row_reader.rest()?;
        let mut writer = self.writer();
        let tail = self.tail_read();
        let dropped = writer.transaction(Durability::Synced, |change| {
            blocks.iter().try_for_each(|block| change.drop_block(block))?;
            change.forget_dependents(&blocks)?;
            change.count_rows(&tail)
        });
        drop(tail);
        dropped.map_err(|error| self.noting_rows(error))?;
        self.blocks.clear();
        *self.damages.lost_rows() = LostRows::default();
        fault_point("lost-rows.dropped");
        Ok(blocks.len() as u64)
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

    /// How many rows a lost block showed, and how many older states come to light, is only found by looking at all keys.
    fn count_rows(&mut self, tail: &Tail) -> Result<(), StorageError> {
        let mut count = tail.rows.present().count() as u64;
        let mut rows = MergedRuns::of_all(self.tx, &RunList::clone(&self.runs), Bound::Unbounded)?;
        while let Some(key) = rows.row_key() {
            count += u64::from(rows.state().is_some() && tail.rows.is_there(&key).is_none());
            rows.advance()?;
        }
        self.head.row_count = count;
        Ok(())
    }
}
