//! Texts of buckets and lookups. Both sides, rows and requests, must arrive at the same text.
//!
//! A key part is a value as JSON in the form of bucket names: `"u1"`, `5`, `null`. INTEGER 5 and REAL 5.0 meet.

use std::sync::Arc;

use serde_json::value::RawValue;

use crate::{
    definition::IndexId,
    evaluate::{LookupKey, LookupValue},
    json::{Form, write_text, write_value},
    value::SqlValue,
};

/// A value as a key part.
pub(crate) fn key_part(value: &SqlValue) -> String {
    let mut part = String::new();
    write_value(value, Form::Name, &mut part);
    part
}

/// A value of a row as a key part; `None` where the row can match nobody. NULL equals nothing, nor does not-a-number,
/// and bytes are never part of a key.
pub(crate) fn row_key_part(value: &SqlValue) -> Option<String> {
    let mut part = String::new();
    push_row_key_part(value, &mut part).then_some(part)
}

/// Appends a value of a row as a key part; `false` where the row can match nobody.
pub(crate) fn push_row_key_part(value: &SqlValue, out: &mut String) -> bool {
    match value {
        SqlValue::Null | SqlValue::Blob(_) => return false,
        SqlValue::Real(number) if number.is_nan() => return false,
        _ => write_value(value, Form::Name, out),
    }
    true
}

/// `prefix["u1",5]`
pub(crate) fn bucket_name<'a>(prefix: &str, parts: impl IntoIterator<Item = &'a str>) -> String {
    let mut name = prefix.to_owned();
    write_list(parts, &mut name);
    name
}

/// The key of a lookup: `["index","u1",5]`
pub(crate) fn lookup<'a>(index: &IndexId, parts: impl IntoIterator<Item = &'a str>) -> LookupKey {
    let mut key = lookup_prefix(index);
    for part in parts {
        key.push(',');
        key.push_str(part);
    }
    key.push(']');
    LookupKey(Arc::from(key))
}

/// What the keys of an index begin with, and no others: `["index"`
pub(crate) fn lookup_prefix(index: &IndexId) -> String {
    let mut prefix = String::from("[");
    write_text(&index.0, &mut prefix);
    prefix
}

/// What a lookup asked of this index, as key parts; `None` if it is of another index.
pub(crate) fn parts_asked<'k>(index: &IndexId, key: &'k LookupKey) -> Option<Vec<&'k str>> {
    key.0.strip_prefix(&lookup_prefix(index))?;
    let parts: Vec<&RawValue> = serde_json::from_str(&key.0).ok()?;
    Some(parts.into_iter().skip(1).map(RawValue::get).collect())
}

/// An answer: key parts in a list.
pub(crate) fn lookup_value<'a>(parts: impl IntoIterator<Item = &'a str>) -> LookupValue {
    let mut value = String::new();
    write_list(parts, &mut value);
    LookupValue(Arc::from(value))
}

/// The key parts of an answer; `None` if it is not one of [`lookup_value`].
pub(crate) fn lookup_parts(value: &LookupValue) -> Option<Vec<&str>> {
    let parts: Vec<&RawValue> = serde_json::from_str(&value.0).ok()?;
    Some(parts.into_iter().map(RawValue::get).collect())
}

fn write_list<'a>(parts: impl IntoIterator<Item = &'a str>, out: &mut String) {
    out.push('[');
    for (index, part) in parts.into_iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        out.push_str(part);
    }
    out.push(']');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_come_apart_as_they_were_put_together() {
        let parts = [r#""a,]\"b""#, "5", "null", r#"{"x":[1]}"#];
        assert_eq!(lookup_parts(&lookup_value(parts)).unwrap(), parts);
        assert_eq!(lookup_parts(&LookupValue(Arc::from("{}"))), None);
    }

    #[test]
    fn lookups_of_different_indexes_differ() {
        let index = |id: &str| IndexId(id.to_owned());
        assert_eq!(&*lookup(&index("a"), ["\"u\""]).0, r#"["a","u"]"#);
        assert_ne!(lookup(&index("a"), ["5"]), lookup(&index("b"), ["5"]));
    }
}
