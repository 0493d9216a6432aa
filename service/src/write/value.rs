//! Values on their way in and back: SQLite's, as JSON has them, to the text form of a column's type, and stored text to
//! the values a check compares.
//!
//! Every value is bound as a parameter of the column's own type, in text form: the type's own input function reads it,
//! so a value means what it would mean in SQL, and a value that is too long is refused rather than cut (as a cast would).

use std::error::Error;

use bytes::BytesMut;
use kairos_sync_rules::SqlValue;
use serde_json::Value;
use tokio_postgres::types::{Format, IsNull, ToSql, Type, to_sql_checked};

/// What of a column's type matters to values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Boolean,
    Integer,
    Real,
    Numeric,
    Json,
    Array,
    Bytes,
    TimestampTz,
    /// A timestamp or time of day without zone.
    LocalTime,
    /// Text, and all types which devices have as their text.
    Other,
}

impl Kind {
    /// The kind of a type, by the name of its base type and its category as in `pg_type`.
    pub(super) fn of(base_type: &str, is_array: bool) -> Self {
        match base_type {
            _ if is_array => Self::Array,
            "bool" => Self::Boolean,
            "int2" | "int4" | "int8" | "oid" => Self::Integer,
            "float4" | "float8" => Self::Real,
            "numeric" => Self::Numeric,
            "json" | "jsonb" => Self::Json,
            "bytea" => Self::Bytes,
            "timestamptz" => Self::TimestampTz,
            "timestamp" | "time" => Self::LocalTime,
            _ => Self::Other,
        }
    }

    /// The text to bind for a value from a device. Whether it is one of the type is for Postgres to say.
    pub(super) fn text(self, value: &Value) -> Option<String> {
        match (self, value) {
            (_, Value::Null) => None,
            // JSON columns are text on devices; an app that sends the document itself means the same.
            (Self::Json, Value::String(text)) => Some(text.clone()),
            (Self::Json, document) => Some(document.to_string()),
            (Self::Array, Value::String(text)) => Some(match serde_json::from_str(text) {
                Ok(Value::Array(elements)) => array_literal(&elements),
                _ => text.clone(),
            }),
            (Self::Array, Value::Array(elements)) => Some(array_literal(elements)),
            (Self::Integer | Self::Real | Self::Numeric, Value::Bool(flag)) => Some(u8::from(*flag).to_string()),
            // SQLite hands an integer that went through REAL out as `1.0`.
            (Self::Integer | Self::Boolean, Value::Number(number)) => Some(match number.as_f64() {
                Some(real) if number.is_f64() && real.fract() == 0.0 => format!("{real:.0}"),
                _ => number.to_string(),
            }),
            (_, Value::String(text)) => Some(text.clone()),
            (_, other) => Some(other.to_string()),
        }
    }

    /// The value a check compares, from the text Postgres prints: as the rules see a replicated row.
    pub(super) fn parse(self, text: Option<&str>) -> SqlValue {
        let Some(text) = text else { return SqlValue::Null };
        let parsed = match self {
            Self::Boolean => Some(SqlValue::Integer(i128::from(text == "true"))),
            Self::Integer => text.parse().ok().map(SqlValue::Integer),
            Self::Real => text.parse().ok().map(SqlValue::Real),
            Self::Bytes => text.strip_prefix("\\x").and_then(from_hex).map(SqlValue::Blob),
            // The session's time zone is UTC.
            Self::TimestampTz => text.strip_suffix("+00").map(|utc| SqlValue::Text(format!("{utc}Z"))),
            Self::Numeric | Self::Json | Self::Array | Self::LocalTime | Self::Other => None,
        };
        parsed.unwrap_or_else(|| SqlValue::Text(text.to_owned()))
    }

    /// Whether a text to bind stands for the stored value, without asking Postgres. Spellings that devices use for what
    /// they got are known; of any other the answer is no.
    pub(super) fn is_printed(self, text: Option<&str>, stored: &SqlValue, fraction_digits: Option<u8>) -> bool {
        let Some(text) = text else { return *stored == SqlValue::Null };
        let SqlValue::Text(stored) = stored else {
            return match (self, stored) {
                (Self::Boolean, SqlValue::Integer(flag)) => (*flag == 1) == matches!(text, "true" | "t" | "1"),
                _ => self.parse(Some(text)) == *stored,
            };
        };
        match self {
            _ if text == stored => true,
            Self::Numeric => shortest_number(text) == shortest_number(stored),
            Self::Json => {
                let document = |text| serde_json::from_str::<Value>(text).ok();
                document(text).is_some_and(|seen| Some(seen) == document(stored))
            }
            // Elements may be quoted that need not be.
            Self::Array => text.replace('"', "") == stored.replace('"', ""),
            Self::TimestampTz | Self::LocalTime => {
                shortest_time(text, fraction_digits) == shortest_time(stored, fraction_digits)
            }
            Self::Boolean | Self::Integer | Self::Real | Self::Bytes | Self::Other => false,
        }
    }
}

/// A decimal number without zeros that say nothing.
fn shortest_number(text: &str) -> &str {
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { text }
}

/// A time without the signs in which spellings differ, and without zeros that say nothing. All are UTC.
fn shortest_time(text: &str, fraction_digits: Option<u8>) -> String {
    let text = text.trim_end_matches('Z').trim_end_matches("+00:00").trim_end_matches("+00").replace(' ', "T");
    let Some((seconds, fraction)) = text.split_once('.') else { return text };
    let digits = fraction_digits.map_or(fraction.len(), usize::from);
    let fraction = fraction.get(..digits).unwrap_or(fraction).trim_end_matches('0');
    if fraction.is_empty() { seconds.to_owned() } else { format!("{seconds}.{fraction}") }
}

/// A value a check compared, as devices have it.
pub(super) fn json(value: &SqlValue) -> Value {
    match value {
        SqlValue::Integer(integer) => i64::try_from(*integer).map_or_else(|_| integer.to_string().into(), Value::from),
        SqlValue::Real(real) => Value::from(*real),
        SqlValue::Text(text) => Value::from(text.as_str()),
        // Binary columns never reach devices.
        SqlValue::Null | SqlValue::Blob(_) => Value::Null,
    }
}

/// The text to bind for a value of the rules language.
pub(super) fn stamp_text(value: &SqlValue) -> Option<String> {
    match value {
        SqlValue::Null => None,
        SqlValue::Integer(integer) => Some(integer.to_string()),
        SqlValue::Real(real) => Some(real.to_string()),
        SqlValue::Text(text) => Some(text.clone()),
        SqlValue::Blob(bytes) => Some(bytes.iter().fold("\\x".to_owned(), |text, byte| text + &format!("{byte:02x}"))),
    }
}

/// A JSON array as Postgres writes arrays. Elements are quoted, so nothing in them has a meaning.
fn array_literal(elements: &[Value]) -> String {
    let element = |value: &Value| match value {
        Value::Null => "NULL".to_owned(),
        Value::Array(inner) => array_literal(inner),
        Value::String(text) => quoted(text),
        other => quoted(&other.to_string()),
    };
    format!("{{{}}}", elements.iter().map(element).collect::<Vec<_>>().join(","))
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> =
        text.chars().map(|digit| digit.to_digit(16).and_then(|digit| u8::try_from(digit).ok())).collect();
    Some(digits?.chunks(2).map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit)).collect())
}

/// A parameter in text form, of whatever type the statement gives it.
#[derive(Debug)]
pub(super) struct TextParameter<'a>(pub(super) Option<&'a str>);

impl ToSql for TextParameter<'_> {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        Ok(match self.0 {
            None => IsNull::Yes,
            Some(text) => {
                out.extend_from_slice(text.as_bytes());
                IsNull::No
            }
        })
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn encode_format(&self, _: &Type) -> Format {
        Format::Text
    }

    to_sql_checked!();
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn spellings_of_devices_are_known() {
        let text = |text: &str| SqlValue::Text(text.to_owned());
        for (kind, seen, stored, is_same) in [
            (Kind::Other, "a", text("a"), true),
            (Kind::Other, "a ", text("a"), false),
            (Kind::Boolean, "1", SqlValue::Integer(1), true),
            (Kind::Boolean, "0", SqlValue::Integer(1), false),
            (Kind::Integer, "12", SqlValue::Integer(12), true),
            (Kind::Real, "1.50", SqlValue::Real(1.5), true),
            (Kind::Numeric, "1.5", text("1.500"), true),
            (Kind::Numeric, "150", text("15"), false),
            (Kind::Json, r#"{"a":1,"b":[]}"#, text(r#"{"b": [], "a": 1}"#), true),
            (Kind::Json, "{", text("{"), true),
            (Kind::Json, "{", text("["), false),
            (Kind::Array, r#"{"a","b"}"#, text("{a,b}"), true),
            (Kind::TimestampTz, "2026-01-02T03:04:05.600Z", text("2026-01-02 03:04:05.6Z"), true),
            (Kind::TimestampTz, "2026-01-02T03:04:05.601Z", text("2026-01-02 03:04:05.601999Z"), false),
            (Kind::LocalTime, "2026-01-02 03:04:05", text("2026-01-02 03:04:05"), true),
        ] {
            assert_eq!(kind.is_printed(Some(seen), &stored, None), is_same, "{kind:?}: {seen}");
            assert!(!kind.is_printed(None, &stored, None) && !kind.is_printed(Some(seen), &SqlValue::Null, None));
        }
        let stored = text("2026-01-02 03:04:05.601999Z");
        assert!(
            Kind::TimestampTz.is_printed(Some("2026-01-02T03:04:05.601Z"), &stored, Some(3)),
            "as it was sent there"
        );
        assert!(Kind::TimestampTz.is_printed(Some("2026-01-02T03:04:05Z"), &stored, Some(0)));
        assert!(Kind::Other.is_printed(None, &SqlValue::Null, None));
    }

    #[test]
    fn sqlite_values_become_the_text_of_the_type() {
        for (kind, value, expected) in [
            (Kind::Boolean, json!(1), Some("1")),
            (Kind::Boolean, json!(true), Some("true")),
            (Kind::Boolean, json!(0.0), Some("0")),
            (Kind::Integer, json!(9_007_199_254_740_993_i64), Some("9007199254740993")),
            (Kind::Integer, json!(-2.0), Some("-2")),
            (Kind::Integer, json!(2.5), Some("2.5")),
            (Kind::Integer, json!(true), Some("1")),
            (Kind::Real, json!(1), Some("1")),
            (Kind::Numeric, json!("1.50"), Some("1.50")),
            (Kind::Json, json!("{\"a\":1}"), Some("{\"a\":1}")),
            (Kind::Json, json!({"a": 1}), Some("{\"a\":1}")),
            (Kind::Json, json!(true), Some("true")),
            (Kind::Other, json!("it's"), Some("it's")),
            (Kind::Other, json!(7), Some("7")),
            (Kind::Other, Value::Null, None),
            (Kind::Json, Value::Null, None),
        ] {
            assert_eq!(kind.text(&value).as_deref(), expected, "{kind:?} {value}");
        }
    }

    #[test]
    fn json_arrays_become_array_literals_whatever_is_in_them() {
        let array = json!(["a", null, "x\"},{", "back\\slash", ["n"], 1, true]);
        let expected = r#"{"a",NULL,"x\"},{","back\\slash",{"n"},"1","true"}"#;
        assert_eq!(Kind::Array.text(&array).as_deref(), Some(expected));
        assert_eq!(Kind::Array.text(&json!(array.to_string())).as_deref(), Some(expected));
        assert_eq!(Kind::Array.text(&json!("{1,2}")).as_deref(), Some("{1,2}"), "already a literal");
    }

    #[test]
    fn stored_text_becomes_the_value_the_rules_see() {
        assert_eq!(Kind::Boolean.parse(Some("true")), SqlValue::Integer(1));
        assert_eq!(Kind::Integer.parse(Some("-7")), SqlValue::Integer(-7));
        assert_eq!(Kind::Bytes.parse(Some("\\x00ff")), SqlValue::Blob(vec![0, 255]));
        assert_eq!(
            Kind::TimestampTz.parse(Some("2026-01-02 03:04:05+00")),
            SqlValue::Text("2026-01-02 03:04:05Z".into())
        );
        assert_eq!(Kind::Numeric.parse(Some("1.50")), SqlValue::Text("1.50".into()));
        assert_eq!(Kind::Other.parse(None), SqlValue::Null);
    }
}
