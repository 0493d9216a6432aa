//! Chunks: the older operations of a bucket, in blocks that are written once and only ever merged.

use kairos_sync_protocol::{Checksum, OpId};
use rusqlite::{Connection, OptionalExtension};

use super::{
    super::{
        BucketTotals, StorageError,
        wire::{RangeBuilder, WireOperation},
    },
    BucketId,
    block::{self, BlockBuilder},
    head::number,
};

/// Bytes of JSON a chunk is closed at. A client's request reads whole chunks, so larger ones waste work; smaller ones
/// compress worse.
const CHUNK_BYTES: u64 = 256 << 10;
/// A chunk is merged with newer operations while it is at most this many times as large as they are: each operation
/// is then rewritten a logarithmic number of times, and a bucket keeps few small chunks.
const MERGE_FACTOR: u64 = 2;

/// How one bucket's operations go into chunks: computed before the writer is asked for.
pub(super) struct FoldPlan {
    /// Chunks that were merged into the new ones.
    replaced: Vec<i64>,
    chunks: NewChunks,
    /// The first one folded.
    first_op_id: OpId,
    /// What the bucket's totals on disk grow by; its last op id is the last one folded.
    added: BucketTotals,
}

impl FoldPlan {
    /// Plans chunks for operations that follow all of the bucket's chunks.
    pub(super) fn new(
        conn: &Connection,
        bucket: BucketId,
        operations: Vec<WireOperation>,
    ) -> Result<Self, StorageError> {
        let added = totals_of(&operations);
        let first_op_id = operations.first().map(|operation| operation.op_id).unwrap_or_default();
        let mut replaced = Vec::new();
        let mut bytes: u64 = operations.iter().map(|operation| operation.json.len() as u64).sum();
        let mut parts = vec![operations];
        let mut before = first_op_id;
        while let Some(chunk) = last_chunk_before(conn, bucket, before)? {
            if chunk.json_bytes > MERGE_FACTOR * bytes || chunk.json_bytes >= CHUNK_BYTES {
                break;
            }
            bytes += chunk.json_bytes;
            parts.push(load(conn, bucket, chunk.id)?);
            replaced.push(chunk.id);
            before = parts.last().and_then(|part| part.first()).map(|operation| operation.op_id).unwrap_or_default();
        }
        let mut chunks = NewChunks::of(bucket, bytes, parts.into_iter().rev().flatten())?;
        chunks.close()?;
        Ok(Self { replaced, chunks, first_op_id, added })
    }

    pub(super) fn bucket(&self) -> BucketId {
        self.chunks.bucket
    }

    /// Whether the tail, which has this as the bucket's first operation, still has what the plan moves.
    pub(super) fn is_due(&self, first_in_tail: Option<OpId>) -> bool {
        first_in_tail == Some(self.first_op_id)
    }

    /// What storing it writes.
    pub(super) fn bytes(&self) -> usize {
        self.chunks.closed.iter().map(|chunk| chunk.block.len()).sum()
    }

    /// Writes the chunks and the bucket's totals, within the caller's transaction.
    pub(super) fn store(&self, conn: &Connection) -> Result<(), StorageError> {
        for id in &self.replaced {
            conn.prepare_cached("DELETE FROM chunk WHERE id = ?1")?.execute([id])?;
        }
        self.chunks.store(conn, &self.added)
    }
}

/// New chunks of one bucket, filled one after the other.
pub(super) struct NewChunks {
    bucket: BucketId,
    open: BlockBuilder,
    closed: Vec<NewChunk>,
}

struct NewChunk {
    first_op_id: OpId,
    totals: BucketTotals,
    json_bytes: u64,
    block: Vec<u8>,
}

impl NewChunks {
    /// Chunks that begin with these operations. `json_bytes` are about what all will have.
    pub(super) fn of(
        bucket: BucketId,
        json_bytes: u64,
        operations: impl IntoIterator<Item = WireOperation>,
    ) -> Result<Self, StorageError> {
        let room = usize::try_from(json_bytes.min(CHUNK_BYTES)).unwrap_or_default();
        let mut chunks = Self { bucket, open: BlockBuilder::with_capacity(room), closed: Vec::new() };
        for WireOperation { op_id, checksum, json } in operations {
            chunks.push(op_id, checksum, |out| out.extend_from_slice(&json))?;
        }
        Ok(chunks)
    }

    /// Adds an operation whose JSON `write` appends; ids ascend.
    pub(super) fn push(
        &mut self,
        op_id: OpId,
        checksum: Checksum,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(), StorageError> {
        self.open.push(self.bucket, op_id, checksum, write);
        if self.open.json_bytes() as u64 >= CHUNK_BYTES {
            self.close()?;
        }
        Ok(())
    }

    fn close(&mut self) -> Result<(), StorageError> {
        if self.open.is_empty() {
            return Ok(());
        }
        let open = std::mem::take(&mut self.open);
        let (first_op_id, totals, json_bytes) = (open.first_op_id(), open.totals(), open.json_bytes() as u64);
        self.closed.push(NewChunk { first_op_id, totals, json_bytes, block: open.finish()? });
        Ok(())
    }

    /// Writes chunks of operations that follow all in the bucket's chunks, within the caller's transaction.
    pub(super) fn append(mut self, conn: &Connection) -> Result<(), StorageError> {
        self.close()?;
        let mut added = BucketTotals::default();
        for chunk in &self.closed {
            added.extend(&chunk.totals);
        }
        self.store(conn, &added)
    }

    fn store(&self, conn: &Connection, added: &BucketTotals) -> Result<(), StorageError> {
        let sql = "INSERT INTO chunk (bucket_id, first_op_id, last_op_id, operation_count, checksum, json_bytes, block) \
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
        for chunk in &self.closed {
            conn.prepare_cached(sql)?.execute((
                self.bucket.column(),
                chunk.first_op_id.get().cast_signed(),
                chunk.totals.last_op_id.get().cast_signed(),
                chunk.totals.count.cast_signed(),
                chunk.totals.checksum.bits(),
                chunk.json_bytes.cast_signed(),
                &chunk.block,
            ))?;
        }
        // Sums of checksums wrap at 32 bits.
        let sql = "UPDATE bucket SET operation_count = operation_count + ?2, \
                   checksum = (checksum + ?3) & 0xFFFFFFFF, last_op_id = ?4 WHERE id = ?1";
        conn.prepare_cached(sql)?.execute((
            self.bucket.column(),
            added.count.cast_signed(),
            added.checksum.bits(),
            added.last_op_id.get().cast_signed(),
        ))?;
        Ok(())
    }
}

struct StoredChunk {
    id: i64,
    json_bytes: u64,
}

fn totals_of(operations: &[WireOperation]) -> BucketTotals {
    BucketTotals {
        count: operations.len() as u64,
        checksum: operations.iter().map(|operation| operation.checksum).sum(),
        last_op_id: operations.last().map(|operation| operation.op_id).unwrap_or_default(),
    }
}

fn last_chunk_before(conn: &Connection, bucket: BucketId, op_id: OpId) -> Result<Option<StoredChunk>, StorageError> {
    let sql = "SELECT id, json_bytes FROM chunk WHERE bucket_id = ?1 AND last_op_id < ?2 \
               ORDER BY last_op_id DESC LIMIT 1";
    let chunk = conn
        .prepare_cached(sql)?
        .query_row((bucket.column(), op_id.get().cast_signed()), |row| Ok((row.get(0)?, number(row, 1))))
        .optional()?;
    chunk.map(|(id, bytes)| Ok(StoredChunk { id, json_bytes: bytes? })).transpose()
}

fn load(conn: &Connection, bucket: BucketId, id: i64) -> Result<Vec<WireOperation>, StorageError> {
    let sql = "SELECT block, operation_count, checksum FROM chunk WHERE id = ?1";
    let mut statement = conn.prepare_cached(sql)?;
    let mut rows = statement.query([id])?;
    rows.next()?.map_or_else(|| Ok(Vec::new()), |row| operations_of(row, bucket))
}

/// The operations of a chunk; its columns are block, count and checksum. The block knows its bucket: a damaged index must
/// not give the rows of one user to another.
fn operations_of(row: &rusqlite::Row, bucket: BucketId) -> Result<Vec<WireOperation>, StorageError> {
    let entries = block::decode(row.get_ref(0)?.as_blob().map_err(rusqlite::Error::from)?)?;
    if entries.iter().any(|(of, _)| *of != bucket) {
        return Err(StorageError::Damaged { what: "a chunk is found under another bucket".to_owned() });
    }
    let operations: Vec<_> = entries.into_iter().map(|(_, operation)| operation).collect();
    let totals = totals_of(&operations);
    if totals.count != number(row, 1)? || totals.checksum != Checksum::from_bits(row.get(2)?) {
        return Err(StorageError::Damaged { what: "a chunk contradicts its sums".to_owned() });
    }
    Ok(operations)
}

/// Passes operations in chunks with `after < op id <= upto` to `range`, in order, as long as it wants more and `is_wanted`
/// says so of each. Whether all were passed.
pub(super) fn visit(
    conn: &Connection,
    bucket: BucketId,
    after: OpId,
    upto: OpId,
    range: &mut RangeBuilder,
    is_wanted: impl Fn(OpId) -> bool,
) -> Result<bool, StorageError> {
    let sql = "SELECT block, operation_count, checksum FROM chunk \
               WHERE bucket_id = ?1 AND last_op_id > ?2 AND first_op_id <= ?3 ORDER BY last_op_id";
    let mut statement = conn.prepare_cached(sql)?;
    let mut rows = statement.query((bucket.column(), after.get().cast_signed(), upto.get().cast_signed()))?;
    while let Some(row) = rows.next()? {
        // Every chunk but the first begins with an operation that is asked for.
        if !range.is_empty() && !range.wants_more() {
            return Ok(false);
        }
        let operations = operations_of(row, bucket)?;
        let start = operations.partition_point(|operation| operation.op_id <= after);
        let end = operations.partition_point(|operation| operation.op_id <= upto);
        for operation in operations.get(start..end).unwrap_or_default() {
            if !is_wanted(operation.op_id) {
                return Ok(true);
            }
            if !range.push(operation.op_id, &operation.json) {
                return Ok(false);
            }
        }
    }
    Ok(true)
}
