//! Filters for runs that have none: the disk did not keep it, or the store was closed amid the merge that writes the run.
//!
//! Its keys are read a slice at a time, in their order, while the run is used without. A merge may go on behind that: what it
//! appends comes later in that order, and the last look is made while no merge can be under way.

use std::{ops::Bound, sync::Arc};

use super::{
    super::{
        super::{RowKey, StorageError},
        Inner,
        writer::Durability,
    },
    RunId,
    block::Entries,
    filter::{KeyFilter, KeyHash},
    list::{Run, RunList},
    read::{first_place, read_block},
};

/// Most blocks read in a slice: a megabyte.
const SLICE_BLOCKS: usize = 512;

/// A filter that has the keys of a run up to one.
#[derive(Debug)]
pub(in super::super) struct PartialFilter {
    run: RunId,
    filter: Arc<KeyFilter>,
    upto: Option<RowKey>,
}

impl PartialFilter {
    /// Of the newest run that has none.
    fn begin(runs: &RunList) -> Option<Self> {
        let run = runs.iter().find(|run| run.filter.is_none())?;
        // One that is being written will have about what its sources had when that began.
        let key_count = runs.sources(run.id).map(|source| source.entry_count).sum::<u64>().max(run.entry_count);
        Some(Self { run: run.id, filter: Arc::new(KeyFilter::new(key_count)), upto: None })
    }

    /// Whether the run is there, and still has none.
    fn is_wanted(&self, runs: &RunList) -> bool {
        runs.get(self.run).is_some_and(|run| run.filter.is_none())
    }
}

impl Inner {
    /// Does a slice for a run without a filter; `partial` is what was done before. Gives the bytes it read; `None` if all
    /// runs have one. To be called by whoever merges.
    pub(in super::super) fn make_missing_filter(
        &self,
        partial: &mut Option<PartialFilter>,
    ) -> Result<Option<u64>, StorageError> {
        let runs = self.runs.list();
        let begun = partial.take().filter(|partial| partial.is_wanted(&runs));
        let Some(mut making) = begun.or_else(|| PartialFilter::begin(&runs)) else { return Ok(None) };
        let (bytes, is_complete) = self.read_keys(&mut making)?;
        if is_complete {
            self.set_filter(making)?;
        } else {
            *partial = Some(making);
        }
        Ok(Some(bytes))
    }

    /// Adds the keys of some blocks. Gives the bytes of these blocks, and whether they were the last.
    fn read_keys(&self, making: &mut PartialFilter) -> Result<(u64, bool), StorageError> {
        let reader = self.reader()?;
        // One state: a reset must not look like a missing block. The connection ends it when it goes back.
        reader.conn().execute_batch("BEGIN")?;
        let mut bytes = 0;
        for _ in 0..SLICE_BLOCKS {
            let after = making.upto.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
            let Some(place) = first_place(reader.conn(), making.run, after)? else { return Ok((bytes, true)) };
            let mut entries = Entries::of(read_block(reader.conn(), place.id)?);
            while entries.advance()? {
                if let Some((table, identity)) = entries.key() {
                    making.filter.insert(KeyHash::of(table, identity));
                }
            }
            bytes += place.byte_count;
            making.upto = Some(place.last);
        }
        Ok((bytes, false))
    }

    /// Gives the run its filter. One that is being written stores it once it is whole.
    fn set_filter(&self, PartialFilter { run, filter, .. }: PartialFilter) -> Result<(), StorageError> {
        self.writer().transaction(Durability::Later, |change| {
            let Some(run) = change.runs.get(run) else { return Ok(()) };
            let run = Run { filter: Some(filter), ..run.clone() };
            if change.runs.sources(run.id).next().is_none() {
                run.store_filter(change.tx)?;
            }
            // Of what was damaged some may say that it is of another run.
            change.tx.execute("DELETE FROM row_filter WHERE run_id NOT IN (SELECT id FROM row_run)", [])?;
            change.runs_mut().put(run);
            Ok(())
        })
    }
}
