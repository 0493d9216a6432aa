//! Functions over text and bytes. Lengths and positions count UTF-16 units, as SQLite clients in JavaScript do.

use std::fmt::Write;

use base64::{Engine, engine::general_purpose::STANDARD};

use crate::{
    cast::{CastType, cast},
    value::{Failure, SqlValue},
};

fn map_text(value: &SqlValue, map: impl Fn(&str) -> SqlValue) -> SqlValue {
    value.text().map_or(SqlValue::Null, |text| map(&text))
}

pub(super) fn upper(value: &SqlValue) -> SqlValue {
    map_text(value, |text| SqlValue::Text(text.to_uppercase()))
}

pub(super) fn lower(value: &SqlValue) -> SqlValue {
    map_text(value, |text| SqlValue::Text(text.to_lowercase()))
}

pub(super) fn length(value: &SqlValue) -> SqlValue {
    match value {
        SqlValue::Blob(bytes) => count(bytes.len()),
        _ => map_text(value, |text| count(text.encode_utf16().count())),
    }
}

/// Position of `needle`, from 1; 0 if absent.
pub(super) fn instr(value: &SqlValue, needle: &SqlValue) -> SqlValue {
    if let (SqlValue::Blob(bytes), SqlValue::Blob(needle)) = (value, needle) {
        return count(byte_position(bytes, needle).map_or(0, |at| at + 1));
    }
    match (value.text(), needle.text()) {
        (Some(text), Some(needle)) => count(text.find(&*needle).map_or(0, |at| text[..at].encode_utf16().count() + 1)),
        _ => SqlValue::Null,
    }
}

fn byte_position(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    if needle.is_empty() {
        return Some(0);
    }
    bytes.windows(needle.len()).position(|window| window == needle)
}

/// NULL gives empty text, as in SQLite.
pub(super) fn hex(value: &SqlValue) -> SqlValue {
    let mut text = String::new();
    for byte in bytes(value) {
        let _ = write!(text, "{byte:02X}");
    }
    SqlValue::Text(text)
}

/// NULL gives empty text.
pub(super) fn base64(value: &SqlValue) -> SqlValue {
    SqlValue::Text(STANDARD.encode(bytes(value)))
}

fn bytes(value: &SqlValue) -> Vec<u8> {
    match value {
        SqlValue::Blob(bytes) => bytes.clone(),
        _ => value.text().unwrap_or_default().into_owned().into_bytes(),
    }
}

fn count(count: usize) -> SqlValue {
    SqlValue::Integer(i128::try_from(count).unwrap_or(i128::MAX))
}

/// A negative `start` counts from the end; a negative `length` takes what is before the start.
pub(super) fn substring(value: &SqlValue, start: &SqlValue, length: Option<&SqlValue>) -> Result<SqlValue, Failure> {
    let (Some(text), SqlValue::Integer(start)) = (value.text(), cast(start, CastType::Integer)?) else {
        return Ok(SqlValue::Null);
    };
    let units: Vec<u16> = text.encode_utf16().collect();
    let size = i128::try_from(units.len()).unwrap_or(i128::MAX);
    let mut length = match length.map(|length| cast(length, CastType::Integer)).transpose()? {
        Some(SqlValue::Integer(length)) => length,
        Some(_) => return Ok(SqlValue::Null),
        None => size + 1,
    };
    let begin = match start {
        ..0 => size.saturating_add(start).max(0),
        0 => {
            length = length.saturating_sub(1);
            0
        }
        1.. => start - 1,
    };
    let clip = |bound: i128| usize::try_from(bound.clamp(0, size)).unwrap_or(0);
    let (one, other) = (clip(begin), clip(begin.saturating_add(length)));
    Ok(SqlValue::Text(String::from_utf16_lossy(&units[one.min(other)..one.max(other)])))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> SqlValue {
        SqlValue::Text(text.to_owned())
    }

    #[test]
    fn substring_counts_from_either_end() {
        let cut = |value: &str, start: i128, length: Option<i128>| {
            substring(&text(value), &SqlValue::Integer(start), length.map(SqlValue::Integer).as_ref()).unwrap()
        };
        assert_eq!(cut("abcdef", 0, Some(3)), text("ab"));
        assert_eq!(cut("abcdef", -2, None), text("ef"));
        assert_eq!(cut("window", 4, Some(-2)), text("in"));
        assert_eq!(cut("window", -10, Some(3)), text("win"));
        assert_eq!(cut("window", 0, Some(-1)), text(""));
        assert_eq!(cut("window", 100, Some(5)), text(""));
        assert_eq!(cut("window", 2, Some(100)), text("indow"));
        assert_eq!(cut("10", -1, Some(2)), text("0"));
        assert_eq!(cut("a😀b", 3, None), text("\u{fffd}b"), "half a pair is no text");
        assert_eq!(cut("window", i128::MIN, Some(i128::MAX)), text("window"));
    }

    #[test]
    fn substring_casts_its_arguments() {
        let cut = |value: &SqlValue, start: &SqlValue, length| substring(value, start, length).unwrap();
        let nine = SqlValue::Integer(9);
        assert_eq!(cut(&text("window"), &SqlValue::Real(-2.5), Some(&nine)), text("dow"));
        assert_eq!(cut(&SqlValue::Integer(12345), &text("2x"), None), text("2345"));
        assert_eq!(cut(&text("window"), &text("x"), None), text("window"));
        for (value, start, length) in [
            (SqlValue::Null, nine.clone(), None),
            (text("window"), SqlValue::Null, None),
            (text("window"), nine.clone(), Some(&SqlValue::Null)),
        ] {
            assert_eq!(cut(&value, &start, length), SqlValue::Null);
        }
    }

    #[test]
    fn lengths_and_positions_count_utf16_units() {
        assert_eq!(length(&text("😀")), SqlValue::Integer(2));
        assert_eq!(instr(&text("😀b"), &text("b")), SqlValue::Integer(3));
        assert_eq!(instr(&text("abc"), &text("")), SqlValue::Integer(1));
        assert_eq!(instr(&text("abc"), &text("z")), SqlValue::Integer(0));
        assert_eq!(instr(&text("abc"), &SqlValue::Null), SqlValue::Null);
        assert_eq!(instr(&SqlValue::Integer(12345), &SqlValue::Integer(34)), SqlValue::Integer(3));
        let bytes = |bytes: &[u8]| SqlValue::Blob(bytes.to_vec());
        assert_eq!(instr(&bytes(&[255, 0, 1]), &bytes(&[0, 1])), SqlValue::Integer(2));
        assert_eq!(instr(&bytes(&[255]), &bytes(&[])), SqlValue::Integer(1));
        assert_eq!(instr(&bytes(&[255]), &bytes(&[255, 0])), SqlValue::Integer(0));
        assert_eq!(length(&bytes("é".as_bytes())), SqlValue::Integer(2));
    }

    #[test]
    fn case_is_mapped_for_all_of_unicode() {
        for (value, upper_case, lower_case) in [
            ("größe ﬁn", "GRÖSSE FIN", "größe ﬁn"),
            ("ΟΔΟΣ", "ΟΔΟΣ", "οδος"),
            ("Σ ΑΣ.", "Σ ΑΣ.", "σ ας."),
            ("ŉ", "ʼN", "ŉ"),
            ("İI", "İI", "i\u{307}i"),
        ] {
            assert_eq!(upper(&text(value)), text(upper_case), "{value}");
            assert_eq!(lower(&text(value)), text(lower_case), "{value}");
        }
        assert_eq!(upper(&SqlValue::Blob(b"ab".to_vec())), text("AB"));
        assert_eq!(lower(&SqlValue::Real(1.5)), text("1.5"));
        assert_eq!(lower(&SqlValue::Null), SqlValue::Null);
    }

    #[test]
    fn null_has_empty_hex() {
        assert_eq!(hex(&SqlValue::Null), text(""));
        assert_eq!(hex(&SqlValue::Blob(vec![0xab, 1])), text("AB01"));
        assert_eq!(base64(&text("hi")), text("aGk="));
    }
}
