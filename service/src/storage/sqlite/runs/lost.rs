//! Blocks of rows that the disk did not keep.

use std::ops::RangeInclusive;

use rusqlite::Connection;

use super::{
    super::{
        super::{StorageError, TableId},
        writer::Change,
    },
    BlockId, RunId,
    block::Entries,
    build::{BlockPlace, delete_block, remove_place},
    list::{Run, RunList},
    read::{misplaced, places, read_block},
};

/// A block that cannot be read, or is not what its place says.
#[derive(Debug, Clone)]
pub(in super::super) struct LostBlock {
    run: RunId,
    place: BlockPlace,
    /// Tables of which rows may have been in it.
    pub(in super::super) tables: RangeInclusive<TableId>,
    /// What is wrong with it.
    pub(in super::super) error: StorageError,
}

/// Reads all blocks of a run, and calls `each` for each. Gives those that are lost.
pub(in super::super) fn lost_blocks(
    conn: &Connection,
    runs: &RunList,
    run: &Run,
    each: &mut dyn FnMut(),
) -> Result<Vec<LostBlock>, StorageError> {
    let mut lost = Vec::new();
    // What a merge has taken is deleted.
    let before = run.first.as_ref().max(runs.hidden_upto(run));
    let mut first = before.map_or(TableId(0), |key| key.table);
    places(conn, run.id, |place| {
        let tables = first..=place.last.table;
        first = place.last.table;
        each();
        match check_block(conn, &place) {
            Err(error @ StorageError::RowsDamaged { .. }) => {
                lost.push(LostBlock { run: run.id, place, tables, error });
                Ok(())
            }
            checked => checked,
        }
    })?;
    Ok(lost)
}

fn check_block(conn: &Connection, place: &BlockPlace) -> Result<(), StorageError> {
    let mut entries = Entries::of(read_block(conn, place.id)?);
    let (mut count, mut last) = (0, None);
    while entries.advance().map_err(|_| misplaced())? {
        (count, last) = (count + 1, entries.row_key());
    }
    if count == place.entry_count && last.as_ref() == Some(&place.last) { Ok(()) } else { Err(misplaced()) }
}

impl LostBlock {
    pub(in super::super) fn id(&self) -> BlockId {
        self.place.id
    }
}

impl Change<'_> {
    /// Takes a lost block out of its run.
    pub(in super::super) fn drop_block(&mut self, block: &LostBlock) -> Result<(), StorageError> {
        let Some(run) = self.runs.get(block.run) else { return Ok(()) };
        let run = Run {
            entry_count: run.entry_count.saturating_sub(block.place.entry_count),
            block_count: run.block_count.saturating_sub(1),
            byte_count: run.byte_count.saturating_sub(block.place.byte_count),
            ..run.clone()
        };
        remove_place(self.tx, run.id, &block.place.last)?;
        delete_block(self.tx, block.place.id)?;
        run.store(self.tx)?;
        self.runs_mut().put(run);
        Ok(())
    }
}
