//! Compressed blocks of operations: what the tail and the chunks are made of.
//!
//! ```text
//! block   = length of the content (u32, little endian), zstd frame with its own checksum
//! content = JSON of all operations, index, length of the index (u32, little endian)
//! index   = for each operation: key (number), length of its JSON (number), checksum (u32, little endian)
//! ```
//!
//! The key says what the place of the block does not: the bucket in the tail, the op id in a chunk. Rows of the tail
//! use the outer form only, [`pack`].

use bytes::{BufMut, Bytes};
use kairos_sync_protocol::Checksum;

use super::{
    super::StorageError,
    codec::{Reader, put_number},
};

/// Fast and already small: column names repeat in every operation.
const COMPRESSION_LEVEL: i32 = 1;
/// Above any block that is written, so that a damaged length cannot ask for all memory.
const CONTENT_BYTES_MAX: usize = 512 << 20;

/// Collects operations for a block.
#[derive(Default)]
pub(super) struct BlockBuilder {
    content: Vec<u8>,
    index: Vec<IndexEntry>,
}

struct IndexEntry {
    key: u64,
    length: usize,
    checksum: Checksum,
}

/// One operation of a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BlockEntry {
    pub(super) key: u64,
    pub(super) checksum: Checksum,
    pub(super) json: Bytes,
}

impl BlockBuilder {
    /// Adds an operation whose JSON `write` appends.
    pub(super) fn push(&mut self, key: u64, checksum: Checksum, write: impl FnOnce(&mut Vec<u8>)) {
        let before = self.content.len();
        write(&mut self.content);
        self.index.push(IndexEntry { key, length: self.content.len() - before, checksum });
    }

    /// Bytes of JSON so far.
    pub(super) fn json_bytes(&self) -> usize {
        self.content.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// The block to store, and its operations, which share one buffer.
    pub(super) fn finish(mut self) -> Result<(Vec<u8>, Vec<BlockEntry>), StorageError> {
        let json_bytes = self.content.len();
        for entry in &self.index {
            put_number(&mut self.content, entry.key);
            put_number(&mut self.content, entry.length as u64);
            self.content.put_u32_le(entry.checksum.bits());
        }
        let index_bytes = block_length(self.content.len() - json_bytes)?;
        self.content.put_u32_le(index_bytes);
        let content = Bytes::from(self.content);
        let block = pack(&content)?;
        let mut rest = content;
        let entry = |entry: &IndexEntry| BlockEntry {
            key: entry.key,
            checksum: entry.checksum,
            json: rest.split_to(entry.length),
        };
        let entries = self.index.iter().map(entry).collect();
        Ok((block, entries))
    }
}

/// The operations of a block, which share one buffer.
pub(super) fn decode(block: &[u8]) -> Result<Vec<BlockEntry>, StorageError> {
    let mut content = unpack(block)?;
    let index = split_index(&mut content).ok_or_else(damaged)?;
    let mut reader = Reader::new(&index, "operations");
    let mut entries = Vec::new();
    while !reader.is_empty() {
        let key = reader.number()?;
        let length = usize::try_from(reader.number()?).map_err(|_| damaged())?;
        let bits = reader.take(4)?.try_into().map_err(|_| damaged())?;
        if length > content.len() {
            return Err(damaged());
        }
        let json = content.split_to(length);
        entries.push(BlockEntry { key, checksum: Checksum::from_bits(u32::from_le_bytes(bits)), json });
    }
    Ok(entries)
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
    block.extend(compress(content)?);
    Ok(block)
}

/// What [`pack`] was given.
pub(super) fn unpack(block: &[u8]) -> Result<Bytes, StorageError> {
    decompress(block).ok_or_else(damaged)
}

fn compress(content: &[u8]) -> Result<Vec<u8>, StorageError> {
    let failed = |error| StorageError::Engine(format!("compress a block: {error}"));
    let mut compressor = zstd::bulk::Compressor::new(COMPRESSION_LEVEL).map_err(failed)?;
    compressor.include_checksum(true).map_err(failed)?;
    compressor.compress(content).map_err(failed)
}

fn decompress(block: &[u8]) -> Option<Bytes> {
    let (length, frame) = block.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok().filter(|length| *length <= CONTENT_BYTES_MAX)?;
    let content = zstd::bulk::decompress(frame, length).ok()?;
    (content.len() == length).then(|| content.into())
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

    fn block(operations: &[(u64, u32, Vec<u8>)]) -> (Vec<u8>, Vec<BlockEntry>) {
        let mut builder = BlockBuilder::default();
        for (key, bits, json) in operations {
            builder.push(*key, Checksum::from_bits(*bits), |out| out.put_slice(json));
        }
        builder.finish().unwrap()
    }

    proptest! {
        #[test]
        fn operations_round_trip(operations in prop::collection::vec(any::<(u64, u32, Vec<u8>)>(), 0..20)) {
            let (block, entries) = block(&operations);
            prop_assert_eq!(&decode(&block).unwrap(), &entries);
            for (entry, (key, bits, json)) in entries.iter().zip(&operations) {
                prop_assert_eq!((entry.key, entry.checksum.bits(), entry.json.as_ref()), (*key, *bits, json.as_slice()));
            }
        }

        #[test]
        fn a_flipped_bit_is_noticed(at in any::<prop::sample::Index>(), bit in 0..8_u8) {
            let operations = [(1, 2, b"{\"op_id\":\"1\"}".to_vec()), (3, 4, vec![b'x'; 300])];
            let (mut bytes, entries) = block(&operations);
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            // A flip in a field of the frame that nobody reads may leave the content whole; it must never change it.
            prop_assert!(decode(&bytes).map_or(true, |read| read == entries));
        }

        #[test]
        fn decoding_never_panics(bytes: Vec<u8>) {
            let _ = decode(&bytes);
        }
    }
}
