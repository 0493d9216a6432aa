//! Which keys a run cannot have: spares most looks into runs that do not have a row.
//!
//! A Bloom filter of a size that fits the keys it is made for. It never forgets a key, so what it denies is not there; what
//! it does not deny may be. Beyond some millions of keys it says less and less.

use std::sync::atomic::{AtomicU64, Ordering};

use super::super::{
    super::{RowKey, StorageError, TableId},
    sum::Sum,
};

/// Enough for one wrong answer in a hundred.
const BITS_PER_KEY: u64 = 12;
/// Words of a block, in which all bits of a key are: half a cache line.
const BLOCK_WORDS: usize = 4;
/// 4 MiB: one wrong answer in four for ten million keys.
const BLOCKS_MAX: u64 = (512 << 10) / BLOCK_WORDS as u64;
/// One bit in each half of a block's words is chosen by the highest bits of the key's hash times one of these odd numbers
/// (the salts of split block Bloom filters in Apache Parquet's format, where they are given).
const SALTS: [u32; 2 * BLOCK_WORDS] =
    [0x47b6_137b, 0x4497_4d91, 0x8824_ad5b, 0xa2b7_289d, 0x7054_95c7, 0x2df1_424b, 0x9efc_4947, 0x5c6b_fb31];

/// Keys that may be in a run.
#[derive(Debug)]
pub(in super::super) struct KeyFilter {
    words: Box<[AtomicU64]>,
}

/// What a filter knows of a key.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct KeyHash(u64);

impl KeyHash {
    /// Stored filters were made with it.
    pub(in super::super) fn of(table: TableId, identity: &[u8]) -> Self {
        let sum = u64::from(Sum::of("row").number(table.0.into()).bytes(identity).finish());
        // The last steps of SplitMix64: 32 bits tell keys apart well enough, but they have to be spread.
        let mut hash = sum.wrapping_add(0x9E37_79B9_7F4A_7C15);
        hash = (hash ^ hash >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        hash = (hash ^ hash >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        Self(hash ^ hash >> 31)
    }

    pub(in super::super) fn of_key(key: &RowKey) -> Self {
        Self::of(key.table, &key.identity)
    }

    /// The bits of a key in each word of its block.
    fn bits(self) -> [u64; BLOCK_WORDS] {
        let low = (self.0 & u64::from(u32::MAX)).try_into().unwrap_or(u32::MAX);
        let bit = |salt: u32| 1_u64 << (salt.wrapping_mul(low) >> 27);
        std::array::from_fn(|word| bit(SALTS[2 * word]) | bit(SALTS[2 * word + 1]) << 32)
    }
}

// Bits are set before their row leaves the tail's memory, whose lock orders both for whoever looks there first.
impl KeyFilter {
    /// For at most so many keys.
    pub(in super::super) fn new(key_count: u64) -> Self {
        let block_bits = 64 * BLOCK_WORDS as u64;
        let blocks = key_count.saturating_mul(BITS_PER_KEY).div_ceil(block_bits).clamp(1, BLOCKS_MAX);
        Self { words: (0..blocks * BLOCK_WORDS as u64).map(|_| AtomicU64::new(0)).collect() }
    }

    pub(in super::super) fn insert(&self, key: KeyHash) {
        for (word, bits) in self.block(key).iter().zip(key.bits()) {
            word.fetch_or(bits, Ordering::Relaxed);
        }
    }

    /// `false` if the key was certainly not inserted.
    pub(in super::super) fn may_have(&self, key: KeyHash) -> bool {
        let mut words = self.block(key).iter().zip(key.bits());
        words.all(|(word, bits)| word.load(Ordering::Relaxed) & bits == bits)
    }

    fn block(&self, key: KeyHash) -> &[AtomicU64] {
        let (blocks, _) = self.words.as_chunks::<BLOCK_WORDS>();
        // The high half of the hash, scaled to the number of blocks.
        let number = ((key.0 >> 32) * blocks.len() as u64) >> 32;
        usize::try_from(number).ok().and_then(|number| blocks.get(number)).map_or(&[], |block| block)
    }

    /// As it is stored, and its sum.
    pub(in super::super) fn record(&self) -> (Vec<u8>, u32) {
        let bytes: Vec<u8> = self.words.iter().flat_map(|word| word.load(Ordering::Relaxed).to_le_bytes()).collect();
        let sum = Sum::of("row_filter").bytes(&bytes).finish();
        (bytes, sum)
    }

    pub(in super::super) fn from_record(bytes: &[u8], sum: u32) -> Result<Self, StorageError> {
        let (words, rest) = bytes.as_chunks::<8>();
        let is_built = !words.is_empty() && words.len().is_multiple_of(BLOCK_WORDS) && rest.is_empty();
        if !is_built || Sum::of("row_filter").bytes(bytes).finish() != sum {
            return Err(StorageError::FilterDamaged { what: "it contradicts its sum".to_owned() });
        }
        Ok(Self { words: words.iter().map(|word| AtomicU64::new(u64::from_le_bytes(*word))).collect() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u32) -> KeyHash {
        KeyHash::of(TableId(1), &number.to_le_bytes())
    }

    #[test]
    fn what_was_inserted_is_never_denied() {
        let filter = KeyFilter::new(100_000);
        (0..100_000).for_each(|number| filter.insert(key(number)));
        let (bytes, sum) = filter.record();
        assert_eq!(bytes.len(), 150_016, "12 bits for each");
        for filter in [filter, KeyFilter::from_record(&bytes, sum).unwrap()] {
            assert!((0..100_000).all(|number| filter.may_have(key(number))));
            let wrong = (100_000..200_000).filter(|number| filter.may_have(key(*number))).count();
            assert!(wrong < 1_500, "{wrong} of 100,000 other keys were not denied");
        }
    }

    #[test]
    fn it_is_bounded_and_never_empty() {
        let empty = KeyFilter::new(0);
        assert!(!empty.may_have(key(1)));
        assert_eq!(KeyFilter::new(u64::MAX).record().0.len(), 4 << 20);
        let (bytes, sum) = empty.record();
        assert!(KeyFilter::from_record(&bytes, sum + 1).is_err());
        assert!(KeyFilter::from_record(&[], Sum::of("row_filter").bytes(&[]).finish()).is_err());
    }
}
