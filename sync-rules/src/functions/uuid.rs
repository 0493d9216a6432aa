//! UUIDs in text.

use crate::value::{Failure, SqlValue};

/// The 16 bytes of a UUID; NULL for NULL.
pub(super) fn uuid_blob(value: &SqlValue) -> Result<SqlValue, Failure> {
    let Some(text) = value.text() else { return Ok(SqlValue::Null) };
    parse(text.as_bytes()).map(|bytes| SqlValue::Blob(bytes.into())).ok_or(Failure("the text is not a UUID"))
}

/// Reads `xxxxxxxx-xxxx-Vxxx-Wxxx-xxxxxxxxxxxx`, where RFC 9562 knows the version V and the variant W.
fn parse(text: &[u8]) -> Option<[u8; 16]> {
    const DASHES: [usize; 4] = [8, 13, 18, 23];
    if text.len() != 36 || DASHES.iter().any(|&at| text[at] != b'-') {
        return None;
    }
    let mut digits = text.split(|byte| *byte == b'-').flatten().map(|digit| char::from(*digit).to_digit(16));
    let mut bytes = [0; 16];
    for byte in &mut bytes {
        *byte = u8::try_from(digits.next()?? << 4 | digits.next()??).ok()?;
    }
    let is_nil_or_max = bytes == [0; 16] || bytes == [0xff; 16];
    let is_known = matches!(bytes[6] >> 4, 1..=8) && matches!(bytes[8] >> 4, 0x8..=0xb);
    (is_nil_or_max || is_known).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &str) -> Result<SqlValue, Failure> {
        uuid_blob(&SqlValue::Text(text.to_owned()))
    }

    #[test]
    fn a_uuid_is_sixteen_bytes_in_either_case() {
        let expected = [0x8f, 0x14, 0xe4, 0x5f, 0xce, 0xea, 0x46, 0x7f, 0xa9, 0xf0, 0x1a, 0x2b, 0x3c, 0x4d, 0x5e, 0x6f];
        for text in ["8f14e45f-ceea-467f-a9f0-1a2b3c4d5e6f", "8F14E45F-CEEA-467F-A9F0-1A2B3C4D5E6F"] {
            assert_eq!(bytes(text), Ok(SqlValue::Blob(expected.into())), "{text}");
        }
        assert_eq!(bytes("00000000-0000-0000-0000-000000000000"), Ok(SqlValue::Blob(vec![0; 16])), "nil");
        assert_eq!(bytes("FFFFffff-ffff-ffff-ffff-ffffffffffff"), Ok(SqlValue::Blob(vec![0xff; 16])), "max");
        assert_eq!(uuid_blob(&SqlValue::Null), Ok(SqlValue::Null));
    }

    #[test]
    fn what_is_not_a_uuid_is_refused() {
        for text in [
            "",
            "nope",
            "8f14e45fceea467fa9f01a2b3c4d5e6f",
            "{8f14e45f-ceea-467f-a9f0-1a2b3c4d5e6f}",
            " 8f14e45f-ceea-467f-a9f0-1a2b3c4d5e6f",
            "8f14e45-fceea-467f-a9f0-1a2b3c4d5e6f",
            "8f14e45f-ceea-467f-a9f0-1a2b3c4d5e6g",
            "8f14e45f-ceea-467f-a9f0-1a2b3c4d5e-f",
            "8f14e45f-ceea-067f-a9f0-1a2b3c4d5e6f",
            "8f14e45f-ceea-967f-a9f0-1a2b3c4d5e6f",
            "8f14e45f-ceea-467f-79f0-1a2b3c4d5e6f",
            "8f14e45f-ceea-467f-c9f0-1a2b3c4d5e6f",
            "é14e45f-ceea-467f-a9f0-1a2b3c4d5e6f",
        ] {
            assert!(bytes(text).is_err(), "{text}");
        }
        assert!(uuid_blob(&SqlValue::Integer(5)).is_err());
    }
}
