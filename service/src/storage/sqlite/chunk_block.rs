//! Blocks of chunks: operations of one bucket, in the form they are sent, and beside it what is known of each.
//!
//! ```text
//! block = length of the index (u32, little endian), index, CRC-32 of the index (u32, little endian), frame
//! index = number of the bucket (number), links, length of the JSON (number), CRC-32 of the frame (u32, little endian), and
//!         for each operation its id less the one before (number), length of its JSON (number), checksum (u32, little endian)
//! frame = zstd of the operations' JSON, joined by commas
//! ```
//!
//! Whoever wants all operations of a chunk need not take the JSON apart: it is decompressed to where it is sent from. The sum
//! says before that that the frame is what was written.

use bytes::{BufMut, Bytes};
use kairos_sync_protocol::{Checksum, OpId};

use super::{
    super::{BucketTotals, StorageError, frame, range::PackedJson, wire::WireOperation},
    BucketId,
    chunk::Links,
    codec::{Reader, put_number},
};

/// What an entry of the index mostly takes: two numbers of one and two bytes, and the checksum.
const ENTRY_BYTES_USUAL: usize = 7;

/// Collects operations of one bucket.
#[derive(Default)]
pub(super) struct ChunkBlockBuilder {
    json: Vec<u8>,
    index: Vec<Entry>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    op_id: OpId,
    length: usize,
    checksum: Checksum,
}

impl ChunkBlockBuilder {
    /// With room for so many bytes of JSON.
    pub(super) fn with_capacity(json_bytes: usize) -> Self {
        Self { json: Vec::with_capacity(json_bytes), index: Vec::new() }
    }

    /// Adds an operation whose JSON `write` appends. Ids ascend within a block.
    pub(super) fn push(&mut self, op_id: OpId, checksum: Checksum, write: impl FnOnce(&mut Vec<u8>)) {
        if !self.index.is_empty() {
            self.json.push(b',');
        }
        let before = self.json.len();
        write(&mut self.json);
        self.index.push(Entry { op_id, length: self.json.len() - before, checksum });
    }

    /// Bytes of the operations' JSON so far.
    pub(super) fn json_bytes(&self) -> u64 {
        json_bytes(self.json.len(), self.index.len())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// How many operations there are.
    pub(super) fn count(&self) -> usize {
        self.index.len()
    }

    /// Id of the first operation; zero without any.
    pub(super) fn first_op_id(&self) -> OpId {
        first_op_id(&self.index)
    }

    /// Sums over the operations.
    pub(super) fn totals(&self) -> BucketTotals {
        totals(&self.index)
    }

    /// The block to store.
    pub(super) fn finish(&self, bucket: BucketId, links: Links) -> Result<Vec<u8>, StorageError> {
        let failed = |error| StorageError::Engine(format!("compress a chunk: {error}"));
        let mut frame = Vec::new();
        frame::compress_onto(&self.json, &mut frame).map_err(failed)?;
        let mut index = Vec::with_capacity(self.index.len() * 10 + 64);
        put_number(&mut index, bucket.0);
        index.put_slice(&links.encode());
        put_number(&mut index, self.json.len() as u64);
        index.put_u32_le(crc32fast::hash(&frame));
        let mut before = OpId::ZERO;
        for entry in &self.index {
            put_number(&mut index, entry.op_id.get() - before.get());
            put_number(&mut index, entry.length as u64);
            index.put_u32_le(entry.checksum.bits());
            before = entry.op_id;
        }
        let too_long = |_| StorageError::Engine("the index of a chunk is too long".to_owned());
        let mut block = Vec::with_capacity(index.len() + frame.len() + 8);
        block.put_u32_le(u32::try_from(index.len()).map_err(too_long)?);
        block.put_slice(&index);
        block.put_u32_le(crc32fast::hash(&index));
        block.put_slice(&frame);
        Ok(block)
    }
}

/// A block whose JSON is still compressed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct PackedBlock<'a> {
    /// Whose operations these are.
    pub(super) bucket: BucketId,
    pub(super) links: Links,
    entries: Vec<Entry>,
    /// Bytes of the JSON, commas included.
    length: usize,
    frame: &'a [u8],
}

impl<'a> PackedBlock<'a> {
    /// The block of these bytes, if they are as they were written.
    pub(super) fn read(block: &'a [u8]) -> Result<Self, StorageError> {
        let (index, frame) = split(block).ok_or_else(damaged)?;
        let mut reader = Reader::new(index, "a chunk");
        let bucket = BucketId(reader.number()?);
        let links = Links::decode(*reader.take(Links::BYTES)?.first_chunk().ok_or_else(damaged)?)?;
        let length = usize::try_from(reader.number()?).map_err(|_| damaged())?;
        if word(reader.take(4)?)? != crc32fast::hash(frame) {
            return Err(damaged());
        }
        let mut entries = Vec::with_capacity(reader.remaining() / ENTRY_BYTES_USUAL);
        let (mut id, mut end) = (0_u64, 0_usize);
        while !reader.is_empty() {
            id = id.checked_add(reader.number()?).ok_or_else(damaged)?;
            let op_id = OpId::new(id).map_err(|_| damaged())?;
            let bytes = usize::try_from(reader.number()?).map_err(|_| damaged())?;
            end = end.checked_add(bytes).and_then(|end| end.checked_add(1)).ok_or_else(damaged)?;
            entries.push(Entry { op_id, length: bytes, checksum: Checksum::from_bits(word(reader.take(4)?)?) });
        }
        // Each but the last has a comma behind it.
        if entries.is_empty() || end != length.saturating_add(1) {
            return Err(damaged());
        }
        Ok(Self { bucket, links, entries, length, frame })
    }

    /// Id of the first operation.
    pub(super) fn first_op_id(&self) -> OpId {
        first_op_id(&self.entries)
    }

    /// Sums over its operations.
    pub(super) fn totals(&self) -> BucketTotals {
        totals(&self.entries)
    }

    /// Bytes of the operations' JSON.
    pub(super) fn json_bytes(&self) -> u64 {
        json_bytes(self.length, self.entries.len())
    }

    /// Bytes of the JSON of all operations, joined by commas.
    pub(super) const fn length(&self) -> usize {
        self.length
    }

    /// The JSON of all operations.
    pub(super) fn json(&self) -> PackedJson {
        PackedJson { frame: Bytes::copy_from_slice(self.frame), length: self.length }
    }

    /// Its operations, which share one buffer.
    pub(super) fn operations(&self) -> Result<Vec<WireOperation>, StorageError> {
        let mut json = Vec::new();
        frame::decompress_onto(self.frame, self.length, &mut json).ok_or_else(damaged)?;
        let mut rest = Bytes::from(json);
        let operation = |Entry { op_id, length, checksum }: &Entry| {
            let json = rest.split_to(*length);
            if !rest.is_empty() {
                let _comma = rest.split_to(1);
            }
            WireOperation { op_id: *op_id, checksum: *checksum, json }
        };
        Ok(self.entries.iter().map(operation).collect())
    }
}

/// Index and frame of a block whose index is whole.
fn split(block: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = block.split_first_chunk::<4>()?;
    let (index, rest) = rest.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
    let (sum, frame) = rest.split_first_chunk::<4>()?;
    (u32::from_le_bytes(*sum) == crc32fast::hash(index)).then_some((index, frame))
}

fn word(bytes: &[u8]) -> Result<u32, StorageError> {
    bytes.try_into().map(u32::from_le_bytes).map_err(|_| damaged())
}

fn first_op_id(index: &[Entry]) -> OpId {
    index.first().map(|entry| entry.op_id).unwrap_or_default()
}

fn totals(index: &[Entry]) -> BucketTotals {
    BucketTotals::of(index.iter().map(|entry| (entry.op_id, entry.checksum)))
}

/// Without the commas between operations.
fn json_bytes(length: usize, count: usize) -> u64 {
    (length - count.saturating_sub(1)) as u64
}

fn damaged() -> StorageError {
    StorageError::Damaged { what: "a chunk".to_owned() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn links() -> Links {
        Links { previous: OpId::new(7).unwrap(), valid_from: OpId::new(9).unwrap() }
    }

    fn block(operations: &[(u32, u32, Vec<u8>)]) -> (Vec<u8>, Vec<WireOperation>) {
        let (mut builder, mut op_id) = (ChunkBlockBuilder::default(), OpId::ZERO);
        let written: Vec<_> = operations
            .iter()
            .map(|(skipped, bits, json)| {
                op_id = OpId::new(op_id.get() + u64::from(*skipped)).unwrap().next();
                let checksum = Checksum::from_bits(*bits);
                builder.push(op_id, checksum, |out| out.put_slice(json));
                WireOperation { op_id, checksum, json: json.clone().into() }
            })
            .collect();
        (builder.finish(BucketId(3), links()).unwrap(), written)
    }

    proptest! {
        #[test]
        fn operations_round_trip(operations in prop::collection::vec(any::<(u32, u32, Vec<u8>)>(), 1..20)) {
            let (bytes, written) = block(&operations);
            let read = PackedBlock::read(&bytes).unwrap();
            prop_assert_eq!((read.bucket, read.links), (BucketId(3), links()));
            prop_assert_eq!(read.operations().unwrap(), written.clone());
            let json: Vec<&[u8]> = written.iter().map(|operation| operation.json.as_ref()).collect();
            let (mut joined, packed) = (Vec::new(), read.json());
            frame::decompress_onto(&packed.frame, packed.length, &mut joined).unwrap();
            prop_assert_eq!(joined, json.join(&b','));
            prop_assert_eq!(read.json_bytes(), json.concat().len() as u64);
            let totals = BucketTotals {
                count: written.len() as u64,
                checksum: written.iter().map(|operation| operation.checksum).sum(),
                last_op_id: written.last().unwrap().op_id,
            };
            prop_assert_eq!((read.first_op_id(), read.totals()), (written[0].op_id, totals));
        }

        #[test]
        fn a_flipped_bit_is_noticed_before_anything_is_sent(at in any::<prop::sample::Index>(), bit in 0..8_u8) {
            let (mut bytes, _) = block(&[(0, 2, b"{\"op_id\":\"1\"}".to_vec()), (5, 4, vec![b'x'; 300])]);
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert!(PackedBlock::read(&bytes).is_err());
        }

        #[test]
        fn reading_never_panics(bytes: Vec<u8>) {
            let _ = PackedBlock::read(&bytes).map(|block| block.operations());
        }
    }
}
