//! Checksums of operations, which add up to the checksum of a bucket.

use std::{fmt, iter::Sum, ops};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::{Digest, Sha256};

/// A 32-bit checksum. Sums wrap, so the order of operations does not matter.
///
/// On the wire it is a plain number. Services send it unsigned or, for historical reasons, as the signed number of the
/// same bits; both are read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Checksum(u32);

impl Checksum {
    /// Of a bucket without operations.
    pub const ZERO: Self = Self(0);

    /// The checksum with these bits.
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// The 32 bits.
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// Of a PUT: over table, id and the data text exactly as sent.
    pub fn of_put(object_type: &str, object_id: &str, data: &str) -> Self {
        Self::hash(&["put.", object_type, ".", object_id, ".", data])
    }

    /// Of a REMOVE: over the subkey of the source row.
    pub fn of_remove(subkey: &str) -> Self {
        Self::hash(&["delete.", subkey])
    }

    fn hash(parts: &[&str]) -> Self {
        let mut hasher = Sha256::new();
        for part in parts {
            hasher.update(part.as_bytes());
        }
        let digest = hasher.finalize();
        Self(u32::from_le_bytes([digest[0], digest[1], digest[2], digest[3]]))
    }
}

impl ops::Add for Checksum {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0.wrapping_add(other.0))
    }
}

impl ops::AddAssign for Checksum {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl ops::Sub for Checksum {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self(self.0.wrapping_sub(other.0))
    }
}

impl Sum for Checksum {
    fn sum<I: Iterator<Item = Self>>(iter: I) -> Self {
        iter.fold(Self::ZERO, ops::Add::add)
    }
}

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for Checksum {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(self.0)
    }
}

impl<'de> Deserialize<'de> for Checksum {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = i64::deserialize(deserializer)?;
        u32::try_from(number)
            .or_else(|_| i32::try_from(number).map(i32::cast_unsigned))
            .map(Self)
            .map_err(|_| de::Error::custom("a checksum is a 32-bit number"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The vectors of the protocol's description.
    #[test]
    fn checksums_match_the_published_vectors() {
        let put = |table, id, data| Checksum::of_put(table, id, data).bits();
        assert_eq!(put("test", "a", r#"{"id":"a","description":"Test 1"}"#), 2_582_164_875);
        assert_eq!(put("test", "b", r#"{"id":"b","description":"Test 2"}"#), 3_003_552_978);
        assert_eq!(put("test", "t1", r#"{"id":"t1","description":"Test 1b"}"#), 1_859_363_232);
        assert_eq!(put("lists", "l1", r#"{"id":"l1","name":"Groceries"}"#), 455_782_866);
        assert_eq!(Checksum::of_remove("subkey-l1").bits(), 1_221_873_537);
        let sum = Checksum::from_bits(2_582_164_875) + Checksum::from_bits(3_003_552_978);
        assert_eq!(sum.bits(), 1_290_750_557);
    }

    #[test]
    fn signed_and_unsigned_numbers_mean_the_same_bits() {
        let signed: Checksum = serde_json::from_str("-1712802421").expect("reads signed");
        let unsigned: Checksum = serde_json::from_str("2582164875").expect("reads unsigned");
        assert_eq!(signed, unsigned);
        assert!(serde_json::from_str::<Checksum>("4294967296").is_err());
        assert!(serde_json::from_str::<Checksum>("-2147483649").is_err());
    }

    proptest! {
        #[test]
        fn sums_do_not_depend_on_order(mut bits in prop::collection::vec(any::<u32>(), 0..20)) {
            let sum: Checksum = bits.iter().copied().map(Checksum::from_bits).sum();
            bits.reverse();
            prop_assert_eq!(sum, bits.iter().copied().map(Checksum::from_bits).sum());
        }
    }
}
