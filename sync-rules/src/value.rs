//! Values of the language: SQLite's kinds, with integers that do not wrap.

use std::{borrow::Cow, cmp::Ordering};

use serde::{Deserialize, Serialize};

use crate::{
    cast::{sign_length, trim_space},
    json,
    number::write_ecmascript,
};

/// A value of the rules language.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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

/// Why an expression has no value. Says nothing of the values involved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure(pub &'static str);

impl SqlValue {
    /// NULL or not.
    pub const fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// The value of a condition. Text counts by its leading integer: `'1x'` is true, `'0.9'` and `'abc'` are not.
    pub fn truth(&self) -> bool {
        match self {
            Self::Null | Self::Blob(_) => false,
            Self::Integer(number) => *number != 0,
            Self::Real(number) => *number != 0.0 && !number.is_nan(),
            Self::Text(text) => {
                let text = trim_space(text);
                let text = &text[sign_length(text)..];
                let hex = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
                let (digits, radix) = hex.map_or((text, 10), |digits| (digits, 16));
                digits.chars().take_while(|digit| digit.is_digit(radix)).any(|digit| digit != '0')
            }
        }
    }

    /// The text form; `None` for NULL. A REAL with an integral value loses its fraction.
    pub fn text(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::Null => None,
            Self::Integer(number) => {
                let mut text = String::new();
                json::write_value(&Self::Integer(*number), json::Form::Name, &mut text);
                Some(Cow::Owned(text))
            }
            Self::Real(number) => {
                let mut text = String::new();
                write_ecmascript(*number, &mut text);
                Some(Cow::Owned(text))
            }
            Self::Text(text) => Some(Cow::Borrowed(text)),
            Self::Blob(bytes) => Some(String::from_utf8_lossy(bytes)),
        }
    }

    /// Compares as SQL does: `None` with a NULL, numbers before text before bytes, text by UTF-16 code unit.
    pub fn compare(&self, other: &Self) -> Result<Option<Ordering>, Failure> {
        Ok(Some(match (self, other) {
            (Self::Null, _) | (_, Self::Null) => return Ok(None),
            (Self::Blob(_), Self::Blob(_)) => return Err(Failure("bytes cannot be compared")),
            (Self::Integer(left), Self::Integer(right)) => left.cmp(right),
            (Self::Real(left), Self::Real(right)) => compare_reals(*left, *right),
            (Self::Integer(left), Self::Real(right)) => compare_mixed(*left, *right),
            (Self::Real(left), Self::Integer(right)) => compare_mixed(*right, *left).reverse(),
            (Self::Text(left), Self::Text(right)) => compare_text(left, right),
            (left, right) => left.rank().cmp(&right.rank()),
        }))
    }

    /// Equality as `=` sees it; `false` with a NULL.
    pub fn equals(&self, other: &Self) -> Result<bool, Failure> {
        Ok(self.compare(other)? == Some(Ordering::Equal))
    }

    /// Appends the value as it stands in row data: JSON, reals with a fraction, `null` for what JSON cannot say.
    pub fn write_json(&self, out: &mut String) {
        json::write_value(self, json::Form::Data, out);
    }

    const fn rank(&self) -> u8 {
        match self {
            Self::Null => 0,
            Self::Integer(_) | Self::Real(_) => 1,
            Self::Text(_) => 2,
            Self::Blob(_) => 3,
        }
    }
}

impl From<bool> for SqlValue {
    fn from(value: bool) -> Self {
        Self::Integer(i128::from(value))
    }
}

/// By UTF-16 code unit, without encoding what is equal.
fn compare_text(left: &str, right: &str) -> Ordering {
    if left == right {
        return Ordering::Equal;
    }
    let differing = left.chars().zip(right.chars()).find(|(one, other)| one != other);
    let units = |ch: char| {
        let mut units = [0; 2];
        ch.encode_utf16(&mut units);
        units
    };
    differing.map_or_else(|| left.len().cmp(&right.len()), |(one, other)| units(one).cmp(&units(other)))
}

/// NaN is smaller than everything, itself included: nothing equals it.
fn compare_reals(left: f64, right: f64) -> Ordering {
    let with_nan = || if left.is_nan() { Ordering::Less } else { Ordering::Greater };
    left.partial_cmp(&right).unwrap_or_else(with_nan)
}

/// Compares mathematically, without rounding the integer to binary64. NaN is smaller than everything.
#[expect(clippy::cast_possible_truncation, reason = "the range is checked before")]
#[expect(clippy::cast_precision_loss, reason = "powers of two are exact")]
fn compare_mixed(left: i128, right: f64) -> Ordering {
    const LIMIT: f64 = i128::MAX as f64;
    if right.is_nan() {
        return Ordering::Greater;
    }
    if right >= LIMIT {
        return Ordering::Less;
    }
    if right < -LIMIT {
        return Ordering::Greater;
    }
    let whole = right.floor();
    left.cmp(&(whole as i128)).then(if right > whole { Ordering::Less } else { Ordering::Equal })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> SqlValue {
        SqlValue::Text(text.to_owned())
    }

    #[test]
    fn text_counts_by_its_leading_integer() {
        for (value, truth) in [
            ("0.9", false),
            ("1x", true),
            ("0x1", true),
            ("0X0f", true),
            ("-0x1", true),
            ("0x", false),
            ("0x0g", false),
            ("1e5", true),
            ("abc", false),
            ("", false),
            (" 3", true),
            ("\u{feff}\n3", true),
            ("\u{85}3", false),
            ("-0", false),
            ("+1", true),
            ("--1", false),
            ("+-1", false),
            ("- 1", false),
            ("00100", true),
            ("Infinity", false),
            ("١", false),
        ] {
            assert_eq!(text(value).truth(), truth, "{value}");
        }
    }

    #[test]
    fn other_kinds_are_true_unless_zero() {
        for (value, truth) in [
            (SqlValue::Null, false),
            (SqlValue::Integer(-1), true),
            (SqlValue::Real(1e-9), true),
            (SqlValue::Real(-0.0), false),
            (SqlValue::Real(f64::NAN), false),
            (SqlValue::Blob(b"1".to_vec()), false),
        ] {
            assert_eq!(value.truth(), truth, "{value:?}");
        }
    }

    #[test]
    fn not_a_number_equals_nothing_and_is_the_smallest() {
        let compare = |left: f64, right: f64| SqlValue::Real(left).compare(&SqlValue::Real(right)).unwrap();
        assert_eq!(compare(f64::NAN, f64::NEG_INFINITY), Some(Ordering::Less));
        assert_eq!(compare(f64::NEG_INFINITY, f64::NAN), Some(Ordering::Greater));
        assert_ne!(compare(f64::NAN, f64::NAN), Some(Ordering::Equal));
        assert_eq!(compare(-0.0, 0.0), Some(Ordering::Equal));
    }

    #[test]
    fn integers_and_reals_compare_without_rounding() {
        let compare = |left: SqlValue, right: SqlValue| left.compare(&right).unwrap();
        let big = SqlValue::Integer(9_007_199_254_740_993);
        assert_eq!(compare(big, SqlValue::Real(9_007_199_254_740_992.0)), Some(Ordering::Greater));
        assert_eq!(compare(SqlValue::Real(5.0), SqlValue::Integer(5)), Some(Ordering::Equal));
        assert_eq!(compare(SqlValue::Integer(-2), SqlValue::Real(-1.5)), Some(Ordering::Less));
        assert_eq!(compare(SqlValue::Integer(i128::MAX), SqlValue::Real(f64::INFINITY)), Some(Ordering::Less));
        assert_eq!(compare(SqlValue::Real(f64::NAN), SqlValue::Integer(0)), Some(Ordering::Less), "NaN comes first");
    }

    #[test]
    fn kinds_order_before_values() {
        assert_eq!(SqlValue::Integer(5).compare(&text("1")).unwrap(), Some(Ordering::Less));
        assert_eq!(text("\u{1F600}").compare(&text("\u{FF5E}")).unwrap(), Some(Ordering::Less), "by UTF-16 unit");
        assert_eq!(SqlValue::Null.compare(&SqlValue::Null).unwrap(), None);
        assert!(SqlValue::Blob(vec![]).compare(&SqlValue::Blob(vec![])).is_err());
    }
}
