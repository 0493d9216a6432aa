//! The newest operations, in memory by bucket, and the newest rows. The same are durable in `tail` and `row_tail`.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use foldhash::fast::RandomState;
use kairos_sync_protocol::OpId;
use rusqlite::Connection;

use super::{
    super::{BucketTotals, Checkpoint, StorageError, wire::WireOperation},
    BucketId, block,
    bucket::Bucket,
    chain::Chain,
    head::{Head, number},
    rows::RecentRows,
};

/// What the tail adds to each bucket's totals on disk.
pub(super) type TailTotals = HashMap<BucketId, BucketTotals, RandomState>;

/// Operations that are not yet in chunks, and the visible state of the store they belong to.
#[derive(Debug, Default)]
pub(super) struct Tail {
    /// That of the head on disk with which this tail makes one state.
    pub(super) version: u64,
    pub(super) checkpoint: Option<Checkpoint>,
    buckets: BTreeMap<BucketId, Vec<WireOperation>>,
    /// Shared with views; a change that meets a view changes a copy instead. Bounded as the tail is.
    totals: Arc<TailTotals>,
    size: TailSize,
    pub(super) rows: RecentRows,
}

/// How much is in memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct TailSize {
    pub(super) operations: usize,
    pub(super) bytes: usize,
}

impl Tail {
    /// Reads the tail of a store that is being opened, leaving out what a fold had already put into chunks.
    pub(super) fn load(conn: &Connection, head: &Head) -> Result<Self, StorageError> {
        let rows = RecentRows::load(conn, head)?;
        let mut tail = Self { version: head.version, checkpoint: head.checkpoint, rows, ..Self::default() };
        let mut folded = HashMap::new();
        let mut chain = Chain::default();
        let mut statement = conn.prepare("SELECT first_op_id, block FROM tail ORDER BY first_op_id")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (operations, end) = block::decode_with(row.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?)?;
            let own = operations.first().map(|(_, operation)| operation.op_id.get()).unwrap_or_default();
            chain.next(number(row, 0)?, [own, u64::from_le_bytes(end)], head.folded_op_id.get())?;
            for (bucket, operation) in operations {
                if operation.op_id > head.last_op_id {
                    return Err(StorageError::Damaged { what: "the tail is ahead of its head".to_owned() });
                }
                let folded_upto = match folded.get(&bucket) {
                    Some(upto) => *upto,
                    None => *folded.entry(bucket).or_insert(folded_upto(conn, bucket, head)?),
                };
                if folded_upto.is_some_and(|upto| operation.op_id > upto) {
                    tail.push(bucket, operation);
                }
            }
        }
        chain.end(head.tail_op_id.get(), head.folded_op_id.get())?;
        Ok(tail)
    }

    /// Nothing: the tail after a reset, with which the head has this version.
    pub(super) fn empty(version: u64) -> Self {
        Self { version, ..Self::default() }
    }

    pub(super) fn push(&mut self, bucket: BucketId, operation: WireOperation) {
        self.size.operations += 1;
        self.size.bytes += operation.json.len();
        let totals = Arc::make_mut(&mut self.totals).entry(bucket).or_default();
        totals.append(operation.op_id, operation.checksum);
        self.buckets.entry(bucket).or_default().push(operation);
    }

    /// Forgets what is now in a chunk.
    pub(super) fn remove(&mut self, bucket: BucketId, upto: OpId) {
        let Some(operations) = self.buckets.get_mut(&bucket) else { return };
        let removed = operations.partition_point(|operation| operation.op_id <= upto);
        let all_totals = Arc::make_mut(&mut self.totals);
        let totals = all_totals.entry(bucket).or_default();
        for operation in operations.drain(..removed) {
            self.size.operations -= 1;
            self.size.bytes -= operation.json.len();
            totals.count -= 1;
            totals.checksum = totals.checksum - operation.checksum;
        }
        if operations.is_empty() {
            self.buckets.remove(&bucket);
            all_totals.remove(&bucket);
        }
    }

    /// Id of the first operation of a bucket that is still here.
    pub(super) fn first_op_id(&self, bucket: BucketId) -> Option<OpId> {
        self.buckets.get(&bucket)?.first().map(|operation| operation.op_id)
    }

    /// Operations of a bucket with `after < op id <= upto`, at most `limit`.
    pub(super) fn range(&self, bucket: BucketId, after: OpId, upto: OpId, limit: usize) -> Vec<WireOperation> {
        let operations = self.buckets.get(&bucket).map(Vec::as_slice).unwrap_or_default();
        let start = operations.partition_point(|operation| operation.op_id <= after);
        let end = operations.partition_point(|operation| operation.op_id <= upto);
        operations.get(start..end).into_iter().flatten().take(limit).cloned().collect()
    }

    /// All operations of a bucket here.
    pub(super) fn all(&self, bucket: BucketId) -> Vec<WireOperation> {
        self.buckets.get(&bucket).cloned().unwrap_or_default()
    }

    /// Bytes of JSON of a bucket here.
    pub(super) fn json_bytes(&self, bucket: BucketId) -> u64 {
        let operations = self.buckets.get(&bucket).map(Vec::as_slice).unwrap_or_default();
        operations.iter().map(|operation| operation.json.len() as u64).sum()
    }

    /// Buckets with operations here, in the order of their numbers.
    pub(super) fn bucket_ids(&self) -> Vec<BucketId> {
        self.buckets.keys().copied().collect()
    }

    pub(super) fn totals(&self) -> Arc<TailTotals> {
        Arc::clone(&self.totals)
    }

    /// Operations, or rows if they are more, and the bytes of both.
    pub(super) fn size(&self) -> TailSize {
        TailSize { operations: self.size.operations.max(self.rows.len()), bytes: self.size.bytes + self.rows.bytes() }
    }
}

/// `None` for a bucket that was forgotten.
fn folded_upto(conn: &Connection, bucket: BucketId, head: &Head) -> Result<Option<OpId>, StorageError> {
    if bucket.0 > head.last_bucket_id {
        return Err(StorageError::Damaged { what: "the tail names an unknown bucket".to_owned() });
    }
    Ok(Bucket::load(conn, bucket)?.map(|bucket| bucket.folded.last_op_id))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use kairos_sync_protocol::Checksum;

    use super::*;

    fn operation(id: u64) -> WireOperation {
        let checksum = Checksum::from_bits(u32::MAX - u32::try_from(id).unwrap());
        WireOperation { op_id: OpId::new(id).unwrap(), checksum, json: Bytes::from(vec![b'x'; 10]) }
    }

    #[test]
    fn removing_what_was_pushed_leaves_nothing() {
        let mut tail = Tail::default();
        for id in 1..=10 {
            tail.push(BucketId(id % 2), operation(id));
        }
        let seen = tail.totals();
        tail.remove(BucketId(0), OpId::new(4).unwrap());
        assert_eq!(tail.first_op_id(BucketId(0)), OpId::new(6).ok());
        let sum = [6, 8, 10].map(|id| operation(id).checksum).into_iter().sum();
        let totals = BucketTotals { count: 3, checksum: sum, last_op_id: OpId::new(10).unwrap() };
        assert_eq!(tail.totals()[&BucketId(0)], totals);
        assert_eq!(seen[&BucketId(0)].count, 5, "a view keeps its totals");
        tail.remove(BucketId(0), OpId::new(10).unwrap());
        tail.remove(BucketId(1), OpId::new(10).unwrap());
        assert_eq!(tail.size(), TailSize::default());
        assert!(tail.bucket_ids().is_empty() && tail.totals().is_empty());
    }

    #[test]
    fn a_range_is_open_below_and_closed_above() {
        let mut tail = Tail::default();
        (1..=5).for_each(|id| tail.push(BucketId(1), operation(id)));
        let ids = |after, upto, limit| {
            let range = tail.range(BucketId(1), OpId::new(after).unwrap(), OpId::new(upto).unwrap(), limit);
            range.into_iter().map(|operation| operation.op_id.get()).collect::<Vec<_>>()
        };
        assert_eq!(ids(1, 3, 9), [2, 3]);
        assert_eq!(ids(0, 9, 2), [1, 2]);
        assert!(ids(4, 2, 9).is_empty(), "a bound below the start is no panic");
    }
}
