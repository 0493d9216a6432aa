//! Sums over records, so that whoever reads a damaged one notices. SQLite looks at how its pages are built, not at what is
//! in them; blocks have a sum of their own.

use super::super::StorageError;

/// A CRC-32 over the fields of a record, which tells every flipped bit.
pub(super) struct Sum(crc32fast::Hasher);

impl Sum {
    /// Of a record of this table, which is never taken for one of another.
    pub(super) fn of(table: &str) -> Self {
        Self(crc32fast::Hasher::new()).text(table)
    }

    pub(super) fn number(mut self, number: u64) -> Self {
        self.0.update(&number.to_le_bytes());
        self
    }

    /// With its length, so that fields cannot run into each other.
    pub(super) fn bytes(self, bytes: &[u8]) -> Self {
        let mut sum = self.number(bytes.len() as u64);
        sum.0.update(bytes);
        sum
    }

    pub(super) fn text(self, text: &str) -> Self {
        self.bytes(text.as_bytes())
    }

    pub(super) fn finish(self) -> u32 {
        self.0.finalize()
    }

    /// Whether the record has this sum.
    ///
    /// # Errors
    /// [`StorageError::Damaged`] naming `what`, where it has not.
    pub(super) fn check(self, found: u32, what: &str) -> Result<(), StorageError> {
        if self.finish() == found {
            return Ok(());
        }
        Err(StorageError::Damaged { what: format!("{what} contradicts its sum") })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sum(table: &str, number: u64, bytes: &[u8]) -> Sum {
        Sum::of(table).number(number).bytes(bytes)
    }

    proptest! {
        #[test]
        fn a_flipped_bit_is_noticed(number: u64, mut bytes in prop::collection::vec(any::<u8>(), 1..200), bit: u16) {
            let whole = sum("row", number, &bytes).finish();
            prop_assert!(sum("row", number, &bytes).check(whole, "a row").is_ok());
            prop_assert!(sum("row", number ^ 1 << (bit % 64), &bytes).check(whole, "a row").is_err());
            let at = usize::from(bit) % bytes.len();
            bytes[at] ^= 1 << (bit % 8);
            prop_assert!(sum("row", number, &bytes).check(whole, "a row").is_err());
        }
    }

    #[test]
    fn records_of_other_tables_and_other_cuts_differ() {
        assert_ne!(sum("row", 1, b"a").finish(), sum("lookup", 1, b"a").finish());
        let cut = |one: &str, other: &str| Sum::of("lookup").text(one).text(other).finish();
        assert_ne!(cut("ab", "c"), cut("a", "bc"));
    }
}
