//! Casts between the kinds of values.

use serde::{Deserialize, Serialize};

use crate::value::{Failure, SqlValue};

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
    let Some(text) = value.text() else { return Ok(SqlValue::Null) };
    Ok(match (to, value) {
        (CastType::Blob, SqlValue::Blob(bytes)) => SqlValue::Blob(bytes.clone()),
        (CastType::Blob, _) => SqlValue::Blob(text.into_owned().into_bytes()),
        (CastType::Text, _) => SqlValue::Text(text.into_owned()),
        (CastType::Integer | CastType::Numeric, SqlValue::Integer(_))
        | (CastType::Real | CastType::Numeric, SqlValue::Real(_)) => value.clone(),
        (CastType::Integer, SqlValue::Real(number)) => SqlValue::Integer(floor(*number)?),
        (CastType::Integer, _) => SqlValue::Integer(leading_integer(&text)),
        (CastType::Real, SqlValue::Integer(number)) => SqlValue::Real(to_real(*number)),
        (CastType::Real, _) => SqlValue::Real(leading_real(&text)),
        (CastType::Numeric, _) => leading_number(&text),
    })
}

/// The nearest binary64.
#[expect(clippy::cast_precision_loss, reason = "rounding is what the language asks for")]
pub(crate) const fn to_real(number: i128) -> f64 {
    number as f64
}

#[expect(clippy::cast_possible_truncation, reason = "saturates far outside what a source sends")]
fn floor(number: f64) -> Result<i128, Failure> {
    if number.is_finite() { Ok(number.floor() as i128) } else { Err(Failure("not a finite number")) }
}

/// The longest prefix that consists of a sign and digits; 0 without digits.
fn leading_integer(text: &str) -> i128 {
    let text = text.trim_start();
    let end = sign_length(text) + digit_count(&text[sign_length(text)..]);
    text[..end].parse().unwrap_or(0)
}

fn leading_real(text: &str) -> f64 {
    let text = text.trim_start();
    let unsigned = &text[sign_length(text)..];
    if unsigned.starts_with("Infinity") {
        return if text.starts_with('-') { f64::NEG_INFINITY } else { f64::INFINITY };
    }
    text[..number_length(text).0].parse().unwrap_or(0.0)
}

fn leading_number(text: &str) -> SqlValue {
    let text = text.trim_start();
    match number_length(text) {
        (length, true) => SqlValue::Real(text[..length].parse().unwrap_or(0.0)),
        (length, false) => SqlValue::Integer(text[..length].parse().unwrap_or(0)),
    }
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

fn sign_length(text: &str) -> usize {
    usize::from(text.starts_with(['+', '-']))
}

fn digit_count(text: &str) -> usize {
    text.bytes().take_while(u8::is_ascii_digit).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cast_text(text: &str, to: CastType) -> SqlValue {
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
        ] {
            assert_eq!(cast_text(text, CastType::Integer), SqlValue::Integer(integer), "{text}");
            assert_eq!(cast_text(text, CastType::Numeric), numeric, "{text}");
        }
    }

    #[test]
    fn a_real_is_rounded_down() {
        let floor = |number| cast(&SqlValue::Real(number), CastType::Integer);
        assert_eq!(floor(-5.9), Ok(SqlValue::Integer(-6)));
        assert_eq!(floor(2.0), Ok(SqlValue::Integer(2)));
        assert!(floor(f64::NAN).is_err());
    }

    #[test]
    fn an_integral_real_has_no_fraction_as_text() {
        assert_eq!(cast(&SqlValue::Real(2.0), CastType::Text), Ok(SqlValue::Text("2".to_owned())));
        assert_eq!(cast(&SqlValue::Null, CastType::Blob), Ok(SqlValue::Null));
    }
}
