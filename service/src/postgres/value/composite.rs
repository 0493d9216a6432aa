//! Composites: from `(1,"x y",)` to `{"a":1,"b":"x y","c":null}`.

use kairos_sync_rules::SqlValue;
use serde::{Deserialize, Serialize};

use super::{
    ColumnType, Reading,
    part::{self, Part},
};

/// One of the values a composite consists of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attribute {
    /// Its name.
    pub name: String,
    /// How its text is to be read.
    pub read_as: ColumnType,
}

/// The composite as a JSON object, or `None` when the text is none of this type.
///
/// Attributes are added at the end and are NULL in values made before, so missing ones are NULL. A value with more
/// than are known was made after the type was looked up: it is `outgrown`.
pub(super) fn to_json(text: &str, attributes: &[Attribute], reading: &Reading) -> Option<String> {
    let mut rest = text.strip_prefix('(')?;
    let mut json = String::with_capacity(text.len() + 16 * attributes.len());
    json.push('{');
    let mut unread = attributes.iter();
    if attributes.is_empty() && rest == ")" {
        return Some("{}".to_owned());
    }
    loop {
        let value = part::take(&mut rest, &[',', ')'])?;
        let Some(Attribute { name, read_as }) = unread.next() else {
            reading.outgrown.set(true);
            return None;
        };
        if json.len() > 1 {
            json.push(',');
        }
        push_name(name, &mut json);
        match value {
            Part::Absent => json.push_str("null"),
            Part::Text(value) => read_as.embed(&value, reading, &mut json),
        }
        match rest.strip_prefix(',') {
            Some(next) => rest = next,
            None if rest == ")" => break,
            None => return None,
        }
    }
    for Attribute { name, .. } in unread {
        json.push(',');
        push_name(name, &mut json);
        json.push_str("null");
    }
    json.push('}');
    Some(json)
}

fn push_name(name: &str, json: &mut String) {
    SqlValue::Text(name.to_owned()).write_json(json);
    json.push(':');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::value::tests::CUSTOM;

    fn attributes(types: &[(&str, ColumnType)]) -> Vec<Attribute> {
        types.iter().map(|(name, read_as)| Attribute { name: (*name).to_owned(), read_as: read_as.clone() }).collect()
    }

    fn pair() -> Vec<Attribute> {
        attributes(&[("a", ColumnType::Integer), ("b \"c\"", ColumnType::Text)])
    }

    #[test]
    fn composites_become_objects() {
        let json = |printed: &str| to_json(printed, &pair(), &Reading::new(CUSTOM));
        for (printed, expected) in [
            ("(1,x)", r#"{"a":1,"b \"c\"":"x"}"#),
            ("(,\"\")", r#"{"a":null,"b \"c\"":""}"#),
            (r#"(-3,"q""\\,()")"#, r#"{"a":-3,"b \"c\"":"q\"\\,()"}"#),
            ("(1)", r#"{"a":1,"b \"c\"":null}"#),
            ("()", r#"{"a":null,"b \"c\"":null}"#),
        ] {
            assert_eq!(json(printed).as_deref(), Some(expected), "{printed}");
        }
        assert_eq!(to_json("()", &[], &Reading::new(CUSTOM)).as_deref(), Some("{}"));
    }

    #[test]
    fn what_is_no_composite_stays_text() {
        for printed in ["", "(", "(1", "(1,x", "1,x", "(1,\"x)", "(1,x)y", "(1,x\\"] {
            let reading = Reading::new(CUSTOM);
            assert_eq!((to_json(printed, &pair(), &reading), reading.outgrown.get()), (None, false), "{printed}");
        }
    }

    #[test]
    fn a_value_with_more_attributes_tells_that_its_type_has_grown() {
        let inner = ColumnType::Own(Box::new(ColumnType::Composite(pair())));
        let outer = ColumnType::Own(Box::new(ColumnType::Composite(attributes(&[("one", inner)]))));
        assert!(!outer.is_outgrown_by(r#"("(1,x)")"#));
        assert!(!outer.is_outgrown_by("(1,x"));
        assert!(outer.is_outgrown_by(r#"("(1,x,2)")"#));
        assert!(outer.is_outgrown_by(r#"("(1,x)",7)"#));
        assert!(!ColumnType::Text.is_outgrown_by("(1,2,3)"));
    }
}
