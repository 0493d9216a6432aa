//! Positions in the source's WAL.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A position in the source's WAL. Orders, prints and parses as Postgres does (`16/B374D848`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Lsn(u64);

/// The text is not of the form `16/B374D848`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a WAL position of the form 16/B374D848")]
pub struct InvalidLsn;

impl Lsn {
    /// Before everything; Postgres writes it as `0/0`.
    pub const ZERO: Self = Self(0);

    /// The position with this byte offset.
    pub const fn new(offset: u64) -> Self {
        Self(offset)
    }

    /// Bytes since the beginning of the WAL.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// How many bytes of WAL lie between `earlier` and this position; 0 if it is not earlier.
    pub const fn bytes_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

impl FromStr for Lsn {
    type Err = InvalidLsn;

    fn from_str(text: &str) -> Result<Self, InvalidLsn> {
        let half = |digits: &str| {
            let valid = (1..=8).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
            if valid { u64::from_str_radix(digits, 16).map_err(|_| InvalidLsn) } else { Err(InvalidLsn) }
        };
        let (high, low) = text.split_once('/').ok_or(InvalidLsn)?;
        Ok(Self(half(high)? << 32 | half(low)?))
    }
}

impl From<Lsn> for String {
    fn from(lsn: Lsn) -> Self {
        lsn.to_string()
    }
}

impl TryFrom<String> for Lsn {
    type Error = InvalidLsn;

    fn try_from(text: String) -> Result<Self, InvalidLsn> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn prints_as_postgres_does() {
        assert_eq!(Lsn::new(0x16_B374_D848).to_string(), "16/B374D848");
        assert_eq!("0/0".parse(), Ok(Lsn::ZERO));
        for text in ["", "/", "1", "1/", "/1", "1/1/1", "g/0", "1/123456789", "+1/0"] {
            assert_eq!(text.parse::<Lsn>(), Err(InvalidLsn), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn text_round_trips(offset: u64) {
            prop_assert_eq!(Lsn::new(offset).to_string().parse(), Ok(Lsn::new(offset)));
        }
    }
}
