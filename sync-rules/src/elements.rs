//! Arrays taken apart: `json_each`, and the looser forms in which classic rules and edition 2 read request arrays.

use crate::{
    definition::{ElementForm, ElementPart},
    expression::array_elements,
    json::{Form, Json, write_value},
    value::{Failure, SqlValue},
};

/// A row of `json_each`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Element {
    /// Index or member name; NULL for a document that is neither array nor object.
    key: SqlValue,
    value: SqlValue,
}

impl Element {
    pub(crate) const fn part(&self, part: ElementPart) -> &SqlValue {
        match part {
            ElementPart::Key => &self.key,
            ElementPart::Value => &self.value,
        }
    }
}

/// The rows of `json_each(document)`. All numbers in it are binary64. `fixed` is the option `fixed_json_extract`:
/// without it a JSON null is the text `null`.
pub(crate) fn json_each(document: &SqlValue, fixed: bool) -> Result<Vec<Element>, Failure> {
    let text = match document {
        SqlValue::Null => return Ok(Vec::new()),
        SqlValue::Text(text) => text,
        _ => return Err(Failure("json_each needs JSON in text")),
    };
    let value = |json: Json| match json {
        Json::Null if !fixed => SqlValue::Text("null".to_owned()),
        json => json.with_reals().to_sql(),
    };
    Ok(match Json::parse(text)? {
        Json::Array(items) => {
            let key = |index: usize| i128::try_from(index).map_or(SqlValue::Null, SqlValue::Integer);
            items.into_iter().enumerate().map(|(index, item)| Element { key: key(index), value: value(item) }).collect()
        }
        Json::Object(members) => members
            .into_iter()
            .map(|(name, member)| Element { key: SqlValue::Text(name), value: value(member) })
            .collect(),
        document => vec![Element { key: SqlValue::Null, value: value(document) }],
    })
}

/// The elements of a request's array in one of the forms.
pub(crate) fn request_elements(array: &SqlValue, form: ElementForm) -> Result<Vec<Element>, Failure> {
    let element = |value| Element { key: SqlValue::Null, value };
    match form {
        ElementForm::JsonEach { fixed } => json_each(array, fixed),
        ElementForm::Any => {
            let elements = array_elements(array).unwrap_or_default();
            Ok(elements.iter().filter(|json| **json != Json::Null).map(|json| element(json.to_sql())).collect())
        }
        ElementForm::Scalars => {
            let SqlValue::Text(text) = array else { return Ok(Vec::new()) };
            let Json::Array(elements) = Json::parse(text)? else { return Ok(Vec::new()) };
            let is_scalar = |json: &Json| matches!(json, Json::Integer(_) | Json::Real(_) | Json::Text(_));
            let elements = elements.into_iter().filter(is_scalar);
            Ok(elements.map(|json| element(json.with_reals().to_sql())).collect())
        }
    }
}

/// A value as it is kept in the index: JSON that tells INTEGER from REAL.
pub(crate) fn stored_value(value: &SqlValue) -> String {
    let mut text = String::new();
    write_value(value, Form::Data, &mut text);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> SqlValue {
        SqlValue::Text(text.to_owned())
    }

    #[test]
    fn arrays_objects_and_scalars_have_rows() {
        let rows = |document: &str| {
            json_each(&text(document), true)
                .unwrap()
                .into_iter()
                .map(|element| (element.key, element.value))
                .collect::<Vec<_>>()
        };
        assert_eq!(
            rows(r#"["a",1,[1]]"#),
            [
                (SqlValue::Integer(0), text("a")),
                (SqlValue::Integer(1), SqlValue::Real(1.0)),
                (SqlValue::Integer(2), text("[1.0]"))
            ]
        );
        assert_eq!(rows(r#"{"k":true}"#), [(text("k"), SqlValue::Integer(1))]);
        assert_eq!(rows("\"x\""), [(SqlValue::Null, text("x"))]);
        assert!(json_each(&SqlValue::Integer(5), true).is_err());
        assert_eq!(json_each(&SqlValue::Null, true).unwrap(), []);
        assert_eq!(json_each(&text("[null]"), false).unwrap()[0].value, text("null"));
    }

    #[test]
    fn only_scalars_count_in_edition_2() {
        let values = |array: &str, form| {
            request_elements(&text(array), form)
                .map(|found| found.into_iter().map(|each| each.value).collect::<Vec<_>>())
        };
        assert_eq!(values(r#"["a",true,[1],null,5]"#, ElementForm::Scalars).unwrap(), [text("a"), SqlValue::Real(5.0)]);
        assert_eq!(values("5", ElementForm::Scalars).unwrap(), []);
        assert!(values("nonsense", ElementForm::Scalars).is_err());
        assert_eq!(values("nonsense", ElementForm::Any).unwrap(), []);
    }
}
