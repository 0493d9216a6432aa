//! Columns of a source row, as a source connector would hand them over.

use super::time::{Moment, digits};
use crate::{Compatibility, SqlValue, json::Json, value::Failure};

/// A structured value may nest so many levels; the outermost array or object is level 0.
const LEVEL_MAX: usize = 10;

/// Why a row has no values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ValueError {
    /// The source may have such a row, and it cannot be evaluated.
    Failed,
    /// No source has such a row: the case is not written as the format says.
    Malformed(&'static str),
}

impl From<Failure> for ValueError {
    fn from(_: Failure) -> Self {
        Self::Failed
    }
}

/// What stands for a value JSON does not have: an object with one key that begins with `$`.
enum Special<'v> {
    Blob(Vec<u8>),
    Moment(Moment<'v>),
}

/// The columns of a row, in the order in which they are written.
pub(super) fn decode_columns(
    columns: &str,
    options: Compatibility,
) -> Result<(Vec<String>, Vec<SqlValue>), ValueError> {
    let Json::Object(members) = Json::parse(columns)? else {
        return Err(ValueError::Malformed("the columns are not an object"));
    };
    let mut names = Vec::with_capacity(members.len());
    let mut values = Vec::with_capacity(members.len());
    for (name, value) in members {
        names.push(name);
        values.push(column(&value, options)?);
    }
    Ok((names, values))
}

fn column(value: &Json, options: Compatibility) -> Result<SqlValue, ValueError> {
    Ok(match special(value)? {
        Some(Special::Blob(bytes)) => SqlValue::Blob(bytes),
        Some(Special::Moment(moment)) => SqlValue::Text(moment.text(options)),
        None => nested(value, 0, options)?.unwrap_or(Json::Null).to_sql(),
    })
}

/// A value on its way into JSON text; `None` for bytes, which JSON cannot say.
fn nested(value: &Json, level: usize, options: Compatibility) -> Result<Option<Json>, ValueError> {
    if level > LEVEL_MAX {
        return Err(ValueError::Failed);
    }
    match special(value)? {
        Some(Special::Blob(_)) => return Ok(None),
        Some(Special::Moment(moment)) => return Ok(Some(Json::Text(moment.text(options)))),
        None => {}
    }
    Ok(Some(match value {
        Json::Bool(value) => Json::Integer(i128::from(*value)),
        Json::Array(items) => {
            let item = |item| Ok(nested(item, level + 1, options)?.unwrap_or(Json::Null));
            Json::Array(items.iter().map(item).collect::<Result<_, ValueError>>()?)
        }
        Json::Object(members) => {
            let mut kept = Vec::with_capacity(members.len());
            for (name, value) in members {
                kept.extend(nested(value, level + 1, options)?.map(|value| (name.clone(), value)));
            }
            Json::Object(kept)
        }
        scalar => scalar.clone(),
    }))
}

fn special(value: &Json) -> Result<Option<Special<'_>>, ValueError> {
    let Json::Object(members) = value else { return Ok(None) };
    let [(name, content)] = members.as_slice() else { return Ok(None) };
    match name.as_str() {
        "$blob" => bytes(content).map(|bytes| Some(Special::Blob(bytes))),
        "$timestamp" => moment(content, "iso").map(|moment| Some(Special::Moment(moment))),
        "$time" => moment(content, "value").map(|moment| Some(Special::Moment(moment))),
        name if name.starts_with('$') => Err(ValueError::Malformed("an object with this single `$` key means nothing")),
        _ => Ok(None),
    }
}

fn bytes(content: &Json) -> Result<Vec<u8>, ValueError> {
    const MALFORMED: ValueError = ValueError::Malformed("`$blob` is not pairs of hexadecimal digits");
    let Json::Text(text) = content else { return Err(MALFORMED) };
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let byte = |[high, low]: &[u8; 2]| Some(digit(*high)? << 4 | digit(*low)?);
    let bytes: Option<Vec<_>> = pairs.iter().map(byte).collect();
    bytes.filter(|_| rest.is_empty()).ok_or(MALFORMED)
}

/// A date-time or a time of day; `text` is the key of its ISO text.
fn moment<'v>(content: &'v Json, text: &str) -> Result<Moment<'v>, ValueError> {
    const MALFORMED: ValueError = ValueError::Malformed("`$timestamp` or `$time` lacks its text or a known precision");
    let member = |key: &str| match content {
        Json::Object(members) => members.iter().find(|(name, _)| name == key).map(|(_, value)| value),
        _ => None,
    };
    let string = |key: &str| match member(key) {
        None => Ok(None),
        Some(Json::Text(text)) => Ok(Some(text.as_str())),
        Some(_) => Err(MALFORMED),
    };
    let precision = |key: &str| string(key)?.map(|name| digits(name).ok_or(MALFORMED)).transpose();
    let digits = precision("precision")?.ok_or(MALFORMED)?;
    Ok(Moment {
        iso: string(text)?.ok_or(MALFORMED)?,
        digits,
        default_digits: precision("default_precision")?.unwrap_or(digits),
        legacy: string("legacy")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPTIONS: Compatibility =
        Compatibility { timestamps_iso8601: true, custom_postgres_types: true, timestamp_fraction_digits_max: None };

    fn decode(value: &str) -> Result<SqlValue, ValueError> {
        decode_columns(&format!(r#"{{"c":{value}}}"#), OPTIONS).map(|(_, values)| values[0].clone())
    }

    /// Decodes a structured value to text.
    fn text(value: &str) -> String {
        let Ok(SqlValue::Text(text)) = decode(value) else { panic!("{value} is not text") };
        text
    }

    #[test]
    fn the_spelling_of_a_number_decides_about_its_kind() {
        assert_eq!(decode("-0"), Ok(SqlValue::Integer(0)));
        assert_eq!(decode("9223372036854775807"), Ok(SqlValue::Integer(i64::MAX.into())));
        assert_eq!(decode("1.0"), Ok(SqlValue::Real(1.0)));
        assert_eq!(decode("1e3"), Ok(SqlValue::Real(1000.0)));
    }

    #[test]
    fn structured_values_become_json_text() {
        assert_eq!(text(r#"[1,"two",3.0,true,null,[false]]"#), r#"[1,"two",3.0,1,null,[0]]"#);
        assert_eq!(text(r#"{"k":{"d":[1,2.0]}}"#), r#"{"k":{"d":[1,2.0]}}"#);
    }

    #[test]
    fn nested_bytes_leave_objects_and_are_null_in_arrays() {
        assert_eq!(text(r#"{"b":{"$blob":"00"},"a":[{"$blob":"00"}]}"#), r#"{"a":[null]}"#);
    }

    #[test]
    fn nested_times_are_text() {
        let moments = r#"[{"$time":{"value":"03:04:05","precision":"milliseconds"}}]"#;
        assert_eq!(text(moments), r#"["03:04:05.000"]"#);
    }

    #[test]
    fn what_nests_deeper_than_ten_levels_fails() {
        let nested = |count: usize| decode(&format!("{}1{}", "[".repeat(count), "]".repeat(count)));
        assert!(nested(10).is_ok());
        assert_eq!(nested(11), Err(ValueError::Failed));
        assert_eq!(nested(5000), Err(ValueError::Failed), "however deep");
    }

    #[test]
    fn an_encoding_the_format_does_not_know_is_malformed() {
        for value in [
            r#"{"$blob":"0"}"#,
            r#"{"$blob":"+1"}"#,
            r#"{"$time":{"value":"x"}}"#,
            r#"{"$timestamp":1}"#,
            r#"{"$x":1}"#,
        ] {
            assert!(matches!(decode(value), Err(ValueError::Malformed(_))), "{value}");
        }
        assert_eq!(decode(r#"{"$blob":"00fF"}"#), Ok(SqlValue::Blob(vec![0, 255])));
    }
}
