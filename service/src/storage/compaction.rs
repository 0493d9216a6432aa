//! What compaction does to operations. Pure.
//!
//! An operation with a later one for the same key does nothing but add to the checksum: it becomes a MOVE. What a bucket
//! begins with, as long as it puts nothing, becomes one CLEAR. Every sum over a whole bucket stays as it was, and so does
//! what a client ends up with, wherever it goes on from. Only states in between are lost: a client that was promised one
//! of them must be given a later one, see [`OperationRange::valid_from`](super::OperationRange::valid_from).

use std::collections::{HashMap, HashSet};

use foldhash::fast::RandomState;
use kairos_sync_protocol::{
    BucketName, Checksum, OpId,
    operation::{OpKind, Operation},
};
use serde::Deserialize;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use super::{NewOperation, RowOutput, StorageError, wire::WireOperation};

/// What is written again with one commit, at most. A few rows are enough to keep a hundred thousand old operations alive.
const REWRITTEN_BYTES_MAX: usize = 256 << 10;
const REWRITTEN_COUNT_MAX: usize = 1_000;

/// Keys that are remembered at once: about 10 MiB. A bucket with more operations is gone through several times.
const KEYS_MAX: u64 = 256 << 10;

/// When compaction pays, and how fast it may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompactionOptions {
    /// A bucket is compacted once it has grown by this many operations since the last time. Default 1,000: what one line
    /// of a download holds.
    pub growth_min: u64,
    /// … and by this percentage of what it had then, so that each operation is looked at a few times in its life, however
    /// large the bucket becomes. Default 50.
    pub growth_percent: u64,
    /// A CLEAR ends where something still counts. Where at least this percentage of the operations a bucket begins with do
    /// nothing any more, and there are `growth_min` of them, the few that do are written again as new ones, so that all can
    /// become one CLEAR. Those who have them already download these few again. Default 80; 0 never does it.
    pub rewrite_percent: u64,
    /// Bytes that are read and written in a second, in the background. Default 4 MiB; 0 leaves compaction to those who
    /// ask for it.
    pub bytes_per_second: u64,
}

impl Default for CompactionOptions {
    fn default() -> Self {
        Self { growth_min: 1_000, growth_percent: 50, rewrite_percent: 80, bytes_per_second: 4 << 20 }
    }
}

impl CompactionOptions {
    /// How many operations a bucket must have to be compacted again, where compaction has left it so many.
    pub(super) fn due_count(&self, operation_count: u64) -> u64 {
        let share = operation_count.saturating_mul(self.growth_percent) / 100;
        operation_count.saturating_add(share.max(self.growth_min).max(1))
    }
}

/// Type, id and subkey of an operation, as a digest that is taken for the key itself.
pub(super) type Key = u128;

#[derive(Deserialize)]
struct Stored<'a> {
    op: OpKind,
    #[serde(borrow)]
    object_type: Option<&'a RawValue>,
    #[serde(borrow)]
    object_id: Option<&'a RawValue>,
    #[serde(borrow)]
    subkey: Option<&'a RawValue>,
}

impl Stored<'_> {
    fn read(operation: &WireOperation) -> Result<Stored<'_>, StorageError> {
        serde_json::from_slice(&operation.json)
            .map_err(|_| StorageError::Damaged { what: "the form of an operation".to_owned() })
    }

    /// The key, of what supersedes earlier operations with it.
    fn superseding_key(&self) -> Option<Key> {
        matches!(self.op, OpKind::Put | OpKind::Remove).then(|| self.key())
    }

    /// Texts are compared as they are written, which is always done in the same way. Quotes keep them apart.
    fn key(&self) -> Key {
        let mut hasher = Sha256::new();
        for text in [self.object_type, self.object_id, self.subkey].into_iter().flatten() {
            hasher.update(text.get().as_bytes());
        }
        let digest: [u8; 32] = hasher.finalize().into();
        digest.first_chunk().copied().map(Key::from_le_bytes).unwrap_or_default()
    }
}

/// The key of an operation that supersedes earlier ones with it; `None` for MOVE and CLEAR.
pub(super) fn superseding_key(operation: &WireOperation) -> Result<Option<Key>, StorageError> {
    Ok(Stored::read(operation)?.superseding_key())
}

/// Finds what supersedes the operations of a bucket, going from the newest to the oldest.
#[derive(Debug)]
pub(super) struct Superseding {
    /// The oldest operation seen of each key.
    seen: HashMap<Key, OpId, RandomState>,
    /// Which of so many parts of all keys are looked at.
    part: u64,
    parts: u64,
}

impl Superseding {
    /// For a bucket with so many operations.
    pub(super) fn new(operation_count: u64) -> Self {
        Self { seen: HashMap::default(), part: 0, parts: operation_count / KEYS_MAX + 1 }
    }

    /// The next part of the keys, to be looked at from the newest operation on; `None` after the last.
    pub(super) fn next_part(self) -> Option<Self> {
        let part = self.part + 1;
        (part < self.parts).then(|| Self { seen: HashMap::default(), part, parts: self.parts })
    }

    /// The operation that supersedes this one, which is older than all before; `None` if it must stay.
    pub(super) fn superseding(&mut self, operation: &WireOperation) -> Result<Option<OpId>, StorageError> {
        let Some(key) = superseding_key(operation)? else { return Ok(None) };
        if u64::try_from(key % Key::from(self.parts)) != Ok(self.part) {
            return Ok(None);
        }
        Ok(self.seen.insert(key, operation.op_id))
    }
}

/// Finds the operations of a bucket that are worth writing again, going from the oldest to the newest.
#[derive(Debug)]
pub(super) struct Rewritable {
    options: CompactionOptions,
    /// What a CLEAR could replace.
    idle_count: u64,
    /// What still counts among as many operations.
    live: Vec<(Key, WireOperation)>,
    live_bytes: usize,
    /// How many of these are to be written again.
    chosen: usize,
    is_chosen: bool,
    live_keys: HashSet<Key, RandomState>,
    /// Those of which something came later.
    superseded: HashSet<Key, RandomState>,
}

impl Rewritable {
    pub(super) fn new(options: CompactionOptions) -> Self {
        Self {
            options,
            idle_count: 0,
            live: Vec::new(),
            live_bytes: 0,
            chosen: 0,
            is_chosen: options.rewrite_percent == 0,
            live_keys: HashSet::default(),
            superseded: HashSet::default(),
        }
    }

    /// Takes the next operation.
    pub(super) fn look_at(&mut self, operation: &WireOperation) -> Result<(), StorageError> {
        let stored = Stored::read(operation)?;
        let key = stored.superseding_key();
        self.superseded.extend(key.filter(|key| self.live_keys.contains(key)));
        if self.is_chosen {
            return Ok(());
        }
        let Some(key) = key.filter(|_| stored.op == OpKind::Put) else {
            self.idle_count += 1;
            let all = self.idle_count + self.live.len() as u64;
            let pays = self.idle_count >= self.options.growth_min
                && self.idle_count * 100 >= all * self.options.rewrite_percent;
            if pays {
                self.chosen = self.live.len();
            }
            return Ok(());
        };
        self.live_bytes += operation.json.len();
        self.is_chosen = self.live_bytes > REWRITTEN_BYTES_MAX || self.live.len() == REWRITTEN_COUNT_MAX;
        if !self.is_chosen {
            self.live.push((key, operation.clone()));
            self.live_keys.insert(key);
        }
        Ok(())
    }

    /// Whether there is anything to look for in what comes.
    pub(super) fn wants_more(&self) -> bool {
        !self.is_chosen || self.chosen > 0
    }

    /// The operations to be written again in this bucket, in their order. Empty where it does not pay.
    pub(super) fn finish(self, bucket: &BucketName) -> Result<Vec<(Key, NewOperation)>, StorageError> {
        let chosen = self.live.into_iter().take(self.chosen);
        let live = chosen.filter(|(key, _)| !self.superseded.contains(key));
        live.map(|(key, operation)| Ok((key, written_again(bucket, &operation)?))).collect()
    }
}

fn written_again(bucket: &BucketName, operation: &WireOperation) -> Result<NewOperation, StorageError> {
    let damaged = || StorageError::Damaged { what: "the form of an operation".to_owned() };
    let stored: Operation = serde_json::from_slice(&operation.json).map_err(|_| damaged())?;
    let text = |text: Option<String>| text.map(Into::into).ok_or_else(damaged);
    let output = RowOutput {
        bucket: bucket.clone(),
        object_type: text(stored.object_type)?,
        object_id: text(stored.object_id)?,
    };
    Ok(NewOperation {
        output,
        subkey: text(stored.subkey)?,
        checksum: operation.checksum,
        data: Some(stored.data.ok_or_else(damaged)?.into()),
    })
}

/// The MOVE in place of a superseded operation.
pub(super) fn moved(operation: &WireOperation) -> WireOperation {
    written("MOVE", operation.op_id, operation.checksum)
}

/// How many operations a bucket that begins with these would not miss but for their checksums.
pub(super) fn count_to_clear<'a>(
    operations: impl IntoIterator<Item = &'a WireOperation>,
) -> Result<usize, StorageError> {
    let mut count = 0;
    for operation in operations {
        if Stored::read(operation)?.op == OpKind::Put {
            break;
        }
        count += 1;
    }
    Ok(count)
}

/// The CLEAR in place of the first operations of a bucket; `None` where there is nothing to gain.
pub(super) fn cleared(operations: &[WireOperation]) -> Option<WireOperation> {
    let last = operations.last().filter(|_| operations.len() > 1)?;
    Some(written("CLEAR", last.op_id, operations.iter().map(|operation| operation.checksum).sum()))
}

/// A CLEAR that stands for nothing: what a bucket begins with that is written anew.
pub(super) fn clear(op_id: OpId) -> WireOperation {
    written("CLEAR", op_id, Checksum::default())
}

fn written(op: &str, op_id: OpId, checksum: Checksum) -> WireOperation {
    let json = format!(r#"{{"op_id":"{op_id}","op":"{op}","checksum":{checksum}}}"#);
    WireOperation { op_id, checksum, json: json.into() }
}

#[cfg(test)]
mod tests {
    use kairos_sync_protocol::{BucketName, operation::Operation};

    use super::{
        super::{NewOperation, RowOutput, wire::write_json},
        *,
    };

    fn operation(id: u64, object: [&str; 3], data: Option<&str>) -> WireOperation {
        let [object_type, object_id, subkey] = object;
        let output =
            RowOutput { bucket: BucketName::new("b"), object_type: object_type.into(), object_id: object_id.into() };
        let checksum = Checksum::from_bits(u32::MAX - u32::try_from(id).unwrap());
        let (op_id, mut json) = (OpId::new(id).unwrap(), Vec::new());
        let new = NewOperation { output, subkey: subkey.into(), checksum, data: data.map(Into::into) };
        write_json(op_id, &new, &mut json);
        WireOperation { op_id, checksum, json: json.into() }
    }

    fn op_id(id: u64) -> Option<OpId> {
        OpId::new(id).ok()
    }

    #[test]
    fn each_operation_is_superseded_by_the_next_of_its_key() {
        let mut superseding = Superseding::new(9);
        let mut of = |operation| superseding.superseding(&operation).unwrap();
        assert_eq!(of(operation(9, ["t", "a", "k"], None)), None);
        assert_eq!(of(moved(&operation(8, ["t", "a", "k"], None))), None, "a MOVE has no key");
        assert_eq!(of(operation(5, ["t", "a", "k"], Some("{}"))), op_id(9));
        assert_eq!(of(operation(4, ["t", "a", "k"], Some("{\"x\":\"y\"}"))), op_id(5));
        for other in [["t", "a", "k2"], ["t", "b", "k"], ["t2", "a", "k"], ["t", "a\"", "k"], ["ta", "", "k"]] {
            assert_eq!(of(operation(3, other, None)), None, "{other:?}");
        }
        assert_eq!(superseding.next_part().map(|_| ()), None);
    }

    #[test]
    fn parts_together_see_every_key_once() {
        let operations: Vec<_> =
            (1..=100).map(|id| operation(id, ["t", &(id % 50).to_string(), "k"], Some("{}"))).collect();
        let mut part = Some(Superseding { seen: HashMap::default(), part: 0, parts: 3 });
        let mut found = Vec::new();
        while let Some(mut superseding) = part {
            let of = operations.iter().rev().filter_map(|operation| superseding.superseding(operation).unwrap());
            found.extend(of.map(OpId::get));
            part = superseding.next_part();
        }
        found.sort_unstable();
        assert_eq!(found, (51..=100).collect::<Vec<_>>());
    }

    #[test]
    fn what_is_written_reads_as_the_protocols_operation() {
        let operations = [operation(3, ["t", "a", "k"], Some("{}")), operation(7, ["t", "b", "k"], None)];
        let read = |operation: &WireOperation| serde_json::from_slice::<Operation>(&operation.json).unwrap();
        let moved = moved(&operations[0]);
        let cleared = cleared(&operations).unwrap();
        let expected = |op, id, bits| Operation {
            op_id: OpId::new(id).unwrap(),
            op,
            object_type: None,
            object_id: None,
            checksum: Checksum::from_bits(bits),
            subkey: None,
            data: None,
        };
        assert_eq!(read(&moved), expected(OpKind::Move, 3, u32::MAX - 3));
        assert_eq!(read(&cleared), expected(OpKind::Clear, 7, u32::MAX - 11), "the sum wraps");
        assert_eq!(count_to_clear(&[cleared.clone(), moved, operations[1].clone()]).unwrap(), 3);
        assert_eq!(count_to_clear(&operations).unwrap(), 0);
        assert!(super::cleared(&[cleared]).is_none(), "one operation is no gain");
    }

    /// What is written again of a history, where each operation is an id and whether it puts something.
    fn rewritten(history: &[(u64, Option<&str>)], options: CompactionOptions) -> Vec<String> {
        let mut rewritable = Rewritable::new(options);
        for (op_id, id) in history {
            let operation = operation(*op_id, ["t", id.unwrap_or("x"), "k"], Some("{\"a\":\"b\"}"));
            let operation = if id.is_some() { operation } else { moved(&operation) };
            rewritable.look_at(&operation).unwrap();
        }
        let operations = rewritable.finish(&BucketName::new("b")).unwrap();
        let text = |(_, operation): (Key, NewOperation)| {
            format!("{} {}", operation.output.object_id, operation.data.unwrap_or_default())
        };
        operations.into_iter().map(text).collect()
    }

    #[test]
    fn the_few_that_keep_many_alive_are_written_again() {
        let options = CompactionOptions { growth_min: 4, rewrite_percent: 80, ..CompactionOptions::default() };
        let idle = |from: u64, count: u64| (from..from + count).map(|op_id| (op_id, None));
        let one = |op_id: u64, id: &'static str| std::iter::once((op_id, Some(id)));
        let history: Vec<_> = one(1, "a").chain(idle(2, 4)).chain(one(6, "b")).chain(idle(7, 4)).collect();
        let a_and_b = ["a {\"a\":\"b\"}", "b {\"a\":\"b\"}"];
        assert_eq!(rewritten(&history, options), a_and_b);
        assert_eq!(rewritten(&history[..9], options), a_and_b[..1], "b does not pay yet");
        assert!(rewritten(&history[..4], options).is_empty(), "too few");
        assert!(rewritten(&history, CompactionOptions { rewrite_percent: 0, ..options }).is_empty());
        let changed: Vec<_> = history.iter().copied().chain(one(11, "a")).collect();
        assert_eq!(rewritten(&changed, options), a_and_b[1..], "it is superseded already");
    }

    #[test]
    fn a_bucket_is_due_when_it_has_grown_by_a_share_of_itself() {
        let options = CompactionOptions { growth_min: 10, growth_percent: 50, ..CompactionOptions::default() };
        assert_eq!([0, 10, 100].map(|count| options.due_count(count)), [10, 20, 150]);
        let careless = CompactionOptions { growth_min: 0, growth_percent: 0, ..options };
        assert_eq!(careless.due_count(7), 8, "never again without growth");
    }
}
