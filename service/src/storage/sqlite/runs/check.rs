//! Whether runs are as they were written.

use std::ops::Bound;

use rusqlite::Connection;

use super::{
    super::super::{RowKey, StorageError},
    filter::KeyHash,
    list::{Run, RunList},
    read::{MergedRuns, places},
};

/// What the places of a run's blocks say.
#[derive(Debug, Default, PartialEq, Eq)]
struct Counted {
    entries: u64,
    blocks: u64,
    bytes: u64,
}

/// The runs, without filters, of which all records and all places can be read.
pub(in super::super) fn load_checked(conn: &Connection) -> Result<RunList, StorageError> {
    let runs = RunList::load_without_filters(conn)?;
    check_places(conn, &runs)?;
    Ok(runs)
}

/// Checks that all places can be read, that each is of a run, and that runs have as many blocks as they say: a place that is
/// not found under its key would hide rows. Reads no blocks.
pub(in super::super) fn check_places(conn: &Connection, runs: &RunList) -> Result<(), StorageError> {
    let mut of_runs = 0;
    for run in runs.iter() {
        of_runs += check_counts(conn, run)?.blocks;
    }
    let all: i64 = conn.query_row("SELECT count(*) FROM row_place", [], |row| row.get(0))?;
    if all.unsigned_abs() == of_runs { Ok(()) } else { Err(rows_damaged("the place of a block is of no run")) }
}

/// Checks every block of a run, and its filter. Gives the number of its blocks.
pub(in super::super) fn check_run(conn: &Connection, run: &Run) -> Result<u64, StorageError> {
    let counted = check_counts(conn, run)?;
    let only = RunList::of(Run { merged_into: None, ..run.clone() });
    let mut rows = MergedRuns::of_all(conn, &only, Bound::Unbounded)?;
    let (mut entry_count, mut before): (u64, Option<RowKey>) = (0, None);
    while let Some(key) = rows.row_key() {
        if before.as_ref().is_some_and(|before| *before >= key) {
            return Err(damaged("rows of a run are out of order"));
        }
        if !run.may_have(&key, KeyHash::of_key(&key)) {
            return Err(damaged("a run denies a row that it has"));
        }
        (entry_count, before) = (entry_count + 1, Some(key));
        rows.advance()?;
    }
    if entry_count != counted.entries {
        return Err(damaged("a run has not as many rows as its blocks say"));
    }
    Ok(counted.blocks)
}

fn check_counts(conn: &Connection, run: &Run) -> Result<Counted, StorageError> {
    let mut counted = Counted::default();
    let mut before: Option<RowKey> = None;
    places(conn, run.id, |place| {
        counted.entries += place.entry_count;
        counted.blocks += 1;
        counted.bytes += place.byte_count;
        let ascends = before.as_ref().is_none_or(|before| *before < place.last);
        before = Some(place.last);
        if ascends { Ok(()) } else { Err(rows_damaged("blocks of a run are out of order")) }
    })?;
    let Run { entry_count, block_count, byte_count, .. } = *run;
    let says = Counted { entries: entry_count, blocks: block_count, bytes: byte_count };
    // A merge takes blocks away.
    let holds = if run.merged_into.is_some() { counted.blocks <= says.blocks } else { counted == says };
    if holds { Ok(counted) } else { Err(rows_damaged("a run has not as many blocks as it says")) }
}

fn rows_damaged(what: &str) -> StorageError {
    StorageError::RowsDamaged { what: what.to_owned() }
}

fn damaged(what: &str) -> StorageError {
    StorageError::Damaged { what: what.to_owned() }
}
