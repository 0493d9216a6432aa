//! YAML as a tree in which every value knows its place and its path, with `!env` tags replaced by their values.

use std::{fmt, sync::Arc};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, SeqAccess, Visitor},
};
use serde_saphyr::{Location, Spanned, Tagged};

use super::{
    environment::Environment,
    error::{ConfigError, Place, Problem},
};

/// A value with its place and its path, such as `replication.connections[0].uri`.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) path: String,
    pub(super) place: Place,
    pub(super) value: Value,
}

/// A value.
#[derive(Debug, Clone)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Number(serde_json::Number),
    Text(String),
    List(Vec<Node>),
    Map(Vec<(String, Node)>),
}

/// A value as the parser gives it.
type Parsed = Spanned<Tagged<ParsedValue>>;

enum ParsedValue {
    Scalar(Value),
    List(Vec<Parsed>),
    Map(Vec<(Spanned<String>, Parsed)>),
}

/// Reads YAML text. `file` names it in messages.
pub(super) fn parse(text: &str, file: &Arc<str>, environment: &dyn Environment) -> Result<Node, ConfigError> {
    let parsed: Parsed = serde_saphyr::from_str(text).map_err(|error| {
        let place = place(file, error.location().as_ref());
        // Without its snippet: the lines around the fault may hold a password.
        let message = error.without_snippet().to_string();
        ConfigError { place, problem: Problem::Yaml(message.lines().next().unwrap_or_default().to_owned()) }
    })?;
    Builder { file, environment }.build(String::new(), parsed)
}

fn place(file: &Arc<str>, location: Option<&Location>) -> Place {
    let (line, column) = location.map_or((0, 0), |location| (location.line(), location.column()));
    Place { file: Arc::clone(file), line, column }
}

struct Builder<'a> {
    file: &'a Arc<str>,
    environment: &'a dyn Environment,
}

impl Builder<'_> {
    fn build(&self, path: String, parsed: Parsed) -> Result<Node, ConfigError> {
        let place = place(self.file, Some(&parsed.referenced));
        let Tagged(value, tag) = parsed.value;
        let value = match value {
            ParsedValue::Scalar(scalar) if tag.as_deref() == Some("!env") => self.variable(&path, &place, &scalar)?,
            ParsedValue::Scalar(scalar) => scalar,
            ParsedValue::List(items) => {
                let items = items.into_iter().enumerate();
                Value::List(
                    items
                        .map(|(index, item)| self.build(format!("{path}[{index}]"), item))
                        .collect::<Result<_, _>>()?,
                )
            }
            ParsedValue::Map(entries) => {
                let entry = |(key, value): (Spanned<String>, Parsed)| {
                    let path = if path.is_empty() { key.value.clone() } else { format!("{path}.{}", key.value) };
                    let mut node = self.build(path, value)?;
                    // A setting is found by its key, also where the value stands on a later line.
                    node.place = self::place(self.file, Some(&key.referenced));
                    Ok((key.value, node))
                };
                Value::Map(entries.into_iter().map(entry).collect::<Result<_, ConfigError>>()?)
            }
        };
        Ok(Node { path, place, value })
    }

    /// `NAME`, `NAME::number`, `NAME::boolean` or `NAME::string`.
    fn variable(&self, path: &str, place: &Place, scalar: &Value) -> Result<Value, ConfigError> {
        let fail = |problem| Err(ConfigError { place: place.clone(), problem });
        let invalid = |expected: String| fail(Problem::InvalidValue { key: path.to_owned(), expected });
        let Value::Text(text) = scalar else { return invalid("needs a variable's name after !env".to_owned()) };
        let (name, kind) = text.split_once("::").unwrap_or((text, "string"));
        let Some(value) = self.environment.variable(name) else {
            return fail(Problem::MissingVariable(name.to_owned()));
        };
        match kind {
            "string" => Ok(Value::Text(value)),
            "number" => match value.trim().parse() {
                Ok(number) => Ok(Value::Number(number)),
                Err(_) => invalid(format!("needs a number in `{name}`")),
            },
            "boolean" => match value.trim().to_ascii_lowercase().parse() {
                Ok(flag) => Ok(Value::Bool(flag)),
                Err(_) => invalid(format!("needs true or false in `{name}`")),
            },
            _ => invalid("needs ::number, ::boolean or ::string after the variable".to_owned()),
        }
    }
}

impl<'de> Deserialize<'de> for ParsedValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyValue)
    }
}

struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = ParsedValue;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<ParsedValue, E> {
        Ok(ParsedValue::Scalar(Value::Null))
    }

    fn visit_none<E>(self) -> Result<ParsedValue, E> {
        Ok(ParsedValue::Scalar(Value::Null))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<ParsedValue, D::Error> {
        deserializer.deserialize_any(Self)
    }

    fn visit_bool<E>(self, value: bool) -> Result<ParsedValue, E> {
        Ok(ParsedValue::Scalar(Value::Bool(value)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<ParsedValue, E> {
        Ok(ParsedValue::Scalar(Value::Number(value.into())))
    }

    fn visit_u64<E>(self, value: u64) -> Result<ParsedValue, E> {
        Ok(ParsedValue::Scalar(Value::Number(value.into())))
    }

    fn visit_f64<E>(self, value: f64) -> Result<ParsedValue, E> {
        let number = serde_json::Number::from_f64(value).map_or(Value::Null, Value::Number);
        Ok(ParsedValue::Scalar(number))
    }

    fn visit_str<E>(self, value: &str) -> Result<ParsedValue, E> {
        Ok(ParsedValue::Scalar(Value::Text(value.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<ParsedValue, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(ParsedValue::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<ParsedValue, A::Error> {
        let mut map = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            map.push(entry);
        }
        Ok(ParsedValue::Map(map))
    }
}
