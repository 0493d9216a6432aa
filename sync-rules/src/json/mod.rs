//! JSON as the language sees it: an integer and a real are different numbers, and members have the order that they have
//! in JavaScript.

use std::fmt::Write;

use serde_json::Value;

use crate::{
    cast::to_real,
    number::write_ecmascript,
    value::{Failure, SqlValue},
};

mod read;
mod repetition;

/// A JSON document.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Json {
    /// `null`
    Null,
    /// `true`, `false`
    Bool(bool),
    /// A number without fraction and exponent, if it fits.
    Integer(i128),
    /// Any other number.
    Real(f64),
    /// Text.
    Text(String),
    /// An array.
    Array(Vec<Json>),
    /// Members in the order of [`Json::object`].
    Object(Vec<(String, Json)>),
}

/// The two ways of printing numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// Row data: a REAL is recognisable, `1.0`.
    Data,
    /// Bucket names and lookup keys: REAL and INTEGER of the same value meet, `1`.
    Name,
}

impl Json {
    /// Reads a document.
    pub(crate) fn parse(text: &str) -> Result<Self, Failure> {
        read::read(text)
    }

    /// An object in the order of JavaScript: names that are array indexes come first, by their number, then the others
    /// as they were added.
    pub(crate) fn object(mut members: Vec<(String, Self)>) -> Self {
        // The largest index is 2³² − 2, so the maximum is free for what is none. The sort is stable.
        members.sort_by_key(|(name, _)| array_index(name).unwrap_or(u32::MAX));
        Self::Object(members)
    }

    /// A value of a request, whose numbers are all binary64.
    pub(crate) fn from_request(value: &Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(value) => Self::Bool(*value),
            Value::Number(number) => Self::Real(number.as_f64().unwrap_or(f64::NAN)),
            Value::String(text) => Self::Text(text.clone()),
            Value::Array(items) => Self::Array(items.iter().map(Self::from_request).collect()),
            Value::Object(members) => {
                Self::object(members.iter().map(|(name, value)| (name.clone(), Self::from_request(value))).collect())
            }
        }
    }

    /// The same document with every number as binary64, as hosts with one kind of number read it.
    pub(crate) fn with_reals(self) -> Self {
        match self {
            Self::Integer(number) => Self::Real(to_real(number)),
            Self::Array(items) => Self::Array(items.into_iter().map(Self::with_reals).collect()),
            Self::Object(members) => {
                Self::Object(members.into_iter().map(|(name, value)| (name, value.with_reals())).collect())
            }
            other => other,
        }
    }

    /// Appends the document.
    pub(crate) fn write(&self, form: Form, out: &mut String) {
        match self {
            Self::Null => out.push_str("null"),
            Self::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
            Self::Integer(number) => write_integer(*number, out),
            Self::Real(number) => write_real(*number, form, out),
            Self::Text(text) => write_text(text, out),
            Self::Array(items) => {
                out.push('[');
                for (index, item) in items.iter().enumerate() {
                    if index > 0 {
                        out.push(',');
                    }
                    item.write(form, out);
                }
                out.push(']');
            }
            Self::Object(members) => {
                out.push('{');
                for (index, (name, value)) in members.iter().enumerate() {
                    if index > 0 {
                        out.push(',');
                    }
                    write_text(name, out);
                    out.push(':');
                    value.write(form, out);
                }
                out.push('}');
            }
        }
    }

    /// The document in data form.
    pub(crate) fn to_text(&self) -> String {
        let mut text = String::new();
        self.write(Form::Data, &mut text);
        text
    }

    /// The document as a value: scalars as such, booleans as 1 and 0, the rest as JSON text.
    pub(crate) fn to_sql(&self) -> SqlValue {
        match self {
            Self::Null => SqlValue::Null,
            Self::Bool(value) => SqlValue::Integer(i128::from(*value)),
            Self::Integer(number) => SqlValue::Integer(*number),
            Self::Real(number) => SqlValue::Real(*number),
            Self::Text(text) => SqlValue::Text(text.clone()),
            Self::Array(_) | Self::Object(_) => SqlValue::Text(self.to_text()),
        }
    }
}

impl From<SqlValue> for Json {
    /// Bytes have no JSON and are `null`.
    fn from(value: SqlValue) -> Self {
        match value {
            SqlValue::Null | SqlValue::Blob(_) => Self::Null,
            SqlValue::Integer(number) => Self::Integer(number),
            SqlValue::Real(number) => Self::Real(number),
            SqlValue::Text(text) => Self::Text(text),
        }
    }
}

/// The number of a name such as `0` or `12`, but not `01`.
fn array_index(name: &str) -> Option<u32> {
    name.parse().ok().filter(|index: &u32| *index < u32::MAX && index.to_string() == name)
}

/// Appends a value as JSON. What JSON cannot say (NULL, not-a-number, infinity, bytes) is `null`.
pub(crate) fn write_value(value: &SqlValue, form: Form, out: &mut String) {
    match value {
        SqlValue::Null | SqlValue::Blob(_) => out.push_str("null"),
        SqlValue::Integer(number) => write_integer(*number, out),
        SqlValue::Real(number) => write_real(*number, form, out),
        SqlValue::Text(text) => write_text(text, out),
    }
}

fn write_integer(number: i128, out: &mut String) {
    match i64::try_from(number) {
        // Which takes a fraction of the time.
        Ok(number) => out.push_str(itoa::Buffer::new().format(number)),
        Err(_) => out.push_str(itoa::Buffer::new().format(number)),
    }
}

fn write_real(number: f64, form: Form, out: &mut String) {
    if !number.is_finite() {
        return out.push_str("null");
    }
    if let Some(integer) = small_integer(number) {
        out.push_str(itoa::Buffer::new().format(integer));
        if form == Form::Data {
            out.push_str(".0");
        }
        return;
    }
    let start = out.len();
    write_ecmascript(number, out);
    if form == Form::Data && out.as_bytes()[start..].iter().all(|byte| byte.is_ascii_digit() || *byte == b'-') {
        out.push_str(".0");
    }
}

/// The integer a number is, where its digits are those of the number.
#[expect(clippy::cast_possible_truncation, reason = "the range is checked before")]
fn small_integer(number: f64) -> Option<i64> {
    const LIMIT: f64 = 9_007_199_254_740_992.0;
    (number.fract() == 0.0 && number.abs() <= LIMIT).then_some(number as i64)
}

/// Whether JSON escapes a byte in strings.
const fn is_escaped(byte: u8) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\'
}

/// Appends a JSON string, escaping only what JSON requires.
pub(crate) fn write_text(text: &str, out: &mut String) {
    out.push('"');
    // Without a branch for each byte, which takes a fraction of the time; and most texts have none to escape.
    if text.bytes().fold(0, |found, byte| found | u8::from(is_escaped(byte))) == 0 {
        out.push_str(text);
        out.push('"');
        return;
    }
    let mut copied = 0;
    for (at, byte) in text.bytes().enumerate() {
        if !is_escaped(byte) {
            continue;
        }
        out.push_str(&text[copied..at]);
        copied = at + 1;
        match byte {
            b'"' => out.push_str("\\\""),
            b'\\' => out.push_str("\\\\"),
            b'\n' => out.push_str("\\n"),
            b'\r' => out.push_str("\\r"),
            b'\t' => out.push_str("\\t"),
            0x08 => out.push_str("\\b"),
            0x0c => out.push_str("\\f"),
            _ => {
                let _ = write!(out, "\\u{byte:04x}");
            }
        }
    }
    out.push_str(&text[copied..]);
    out.push('"');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_real_shows_its_kind_in_data_and_not_in_names() {
        let json = Json::parse("[1, 1.50, 1e2, 123456789012345678901234567890, -0.0, 1e21, 1e999]").unwrap();
        assert_eq!(json.to_text(), "[1,1.5,100.0,123456789012345678901234567890,0.0,1e+21,null]");
        let mut name = String::new();
        json.write(Form::Name, &mut name);
        assert_eq!(name, "[1,1.5,100,123456789012345678901234567890,0,1e+21,null]");
    }

    #[test]
    fn array_indexes_are_the_first_members() {
        let text = r#"{"b":1,"10":2,"01":3,"2":4,"-1":5,"a":6,"4294967295":7,"4294967294":8}"#;
        let ordered = r#"{"2":4,"10":2,"4294967294":8,"b":1,"01":3,"-1":5,"a":6,"4294967295":7}"#;
        assert_eq!(Json::parse(text).unwrap().to_text(), ordered);
        let request: Value = serde_json::from_str(text).unwrap();
        assert_eq!(Json::from_request(&request).to_text().replace(".0", ""), ordered);
    }

    proptest! {
        #[test]
        fn strings_print_as_serde_prints_them_and_read_back(text: String) {
            let mut ours = String::new();
            write_text(&text, &mut ours);
            prop_assert_eq!(&ours, &serde_json::to_string(&text).unwrap());
            prop_assert_eq!(Json::parse(&ours).unwrap(), Json::Text(text));
        }
    }
}
