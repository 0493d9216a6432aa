//! Ids that travel as decimal strings.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The text is not a decimal number between 0 and 9223372036854775807.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a decimal number between 0 and 9223372036854775807")]
pub struct InvalidId;

/// Reads a decimal id, as strict as the clients are: digits only, within a signed 64-bit integer.
fn parse_decimal(text: &str) -> Result<u64, InvalidId> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(InvalidId);
    }
    text.parse::<i64>().ok().and_then(|id| u64::try_from(id).ok()).ok_or(InvalidId)
}

macro_rules! decimal_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(u64);

        impl $name {
            /// Before every id that is handed out.
            pub const ZERO: Self = Self(0);

            /// # Errors
            /// [`InvalidId`] above 9223372036854775807: clients store ids as signed 64-bit integers.
            pub const fn new(id: u64) -> Result<Self, InvalidId> {
                if id > i64::MAX as u64 { Err(InvalidId) } else { Ok(Self(id)) }
            }

            /// The number itself.
            pub const fn get(self) -> u64 {
                self.0
            }

            /// The id after this one.
            ///
            /// # Panics
            /// After 2^63 - 1 ids, which no deployment lives to see.
            #[must_use]
            pub const fn next(self) -> Self {
                assert!(self.0 < i64::MAX as u64, "ids are used up");
                Self(self.0 + 1)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                parse_decimal(text).map(Self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Text;
                impl de::Visitor<'_> for Text {
                    type Value = $name;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str("a decimal number in a string")
                    }

                    fn visit_str<E: de::Error>(self, text: &str) -> Result<$name, E> {
                        text.parse().map_err(E::custom)
                    }
                }
                deserializer.deserialize_str(Text)
            }
        }
    };
}

decimal_id! {
    /// Orders the operations of a service: one sequence for all buckets, never reused. No relation to an LSN.
    OpId
}

decimal_id! {
    /// What a client waits for in order to see its own upload come back.
    WriteCheckpointId
}

/// Name of a bucket: its definition plus its parameters. Opaque to clients, and never used again for another history.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BucketName(Arc<str>);

impl BucketName {
    /// The name with this text.
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self(name.into())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for BucketName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_strings_in_json() {
        let id = OpId::new(1300).expect("in range");
        assert_eq!(serde_json::to_string(&id).expect("serialises"), "\"1300\"");
        assert_eq!(serde_json::from_str::<OpId>("\"1300\"").expect("parses"), id);
        assert!(serde_json::from_str::<OpId>("1300").is_err(), "a number is refused, as clients do");
    }

    #[test]
    fn ids_outside_a_signed_integer_are_refused() {
        for text in ["", "-1", "+1", " 1", "9223372036854775808", "1e3", "0x1"] {
            assert_eq!(text.parse::<OpId>(), Err(InvalidId), "{text:?}");
        }
        assert_eq!("9223372036854775807".parse::<OpId>().map(OpId::get), Ok(i64::MAX.unsigned_abs()));
        assert_eq!(OpId::new(u64::MAX), Err(InvalidId));
    }
}
