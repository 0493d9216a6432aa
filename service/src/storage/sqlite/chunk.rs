//! Chunks: the older operations of a bucket, in blocks that are written once and only ever replaced whole: merged by folds,
//! made smaller by compaction.
//!
//! Each knows where the chunk before it ends, so that one that is missing is noticed by whoever reads on.

use kairos_sync_protocol::{Checksum, OpId};
use rusqlite::Connection;

use super::{
    super::{BucketTotals, RANGE_OPERATIONS_MAX, StorageError, range::RangeBuilder, wire::WireOperation},
    BucketId,
    bucket::Bucket,
    chunk_block::{ChunkBlockBuilder, PackedBlock},
    head::{number, op_id},
};

/// Bytes of JSON a chunk is closed at. A client's request reads whole chunks, so larger ones waste work; smaller ones
/// compress worse.
const CHUNK_BYTES: u64 = 256 << 10;
/// And operations: as many as a client gets at once.
const CHUNK_OPERATIONS: usize = RANGE_OPERATIONS_MAX;
/// A chunk is merged with newer operations while it is at most this many times as large as they are: each operation
/// is then rewritten a logarithmic number of times, and a bucket keeps few small chunks.
const MERGE_FACTOR: u64 = 2;

/// What a chunk knows beside its operations.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Links {
    /// Last operation of the chunk before it; zero for a bucket's first.
    pub(super) previous: OpId,
    /// What compaction replaced in it was replaced by operations up to this one. Never goes back.
    pub(super) valid_from: OpId,
}

impl Links {
    /// Of a record.
    pub(super) const BYTES: usize = 16;

    /// Its record.
    pub(super) fn encode(self) -> [u8; Self::BYTES] {
        let both = u128::from(self.previous.get()) << 64 | u128::from(self.valid_from.get());
        both.to_be_bytes()
    }

    /// What [`Self::encode`] was given.
    pub(super) fn decode(bytes: [u8; Self::BYTES]) -> Result<Self, StorageError> {
        let both = u128::from_be_bytes(bytes);
        let op_id = |bits: u128| {
            let id = u64::try_from(bits).ok().and_then(|id| OpId::new(id).ok());
            id.ok_or_else(|| StorageError::Damaged { what: "a chunk has no valid links".to_owned() })
        };
        Ok(Self { previous: op_id(both >> 64)?, valid_from: op_id(both & u128::from(u64::MAX))? })
    }
}

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
        let mut links = Links::default();
        while let Some(chunk) = last_chunk_before(conn, bucket, before)? {
            let is_full = chunk.json_bytes >= CHUNK_BYTES || chunk.operation_count >= CHUNK_OPERATIONS as u64;
            if is_full || chunk.json_bytes > MERGE_FACTOR * bytes {
                links.previous = chunk.last_op_id;
                break;
            }
            bytes += chunk.json_bytes;
            let Chunk { operations, links: of_chunk } = load(conn, bucket, chunk.id)?;
            links.valid_from = links.valid_from.max(of_chunk.valid_from);
            parts.push(operations);
            replaced.push(chunk.id);
            before = parts.last().and_then(|part| part.first()).map(|operation| operation.op_id).unwrap_or_default();
        }
        let mut chunks = NewChunks::of(bucket, bytes, links, parts.into_iter().rev().flatten())?;
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
        self.chunks.bytes()
    }

    /// Writes the chunks and the bucket's totals, within the caller's transaction.
    pub(super) fn store(&self, conn: &Connection) -> Result<(), StorageError> {
        delete(conn, &self.replaced)?;
        self.chunks.store(conn)?;
        grow_bucket(conn, self.chunks.bucket, &self.added)
    }
}

/// New chunks of one bucket, filled one after the other.
pub(super) struct NewChunks {
    bucket: BucketId,
    /// Of the next chunk.
    links: Links,
    open: ChunkBlockBuilder,
    closed: Vec<NewChunk>,
}

struct NewChunk {
    first_op_id: OpId,
    totals: BucketTotals,
    json_bytes: u64,
    block: Vec<u8>,
}

impl NewChunks {
    /// Chunks that begin with these operations. `json_bytes` are about what all will have. The links are those of the
    /// first; all others are as valid as it.
    pub(super) fn of(
        bucket: BucketId,
        json_bytes: u64,
        links: Links,
        operations: impl IntoIterator<Item = WireOperation>,
    ) -> Result<Self, StorageError> {
        let room = usize::try_from(json_bytes.min(CHUNK_BYTES)).unwrap_or_default();
        let mut chunks = Self { bucket, links, open: ChunkBlockBuilder::with_capacity(room), closed: Vec::new() };
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
        self.open.push(op_id, checksum, write);
        if self.open.json_bytes() >= CHUNK_BYTES || self.open.count() >= CHUNK_OPERATIONS {
            self.close()?;
        }
        Ok(())
    }

    /// Ends the open chunk.
    pub(super) fn close(&mut self) -> Result<(), StorageError> {
        if self.open.is_empty() {
            return Ok(());
        }
        let open = std::mem::take(&mut self.open);
        let (first_op_id, totals, json_bytes) = (open.first_op_id(), open.totals(), open.json_bytes());
        let block = open.finish(self.bucket, self.links)?;
        self.links.previous = totals.last_op_id;
        self.closed.push(NewChunk { first_op_id, totals, json_bytes, block });
        Ok(())
    }

    /// What storing the closed ones writes.
    pub(super) fn bytes(&self) -> usize {
        self.closed.iter().map(|chunk| chunk.block.len()).sum()
    }

    /// Writes chunks of operations that follow all in the bucket's chunks, within the caller's transaction.
    pub(super) fn append(mut self, conn: &Connection) -> Result<(), StorageError> {
        self.close()?;
        let mut added = BucketTotals::default();
        for chunk in &self.closed {
            added.extend(&chunk.totals);
        }
        self.store(conn)?;
        grow_bucket(conn, self.bucket, &added)
    }

    /// Writes the closed chunks, within the caller's transaction.
    pub(super) fn store(&self, conn: &Connection) -> Result<(), StorageError> {
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
        Ok(())
    }
}

/// Counts what a bucket has in chunks now.
fn grow_bucket(conn: &Connection, bucket: BucketId, added: &BucketTotals) -> Result<(), StorageError> {
    let Some(mut bucket) = Bucket::load(conn, bucket)? else { return Ok(()) };
    bucket.folded.extend(added);
    bucket.update(conn)
}

/// Deletes all chunks of a bucket, whatever is in them, within the caller's transaction.
pub(super) fn delete_all(conn: &Connection, bucket: BucketId) -> Result<(), StorageError> {
    conn.prepare_cached("DELETE FROM chunk WHERE bucket_id = ?1")?.execute([bucket.column()])?;
    Ok(())
}

/// Deletes so many chunks of a bucket, whatever is in them, within the caller's transaction. How many there were.
pub(super) fn delete_some(conn: &Connection, bucket: BucketId, limit: u32) -> Result<usize, StorageError> {
    let sql = "DELETE FROM chunk WHERE id IN (SELECT id FROM chunk WHERE bucket_id = ?1 LIMIT ?2)";
    Ok(conn.prepare_cached(sql)?.execute((bucket.column(), limit))?)
}

/// Deletes chunks, within the caller's transaction.
pub(super) fn delete(conn: &Connection, ids: &[i64]) -> Result<(), StorageError> {
    let mut statement = conn.prepare_cached("DELETE FROM chunk WHERE id = ?1")?;
    ids.iter().try_for_each(|id| statement.execute([id]).map(|_| ()))?;
    Ok(())
}

struct StoredChunk {
    id: i64,
    last_op_id: OpId,
    operation_count: u64,
    json_bytes: u64,
}

/// A chunk that was read.
pub(super) struct Chunk {
    pub(super) operations: Vec<WireOperation>,
    pub(super) links: Links,
}

impl Chunk {
    /// Sums over its operations.
    pub(super) fn totals(&self) -> BucketTotals {
        totals_of(&self.operations)
    }

    /// Bytes of JSON in it.
    pub(super) fn json_bytes(&self) -> u64 {
        self.operations.iter().map(|operation| operation.json.len() as u64).sum()
    }
}

fn totals_of(operations: &[WireOperation]) -> BucketTotals {
    BucketTotals::of(operations.iter().map(|operation| (operation.op_id, operation.checksum)))
}

fn last_chunk_before(conn: &Connection, bucket: BucketId, before: OpId) -> Result<Option<StoredChunk>, StorageError> {
    let sql = "SELECT id, last_op_id, operation_count, json_bytes FROM chunk \
               WHERE bucket_id = ?1 AND last_op_id < ?2 ORDER BY last_op_id DESC LIMIT 1";
    let mut statement = conn.prepare_cached(sql)?;
    let mut rows = statement.query((bucket.column(), before.get().cast_signed()))?;
    let Some(row) = rows.next()? else { return Ok(None) };
    Ok(Some(StoredChunk {
        id: row.get(0)?,
        last_op_id: op_id(row.get(1)?)?,
        operation_count: number(row, 2)?,
        json_bytes: number(row, 3)?,
    }))
}

fn load(conn: &Connection, bucket: BucketId, id: i64) -> Result<Chunk, StorageError> {
    let sql = format!("SELECT {COLUMNS} FROM chunk WHERE id = ?1");
    let mut statement = conn.prepare_cached(&sql)?;
    let mut rows = statement.query([id])?;
    let row = rows.next()?.ok_or_else(|| StorageError::Damaged { what: "a chunk is gone".to_owned() })?;
    read(row, bucket)
}

/// What [`read`] reads.
pub(super) const COLUMNS: &str = "block, operation_count, checksum, first_op_id, last_op_id, json_bytes";

/// A chunk from a row of [`COLUMNS`].
pub(super) fn read(row: &rusqlite::Row, bucket: BucketId) -> Result<Chunk, StorageError> {
    let block = read_packed(row, bucket)?;
    Ok(Chunk { operations: block.operations()?, links: block.links })
}

/// The block of a chunk from a row of [`COLUMNS`]. It knows its bucket: a damaged index must not give the rows of one user to
/// another. Nor must other columns say what is not so.
fn read_packed<'a>(row: &'a rusqlite::Row, bucket: BucketId) -> Result<PackedBlock<'a>, StorageError> {
    let block = PackedBlock::read(row.get_ref(0)?.as_blob().map_err(rusqlite::Error::from)?)?;
    if block.bucket != bucket {
        return Err(StorageError::Damaged { what: "a chunk is found under another bucket".to_owned() });
    }
    let totals = BucketTotals {
        count: number(row, 1)?,
        checksum: Checksum::from_bits(row.get(2)?),
        last_op_id: op_id(row.get(4)?)?,
    };
    if (totals, op_id(row.get(3)?)?, number(row, 5)?) != (block.totals(), block.first_op_id(), block.json_bytes()) {
        return Err(StorageError::Damaged { what: "a chunk contradicts its sums".to_owned() });
    }
    Ok(block)
}

/// What [`visit`] asks: a bucket's chunks after an operation.
pub(super) fn visit_sql() -> String {
    format!("SELECT {COLUMNS} FROM chunk WHERE bucket_id = ?1 AND last_op_id > ?2 ORDER BY last_op_id")
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
    let mut statement = conn.prepare_cached(&visit_sql())?;
    let mut rows = statement.query((bucket.column(), after.get().cast_signed()))?;
    let mut seen_upto = None;
    while let Some(row) = rows.next()? {
        // Every chunk but the first begins with an operation that is asked for, or with later ones only. That it is the
        // latter is believed once the chunk is read: were the column damaged, the rest of the bucket would be left out.
        let is_beyond = op_id(row.get(3)?)? > upto;
        if !range.is_empty() && !is_beyond && !range.wants_more() {
            return Ok(false);
        }
        let block = read_packed(row, bucket)?;
        let (links, totals) = (block.links, block.totals());
        let follows = seen_upto.map_or(links.previous <= after, |seen_upto| links.previous == seen_upto);
        if !follows {
            return Err(StorageError::Damaged { what: "a chunk is missing".to_owned() });
        }
        seen_upto = Some(totals.last_op_id);
        if is_beyond {
            // What was asked for may be gone into the CLEAR a bucket begins with.
            if links.previous == OpId::ZERO {
                range.replaced_upto(links.valid_from);
            }
            return Ok(true);
        }
        let is_whole = after < block.first_op_id() && totals.last_op_id <= upto && is_wanted(totals.last_op_id);
        let pushed = if is_whole { range.push_packed(&totals, || block.json(), block.length()) } else { None };
        match pushed {
            Some(true) => range.replaced_upto(links.valid_from),
            Some(false) => return Ok(false),
            None => {
                let part = Part { after, upto, valid_from: links.valid_from };
                if let Some(all_were_passed) = visit_part(&block, part, range, &is_wanted)? {
                    return Ok(all_were_passed);
                }
            }
        }
    }
    let last = last_op_id(conn, bucket)?;
    if last > after && seen_upto != Some(last) {
        return Err(StorageError::Damaged { what: "a chunk is missing".to_owned() });
    }
    Ok(true)
}

/// Which of a chunk's operations are wanted, and since when they are valid.
struct Part {
    after: OpId,
    upto: OpId,
    valid_from: OpId,
}

/// As [`visit`], the operations of one chunk, one by one. `None`: others may follow.
fn visit_part(
    block: &PackedBlock,
    Part { after, upto, valid_from }: Part,
    range: &mut RangeBuilder,
    is_wanted: impl Fn(OpId) -> bool,
) -> Result<Option<bool>, StorageError> {
    let operations = block.operations()?;
    let start = operations.partition_point(|operation| operation.op_id <= after);
    let end = operations.partition_point(|operation| operation.op_id <= upto);
    for operation in operations.get(start..end).unwrap_or_default() {
        if !is_wanted(operation.op_id) {
            return Ok(Some(true));
        }
        if !range.push(operation.op_id, &operation.json) {
            return Ok(Some(false));
        }
        range.replaced_upto(valid_from);
    }
    Ok(None)
}

/// The last operation that a bucket has in chunks; zero without any.
pub(super) fn last_op_id(conn: &Connection, bucket: BucketId) -> Result<OpId, StorageError> {
    Ok(Bucket::load(conn, bucket)?.map(|bucket| bucket.folded.last_op_id).unwrap_or_default())
}
