//! Operations as `data` lines, each read, encoded and compressed once for all clients that need it at about the same
//! time.
//!
//! **Invariants**
//!
//! - Lines that are kept have a bound in bytes; the ones used least recently go first. None is given to others, nor kept, for
//!   longer than some seconds.
//! - Reads of the store that are under way have a bound, and wait in the order they came: a bulk download takes turns
//!   with small updates.
//! - Any number of clients that ask for the same line cost one read.
//! - A client that reads quickly gets its next line read while it takes the one before, and one more where no other client
//!   wants the place. How many are read ahead at once, over all clients, has the same bound as reads.

use std::{
    collections::VecDeque,
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use bytes::Bytes;
use kairos_sync_protocol::{BucketName, OpId};
use lru::LruCache;
use tokio::{
    sync::{OnceCell, OwnedSemaphorePermit, Semaphore, SemaphorePermit, watch},
    task::{self, JoinHandle},
    time::{Instant, sleep},
};

use super::{
    SyncError,
    checkpoint_state::BucketRange,
    compression::{Compression, Segment},
    line::{LineForm, pack_data_line, write_data_line},
    session::blocking,
};
use crate::{
    metrics::Metrics,
    storage::{BucketStore, OperationRange},
};

/// Bytes of operations one `data` line holds at most. A little more than the store keeps together, so that most lines are
/// what one read gives.
const LINE_BYTES_MAX: usize = 384 * 1024;
/// Lines from here on are compressed once for all. Shorter ones travel with what is next to them.
const PACKED_BYTES_MIN: usize = 8 * 1024;
/// Lines that are kept, at most.
const ENTRIES_MAX: usize = 64 * 1024;
/// How long a line is given to others: compaction may have made its operations fewer meanwhile. Long enough for all who
/// come back at once.
const SHARED_FOR: Duration = Duration::from_secs(10);
/// What keeping a line costs beside its bytes, about.
const ENTRY_BYTES: usize = 400;

/// How lines are written and compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Packaging {
    /// How they are written.
    pub form: LineForm,
    /// How the stream is compressed.
    pub compression: Compression,
}

impl Packaging {
    /// This form, compressed as the client wants it. White space may stand between the values of JSON only.
    pub fn new(form: LineForm, compression: Compression) -> Self {
        let compression = match (form, compression) {
            (LineForm::Bson, Compression::Zstd) => Compression::ZstdFrames,
            _ => compression,
        };
        Self { form, compression }
    }
}

/// A line, ready to be sent.
#[derive(Debug, Clone)]
pub enum Line {
    /// To be compressed together with its neighbours.
    Plain(Bytes),
    /// Compressed, and shared.
    Packed(Arc<Segment>),
}

/// A `data` line.
#[derive(Debug)]
pub(super) struct DataLine {
    /// `None` without operations.
    pub(super) line: Option<Line>,
    /// How many operations.
    pub(super) count: usize,
    /// Id of the last one.
    pub(super) last_op_id: OpId,
    /// The bucket may have more.
    pub(super) has_more: bool,
    /// As in the store's range.
    pub(super) valid_from: OpId,
}

/// Lines of one client that are being read before they are wanted, in the order they will be: two at most. One processor
/// alone makes lines no faster than another one sends them.
#[derive(Default)]
pub(super) struct LinesAhead(VecDeque<LineAhead>);

struct LineAhead {
    range: BucketRange,
    /// Told once the store was read, before the line is made: its last operation, if more follow.
    found: watch::Receiver<Option<OpId>>,
    line: JoinHandle<Result<Arc<DataLine>, SyncError>>,
    _place: OwnedSemaphorePermit,
}

impl LinesAhead {
    /// Begins to read what is probably wanted next. What was expected otherwise is forgotten.
    pub(super) fn begin(&mut self, range: Option<BucketRange>, ranges: &Arc<Ranges>, packaging: Packaging) {
        let is_begun = range.is_some() && self.0.front().map(|ahead| &ahead.range) == range.as_ref();
        if !is_begun {
            // With its memory, which a stream that has become silent does not need.
            self.0 = range.and_then(|range| ranges.read_ahead(range, packaging, 0)).into_iter().collect();
        }
        self.begin_second(ranges, packaging);
    }

    fn begin_second(&mut self, ranges: &Arc<Ranges>, packaging: Packaging) {
        let Some(first) = self.0.front().filter(|_| self.0.len() == 1) else { return };
        let Some(after) = *first.found.borrow() else { return };
        let range = BucketRange { after, ..first.range.clone() };
        self.0.extend(ranges.read_ahead(range, packaging, 1));
    }

    /// The line, if this is what is wanted now. The one behind it is begun, if it was not.
    pub(super) async fn take(
        &mut self,
        range: &BucketRange,
        ranges: &Arc<Ranges>,
        packaging: Packaging,
    ) -> Option<Result<Arc<DataLine>, SyncError>> {
        let first = self.0.front_mut().filter(|first| first.range == *range)?;
        // It is not told where nothing follows, nor where another client has the line made.
        let _ = first.found.wait_for(Option::is_some).await;
        self.begin_second(ranges, packaging);
        let first = self.0.pop_front()?;
        Some(first.line.await.unwrap_or(Err(SyncError::Stopping)))
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    bucket: BucketName,
    after: OpId,
    packaging: Packaging,
}

/// A line that is there or under way.
#[derive(Debug)]
struct Slot {
    /// What was asked for, and when.
    upto: OpId,
    asked_at: Instant,
    line: OnceCell<Arc<DataLine>>,
}

/// Reads `data` lines.
pub(super) struct Ranges {
    store: Arc<dyn BucketStore>,
    metrics: Arc<Metrics>,
    reads: Semaphore,
    /// Lines read ahead, over all clients: each is one more that a client may hold.
    places_ahead: Arc<Semaphore>,
    // Held for operations on the map only.
    kept: Arc<Mutex<Kept>>,
}

struct Kept {
    /// Grows as it is needed: room for all would be touched here and there, and stay.
    entries: LruCache<Key, Entry>,
    /// Sum over the entries.
    bytes: usize,
    bytes_max: usize,
    /// A task takes out what is too old to be given to others.
    is_swept: bool,
}

struct Entry {
    slot: Arc<Slot>,
    /// Zero until the line has come.
    bytes: usize,
}

impl Ranges {
    /// With so many reads at once, keeping so many bytes.
    pub(super) fn new(
        store: Arc<dyn BucketStore>,
        metrics: Arc<Metrics>,
        concurrency_max: usize,
        bytes_max: usize,
    ) -> Self {
        let kept = Kept { entries: LruCache::unbounded(), bytes: 0, bytes_max, is_swept: false };
        let [reads, ahead] = [0; 2].map(|_| Semaphore::new(concurrency_max.max(1)));
        Self { store, metrics, reads, places_ahead: Arc::new(ahead), kept: Arc::new(Mutex::new(kept)) }
    }

    /// Begins to read a line that is wanted once those before are sent. `None` where so many are read ahead already that
    /// one more would not make the service faster, but larger; and where fewer places than these would be left.
    fn read_ahead(self: &Arc<Self>, range: BucketRange, packaging: Packaging, left: usize) -> Option<LineAhead> {
        if self.places_ahead.available_permits() <= left {
            return None;
        }
        let place = Arc::clone(&self.places_ahead).try_acquire_owned().ok()?;
        let (ranges, wanted) = (Arc::clone(self), range.clone());
        let (told, found) = watch::channel(None);
        let line = task::spawn(async move { ranges.line_telling(wanted, packaging, Some(told)).await });
        Some(LineAhead { range, found, line, _place: place })
    }

    /// Waits for a turn to read the store.
    pub(super) async fn turn(&self) -> Result<SemaphorePermit<'_>, SyncError> {
        self.reads.acquire().await.map_err(|_| SyncError::Stopping)
    }

    /// The operations of a range, or as many of them as one line holds.
    pub(super) async fn line(&self, range: BucketRange, packaging: Packaging) -> Result<Arc<DataLine>, SyncError> {
        self.line_telling(range, packaging, None).await
    }

    /// As [`Self::line`]. Tells the last operation before the line is made, if more follow and this call reads it.
    async fn line_telling(
        &self,
        range: BucketRange,
        packaging: Packaging,
        found: Option<watch::Sender<Option<OpId>>>,
    ) -> Result<Arc<DataLine>, SyncError> {
        let BucketRange { bucket, after, upto } = range;
        let key = Key { bucket, after, packaging };
        let slot = self.kept().slot(&key, upto);
        if let Some(line) = slot.line.get() {
            self.metrics.shared_lines.inc();
            return Ok(Arc::clone(line));
        }
        let loaded = slot.line.get_or_try_init(|| self.load(&key, upto, found)).await;
        let mut kept = self.kept();
        match loaded {
            Ok(line) => {
                kept.count(&key, &slot, line);
                if !mem::replace(&mut kept.is_swept, true) {
                    task::spawn(sweep(Arc::downgrade(&self.kept), SHARED_FOR));
                }
            }
            Err(_) => kept.forget(&key, &slot),
        }
        loaded.map(Arc::clone)
    }

    async fn load(
        &self,
        key: &Key,
        upto: OpId,
        found: Option<watch::Sender<Option<OpId>>>,
    ) -> Result<Arc<DataLine>, SyncError> {
        let _turn = self.turn().await?;
        let (store, key) = (Arc::clone(&self.store), key.clone());
        blocking(move || {
            let range = store.operations(&key.bucket, key.after, upto, LINE_BYTES_MAX)?;
            let has_more = range.has_more && range.count > 0;
            if let Some(found) = found.filter(|_| has_more) {
                found.send_replace(Some(range.last_op_id));
            }
            let line = if range.count == 0 { None } else { Some(package(&key, &range)?) };
            let OperationRange { count, last_op_id, valid_from, .. } = range;
            Ok(Arc::new(DataLine { line, count, last_op_id, has_more, valid_from }))
        })
        .await
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        locked(&self.kept)
    }
}

/// The line of these operations.
fn package(Key { bucket, after, packaging }: &Key, range: &OperationRange) -> Result<Line, SyncError> {
    let Packaging { form, compression } = *packaging;
    if range.json.length() >= PACKED_BYTES_MIN && (form, compression) == (LineForm::Json, Compression::Zstd) {
        return Ok(Line::Packed(Arc::new(pack_data_line(bucket, *after, range)?)));
    }
    let plain = write_data_line(bucket, *after, range, form)?;
    Ok(if plain.len() < PACKED_BYTES_MIN {
        // Without the room it was written in: thousands may be kept.
        Line::Plain(plain.into_boxed_slice().into())
    } else {
        Line::Packed(Arc::new(Segment::new(plain.into(), compression)))
    })
}

/// A poisoned lock holds whole entries; at worst the sum of bytes is off by one line.
fn locked(kept: &Mutex<Kept>) -> MutexGuard<'_, Kept> {
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes out lines that are no longer given to others, until none is left: what a burst of clients took is given back.
async fn sweep(kept: Weak<Mutex<Kept>>, every: Duration) {
    loop {
        sleep(every).await;
        let Some(kept) = kept.upgrade() else { return };
        let mut kept = locked(&kept);
        kept.forget_old();
        if kept.entries.is_empty() {
            // With the room that they took.
            kept.entries = LruCache::unbounded();
            kept.is_swept = false;
            return;
        }
    }
}

impl Kept {
    /// The slot that serves this request, a new one if need be.
    fn slot(&mut self, key: &Key, upto: OpId) -> Arc<Slot> {
        if let Some(entry) = self.entries.get(key)
            && entry.slot.serves(upto)
        {
            return Arc::clone(&entry.slot);
        }
        let slot = Arc::new(Slot { upto, asked_at: Instant::now(), line: OnceCell::new() });
        let older = self.entries.push(key.clone(), Entry { slot: Arc::clone(&slot), bytes: 0 });
        let other = if self.entries.len() > ENTRIES_MAX { self.entries.pop_lru() } else { None };
        for (_, left) in older.into_iter().chain(other) {
            self.bytes -= left.bytes;
        }
        slot
    }

    /// Counts a line that has come, and makes room for it.
    fn count(&mut self, key: &Key, slot: &Arc<Slot>, line: &DataLine) {
        if let Some(entry) = self.entries.peek_mut(key)
            && Arc::ptr_eq(&entry.slot, slot)
            && entry.bytes == 0
        {
            entry.bytes = ENTRY_BYTES + line.line.as_ref().map_or(0, Line::bytes);
            self.bytes += entry.bytes;
        }
        while self.bytes > self.bytes_max
            && let Some((_, left)) = self.entries.pop_lru()
        {
            self.bytes -= left.bytes;
        }
    }

    /// Forgets lines that have come and are too old. The one used least recently need not be the oldest.
    fn forget_old(&mut self) {
        let is_old = |entry: &Entry| entry.bytes > 0 && entry.slot.asked_at.elapsed() >= SHARED_FOR;
        let old: Vec<_> = self.entries.iter().filter(|(_, entry)| is_old(entry)).map(|(key, _)| key.clone()).collect();
        for key in old {
            if let Some(left) = self.entries.pop(&key) {
                self.bytes -= left.bytes;
            }
        }
    }

    fn forget(&mut self, key: &Key, slot: &Arc<Slot>) {
        if self.entries.peek(key).is_some_and(|entry| Arc::ptr_eq(&entry.slot, slot))
            && let Some(left) = self.entries.pop(key)
        {
            self.bytes -= left.bytes;
        }
    }
}

impl Slot {
    /// A line that is full is right for every later state; any other is right for its own state alone.
    fn serves(&self, upto: OpId) -> bool {
        let is_full_before = |line: &Arc<DataLine>| line.has_more && line.last_op_id <= upto;
        self.asked_at.elapsed() < SHARED_FOR && (self.upto == upto || self.line.get().is_some_and(is_full_before))
    }
}

impl Line {
    /// Bytes it keeps in memory.
    fn bytes(&self) -> usize {
        match self {
            Self::Plain(bytes) => bytes.len(),
            Self::Packed(segment) => segment.bytes().len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;
    use kairos_sync_protocol::Checksum;

    use super::{super::compression::SegmentStream, *};
    use crate::storage::{Batch, MemoryStore, NewOperation, RowOutput, SqliteOptions, SqliteStore};

    const JSON: Packaging = Packaging { form: LineForm::Json, compression: Compression::Identity };

    fn put(bucket: &BucketName, id: usize, bytes: usize) -> NewOperation {
        let output = RowOutput { bucket: bucket.clone(), object_type: "t".into(), object_id: id.to_string().into() };
        NewOperation {
            output,
            subkey: "k".into(),
            checksum: Checksum::from_bits(1),
            data: Some("x".repeat(bytes).into()),
        }
    }

    fn ranges(operations: usize, bytes: usize, bytes_max: usize) -> (Ranges, BucketName, Arc<Metrics>) {
        let (store, bucket, metrics) = (MemoryStore::new(), BucketName::new("b"), Arc::new(Metrics::new()));
        let operations = (0..operations).map(|id| put(&bucket, id, bytes)).collect();
        store.commit(Batch { operations, ..Batch::default() }).unwrap();
        (Ranges::new(Arc::new(store), Arc::clone(&metrics), 2, bytes_max), bucket, metrics)
    }

    fn op_id(id: u64) -> OpId {
        OpId::new(id).unwrap()
    }

    fn range(bucket: &BucketName, after: OpId, upto: OpId) -> BucketRange {
        BucketRange { bucket: bucket.clone(), after, upto }
    }

    #[tokio::test]
    async fn a_line_is_read_once_for_all_who_want_it() {
        let (ranges, bucket, metrics) = ranges(10, 10, 1 << 20);
        let lines = join_all((0..50).map(|_| ranges.line(range(&bucket, OpId::ZERO, op_id(10)), JSON))).await;
        let lines: Vec<_> = lines.into_iter().map(Result::unwrap).collect();
        assert!(lines.iter().all(|line| Arc::ptr_eq(line, &lines[0])), "one line");
        assert_eq!((lines[0].count, lines[0].last_op_id, lines[0].has_more), (10, op_id(10), false));
        // Who asked before the line had come is not counted; a thread that is quick may have read it at once.
        let before = metrics.shared_lines.get();
        ranges.line(range(&bucket, OpId::ZERO, op_id(10)), JSON).await.unwrap();
        assert_eq!(metrics.shared_lines.get(), before + 1);
    }

    #[tokio::test]
    async fn a_full_line_serves_later_states_and_a_part_only_its_own() {
        let (ranges, bucket, _) = ranges(2000, 10, 1 << 20);
        let full = ranges.line(range(&bucket, OpId::ZERO, op_id(1500)), JSON).await.unwrap();
        assert_eq!((full.count, full.has_more), (1000, true));
        let again = ranges.line(range(&bucket, OpId::ZERO, op_id(2000)), JSON).await.unwrap();
        assert!(Arc::ptr_eq(&full, &again));
        let earlier = ranges.line(range(&bucket, OpId::ZERO, op_id(500)), JSON).await.unwrap();
        assert_eq!((earlier.count, earlier.has_more), (500, false));
        let part = ranges.line(range(&bucket, op_id(1000), op_id(1500)), JSON).await.unwrap();
        assert_eq!(part.count, 500);
        assert_eq!(ranges.line(range(&bucket, op_id(1000), op_id(1501)), JSON).await.unwrap().count, 501);
    }

    #[tokio::test]
    async fn a_line_is_read_again_after_a_while_since_operations_become_fewer() {
        let (ranges, bucket, _) = ranges(2000, 10, 1 << 20);
        let line = ranges.line(range(&bucket, OpId::ZERO, op_id(2000)), JSON).await.unwrap();
        let asked = |ago| Slot { upto: op_id(2000), asked_at: Instant::now() - ago, line: Arc::clone(&line).into() };
        assert!(asked(Duration::ZERO).serves(op_id(2001)));
        assert!(!asked(SHARED_FOR).serves(op_id(2001)) && !asked(SHARED_FOR).serves(op_id(2000)));
    }

    #[tokio::test]
    async fn what_nobody_is_given_any_more_is_not_kept() {
        let (ranges, bucket, _) = ranges(100, 1000, 1 << 20);
        let state = || {
            let kept = ranges.kept();
            (kept.entries.len(), kept.bytes, kept.is_swept)
        };
        for after in [0, 50] {
            ranges.line(range(&bucket, op_id(after), op_id(100)), JSON).await.unwrap();
        }
        let (count, all, is_swept) = state();
        assert_eq!((count, is_swept), (2, true));
        let key = Key { bucket: bucket.clone(), after: OpId::ZERO, packaging: JSON };
        let slot_of = |key: &Key| Arc::clone(&ranges.kept().entries.peek(key).unwrap().slot);
        let line = slot_of(&key).line.get().cloned().unwrap();
        let make_old = || {
            let slot = Slot { upto: op_id(100), asked_at: Instant::now() - SHARED_FOR, line: line.clone().into() };
            ranges.kept().entries.peek_mut(&key).unwrap().slot = Arc::new(slot);
        };
        make_old();
        ranges.kept().forget_old();
        let (count, bytes, _) = state();
        assert_eq!(count, 1, "the other one can still be given to others");
        assert!((1..all).contains(&bytes));

        let last = Key { after: op_id(50), ..key.clone() };
        let slot = slot_of(&last);
        ranges.kept().forget(&last, &slot);
        ranges.line(range(&bucket, OpId::ZERO, op_id(100)), JSON).await.unwrap();
        make_old();
        sweep(Arc::downgrade(&ranges.kept), Duration::from_millis(1)).await;
        assert_eq!(state(), (0, 0, false));
    }

    #[tokio::test]
    async fn so_many_are_read_ahead_and_no_more() {
        let (ranges, bucket, _) = ranges(2000, 10, 1 << 20);
        let ranges = Arc::new(ranges);
        let [first, second] = [0, 1000].map(|after| range(&bucket, op_id(after), op_id(2000)));
        let mut streams = [(); 3].map(|()| LinesAhead::default());
        for (stream, range) in streams.iter_mut().zip([&first, &second, &first]) {
            stream.begin(Some(range.clone()), &ranges, JSON);
        }
        assert_eq!(streams.each_ref().map(|stream| stream.0.len()), [1, 1, 0], "two are allowed");
        let [one, two, three] = &mut streams;
        assert_eq!(one.take(&first, &ranges, JSON).await.unwrap().unwrap().last_op_id, op_id(1000));
        assert!(two.take(&first, &ranges, JSON).await.is_none(), "it is something else");
        three.begin(Some(first), &ranges, JSON);
        assert_eq!(three.0.len(), 1, "there is room again");
        three.begin(None, &ranges, JSON);
        assert_eq!((three.0.len(), three.0.capacity()), (0, 0));
    }

    #[tokio::test]
    async fn a_second_line_is_read_ahead_where_others_keep_a_place() {
        let (store, bucket) = (MemoryStore::new(), BucketName::new("b"));
        let operations = (0..5000).map(|id| put(&bucket, id, 10)).collect();
        store.commit(Batch { operations, ..Batch::default() }).unwrap();
        let ranges = Arc::new(Ranges::new(Arc::new(store), Arc::new(Metrics::new()), 4, 1 << 20));
        let from = |after| range(&bucket, op_id(after), op_id(5000));
        let [mut first, mut other] = [(); 2].map(|()| LinesAhead::default());
        first.begin(Some(from(0)), &ranges, JSON);
        for after in [0, 1000] {
            let line = first.take(&from(after), &ranges, JSON).await.unwrap().unwrap();
            assert_eq!((line.last_op_id, line.has_more), (op_id(after + 1000), true));
            assert_eq!(first.0.front().unwrap().range, from(after + 1000), "it was begun before this one had come");
        }
        let _ = first.0[0].found.wait_for(Option::is_some).await;
        first.begin(Some(from(2000)), &ranges, JSON);
        assert_eq!(first.0.iter().map(|ahead| ahead.range.after).collect::<Vec<_>>(), [op_id(2000), op_id(3000)]);
        // With the first of this one but one place is left.
        other.begin(Some(from(4000)), &ranges, JSON);
        let line = other.take(&from(4000), &ranges, JSON).await.unwrap().unwrap();
        assert!(!line.has_more && other.0.is_empty(), "nothing follows");
        other.begin(Some(from(1)), &ranges, JSON);
        let _ = other.0[0].found.wait_for(Option::is_some).await;
        other.begin(Some(from(1)), &ranges, JSON);
        assert_eq!(other.0.len(), 1);
        first.begin(Some(from(500)), &ranges, JSON);
        assert_eq!(first.0.len(), 1, "what was expected is forgotten");
    }

    #[tokio::test]
    async fn what_is_kept_has_a_bound() {
        let (ranges, bucket, _) = ranges(100, 1000, 5000);
        for after in 0..99 {
            ranges.line(range(&bucket, op_id(after), op_id(after + 1)), JSON).await.unwrap();
            assert!(ranges.kept().bytes <= 5000);
        }
        let kept = ranges.kept();
        assert_eq!(kept.entries.len(), 3);
        assert_eq!(kept.bytes, kept.entries.iter().map(|(_, entry)| entry.bytes).sum::<usize>());
    }

    #[tokio::test]
    async fn long_lines_say_the_same_however_they_are_compressed() {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(folder.path(), SqliteOptions::default()).unwrap();
        let bucket = BucketName::new("b");
        let mut operations: Vec<_> = (0..1500).map(|id| put(&bucket, id, 300)).collect();
        // In chunks but for the last ones, which are in the tail.
        let last = operations.split_off(1490);
        for operations in [operations, last] {
            store.commit(Batch { operations, ..Batch::default() }).unwrap();
        }
        let ranges = Ranges::new(Arc::new(store), Arc::new(Metrics::new()), 2, 1 << 20);
        let mut after = OpId::ZERO;
        loop {
            let [plain, packed] = [Compression::Identity, Compression::Zstd].map(async |compression| {
                let packaging = Packaging::new(LineForm::Json, compression);
                ranges.line(range(&bucket, after, op_id(1500)), packaging).await.unwrap()
            });
            let (plain, packed) = (plain.await, packed.await);
            let [Some(Line::Packed(sent)), Some(Line::Packed(zstd))] = [&plain.line, &packed.line] else {
                panic!("long lines")
            };
            let mut stream = SegmentStream::new(Compression::Zstd);
            let all = [&stream.push(zstd)[..], zstd.bytes(), &stream.finish()].concat();
            let [sent_line, read_line] = [sent.bytes(), &zstd::decode_all(&all[..]).unwrap()[..]]
                .map(|line| serde_json::from_slice::<serde_json::Value>(line).unwrap());
            assert_eq!(sent_line, read_line);
            assert_eq!(zstd.plain_length(), sent.bytes().len());
            assert_eq!(
                (plain.count, plain.last_op_id, plain.has_more),
                (packed.count, packed.last_op_id, packed.has_more)
            );
            if !plain.has_more {
                break;
            }
            after = plain.last_op_id;
        }
        assert!(after > OpId::ZERO, "several lines");
    }

    #[tokio::test]
    async fn forms_and_compressions_are_kept_apart() {
        let (ranges, bucket, _) = ranges(500, 100, 1 << 20);
        let mut lengths = Vec::new();
        for form in [LineForm::Json, LineForm::Bson] {
            for compression in [Compression::Identity, Compression::Gzip, Compression::Zstd] {
                let line = ranges.line(range(&bucket, OpId::ZERO, op_id(500)), Packaging::new(form, compression)).await;
                lengths.push(line.unwrap().line.as_ref().map_or(0, Line::bytes));
            }
        }
        lengths.dedup();
        assert_eq!(lengths.len(), 6, "{lengths:?}");
    }
}
