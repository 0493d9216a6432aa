//! Functions over JSON documents in text.

use serde::{Deserialize, Serialize};

use crate::{
    json::Json,
    value::{Failure, SqlValue},
};

/// A path into a document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct JsonPath {
    /// As written.
    text: String,
    steps: Vec<String>,
    /// The option `fixed_json_extract`: without it, dots separate steps also where no `$` leads, and a JSON null comes
    /// out of `->>` as the text `null`.
    fixed: bool,
}

impl JsonPath {
    /// Reads a path: `$.a.b` is two steps; `a.b` is one key, or two steps without `fixed`.
    pub(crate) fn new(path: &str, fixed: bool) -> Self {
        let steps = if path.starts_with('$') {
            path.split('.').skip(1).map(str::to_owned).collect()
        } else if fixed {
            vec![path.to_owned()]
        } else {
            path.split('.').map(str::to_owned).collect()
        };
        Self { text: path.to_owned(), steps, fixed }
    }
}

impl JsonPath {
    /// The path as it was written.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }
}

/// `document -> path`, and `document ->> path` with `as_value`.
pub(crate) fn json_member(document: &SqlValue, path: &JsonPath, as_value: bool) -> Result<SqlValue, Failure> {
    let Some(document) = read(document)? else { return Ok(SqlValue::Null) };
    let mut selected = Some(document);
    for step in &path.steps {
        selected = selected.and_then(|json| member(json, step));
    }
    Ok(match selected {
        None => SqlValue::Null,
        // Without `fixed_json_extract` the two operators have it the wrong way round.
        Some(Json::Null) if as_value == path.fixed => SqlValue::Null,
        Some(json) if as_value && json != Json::Null => json.to_sql(),
        Some(json) => SqlValue::Text(json.to_text()),
    })
}

/// One step: a member, an element by index, or, as in the reference's host language, the length of an array or text.
fn member(json: Json, step: &str) -> Option<Json> {
    let index = || step.parse::<usize>().ok().filter(|index| index.to_string() == step);
    let length = |length: usize| u32::try_from(length).ok().map(|length| Json::Real(f64::from(length)));
    match json {
        Json::Object(members) => members.into_iter().find_map(|(name, value)| (name == step).then_some(value)),
        Json::Array(items) if step == "length" => length(items.len()),
        Json::Array(items) => items.into_iter().nth(index()?),
        Json::Text(text) if step == "length" => length(text.encode_utf16().count()),
        Json::Text(text) => text.encode_utf16().nth(index()?).map(|unit| Json::Text(String::from_utf16_lossy(&[unit]))),
        _ => None,
    }
}

/// The document of a value; `None` for NULL and for JSON's null.
fn read(document: &SqlValue) -> Result<Option<Json>, Failure> {
    match document.text() {
        None => Ok(None),
        Some(text) => Ok(Some(Json::parse(&text)?).filter(|json| *json != Json::Null)),
    }
}

pub(super) fn json_extract(document: &SqlValue, path: &SqlValue, fixed: bool) -> Result<SqlValue, Failure> {
    match (document.is_null(), path.text()) {
        (true, _) | (_, None) => Ok(SqlValue::Null),
        (false, Some(path)) if path.starts_with('$') => json_member(document, &JsonPath::new(&path, fixed), true),
        _ => Err(Failure("a path of json_extract begins with `$`")),
    }
}

pub(super) fn json_array_length(document: &SqlValue, path: &SqlValue, fixed: bool) -> Result<SqlValue, Failure> {
    let selected = if path.is_null() { document.clone() } else { json_extract(document, path, fixed)? };
    Ok(match selected.text() {
        None => SqlValue::Null,
        Some(text) => SqlValue::Integer(match Json::parse(&text)? {
            Json::Array(items) => i128::try_from(items.len()).unwrap_or(i128::MAX),
            _ => 0,
        }),
    })
}

pub(super) fn json_valid(document: &SqlValue) -> SqlValue {
    document.text().is_some_and(|text| Json::parse(&text).is_ok()).into()
}

pub(super) fn json_keys(document: &SqlValue) -> Result<SqlValue, Failure> {
    let Some(text) = document.text() else { return Ok(SqlValue::Null) };
    match Json::parse(&text)? {
        Json::Object(members) => {
            let names = members.into_iter().map(|(name, _)| Json::Text(name)).collect();
            Ok(SqlValue::Text(Json::Array(names).to_text()))
        }
        _ => Err(Failure("json_keys needs a JSON object")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn select(document: &str, path: &str, fixed: bool, as_value: bool) -> SqlValue {
        json_member(&SqlValue::Text(document.to_owned()), &JsonPath::new(path, fixed), as_value).unwrap()
    }

    #[test]
    fn a_dollar_begins_a_path() {
        let document = r#"{"a":{"b":1},"a.b":[1.0,{"c":"x"}]}"#;
        let text = |text: &str| SqlValue::Text(text.to_owned());
        assert_eq!(select(document, "$.a.b", true, true), SqlValue::Integer(1));
        assert_eq!(select(document, "a.b", true, true), text(r#"[1.0,{"c":"x"}]"#));
        assert_eq!(select(document, "a.b", false, true), SqlValue::Integer(1));
        assert_eq!(select(document, "$.a", true, false), text(r#"{"b":1}"#));
        assert_eq!(select(r#"{"l":["x","y"]}"#, "$.l.1", true, false), text("\"y\""));
        assert_eq!(select("{}", "a", true, true), SqlValue::Null);
    }

    #[test]
    fn json_null_depends_on_the_option() {
        let null = SqlValue::Text("null".to_owned());
        assert_eq!(select(r#"{"a":null}"#, "a", true, true), SqlValue::Null);
        assert_eq!(select(r#"{"a":null}"#, "a", true, false), null);
        assert_eq!(select(r#"{"a":null}"#, "a", false, true), null);
        assert_eq!(select(r#"{"a":null}"#, "a", false, false), SqlValue::Null);
    }

    #[test]
    fn steps_follow_the_rules_of_javascript_objects() {
        let text = |text: &str| SqlValue::Text(text.to_owned());
        for (document, path, value) in [
            (r#"["a"]"#, "length", SqlValue::Real(1.0)),
            (r#""text""#, "1", text("e")),
            (r#""😀""#, "length", SqlValue::Real(2.0)),
            ("[1,2]", "01", SqlValue::Null),
            ("[1,2]", "-1", SqlValue::Null),
            ("[1,2]", "2", SqlValue::Null),
            (r#"{"length":5}"#, "length", SqlValue::Integer(5)),
            (r#"{"a":{"":1}}"#, "$.a.", SqlValue::Integer(1)),
            (r#"{"a":{"":{"b":2}}}"#, "$.a..b", SqlValue::Integer(2)),
            (r#"{"list[0]":3}"#, "$.list[0]", SqlValue::Integer(3)),
            (r#"{"a":null}"#, "$.a.b", SqlValue::Null),
            (r#"{"$x":1}"#, "$x", text(r#"{"$x":1}"#)),
            (r#"{"$x":1}"#, "$.$x", SqlValue::Integer(1)),
            ("true", "$", SqlValue::Integer(1)),
            ("null", "$", SqlValue::Null),
            ("5", "x", SqlValue::Null),
        ] {
            assert_eq!(select(document, path, true, true), value, "{document} {path}");
        }
    }

    #[test]
    fn json_extract_takes_only_paths() {
        let (document, path) = (SqlValue::Text(r#"{"s":"str"}"#.to_owned()), SqlValue::Text("$.s".to_owned()));
        assert_eq!(json_extract(&document, &path, true), Ok(SqlValue::Text("str".to_owned())));
        assert_eq!(json_extract(&document, &SqlValue::Null, true), Ok(SqlValue::Null));
        assert_eq!(json_extract(&SqlValue::Null, &path, true), Ok(SqlValue::Null));
        assert!(json_extract(&document, &SqlValue::Text("s".to_owned()), true).is_err());
        assert!(json_extract(&SqlValue::Text("broken".to_owned()), &path, true).is_err());
    }

    #[test]
    fn only_arrays_have_a_length_and_only_objects_keys() {
        let text = |text: &str| SqlValue::Text(text.to_owned());
        let length = |document: &str, path: &SqlValue| json_array_length(&text(document), path, true);
        for (document, expected) in [("[1,2,3]", 3), ("[]", 0), ("{}", 0), ("5", 0), ("null", 0)] {
            assert_eq!(length(document, &SqlValue::Null), Ok(SqlValue::Integer(expected)), "{document}");
        }
        assert_eq!(length(r#"{"a":[1,2]}"#, &text("$.a")), Ok(SqlValue::Integer(2)));
        assert_eq!(length(r#"{"a":"[1]"}"#, &text("$.a")), Ok(SqlValue::Integer(1)), "text is read once more");
        assert_eq!(length(r#"{"a":null}"#, &text("$.a")), Ok(SqlValue::Null));
        assert!(length("[1]", &text("a")).is_err());
        assert!(length("bad[", &SqlValue::Null).is_err());

        assert_eq!(json_keys(&text(r#"{"x":1,"2":3}"#)), Ok(text(r#"["2","x"]"#)));
        assert_eq!(json_keys(&SqlValue::Null), Ok(SqlValue::Null));
        for document in ["[1]", "5", "null", "oops"] {
            assert!(json_keys(&text(document)).is_err(), "{document}");
        }
    }

    #[test]
    fn validity_is_that_of_the_text_form() {
        for (document, valid) in [
            (SqlValue::Text("null".to_owned()), true),
            (SqlValue::Text(String::new()), false),
            (SqlValue::Text("{bad".to_owned()), false),
            (SqlValue::Integer(5), true),
            (SqlValue::Real(f64::NAN), false),
            (SqlValue::Null, false),
        ] {
            assert_eq!(json_valid(&document), valid.into(), "{document:?}");
        }
    }
}
