//! Ranges: from `[1,5)` to `{"lower":1,"upper":5,"lower_exclusive":0,"upper_exclusive":1}`; and multiranges, which are
//! arrays of these.

use super::{
    ColumnType, Reading,
    part::{self, Part},
};

/// The range as a JSON object, or `None` when the text is none. `empty` is none: it stays a word.
pub(super) fn to_json(text: &str, bound: &ColumnType, reading: &Reading) -> Option<String> {
    let mut range = RangeText::new(text, bound, reading);
    range.range()?;
    range.rest.is_empty().then_some(range.json)
}

/// The ranges of a multirange as a JSON array, or `None` when the text is none.
pub(super) fn many_to_json(text: &str, bound: &ColumnType, reading: &Reading) -> Option<String> {
    let inner = text.strip_prefix('{')?.strip_suffix('}')?;
    let mut ranges = RangeText::new(inner, bound, reading);
    ranges.json.push('[');
    while !ranges.rest.is_empty() {
        ranges.range()?;
        if let Some(rest) = ranges.rest.strip_prefix(',').filter(|rest| !rest.is_empty()) {
            ranges.rest = rest;
            ranges.json.push(',');
        } else if !ranges.rest.is_empty() {
            return None;
        }
    }
    ranges.json.push(']');
    Some(ranges.json)
}

struct RangeText<'a> {
    rest: &'a str,
    json: String,
    bound: &'a ColumnType,
    reading: &'a Reading,
}

impl<'a> RangeText<'a> {
    fn new(rest: &'a str, bound: &'a ColumnType, reading: &'a Reading) -> Self {
        Self { rest, json: String::with_capacity(rest.len() + 64), bound, reading }
    }

    fn range(&mut self) -> Option<()> {
        let lower_exclusive = self.one_of('[', '(')?;
        self.json.push_str("{\"lower\":");
        self.bound()?;
        self.rest = self.rest.strip_prefix(',')?;
        self.json.push_str(",\"upper\":");
        self.bound()?;
        let upper_exclusive = self.one_of(']', ')')?;
        let digit = |exclusive: bool| if exclusive { '1' } else { '0' };
        self.json.push_str(",\"lower_exclusive\":");
        self.json.push(digit(lower_exclusive));
        self.json.push_str(",\"upper_exclusive\":");
        self.json.push(digit(upper_exclusive));
        self.json.push('}');
        Some(())
    }

    /// Takes a bracket; true when it is the one that excludes its bound.
    fn one_of(&mut self, inclusive: char, exclusive: char) -> Option<bool> {
        let bracket = self.rest.chars().next().filter(|next| [inclusive, exclusive].contains(next))?;
        self.rest = &self.rest[bracket.len_utf8()..];
        Some(bracket == exclusive)
    }

    /// A bound; infinity is none.
    fn bound(&mut self) -> Option<()> {
        match part::take(&mut self.rest, &[',', ']', ')'])? {
            Part::Absent => self.json.push_str("null"),
            Part::Text(text) => self.bound.embed(&text, self.reading, &mut self.json),
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use kairos_sync_rules::SqlValue;
    use tokio_postgres::types::Type;

    use super::*;
    use crate::postgres::value::tests::{CUSTOM, LEGACY, built_in};

    fn object(lower: &str, upper: &str, flags: [u8; 2]) -> String {
        let [lower_exclusive, upper_exclusive] = flags;
        format!(
            "{{\"lower\":{lower},\"upper\":{upper},\"lower_exclusive\":{lower_exclusive},\"upper_exclusive\":{upper_exclusive}}}"
        )
    }

    #[test]
    fn ranges_become_objects_where_the_rules_ask_for_it() {
        for (ty, printed, expected) in [
            (Type::INT4_RANGE, "[1,5)", object("1", "5", [0, 1])),
            (Type::INT4_RANGE, "(,)", object("null", "null", [1, 1])),
            (Type::INT4_RANGE, "empty", "empty".to_owned()),
            (Type::NUM_RANGE, "(1.50,2.5]", object("\"1.50\"", "\"2.5\"", [1, 0])),
            (
                Type::TSTZ_RANGE,
                r#"["2023-03-06 13:47:00+02",infinity)"#,
                object("\"2023-03-06 11:47:00Z\"", "\"9999-12-31 23:59:59Z\"", [0, 1]),
            ),
            (Type::INT4MULTI_RANGE, "{}", "[]".to_owned()),
            (
                Type::INT4MULTI_RANGE,
                "{[1,3),[5,)}",
                format!("[{},{}]", object("1", "3", [0, 1]), object("5", "null", [0, 1])),
            ),
            (
                Type::INT4_RANGE_ARRAY,
                r#"{"[1,5)",NULL,empty}"#,
                format!("[{},null,\"empty\"]", object("1", "5", [0, 1])),
            ),
            (Type::INT4MULTI_RANGE_ARRAY, r#"{"{[1,3)}","{}"}"#, format!("[[{}],[]]", object("1", "3", [0, 1]))),
        ] {
            let column = built_in(&ty);
            assert_eq!(column.decode(printed, CUSTOM), SqlValue::Text(expected), "{ty}");
        }
        let legacy = built_in(&Type::INT4_RANGE_ARRAY).decode("{\"[1,5)\"}", LEGACY);
        assert_eq!(legacy, SqlValue::Text("[\"[1,5)\"]".to_owned()));
    }

    #[test]
    fn bounds_are_unquoted() {
        let json = to_json(r#"["a""\\b,",""]"#, &ColumnType::Text, &Reading::new(CUSTOM));
        assert_eq!(json, Some(object(r#""a\"\\b,""#, "\"\"", [0, 0])));
    }

    #[test]
    fn what_is_no_range_stays_text() {
        for printed in ["", "[", "[1", "[1,", "[1,2", "[1,2)x", "1,2", "[1,2,3)", "[\"1,2)", "[1\\"] {
            assert_eq!(to_json(printed, &ColumnType::Integer, &Reading::new(CUSTOM)), None, "{printed}");
        }
        for printed in ["", "{", "{[1,2)", "{[1,2),}", "{[1,2)[3,4)}", "{,}", "{empty}"] {
            assert_eq!(many_to_json(printed, &ColumnType::Integer, &Reading::new(CUSTOM)), None, "{printed}");
        }
    }
}
