//! Compaction of chunks: what [`compaction`](super::super::compaction) says, a bounded step at a time.
//!
//! ```text
//! a bucket that has grown enough ─► from its newest chunk to the oldest: superseded operations become MOVE
//!                                ─► from its oldest chunk on: what puts nothing becomes one CLEAR
//!                                ─► where few operations keep many from that: the next commit writes them again
//!                                ─► it is due again after it has grown by a share of what is left
//! ```
//!
//! Each step replaces some chunks by others in one transaction, which is right by itself: where compaction ends early, in a
//! crash or because the store is closed, what it did stays, and the bucket is still due. Only chunks are compacted: what a
//! busy bucket has in the tail is folded first.

use std::{
    collections::HashSet,
    mem,
    sync::{MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use kairos_sync_protocol::OpId;
use rusqlite::{Connection, OptionalExtension};
use tracing::field;

use super::{
    super::{
        NewOperation, StorageError,
        compaction::{
            CompactionOptions, Key, Rewritable, Superseding, cleared, count_to_clear, moved, superseding_key,
        },
        wire::WireOperation,
    },
    BucketId, Inner,
    bucket::Bucket,
    chunk::{self, Chunk, Links, NewChunks},
    fold::{FoldBound, free_pages_kept},
    head::Head,
    writer::{Durability, Writer},
};
use crate::{
    fault_point::fault_point,
    traces::{number, trace_span},
};

/// Bytes of JSON a step looks at, but at least one chunk: what it writes takes commits a few milliseconds.
const STEP_BYTES: u64 = 512 << 10;
/// Chunks a step looks at, at most.
const STEP_CHUNKS: usize = 64;
/// How long no bucket was due before one looks again.
const LOOK_AFTER: Duration = Duration::from_secs(5);

/// Compaction of one bucket.
#[derive(Debug)]
pub(super) struct Compaction {
    bucket: BucketId,
    generation: u64,
    /// The last operation that was visible when it began. Later ones neither change nor supersede.
    upto: OpId,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// Chunks that end with an operation up to this one, or all, are to be looked at.
    Moving {
        superseding: Superseding,
        next: Option<OpId>,
    },
    Clearing,
    /// Operations up to this one were looked at.
    Rewriting {
        rewritable: Rewritable,
        seen: OpId,
    },
}

/// Operations of a bucket that a commit appends again.
#[derive(Debug, Default)]
pub(super) enum Rewriting {
    #[default]
    Nothing,
    /// The next one shall.
    Due(Rewrite),
    /// One has, mostly: what they stood for can be cleared now.
    Done(BucketId),
}

/// What is to be appended.
#[derive(Debug)]
pub(super) struct Rewrite {
    bucket: BucketId,
    generation: u64,
    /// Operations up to this one were looked at. Later ones may supersede these.
    seen: OpId,
    operations: Vec<(Key, NewOperation)>,
}

impl Compaction {
    fn of(bucket: &Bucket, generation: u64, upto: OpId) -> Self {
        let stage = Stage::Moving { superseding: Superseding::new(bucket.folded.count), next: None };
        Self { bucket: bucket.id, generation, upto, stage }
    }
}

/// Keeps compaction to its share of the disk.
#[derive(Debug)]
pub(super) struct Pace {
    bytes_per_second: u64,
    next: Instant,
}

impl Pace {
    pub(super) fn new(options: CompactionOptions) -> Self {
        Self { bytes_per_second: options.bytes_per_second, next: Instant::now() }
    }

    /// How long until the next step.
    pub(super) fn rest(&self) -> Duration {
        if self.bytes_per_second == 0 {
            // As good as never.
            return Duration::from_hours(1);
        }
        self.next.saturating_duration_since(Instant::now())
    }

    /// A step has read and written so many bytes, or there was nothing to do.
    pub(super) fn pay(&mut self, bytes: Option<u64>) {
        let share = |bytes: u64| Duration::from_millis(bytes.saturating_mul(1_000) / self.bytes_per_second.max(1));
        self.next = Instant::now() + bytes.map_or(LOOK_AFTER, share);
    }
}

/// Some chunks of a bucket that follow each other, oldest first.
struct Group {
    ids: Vec<i64>,
    operations: Vec<WireOperation>,
    links: Links,
    json_bytes: u64,
}

impl Inner {
    /// Does a step; how many bytes it has read and written, `None` if nothing was to be done.
    pub(super) fn compact(&self) -> Result<Option<u64>, StorageError> {
        let mut maintenance = self.maintenance();
        // Whatever fails: the bucket is still due, and begun anew.
        let Some(compaction) =
            maintenance.compaction.take().map_or_else(|| self.next_compaction(), |it| Ok(Some(it)))?
        else {
            return Ok(None);
        };
        let span = trace_span!(parent: None, "store.compact", bytes = field::Empty).entered();
        let Compaction { bucket, generation, upto, stage } = compaction;
        let step = match stage {
            Stage::Moving { superseding, next } => self.move_step(bucket, generation, upto, superseding, next),
            Stage::Clearing => self.clear_step(bucket, generation, upto),
            Stage::Rewriting { rewritable, seen } => self.rewrite_step(bucket, generation, rewritable, seen),
        };
        let (bytes, stage) = step.map_err(|error| self.noting(bucket, error))?;
        span.record("bytes", number(bytes));
        maintenance.compaction = stage.map(|stage| Compaction { bucket, generation, upto, stage });
        let is_done = maintenance.compaction.is_none();
        drop(maintenance);
        if is_done {
            self.give_back_pages(free_pages_kept)?;
        }
        Ok(Some(bytes))
    }

    /// Compacts every bucket, and gives all free pages back.
    pub(super) fn compact_all(&self, progress: &mut dyn FnMut(u64, u64)) -> Result<(), StorageError> {
        self.fold()?;
        self.merge_all_runs()?;
        let total = self.writer().head().bucket_count;
        let mut done = 0;
        let mut last = None;
        while let Some(bucket) = self.bucket_after(last)? {
            let (writer, id) = (self.writer(), bucket.id);
            let Head { generation, checkpoint: Some(checkpoint), .. } = *writer.head() else { break };
            drop(writer);
            self.maintenance().compaction = Some(Compaction::of(&bucket, generation, checkpoint.op_id));
            while self.maintenance().compaction.as_ref().is_some_and(|compaction| compaction.bucket == id) {
                self.compact()?;
            }
            last = Some(id);
            done += 1;
            progress(done, total.max(done));
        }
        self.give_back_pages(|_| 0)
    }

    fn bucket_after(&self, last: Option<BucketId>) -> Result<Option<Bucket>, StorageError> {
        let sql = format!("SELECT {} FROM bucket WHERE id > ?1 ORDER BY id LIMIT 1", Bucket::COLUMNS);
        let reader = self.reader()?;
        let mut statement = reader.conn().prepare_cached(&sql)?;
        let last = last.map_or(-1, BucketId::column);
        statement.query_row([last], |row| Ok(Bucket::read(row))).optional()?.transpose()
    }

    /// A bucket for which it pays, if anything is visible.
    fn next_compaction(&self) -> Result<Option<Compaction>, StorageError> {
        let upto = self.bound();
        let Some(checkpoint) = self.writer().head().checkpoint else { return Ok(None) };
        let rewritten = match *self.rewriting() {
            Rewriting::Done(id) => Some(id),
            _ => None,
        };
        if let Some(id) = rewritten {
            self.fold_bucket(id, upto)?;
            *self.rewriting() = Rewriting::Nothing;
            let bucket = Bucket::load(self.reader()?.conn(), id)?;
            return Ok(bucket.map(|bucket| Compaction::of(&bucket, upto.generation, checkpoint.op_id)));
        }
        self.fold_busy(upto)?;
        let reader = self.reader()?;
        let columns = Bucket::COLUMNS;
        let sql = format!("SELECT {columns} FROM bucket WHERE operation_count >= due_count ORDER BY id LIMIT 1");
        let due = reader.conn().prepare_cached(&sql)?.query_row([], |row| Ok(Bucket::read(row))).optional()?;
        Ok(due.transpose()?.map(|bucket| Compaction::of(&bucket, upto.generation, checkpoint.op_id)))
    }

    /// Folds buckets that are due with what they have in the tail: where little happens, that may be there for weeks.
    fn fold_busy(&self, upto: FoldBound) -> Result<(), StorageError> {
        let growth_min = self.options.compaction.growth_min.max(1);
        let totals = self.tail_read().totals();
        for (id, recent) in totals.iter().filter(|(_, recent)| recent.count >= growth_min) {
            let bucket = Bucket::load(self.reader()?.conn(), *id)?;
            if bucket.is_some_and(|bucket| bucket.folded.count + recent.count >= bucket.due_count) {
                self.fold_bucket(*id, upto)?;
            }
        }
        Ok(())
    }

    fn fold_bucket(&self, bucket: BucketId, upto: FoldBound) -> Result<(), StorageError> {
        let plan = self.plan(bucket, upto.op_id)?;
        self.store_plans(upto, plan.as_slice()).map(|_| ())
    }

    fn move_step(
        &self,
        bucket: BucketId,
        generation: u64,
        upto: OpId,
        mut superseding: Superseding,
        next: Option<OpId>,
    ) -> Result<(u64, Option<Stage>), StorageError> {
        let group = newest_group(self.reader()?.conn(), bucket, next)?;
        let Some(mut group) = group else {
            let again = |superseding| Stage::Moving { superseding, next: None };
            let stage = superseding.next_part().map_or(Stage::Clearing, again);
            return Ok((0, Some(stage)));
        };
        let next = Some(group.links.previous);
        let mut changes = false;
        for operation in group.operations.iter_mut().rev().filter(|operation| operation.op_id <= upto) {
            if let Some(later) = superseding.superseding(operation)? {
                *operation = moved(operation);
                group.links.valid_from = group.links.valid_from.max(later);
                changes = true;
            }
        }
        let read = group.json_bytes;
        let written = if changes { self.replace(bucket, generation, group, 0)? } else { Some(0) };
        let stage = Stage::Moving { superseding, next };
        Ok(written.map_or((read, None), |written| (read + written, Some(stage))))
    }

    fn clear_step(&self, bucket: BucketId, generation: u64, upto: OpId) -> Result<(u64, Option<Stage>), StorageError> {
        let Some(mut group) = group_after(self.reader()?.conn(), bucket, OpId::ZERO)? else {
            return Ok((0, None));
        };
        let read = group.json_bytes;
        let visible = group.operations.partition_point(|operation| operation.op_id <= upto);
        let count = count_to_clear(&group.operations[..visible])?;
        let is_all = count == group.operations.len();
        let begin_rewriting =
            || Stage::Rewriting { rewritable: Rewritable::new(self.options.compaction), seen: OpId::ZERO };
        let Some(clear) = cleared(&group.operations[..count]) else {
            return Ok((read, Some(begin_rewriting())));
        };
        group.links.valid_from = group.links.valid_from.max(clear.op_id);
        group.operations.splice(..count, [clear]);
        let written = self.replace(bucket, generation, group, count as u64 - 1)?;
        let next = || if is_all { Stage::Clearing } else { begin_rewriting() };
        Ok((read + written.unwrap_or_default(), written.map(|_| next())))
    }

    fn rewrite_step(
        &self,
        bucket: BucketId,
        generation: u64,
        mut rewritable: Rewritable,
        seen: OpId,
    ) -> Result<(u64, Option<Stage>), StorageError> {
        let group = group_after(self.reader()?.conn(), bucket, seen)?;
        if let Some(group) = group.filter(|_| rewritable.wants_more()) {
            let start = group.operations.partition_point(|operation| operation.op_id <= seen);
            group.operations[start..].iter().try_for_each(|operation| rewritable.look_at(operation))?;
            let seen = group.operations.last().map(|operation| operation.op_id).unwrap_or_default();
            return Ok((group.json_bytes, Some(Stage::Rewriting { rewritable, seen })));
        }
        let Some(name) = Bucket::load(self.reader()?.conn(), bucket)?.map(|bucket| bucket.name) else {
            return Ok((0, None));
        };
        let operations = rewritable.finish(&name)?;
        // What is written again is folded, and then cleared, before long.
        let is_again_soon = !operations.is_empty();
        if is_again_soon {
            *self.rewriting() = Rewriting::Due(Rewrite { bucket, generation, seen, operations });
        }
        self.finish(bucket, generation, is_again_soon)?;
        Ok((0, None))
    }

    /// What a commit that is visible shall write again before its own operations, if there is anything. Only what still
    /// counts: nothing of these keys came since.
    pub(super) fn take_rewrite(&self, writer: &Writer) -> Result<Vec<NewOperation>, StorageError> {
        let due = mem::take(&mut *self.rewriting());
        let Rewriting::Due(Rewrite { bucket: id, generation, seen, operations }) = due else {
            *self.rewriting() = due;
            return Ok(Vec::new());
        };
        // Whatever comes of it, the bucket is looked at again.
        *self.rewriting() = Rewriting::Done(id);
        let bucket = Bucket::load(writer.conn(), id)?.filter(|_| writer.head().generation == generation);
        let Some(bucket) = bucket else { return Ok(Vec::new()) };
        let folded = match group_after(writer.conn(), id, seen).map_err(|error| self.noting(id, error)) {
            Ok(group) => group.map(|group| group.operations).unwrap_or_default(),
            // The commit has nothing to do with it.
            Err(StorageError::BucketDamaged { .. }) => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        if folded.last().map_or(seen, |last| last.op_id) < bucket.folded.last_op_id {
            // Too much came since to be looked at while a commit waits.
            return Ok(Vec::new());
        }
        let recent: Vec<_> = folded.into_iter().chain(self.tail_read().all(id)).collect();
        let superseded = recent.iter().filter_map(|operation| superseding_key(operation).transpose());
        let superseded: HashSet<Key> = superseded.collect::<Result<_, _>>()?;
        let live = operations.into_iter().filter(|(key, _)| !superseded.contains(key));
        Ok(live.map(|(_, operation)| operation).collect())
    }

    pub(super) fn rewriting(&self) -> MutexGuard<'_, Rewriting> {
        self.rewriting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a group in place of the chunks it was read from, with so many operations fewer. How many bytes that were;
    /// `None` if it was given up.
    fn replace(
        &self,
        bucket: BucketId,
        generation: u64,
        group: Group,
        fewer: u64,
    ) -> Result<Option<u64>, StorageError> {
        let Group { ids, operations, links, json_bytes } = group;
        let mut chunks = NewChunks::of(bucket, json_bytes, links, operations)?;
        chunks.close()?;
        let replaced = self.slice(generation, |writer| {
            fault_point("store.before-compacting");
            let is_there = writer.transaction(Durability::Later, |change| {
                // It may have been forgotten meanwhile.
                let Some(mut bucket) = Bucket::load(change.tx, bucket)? else { return Ok(false) };
                bucket.folded.count = bucket.folded.count.saturating_sub(fewer);
                bucket.update(change.tx)?;
                chunk::delete(change.tx, &ids)?;
                chunks.store(change.tx)?;
                change.head.operation_count = change.head.operation_count.saturating_sub(fewer);
                Ok(true)
            })?;
            fault_point("store.compacted");
            Ok(is_there)
        })?;
        Ok(replaced.then_some(chunks.bytes() as u64))
    }

    /// The bucket is compacted.
    fn finish(&self, bucket: BucketId, generation: u64, is_again_soon: bool) -> Result<(), StorageError> {
        let options = self.options.compaction;
        self.slice(generation, |writer| {
            writer.transaction(Durability::Later, |change| {
                let Some(mut bucket) = Bucket::load(change.tx, bucket)? else { return Ok(()) };
                bucket.due_count = if is_again_soon {
                    bucket.folded.count + options.growth_min.max(1)
                } else {
                    options.due_count(bucket.folded.count)
                };
                bucket.update(change.tx)
            })?;
            Ok(true)
        })?;
        Ok(())
    }
}

/// The newest chunks that end with an operation up to this one.
fn newest_group(conn: &Connection, bucket: BucketId, upto: Option<OpId>) -> Result<Option<Group>, StorageError> {
    let upto = upto.map_or(i64::MAX, |upto| upto.get().cast_signed());
    let mut chunks = load(conn, bucket, upto, "<= ?2 ORDER BY last_op_id DESC")?;
    chunks.reverse();
    Ok(Group::of(chunks))
}

/// The oldest chunks that end with an operation after this one.
fn group_after(conn: &Connection, bucket: BucketId, after: OpId) -> Result<Option<Group>, StorageError> {
    Ok(Group::of(load(conn, bucket, after.get().cast_signed(), "> ?2 ORDER BY last_op_id")?))
}

/// As many chunks as a step looks at, with their ids: those whose last operation is thus to this one.
fn load(conn: &Connection, bucket: BucketId, op_id: i64, which: &str) -> Result<Vec<(i64, Chunk)>, StorageError> {
    let columns = chunk::COLUMNS;
    let sql = format!("SELECT {columns}, id FROM chunk WHERE bucket_id = ?1 AND last_op_id {which}");
    let mut statement = conn.prepare_cached(&sql)?;
    let mut rows = statement.query((bucket.column(), op_id))?;
    let (mut chunks, mut bytes) = (Vec::new(), 0);
    while bytes < STEP_BYTES
        && chunks.len() < STEP_CHUNKS
        && let Some(row) = rows.next()?
    {
        let chunk = chunk::read(row, bucket)?;
        bytes += chunk.json_bytes();
        chunks.push((row.get("id")?, chunk));
    }
    Ok(chunks)
}

impl Group {
    /// `None` of no chunks.
    fn of(chunks: Vec<(i64, Chunk)>) -> Option<Self> {
        let previous = chunks.first()?.1.links.previous;
        let valid_from = chunks.iter().map(|(_, chunk)| chunk.links.valid_from).max().unwrap_or_default();
        let json_bytes = chunks.iter().map(|(_, chunk)| chunk.json_bytes()).sum();
        let ids = chunks.iter().map(|(id, _)| *id).collect();
        let operations = chunks.into_iter().flat_map(|(_, chunk)| chunk.operations).collect();
        Some(Self { ids, operations, links: Links { previous, valid_from }, json_bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_rests_for_as_long_as_what_it_did_takes_at_its_rate() {
        let pace = |bytes_per_second| Pace::new(CompactionOptions { bytes_per_second, ..CompactionOptions::default() });
        let mut slow = pace(1_000);
        slow.pay(Some(3_600_000));
        assert!(slow.rest() > Duration::from_mins(58) && slow.rest() <= Duration::from_hours(1), "{:?}", slow.rest());
        assert_eq!(pace(0).rest(), Duration::from_hours(1), "never by itself");
    }
}
