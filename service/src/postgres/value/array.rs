//! Arrays: from `{1,NULL,"two words"}` to a JSON array.

use super::{ColumnType, Reading};

/// Postgres has at most six dimensions; more is not an array it printed.
const DIMENSIONS_MAX: usize = 6;

/// The array as JSON, or `None` when the text is not an array.
pub(super) fn to_json(text: &str, delimiter: char, element: &ColumnType, reading: &Reading) -> Option<String> {
    let json = String::with_capacity(text.len());
    let mut array = ArrayText { rest: skip_bounds(text)?, json, delimiter, element, reading };
    array.array(1)?;
    array.rest.is_empty().then_some(array.json)
}

/// Arrays that do not begin at 1 say so in front: `[0:1]={1,2}`.
fn skip_bounds(text: &str) -> Option<&str> {
    if text.starts_with('[') { text.split_once('=').map(|(_, array)| array) } else { Some(text) }
}

struct ArrayText<'a> {
    rest: &'a str,
    json: String,
    delimiter: char,
    element: &'a ColumnType,
    reading: &'a Reading,
}

impl ArrayText<'_> {
    fn array(&mut self, depth: usize) -> Option<()> {
        if depth > DIMENSIONS_MAX || !self.take('{') {
            return None;
        }
        self.json.push('[');
        if !self.take('}') {
            loop {
                if self.rest.starts_with('{') {
                    self.array(depth + 1)?;
                } else {
                    self.item()?;
                }
                if self.take('}') {
                    break;
                }
                if !self.take(self.delimiter) {
                    return None;
                }
                self.json.push(',');
            }
        }
        self.json.push(']');
        Some(())
    }

    fn take(&mut self, expected: char) -> bool {
        let rest = self.rest.strip_prefix(expected);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn item(&mut self) -> Option<()> {
        if self.take('"') {
            let text = self.quoted()?;
            self.push(&text);
            return Some(());
        }
        let end = self.rest.find([self.delimiter, '}'])?;
        let (text, rest) = self.rest.split_at(end);
        self.rest = rest;
        match text {
            "" => return None,
            "NULL" => self.json.push_str("null"),
            _ => self.push(text),
        }
        Some(())
    }

    /// A quoted item, after its opening quote.
    fn quoted(&mut self) -> Option<String> {
        let mut text = String::new();
        let mut characters = self.rest.chars();
        loop {
            match characters.next()? {
                '"' => break,
                '\\' => text.push(characters.next()?),
                character => text.push(character),
            }
        }
        self.rest = characters.as_str();
        Some(text)
    }

    fn push(&mut self, text: &str) {
        self.element.embed(text, self.reading, &mut self.json);
    }
}

#[cfg(test)]
mod tests {
    use kairos_sync_rules::SqlValue;
    use tokio_postgres::types::Type;

    use crate::postgres::value::tests::{CUSTOM, LEGACY, built_in};

    #[test]
    fn arrays_of_builtin_types_become_json() {
        for (ty, printed, expected) in [
            (Type::INT4_ARRAY, "{}", "[]"),
            (Type::INT4_ARRAY, "{1,NULL,-3}", "[1,null,-3]"),
            (Type::INT4_ARRAY, "[0:1]={1,2}", "[1,2]"),
            (Type::TEXT_ARRAY, r#"{a,"b c","NULL","q\"\\"}"#, r#"["a","b c","NULL","q\"\\"]"#),
            (Type::TEXT_ARRAY, "{{one,1},{three,NULL}}", r#"[["one","1"],["three",null]]"#),
            (Type::BOOL_ARRAY, "{t,f}", "[1,0]"),
            (Type::FLOAT8_ARRAY, "{1,2.5,NaN}", "[1.0,2.5,null]"),
            (Type::NUMERIC_ARRAY, "{1.50}", r#"["1.50"]"#),
            (Type::JSONB_ARRAY, r#"{"{\"a\": 1}",null}"#, r#"[{"a": 1},null]"#),
            (Type::BYTEA_ARRAY, r#"{"\\x00"}"#, "[null]"),
            (Type::TIMESTAMPTZ_ARRAY, r#"{"2023-03-06 15:47:00+02"}"#, r#"["2023-03-06 13:47:00Z"]"#),
            (Type::BOX_ARRAY, "{(1,1),(0,0)}", "{(1,1),(0,0)}"),
            (Type::INT2_VECTOR, "1 2", "1 2"),
            (Type::INT4_ARRAY, "{1", "{1"),
            (Type::INT4_ARRAY, "{1}x", "{1}x"),
        ] {
            let decoded = built_in(&ty).decode(printed, LEGACY);
            assert_eq!(decoded, SqlValue::Text(expected.to_owned()), "{ty}");
        }
    }

    #[test]
    fn boxes_are_separated_by_semicolons() {
        for (printed, expected) in
            [("{(1,1),(0,0);NULL}", r#"["(1,1),(0,0)",null]"#), ("{}", "[]"), ("{(1,1),(0,0);}", "{(1,1),(0,0);}")]
        {
            let decoded = built_in(&Type::BOX_ARRAY).decode(printed, CUSTOM);
            assert_eq!(decoded, SqlValue::Text(expected.to_owned()), "{printed}");
        }
    }
}
