//! Merging runs, a bounded slice at a time.

use std::ops::Bound;

use rusqlite::Connection;

use super::{
    super::{
        super::{RowKey, StorageError, TableId},
        Inner,
        writer::{Change, Durability},
    },
    BlockId, RunId,
    block::Entries,
    build::{BlockPlace, PackedBlock, Packer, append_blocks, append_place, delete_block, remove_place},
    filter::{KeyFilter, KeyHash},
    list::{Run, RunList},
    policy::{RUNS_MAX, Size, worth_merging},
    read::MergedRuns,
};
use crate::{fault_point::fault_point, traces::trace_span};

/// Most compressed bytes a slice writes.
const SLICE_BYTES: usize = 512 << 10;
/// Most blocks a slice takes over as they are.
const SLICE_BLOCKS: usize = 512;
/// Most rows a slice looks at.
const SLICE_ROWS: usize = 20_000;

/// What a slice brings into the run that a merge writes.
#[derive(Debug)]
struct MergeSlice {
    into: Run,
    written: Vec<PackedBlock>,
    /// Blocks that are taken over, and from where.
    moved: Vec<(RunId, BlockPlace)>,
    /// The last key it looked at; `None` if there was none.
    upto: Option<RowKey>,
    /// Nothing is left.
    is_last: bool,
}

impl Inner {
    /// Whether runs must be merged before more come. While rows are lost none do.
    pub(in super::super) fn has_many_runs(&self) -> bool {
        self.runs.list().len() > RUNS_MAX && self.check_rows().is_ok()
    }

    /// Does a slice of what is to be merged, and one for a run without a filter. Gives the bytes it wrote, or read for a
    /// filter; `None` if there was nothing to do, or if it was given up because of a reset or because the store is being
    /// closed.
    pub(in super::super) fn merge_runs(&self) -> Result<Option<u64>, StorageError> {
        let mut maintenance = self.maintenance();
        // What was found to be lost must stay where it is until it is dropped.
        if self.check_rows().is_err() {
            return Ok(None);
        }
        let read = self.make_missing_filter(&mut maintenance.filter).map_err(|error| self.noting_rows(error))?;
        let written = self.merge_some_runs(&maintenance.conn)?;
        Ok(written.or(read).map(|_| written.unwrap_or(0) + read.unwrap_or(0)))
    }

    fn merge_some_runs(&self, log: &Connection) -> Result<Option<u64>, StorageError> {
        let Some(id) = self.begin_merge()? else { return Ok(None) };
        let span = trace_span!(parent: None, "store.merge");
        span.in_scope(|| self.merge_slice(id, log)).map_err(|error| self.noting_rows(error))
    }

    /// Merges all runs into one.
    pub(in super::super) fn merge_all_runs(&self) -> Result<(), StorageError> {
        let mut maintenance = self.maintenance();
        self.check_rows()?;
        while self.merge_some_runs(&maintenance.conn)?.is_some() {}
        let all: Vec<_> = self.runs.list().iter().map(|run| run.id).collect();
        if all.len() < 2 {
            while self.make_missing_filter(&mut maintenance.filter)?.is_some() {}
            return Ok(());
        }
        let log = &maintenance.conn;
        let Some(id) = self.start_merge(&all)? else { return Ok(()) };
        while self.runs.list().sources(id).next().is_some() && self.merge_slice(id, log)?.is_some() {}
        Ok(())
    }

    /// The run that is being written, a new one where newer runs are worth it; `None` if there is none.
    fn begin_merge(&self) -> Result<Option<RunId>, StorageError> {
        let runs = self.runs.list();
        let is_free = |run: &&Run| run.merged_into.is_none() && runs.sources(run.id).next().is_none();
        let free: Vec<_> = runs.iter().take_while(is_free).collect();
        let size = |(number, run): (usize, &&Run)| {
            let is_overlapped = free[..number].iter().any(|newer| newer.overlaps(run));
            Size { bytes: run.byte_count, is_overlapped }
        };
        let sizes: Vec<_> = free.iter().enumerate().map(size).collect();
        if let Some(count) = worth_merging(&sizes, free.len() == runs.len()) {
            let sources: Vec<_> = free[..count].iter().map(|run| run.id).collect();
            return self.start_merge(&sources);
        }
        // One that was begun is ended first if it is newer: its sources are smaller.
        Ok(runs.iter().find(|run| runs.sources(run.id).next().is_some()).map(|run| run.id))
    }

    /// Begins to merge these runs, the newest first, which no other merge has; `None` if they are gone after a reset.
    fn start_merge(&self, sources: &[RunId]) -> Result<Option<RunId>, StorageError> {
        let mut writer = self.writer();
        writer.transaction(Durability::Later, |change| {
            let Some(sources) = sources.iter().map(|id| change.runs.get(*id).cloned()).collect::<Option<Vec<_>>>()
            else {
                return Ok(None);
            };
            let id = change.head.next_run_id();
            let entry_count = sources.iter().map(|run| run.entry_count).sum();
            let position = sources.iter().map(|run| run.position).max().unwrap_or_default();
            let first = sources.iter().filter_map(|run| run.first.clone()).min();
            let into = Run { first, ..Run::new(id, position, KeyFilter::new(entry_count).into()) };
            into.store(change.tx)?;
            change.runs_mut().put(into);
            for source in sources {
                let source = Run { merged_into: Some(id), ..source };
                source.store(change.tx)?;
                change.runs_mut().put(source);
            }
            Ok(Some(id))
        })
    }

    fn merge_slice(&self, id: RunId, log: &Connection) -> Result<Option<u64>, StorageError> {
        let generation = self.writer().head().generation;
        let slice = {
            let reader = self.reader()?;
            // One state: a reset must not look like a missing block.
            reader.conn().execute_batch("BEGIN")?;
            let runs = RunList::load_with(reader.conn(), &self.runs.list())?;
            let Some(into) = runs.get(id) else { return Ok(None) };
            MergeSlice::plan(reader.conn(), &runs, into)?
        };
        let bytes = slice.byte_count();
        let is_stored = self.slice(generation, |writer| {
            writer.transaction(Durability::Later, |change| slice.store(change))?;
            fault_point("store.runs-merged");
            Ok(true)
        })?;
        self.checkpoint_log(log)?;
        Ok(is_stored.then_some(bytes))
    }
}

impl MergeSlice {
    fn plan(conn: &Connection, runs: &RunList, into: &Run) -> Result<Self, StorageError> {
        // Nothing older could still have what is gone.
        let forgets = runs.iter().next_back().is_some_and(|oldest| oldest.merged_into == Some(into.id));
        let start = into.last.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let mut rows = MergedRuns::of(conn, runs, runs.sources(into.id), start)?;
        let (mut packer, mut moved) = (Packer::default(), Vec::new());
        let (mut upto, mut row_count) = ((TableId(0), Vec::new()), 0);
        while packer.packed_bytes() < SLICE_BYTES && moved.len() < SLICE_BLOCKS && row_count < SLICE_ROWS {
            if let Some((from, place, content)) = rows.whole_block()
                && place.is_worth_keeping(content.len())
            {
                remember_all(into, Entries::of(content.clone()))?;
                (upto.0, row_count) = (place.last.table, row_count + 1);
                place.last.identity.as_ref().clone_into(&mut upto.1);
                if packer.is_at_small_block() {
                    packer.push_block(place, content)?;
                } else {
                    packer.close()?;
                    moved.push((from, place.clone()));
                }
                rows.skip_block()?;
                continue;
            }
            let Some((table, identity)) = rows.key() else { break };
            if rows.state().is_some() || !forgets {
                remember(into, table, identity);
                packer.push(table, identity, rows.state())?;
            }
            (upto.0, row_count) = (table, row_count + 1);
            identity.clone_into(&mut upto.1);
            rows.advance()?;
        }
        packer.close()?;
        let upto = (row_count > 0).then(|| RowKey { table: upto.0, identity: upto.1.into() });
        Ok(Self { into: into.clone(), written: packer.take(), moved, upto, is_last: rows.key().is_none() })
    }

    /// Bytes it writes.
    fn byte_count(&self) -> u64 {
        self.written.iter().map(PackedBlock::byte_count).sum()
    }

    fn store(self, change: &mut Change) -> Result<(), StorageError> {
        let mut into = self.into;
        append_blocks(change.tx, &mut change.head, &mut into, self.written)?;
        for (from, place) in &self.moved {
            remove_place(change.tx, *from, &place.last)?;
            append_place(change.tx, &mut into, place)?;
        }
        if let Some(upto) = self.upto {
            for source in change.runs.sources(into.id) {
                delete_upto(change.tx, source.id, &upto)?;
            }
            into.last = Some(upto);
        }
        if self.is_last {
            let sources: Vec<_> = change.runs.sources(into.id).cloned().collect();
            for source in sources {
                source.delete(change.tx)?;
                change.runs_mut().remove(source.id);
            }
            if into.block_count == 0 {
                into.delete(change.tx)?;
                change.runs_mut().remove(into.id);
                return Ok(());
            }
            into.store_filter(change.tx)?;
        }
        into.store(change.tx)?;
        change.runs_mut().put(into);
        Ok(())
    }
}

/// Adds a key to a run's filter, before the run shows it.
fn remember(run: &Run, table: TableId, identity: &[u8]) {
    if let Some(filter) = &run.filter {
        filter.insert(KeyHash::of(table, identity));
    }
}

fn remember_all(run: &Run, mut entries: Entries) -> Result<(), StorageError> {
    while entries.advance()? {
        if let Some((table, identity)) = entries.key() {
            remember(run, table, identity);
        }
    }
    Ok(())
}

/// Deletes the blocks of a run that end with a key up to this one.
fn delete_upto(conn: &Connection, run: RunId, upto: &RowKey) -> Result<(), StorageError> {
    let of = "run_id = ?1 AND (table_id, identity) <= (?2, ?3)";
    let key = (run.column(), upto.table.0, &*upto.identity);
    let mut select = conn.prepare_cached(&format!("SELECT block_id FROM row_place WHERE {of}"))?;
    let ids = select.query_map(key, |row| row.get::<_, i64>(0))?.collect::<Result<Vec<_>, _>>()?;
    for id in ids {
        delete_block(conn, BlockId(id.cast_unsigned()))?;
    }
    conn.prepare_cached(&format!("DELETE FROM row_place WHERE {of}"))?.execute(key)?;
    Ok(())
}
