//! As much of JSON Schema as the schema of the rules file uses. A keyword it does not know is an error, so that nothing
//! is taken for checked that is not.

use serde_json::{Map, Value};

/// Keywords that do not decide whether a value is valid.
const ANNOTATIONS: [&str; 6] = ["$schema", "$defs", "title", "description", "default", "examples"];

/// Whether a value is valid against a whole schema.
pub(crate) fn is_valid(schema: &Value, value: &Value) -> bool {
    Checker { root: schema }.holds(schema, value)
}

struct Checker<'a> {
    root: &'a Value,
}

impl Checker<'_> {
    fn holds(&self, schema: &Value, value: &Value) -> bool {
        let keywords = match schema {
            Value::Bool(verdict) => return *verdict,
            Value::Object(keywords) => keywords,
            _ => panic!("no schema: {schema}"),
        };
        keywords.iter().all(|(keyword, argument)| self.keyword(keyword, argument, keywords, value))
    }

    fn keyword(&self, keyword: &str, argument: &Value, schema: &Map<String, Value>, value: &Value) -> bool {
        let count = || list(argument).iter().filter(|schema| self.holds(schema, value)).count();
        match keyword {
            _ if ANNOTATIONS.contains(&keyword) => true,
            "$ref" => {
                let pointer = argument.as_str().and_then(|name| name.strip_prefix('#')).expect("a local reference");
                self.holds(self.root.pointer(pointer).unwrap_or_else(|| panic!("no {pointer}")), value)
            }
            "type" => match argument {
                Value::Array(names) => names.iter().any(|name| is_a(name, value)),
                name => is_a(name, value),
            },
            "minimum" => value.as_f64().is_none_or(|value| value >= argument.as_f64().expect("a number")),
            "const" => value == argument,
            "enum" => list(argument).contains(value),
            "anyOf" => count() > 0,
            "oneOf" => count() == 1,
            "not" => !self.holds(argument, value),
            "if" => {
                let branch = if self.holds(argument, value) { "then" } else { "else" };
                self.holds(&schema[branch], value)
            }
            "then" | "else" => true,
            "required" => list(argument)
                .iter()
                .all(|name| !value.is_object() || value.get(name.as_str().expect("a name")).is_some()),
            "properties" => {
                members(argument).all(|(key, schema)| value.get(key).is_none_or(|it| self.holds(schema, it)))
            }
            "additionalProperties" => {
                let known = schema.get("properties");
                let is_known = |key: &str| known.is_some_and(|known| known.get(key).is_some());
                members(value).all(|(key, it)| is_known(key) || self.holds(argument, it))
            }
            "items" => value.as_array().is_none_or(|items| items.iter().all(|item| self.holds(argument, item))),
            "contains" => value.as_array().is_none_or(|items| items.iter().any(|item| self.holds(argument, item))),
            _ => panic!("unknown keyword {keyword}"),
        }
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().expect("a list")
}

fn members(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

fn is_a(name: &Value, value: &Value) -> bool {
    match name.as_str() {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("number") => value.is_number(),
        Some("integer") => value.is_i64() || value.is_u64(),
        Some("boolean") => value.is_boolean(),
        Some("null") => value.is_null(),
        _ => panic!("unknown type {name}"),
    }
}
