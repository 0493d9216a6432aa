//! Which rows table `row` cannot have: spares most lookups of new rows, above all during a first copy.
//!
//! A Bloom filter over the keys placed there since the table was empty. It never forgets a key, so what it denies is
//! not there; what it does not deny may be. Fixed in size: beyond some millions of rows it says less and less.

use std::{
    hash::BuildHasher,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use foldhash::quality::RandomState;

use super::super::RowKey;

/// 4 MiB: one wrong answer in a hundred for three million rows, one in three for ten.
const WORDS: usize = 512 << 10;
/// Bits set per key.
const BITS: u32 = 4;

/// Keys that may be in table `row`.
#[derive(Debug)]
pub(super) struct PlacedKeys {
    /// None until the table is known to be empty: one that was there when the store was opened is not read for this.
    words: OnceLock<Box<[AtomicU64]>>,
    hasher: RandomState,
}

// Bits are set before their row leaves the tail's memory, whose lock orders both for whoever looks there first.
impl PlacedKeys {
    pub(super) fn new(table_is_empty: bool) -> Self {
        let words = if table_is_empty { OnceLock::from(no_keys()) } else { OnceLock::new() };
        Self { words, hasher: RandomState::default() }
    }

    /// The table is empty again. Called while nobody places rows.
    pub(super) fn clear(&self) {
        for word in self.words.get_or_init(no_keys) {
            word.store(0, Ordering::Relaxed);
        }
    }

    /// A row is about to be placed.
    pub(super) fn insert(&self, key: &RowKey) {
        if let Some(words) = self.words.get() {
            for (word, bit) in self.bits(key) {
                words[word].fetch_or(bit, Ordering::Relaxed);
            }
        }
    }

    /// `false` if the row is certainly not in the table.
    pub(super) fn may_have(&self, key: &RowKey) -> bool {
        let all_set =
            |words: &[AtomicU64]| self.bits(key).all(|(word, bit)| words[word].load(Ordering::Relaxed) & bit != 0);
        self.words.get().is_none_or(|words| all_set(words))
    }

    fn bits(&self, key: &RowKey) -> impl Iterator<Item = (usize, u64)> {
        const WORD_BITS: u32 = WORDS.trailing_zeros();
        let hash = self.hasher.hash_one(key);
        // The low bits choose a word, the others bits within it: a single cache line per key.
        let word = usize::try_from(hash % WORDS as u64).unwrap_or_default();
        (0..BITS).map(move |number| (word, 1 << (hash >> (WORD_BITS + 6 * number) & 63)))
    }
}

fn no_keys() -> Box<[AtomicU64]> {
    (0..WORDS).map(|_| AtomicU64::new(0)).collect()
}

#[cfg(test)]
mod tests {
    use super::{super::super::TableId, *};

    fn key(number: u32) -> RowKey {
        RowKey { table: TableId(1), identity: number.to_le_bytes().into() }
    }

    #[test]
    fn what_was_placed_is_never_denied() {
        let placed = PlacedKeys::new(true);
        (0..100_000).for_each(|number| placed.insert(&key(number)));
        assert!((0..100_000).all(|number| placed.may_have(&key(number))));
        let wrong = (100_000..200_000).filter(|number| placed.may_have(&key(*number))).count();
        assert!(wrong < 1_000, "{wrong} of 100,000 new keys were not denied");
    }

    #[test]
    fn nothing_is_denied_of_a_table_that_was_not_read_until_it_is_empty() {
        let placed = PlacedKeys::new(false);
        assert!(placed.may_have(&key(1)));
        placed.insert(&key(1));
        placed.clear();
        assert!(!placed.may_have(&key(1)));
    }
}
