//! Values of the language: SQLite's kinds, with integers that do not wrap, and how they become JSON.

use std::{cmp::Ordering, fmt::Write};

use serde_json::Value;

use crate::number::shortest;

/// A value of the rules language.
#[derive(Debug, Clone, PartialEq)]
pub enum SqlValue {
    /// SQL NULL; also an absent column.
    Null,
    /// An integer. Source values fit 64 bits; arithmetic may go beyond.
    Integer(i128),
    /// A binary64 number.
    Real(f64),
    /// Text.
    Text(String),
    /// Bytes; never part of output rows.
    Blob(Vec<u8>),
}

impl SqlValue {
    /// 1 or 0.
    pub(crate) fn from_bool(truth: bool) -> Self {
        Self::Integer(i128::from(truth))
    }

    /// A value of a token or of client parameters, as a converted column: whole numbers become integers.
    pub(crate) fn from_json_column(value: &Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(truth) => Self::from_bool(*truth),
            Value::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
                (Some(whole), _, _) => Self::Integer(whole.into()),
                (None, Some(whole), _) => Self::Integer(whole.into()),
                (_, _, Some(real)) => Self::Real(real).integral(),
                _ => Self::Null,
            },
            Value::String(text) => Self::Text(text.clone()),
            structured => Self::Text(structured.to_string()),
        }
    }

    /// A real without a fraction as the integer it equals; anything else as it is.
    #[must_use]
    pub(crate) fn integral(self) -> Self {
        match self {
            #[expect(clippy::cast_possible_truncation, reason = "whole and within 64 bits")]
            Self::Real(real) if real.fract() == 0.0 && real.abs() < 9.2e18 => Self::Integer(real as i128),
            other => other,
        }
    }

    /// Whether a condition with this value holds.
    pub(crate) fn truth(&self) -> bool {
        match self {
            Self::Null | Self::Blob(_) => false,
            Self::Integer(number) => *number != 0,
            Self::Real(number) => *number != 0.0 && !number.is_nan(),
            Self::Text(text) => integer_prefix(text) != 0,
        }
    }

    /// The text form; `None` for NULL.
    pub(crate) fn to_text(&self) -> Option<String> {
        match self {
            Self::Null => None,
            Self::Integer(number) => Some(number.to_string()),
            Self::Real(number) => Some(shortest(*number)),
            Self::Text(text) => Some(text.clone()),
            Self::Blob(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
        }
    }

    /// Order of two values that are not NULL: numbers, then texts by code unit, then blobs.
    pub(crate) fn order(&self, other: &Self) -> Option<Ordering> {
        #[expect(clippy::cast_precision_loss, reason = "comparing with a real is comparing reals")]
        match (self, other) {
            (Self::Null, _) | (_, Self::Null) => None,
            (Self::Integer(a), Self::Integer(b)) => Some(a.cmp(b)),
            (Self::Integer(a), Self::Real(b)) => (*a as f64).partial_cmp(b),
            (Self::Real(a), Self::Integer(b)) => a.partial_cmp(&(*b as f64)),
            (Self::Real(a), Self::Real(b)) => a.partial_cmp(b),
            (Self::Text(a), Self::Text(b)) => Some(a.encode_utf16().cmp(b.encode_utf16())),
            (Self::Blob(a), Self::Blob(b)) => Some(a.cmp(b)),
            (a, b) => Some(a.class().cmp(&b.class())),
        }
    }

    const fn class(&self) -> u8 {
        match self {
            Self::Null => 0,
            Self::Integer(_) | Self::Real(_) => 1,
            Self::Text(_) => 2,
            Self::Blob(_) => 3,
        }
    }

    /// Appends the value as it stands in row data: reals keep a fraction, blobs and what JSON cannot say are null.
    pub(crate) fn write_data_json(&self, out: &mut String) {
        match self {
            Self::Real(number) if number.is_finite() => {
                let text = shortest(*number);
                let whole = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
                out.push_str(&text);
                if whole {
                    out.push_str(".0");
                }
            }
            other => other.write_plain_json(out),
        }
    }

    /// Appends the value as it stands in bucket names: 5 and 5.0 are the same.
    pub(crate) fn write_name_json(&self, out: &mut String) {
        match self {
            Self::Real(number) if number.is_finite() => out.push_str(&shortest(*number)),
            other => other.write_plain_json(out),
        }
    }

    fn write_plain_json(&self, out: &mut String) {
        match self {
            Self::Integer(number) => write!(out, "{number}").expect("a string takes all"),
            Self::Text(text) => write_json_string(text, out),
            Self::Null | Self::Real(_) | Self::Blob(_) => out.push_str("null"),
        }
    }
}

/// Appends text as a JSON string, escaping only what must be.
pub(crate) fn write_json_string(text: &str, out: &mut String) {
    out.push('"');
    let mut plain = 0;
    for (at, byte) in text.bytes().enumerate() {
        let escape = match byte {
            b'"' => "\\\"",
            b'\\' => "\\\\",
            b'\n' => "\\n",
            b'\r' => "\\r",
            b'\t' => "\\t",
            0x08 => "\\b",
            0x0C => "\\f",
            0..0x20 => "",
            _ => continue,
        };
        out.push_str(&text[plain..at]);
        if escape.is_empty() {
            write!(out, "\\u{byte:04x}").expect("a string takes all");
        } else {
            out.push_str(escape);
        }
        plain = at + 1;
    }
    out.push_str(&text[plain..]);
    out.push('"');
}

/// Values as a JSON array in the bucket name serialisation.
pub(crate) fn name_array<'a>(values: impl IntoIterator<Item = &'a SqlValue>) -> String {
    let mut out = String::from("[");
    for (index, value) in values.into_iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        value.write_name_json(&mut out);
    }
    out.push(']');
    out
}

/// The number at the start of a text, as truth and integer casts see it; 0 without one.
pub(crate) fn integer_prefix(text: &str) -> i128 {
    let text = text.trim_start();
    let (negative, digits) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let end = digits.bytes().position(|byte| !byte.is_ascii_digit()).unwrap_or(digits.len());
    let number: i128 = digits[..end].parse().unwrap_or(if end > 0 { i128::MAX } else { 0 });
    if negative { -number } else { number }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(value: &SqlValue) -> String {
        let mut out = String::new();
        value.write_data_json(&mut out);
        out
    }

    #[test]
    fn reals_keep_a_fraction_in_data_and_lose_it_in_names() {
        assert_eq!(data(&SqlValue::Real(5.0)), "5.0");
        assert_eq!(data(&SqlValue::Real(1e21)), "1e+21");
        assert_eq!(data(&SqlValue::Real(f64::NAN)), "null");
        assert_eq!(name_array(&[SqlValue::Real(5.0), SqlValue::Integer(5)]), "[5,5]");
    }

    #[test]
    fn text_escapes_only_what_json_requires() {
        assert_eq!(data(&SqlValue::Text("a\"\\\n\u{1}é/".to_owned())), "\"a\\\"\\\\\\n\\u0001é/\"");
    }

    #[test]
    fn text_is_true_by_its_number() {
        for (text, truth) in [("1x", true), ("0.9", false), (" 3", true), ("abc", false), ("-1", true), ("", false)] {
            assert_eq!(SqlValue::Text(text.to_owned()).truth(), truth, "{text:?}");
        }
    }
}
