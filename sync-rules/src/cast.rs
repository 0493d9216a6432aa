//! Casts between the kinds of values.

use std::{
    borrow::Cow,
    num::{IntErrorKind, ParseIntError},
};

use serde::{Deserialize, Serialize};

use crate::value::{Failure, SqlValue};

const NOT_AN_INTEGER: Failure = Failure("the number is not finite, or too large for an integer");

/// What a value can be cast to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum CastType {
    /// The text form.
    Text,
    /// REAL or INTEGER, whichever the value looks like.
    Numeric,
    /// The integer part.
    Integer,
    /// binary64.
    Real,
    /// The bytes of the text form.
    Blob,
}

impl CastType {
    /// The type of this name, which is in lower case.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "text" => Self::Text,
            "numeric" => Self::Numeric,
            "integer" => Self::Integer,
            "real" => Self::Real,
            "blob" => Self::Blob,
            _ => return None,
        })
    }

    /// The type's name.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Numeric => "numeric",
            Self::Integer => "integer",
            Self::Real => "real",
            Self::Blob => "blob",
        }
    }
}

/// Casts a value. NULL stays NULL.
pub(crate) fn cast(value: &SqlValue, to: CastType) -> Result<SqlValue, Failure> {
    Ok(match (to, value) {
        (_, SqlValue::Null)
        | (CastType::Text, SqlValue::Text(_))
        | (CastType::Blob, SqlValue::Blob(_))
        | (CastType::Integer | CastType::Numeric, SqlValue::Integer(_))
        | (CastType::Real | CastType::Numeric, SqlValue::Real(_)) => value.clone(),
        (CastType::Integer, SqlValue::Real(number)) => SqlValue::Integer(floor(*number)?),
        (CastType::Real, SqlValue::Integer(number)) => SqlValue::Real(to_real(*number)),
        _ => value.text().map_or(Ok(SqlValue::Null), |text| cast_text(text, to))?,
    })
}

fn cast_text(text: Cow<'_, str>, to: CastType) -> Result<SqlValue, Failure> {
    Ok(match to {
        CastType::Text => SqlValue::Text(text.into_owned()),
        CastType::Blob => SqlValue::Blob(text.into_owned().into_bytes()),
        CastType::Integer => SqlValue::Integer(leading_integer(&text)?),
        CastType::Real => SqlValue::Real(leading_real(&text)),
        CastType::Numeric => leading_number(&text)?,
    })
}

/// The nearest binary64.
#[expect(clippy::cast_precision_loss, reason = "rounding is what the language asks for")]
pub(crate) const fn to_real(number: i128) -> f64 {
    number as f64
}

#[expect(clippy::cast_possible_truncation, reason = "the range is checked before")]
fn floor(number: f64) -> Result<i128, Failure> {
    const LIMIT: f64 = -to_real(i128::MIN);
    let number = number.floor();
    if (-LIMIT..LIMIT).contains(&number) { Ok(number as i128) } else { Err(NOT_AN_INTEGER) }
}

/// The longest prefix that consists of a sign and digits; 0 without digits.
fn leading_integer(text: &str) -> Result<i128, Failure> {
    let text = trim_space(text);
    let sign = sign_length(text);
    to_integer(&text[..sign + digit_count(&text[sign..])])
}

/// What is too large is refused: a wrong number would do more harm.
fn to_integer(sign_and_digits: &str) -> Result<i128, Failure> {
    sign_and_digits.parse().or_else(|error: ParseIntError| match error.kind() {
        IntErrorKind::PosOverflow | IntErrorKind::NegOverflow => Err(NOT_AN_INTEGER),
        _ => Ok(0),
    })
}

fn leading_real(text: &str) -> f64 {
    let text = trim_space(text);
    if text[sign_length(text)..].starts_with("Infinity") {
        return if text.starts_with('-') { f64::NEG_INFINITY } else { f64::INFINITY };
    }
    text[..number_length(text).0].parse().unwrap_or(0.0)
}

fn leading_number(text: &str) -> Result<SqlValue, Failure> {
    let text = trim_space(text);
    Ok(match number_length(text) {
        (length, true) => SqlValue::Real(text[..length].parse().unwrap_or(0.0)),
        (length, false) => SqlValue::Integer(to_integer(&text[..length])?),
    })
}

/// Without the space before it. Space is what JavaScript takes for it: the byte order mark is, the next-line control is
/// not.
pub(crate) fn trim_space(text: &str) -> &str {
    let is_space = |character: char| match character {
        '\u{feff}' => true,
        '\u{85}' => false,
        _ => character.is_whitespace(),
    };
    text.trim_start_matches(is_space)
}

/// Length of the longest prefix `sign? (digits[.digits?] | .digits) exponent?`, and whether it has a dot or exponent.
fn number_length(text: &str) -> (usize, bool) {
    let start = sign_length(text);
    let whole = digit_count(&text[start..]);
    let mut end = start + whole;
    let mut is_real = false;
    if text[end..].starts_with('.') {
        let fraction = digit_count(&text[end + 1..]);
        if whole + fraction > 0 {
            end += 1 + fraction;
            is_real = true;
        }
    }
    if end == start {
        return (0, false);
    }
    if text[end..].starts_with(['e', 'E']) {
        let sign = sign_length(&text[end + 1..]);
        let digits = digit_count(&text[end + 1 + sign..]);
        if digits > 0 {
            end += 1 + sign + digits;
            is_real = true;
        }
    }
    (end, is_real)
}

/// Length of the sign, if the text begins with one.
pub(crate) fn sign_length(text: &str) -> usize {
    usize::from(text.starts_with(['+', '-']))
}

/// How many decimal digits the text begins with.
pub(crate) fn digit_count(text: &str) -> usize {
    text.bytes().take_while(u8::is_ascii_digit).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from_text(text: &str, to: CastType) -> SqlValue {
        cast(&SqlValue::Text(text.to_owned()), to).unwrap()
    }

    #[test]
    fn text_gives_its_leading_number() {
        for (text, integer, numeric) in [
            ("12abc", 12, SqlValue::Integer(12)),
            (" -7", -7, SqlValue::Integer(-7)),
            ("1e3", 1, SqlValue::Real(1000.0)),
            (".5", 0, SqlValue::Real(0.5)),
            ("5.", 5, SqlValue::Real(5.0)),
            ("1e", 1, SqlValue::Integer(1)),
            ("-", 0, SqlValue::Integer(0)),
            (".", 0, SqlValue::Integer(0)),
            ("é", 0, SqlValue::Integer(0)),
            ("- 1", 0, SqlValue::Integer(0)),
            ("--1", 0, SqlValue::Integer(0)),
            ("+8 ", 8, SqlValue::Integer(8)),
            ("-2e2", -2, SqlValue::Real(-200.0)),
            ("1e+", 1, SqlValue::Integer(1)),
            ("1.5.5", 1, SqlValue::Real(1.5)),
            ("\t\n\u{a0}\u{feff}7", 7, SqlValue::Integer(7)),
            ("\u{85}7", 0, SqlValue::Integer(0)),
            ("Infinity", 0, SqlValue::Integer(0)),
            ("9223372036854775808", 9_223_372_036_854_775_808, SqlValue::Integer(9_223_372_036_854_775_808)),
            ("99999999999999999999.5", 99_999_999_999_999_999_999, SqlValue::Real(1e20)),
        ] {
            assert_eq!(from_text(text, CastType::Integer), SqlValue::Integer(integer), "{text}");
            assert_eq!(from_text(text, CastType::Numeric), numeric, "{text}");
        }
    }

    #[test]
    fn text_gives_its_leading_real() {
        for (text, real) in [
            ("12.7", 12.7),
            ("1e", 1.0),
            ("abc", 0.0),
            (" .5e1x", 5.0),
            ("1e999", f64::INFINITY),
            ("-Infinity and beyond", f64::NEG_INFINITY),
            ("+Infinity", f64::INFINITY),
            ("infinity", 0.0),
            ("9223372036854775808", 9_223_372_036_854_775_808.0),
        ] {
            assert_eq!(from_text(text, CastType::Real), SqlValue::Real(real), "{text}");
        }
    }

    #[test]
    fn a_real_is_rounded_down() {
        let floor = |number| cast(&SqlValue::Real(number), CastType::Integer);
        assert_eq!(floor(-5.9), Ok(SqlValue::Integer(-6)));
        assert_eq!(floor(-0.01), Ok(SqlValue::Integer(-1)));
        assert_eq!(floor(2.0), Ok(SqlValue::Integer(2)));
        assert_eq!(floor(1e20), Ok(SqlValue::Integer(100_000_000_000_000_000_000)));
    }

    #[test]
    fn what_does_not_fit_an_integer_is_refused() {
        for number in [f64::NAN, f64::INFINITY, 1e300, -1e300] {
            assert_eq!(cast(&SqlValue::Real(number), CastType::Integer), Err(NOT_AN_INTEGER));
        }
        let long = SqlValue::Text("9".repeat(40));
        assert_eq!(cast(&long, CastType::Integer), Err(NOT_AN_INTEGER));
        assert_eq!(cast(&long, CastType::Numeric), Err(NOT_AN_INTEGER));
        assert_eq!(cast(&long, CastType::Real), Ok(SqlValue::Real(1e40)));
    }

    #[test]
    fn bytes_are_cast_as_their_text() {
        let bytes = SqlValue::Blob(b" 31x".to_vec());
        assert_eq!(cast(&bytes, CastType::Integer), Ok(SqlValue::Integer(31)));
        assert_eq!(cast(&SqlValue::Blob(vec![b'a', 0xff]), CastType::Text), Ok(SqlValue::Text("a\u{fffd}".to_owned())));
        assert_eq!(cast(&SqlValue::Real(2.0), CastType::Blob), Ok(SqlValue::Blob(b"2".to_vec())));
    }

    #[test]
    fn an_integral_real_has_no_fraction_as_text() {
        assert_eq!(cast(&SqlValue::Real(2.0), CastType::Text), Ok(SqlValue::Text("2".to_owned())));
        assert_eq!(cast(&SqlValue::Null, CastType::Blob), Ok(SqlValue::Null));
    }
}
