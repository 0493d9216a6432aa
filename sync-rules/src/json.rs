//! JSON as the language sees it: integers keep their spelling, repeated keys are refused, nothing is lost on the way.

use std::fmt::Write;

use serde_json::Value;

use crate::{
    cast::to_real,
    number::write_ecmascript,
    value::{Failure, SqlValue},
};

/// Documents nested deeper are refused, so that recursion has a bound.
const DEPTH_MAX: usize = 100;

/// A JSON document.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Json {
    /// `null`
    Null,
    /// `true`, `false`
    Bool(bool),
    /// A number without fraction and exponent.
    Integer(i128),
    /// Any other number.
    Real(f64),
    /// Text.
    Text(String),
    /// An array.
    Array(Vec<Json>),
    /// Members in their order.
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
        let mut reader = Reader { text, at: 0 };
        let json = reader.value(0)?;
        reader.skip_space();
        if reader.at == text.len() { Ok(json) } else { Err(INVALID) }
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
                Self::Object(members.iter().map(|(name, value)| (name.clone(), Self::from_request(value))).collect())
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
    out.push_str(itoa::Buffer::new().format(number));
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

/// Bytes that JSON escapes in strings.
const ESCAPED: [bool; 256] = {
    let mut escaped = [false; 256];
    let mut byte = 0;
    while byte < 0x20 {
        escaped[byte] = true;
        byte += 1;
    }
    escaped[b'"' as usize] = true;
    escaped[b'\\' as usize] = true;
    escaped
};

/// Appends a JSON string, escaping only what JSON requires.
pub(crate) fn write_text(text: &str, out: &mut String) {
    out.push('"');
    let mut copied = 0;
    for (at, byte) in text.bytes().enumerate() {
        if !ESCAPED[usize::from(byte)] {
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

const INVALID: Failure = Failure("the text is not valid JSON");
const REPEATED: Failure = Failure("a JSON object has two values for one key");
const TOO_DEEP: Failure = Failure("the JSON document is nested too deeply");

/// A cursor over JSON text. Scalars are left to `serde_json`; structure and number spelling are ours.
struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl Reader<'_> {
    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// Skips space and takes `byte` if it comes next.
    fn take(&mut self, byte: u8) -> bool {
        self.skip_space();
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn value(&mut self, depth: usize) -> Result<Json, Failure> {
        if depth > DEPTH_MAX {
            return Err(TOO_DEEP);
        }
        self.skip_space();
        match self.peek() {
            Some(b'{') => self.object(depth),
            Some(b'[') => self.array(depth),
            Some(b'"') => self.string().map(Json::Text),
            Some(_) => self.scalar(),
            None => Err(INVALID),
        }
    }

    fn array(&mut self, depth: usize) -> Result<Json, Failure> {
        self.at += 1;
        let mut items = Vec::new();
        if self.take(b']') {
            return Ok(Json::Array(items));
        }
        loop {
            items.push(self.value(depth + 1)?);
            if self.take(b']') {
                return Ok(Json::Array(items));
            }
            if !self.take(b',') {
                return Err(INVALID);
            }
        }
    }

    fn object(&mut self, depth: usize) -> Result<Json, Failure> {
        self.at += 1;
        let mut members = std::collections::BTreeMap::new();
        let mut order = Vec::new();
        if !self.take(b'}') {
            loop {
                self.skip_space();
                let name = if self.peek() == Some(b'"') { self.string()? } else { return Err(INVALID) };
                if !self.take(b':') {
                    return Err(INVALID);
                }
                let value = self.value(depth + 1)?;
                match members.get(&name) {
                    None => {
                        order.push(name.clone());
                        members.insert(name, value);
                    }
                    Some(earlier) if *earlier == value => {}
                    Some(_) => return Err(REPEATED),
                }
                if self.take(b'}') {
                    break;
                }
                if !self.take(b',') {
                    return Err(INVALID);
                }
            }
        }
        let member = |name: String| members.remove(&name).map(|value| (name, value));
        Ok(Json::Object(order.into_iter().filter_map(member).collect()))
    }

    fn string(&mut self) -> Result<String, Failure> {
        let bytes = self.text.as_bytes();
        let start = self.at;
        let mut end = start + 1;
        while *bytes.get(end).ok_or(INVALID)? != b'"' {
            end += if bytes[end] == b'\\' { 2 } else { 1 };
        }
        self.at = end + 1;
        serde_json::from_str(self.text.get(start..=end).ok_or(INVALID)?).map_err(|_| INVALID)
    }

    fn scalar(&mut self) -> Result<Json, Failure> {
        let rest = &self.text[self.at..];
        let length = rest.find([',', ']', '}', ' ', '\t', '\n', '\r']).unwrap_or(rest.len());
        self.at += length;
        let token = &rest[..length];
        match serde_json::from_str(token).map_err(|_| INVALID)? {
            Value::Null => Ok(Json::Null),
            Value::Bool(value) => Ok(Json::Bool(value)),
            Value::Number(number) => Ok(match token.parse::<i128>() {
                Ok(integer) => Json::Integer(integer),
                Err(_) => Json::Real(number.as_f64().ok_or(INVALID)?),
            }),
            Value::String(_) | Value::Array(_) | Value::Object(_) => Err(INVALID),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_keep_their_kind() {
        let json = Json::parse(" [1, 1.50, 1e2, 123456789012345678901234567890, -0.0] ").unwrap();
        assert_eq!(json.to_text(), "[1,1.5,100.0,123456789012345678901234567890,0.0]");
        let mut name = String::new();
        json.write(Form::Name, &mut name);
        assert_eq!(name, "[1,1.5,100,123456789012345678901234567890,0]");
    }

    #[test]
    fn a_key_may_repeat_only_with_an_equal_value() {
        assert_eq!(Json::parse(r#"{"a":1,"b":2,"a":1}"#).unwrap().to_text(), r#"{"a":1,"b":2}"#);
        assert_eq!(Json::parse(r#"{"a":1,"a":2}"#), Err(REPEATED));
    }

    #[test]
    fn what_is_not_json_is_refused() {
        for text in ["", "[1,]", "{a:1}", "'a'", "NaN", "[1", "1 2", "\"a", "\"\\", "{\"a\" 1}", "01", "tru", "\"é\\"]
        {
            assert_eq!(Json::parse(text), Err(INVALID), "{text}");
        }
        assert_eq!(Json::parse(&"[".repeat(5000)), Err(TOO_DEEP));
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in r#"[\[\]{}",:\\u0-9a-f.eE\-+ étrunl]{0,40}"#) {
            let _ = Json::parse(&text);
        }

        #[test]
        fn strings_print_as_serde_prints_them(text: String) {
            let mut ours = String::new();
            write_text(&text, &mut ours);
            prop_assert_eq!(&ours, &serde_json::to_string(&text).unwrap());
            prop_assert_eq!(Json::parse(&ours).unwrap(), Json::Text(text));
        }
    }
}
