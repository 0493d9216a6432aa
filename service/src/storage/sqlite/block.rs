//! Compressed blocks of operations: what the tail is made of.
//!
//! ```text
//! block   = length of the content (u32, little endian), zstd frame with its own checksum
//! content = JSON of all operations, index, length of the index (u32, little endian), some bytes of the caller's
//! index   = for each operation: number of its bucket (number), its id less the one before (number), length of its
//!           JSON (number), checksum (u32, little endian)
//! ```
//!
//! Rows of the tail use the outer form only, [`pack`].

use bytes::{BufMut, Bytes};
use kairos_sync_protocol::{Checksum, OpId};

use super::{
    super::{StorageError, frame, wire::WireOperation},
    BucketId,
    codec::{Reader, put_number},
};

/// Above any block that is written, so that a damaged length cannot ask for all memory.
const CONTENT_BYTES_MAX: usize = 512 << 20;

/// Collects operations for a block.
#[derive(Default)]
pub(super) struct BlockBuilder {
    content: Vec<u8>,
    index: Vec<IndexEntry>,
}

struct IndexEntry {
    bucket: BucketId,
    op_id: OpId,
    length: usize,
    checksum: Checksum,
}

/// Operations of a block, each with its bucket.
pub(super) type BlockOperations = Vec<(BucketId, WireOperation)>;

impl BlockBuilder {
    /// Adds an operation whose JSON `write` appends. Ids ascend within a block.
    pub(super) fn push(&mut self, bucket: BucketId, op_id: OpId, checksum: Checksum, write: impl FnOnce(&mut Vec<u8>)) {
        let before = self.content.len();
        write(&mut self.content);
        self.index.push(IndexEntry { bucket, op_id, length: self.content.len() - before, checksum });
    }

    /// Bytes of JSON so far.
    pub(super) fn json_bytes(&self) -> usize {
        self.content.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// Id of the first operation; zero without any.
    pub(super) fn first_op_id(&self) -> OpId {
        self.index.first().map(|entry| entry.op_id).unwrap_or_default()
    }

    /// The block to store, with a few bytes of the caller's at its end.
    pub(super) fn finish_with(mut self, end: &[u8]) -> Result<Vec<u8>, StorageError> {
        self.append_index()?;
        self.content.extend_from_slice(end);
        pack(&self.content)
    }

    /// The block to store, with a few bytes of the caller's at its end, and its operations, which share one buffer.
    pub(super) fn finish_shared_with(mut self, end: &[u8]) -> Result<(Vec<u8>, BlockOperations), StorageError> {
        self.append_index()?;
        self.content.extend_from_slice(end);
        let mut rest = Bytes::from(self.content);
        let block = pack(&rest)?;
        let operation = |entry: &IndexEntry| {
            let json = rest.split_to(entry.length);
            (entry.bucket, WireOperation { op_id: entry.op_id, checksum: entry.checksum, json })
        };
        Ok((block, self.index.iter().map(operation).collect()))
    }

    fn append_index(&mut self) -> Result<(), StorageError> {
        let json_bytes = self.content.len();
        let mut before = 0;
        for entry in &self.index {
            put_number(&mut self.content, entry.bucket.0);
            put_number(&mut self.content, entry.op_id.get() - before);
            put_number(&mut self.content, entry.length as u64);
            self.content.put_u32_le(entry.checksum.bits());
            before = entry.op_id.get();
        }
        let index_bytes = block_length(self.content.len() - json_bytes)?;
        self.content.put_u32_le(index_bytes);
        Ok(())
    }
}

/// The operations of a block, which share one buffer, and the bytes of the caller's at its end.
pub(super) fn decode_with<const LENGTH: usize>(block: &[u8]) -> Result<(BlockOperations, [u8; LENGTH]), StorageError> {
    let mut content = unpack(block)?;
    let end = *content.last_chunk().ok_or_else(damaged)?;
    content.truncate(content.len() - LENGTH);
    Ok((decode_content(content)?, end))
}

/// The operations of a block without such bytes.
pub(super) fn decode_content(mut content: Bytes) -> Result<BlockOperations, StorageError> {
    let index = split_index(&mut content).ok_or_else(damaged)?;
    let mut reader = Reader::new(&index, "operations");
    let mut operations = Vec::new();
    let mut id = 0_u64;
    while !reader.is_empty() {
        let bucket = BucketId(reader.number()?);
        id = id.checked_add(reader.number()?).ok_or_else(damaged)?;
        let length = usize::try_from(reader.number()?).map_err(|_| damaged())?;
        let bits = reader.take(4)?.try_into().map_err(|_| damaged())?;
        if length > content.len() {
            return Err(damaged());
        }
        let json = content.split_to(length);
        let (op_id, checksum) = (OpId::new(id).map_err(|_| damaged())?, Checksum::from_bits(u32::from_le_bytes(bits)));
        operations.push((bucket, WireOperation { op_id, checksum, json }));
    }
    Ok(operations)
}

fn damaged() -> StorageError {
    StorageError::Damaged { what: "a block".to_owned() }
}

fn block_length(length: usize) -> Result<u32, StorageError> {
    u32::try_from(length)
        .ok()
        .filter(|_| length <= CONTENT_BYTES_MAX)
        .ok_or_else(|| StorageError::Engine(format!("{length} bytes do not fit a block")))
}

/// Content of any kind, compressed, with a checksum.
pub(super) fn pack(content: &[u8]) -> Result<Vec<u8>, StorageError> {
    let mut block = block_length(content.len())?.to_le_bytes().to_vec();
    let failed = |error| StorageError::Engine(format!("compress a block: {error}"));
    frame::compress_onto(content, &mut block).map_err(failed)?;
    Ok(block)
}

/// What [`pack`] was given.
pub(super) fn unpack(block: &[u8]) -> Result<Bytes, StorageError> {
    decompress(block).ok_or_else(damaged)
}

fn decompress(block: &[u8]) -> Option<Bytes> {
    let (length, frame) = block.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok().filter(|length| *length <= CONTENT_BYTES_MAX)?;
    let mut content = Vec::new();
    frame::decompress_onto(frame, length, &mut content)?;
    Some(content.into())
}

/// Takes the index off the end of the content, leaving the JSON.
fn split_index(content: &mut Bytes) -> Option<Bytes> {
    let index_end = content.len().checked_sub(4)?;
    let length = u32::from_le_bytes(content[index_end..].try_into().ok()?);
    let index_start = index_end.checked_sub(usize::try_from(length).ok()?)?;
    let index = content.slice(index_start..index_end);
    content.truncate(index_start);
    Some(index)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const END: &[u8] = b"end";

    fn decode(block: &[u8]) -> Result<BlockOperations, StorageError> {
        let (operations, end) = decode_with::<3>(block)?;
        assert_eq!(end, END);
        Ok(operations)
    }

    fn block(operations: &[(u64, u32, u32, Vec<u8>)]) -> (Vec<u8>, BlockOperations) {
        let mut builder = BlockBuilder::default();
        let mut op_id = OpId::ZERO;
        for (bucket, skipped, bits, json) in operations {
            op_id = OpId::new(op_id.get() + u64::from(*skipped)).unwrap().next();
            builder.push(BucketId(*bucket), op_id, Checksum::from_bits(*bits), |out| out.put_slice(json));
        }
        builder.finish_shared_with(END).unwrap()
    }

    proptest! {
        #[test]
        fn operations_round_trip(
            operations in prop::collection::vec(any::<(u64, u32, u32, Vec<u8>)>(), 0..20)
        ) {
            let (block, shared) = block(&operations);
            prop_assert_eq!(&decode(&block).unwrap(), &shared);
            for ((bucket, operation), (number, _, bits, json)) in shared.iter().zip(&operations) {
                let found = (bucket.0, operation.checksum.bits(), operation.json.as_ref());
                prop_assert_eq!(found, (*number, *bits, json.as_slice()));
            }
            let ids: Vec<_> = shared.iter().map(|(_, operation)| operation.op_id).collect();
            prop_assert!(ids.is_sorted_by(|one, next| one < next));
        }

        #[test]
        fn a_flipped_bit_is_noticed(at in any::<prop::sample::Index>(), bit in 0..8_u8) {
            let operations = [(1, 0, 2, b"{\"op_id\":\"1\"}".to_vec()), (3, 5, 4, vec![b'x'; 300])];
            let (mut bytes, entries) = block(&operations);
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            // A flip in a field of the frame that nobody reads may leave the content whole; it must never change it.
            prop_assert!(decode(&bytes).map_or(true, |read| read == entries));
        }

        #[test]
        fn decoding_never_panics(bytes: Vec<u8>) {
            let _ = decode_with::<3>(&bytes);
        }
    }
}
