//! Taking settings out of a section, one by one.

use super::{
    Setting,
    error::{ConfigError, Place, Problem},
    yaml::{Node, Value},
};

/// A mapping whose settings are being taken. They are of the kind that the table of settings says ([`check`]).
///
/// [`check`]: super::check
pub(super) struct Section {
    entries: Vec<(String, Node)>,
}

impl Section {
    /// The setting, if it is there.
    pub(super) fn take(&mut self, key: &str) -> Option<Node> {
        let index = self.entries.iter().position(|(name, _)| name == key)?;
        Some(self.entries.remove(index).1)
    }

    /// Where a setting stands, if it is there.
    pub(super) fn place_of(&self, key: &str) -> Option<Place> {
        self.entries.iter().find(|(name, _)| name == key).map(|(_, node)| node.place.clone())
    }

    /// The section of this name; an empty one where it is not there.
    pub(super) fn section(&mut self, key: &str) -> Result<Self, ConfigError> {
        self.take(key).map_or_else(|| Ok(Self { entries: Vec::new() }), Node::into_section)
    }

    /// A text setting.
    pub(super) fn text(&mut self, key: &str) -> Result<Option<String>, ConfigError> {
        self.take(key).map(Node::into_text).transpose()
    }

    /// A setting that is true or false.
    pub(super) fn flag(&mut self, key: &str) -> Result<Option<bool>, ConfigError> {
        self.take(key).map(Node::into_flag).transpose()
    }

    /// A number.
    pub(super) fn number(&mut self, key: &str) -> Result<Option<u64>, ConfigError> {
        self.take(key).map(Node::into_number).transpose()
    }
}

impl Setting {
    /// An error about this setting.
    pub(super) fn invalid(&self, expected: impl Into<String>) -> ConfigError {
        let problem = Problem::InvalidValue { key: self.key.clone(), expected: expected.into() };
        ConfigError { place: self.place.clone(), problem }
    }
}

impl Node {
    /// An error about this value.
    pub(super) fn invalid(&self, expected: impl Into<String>) -> ConfigError {
        self.setting().invalid(expected)
    }

    pub(super) fn into_section(self) -> Result<Section, ConfigError> {
        match self.value {
            Value::Map(entries) => Ok(Section { entries }),
            _ => Err(self.invalid("must be a section with settings below it")),
        }
    }

    pub(super) fn into_list(self) -> Result<Vec<Self>, ConfigError> {
        match self.value {
            Value::List(items) => Ok(items),
            _ => Err(self.invalid("must be a list")),
        }
    }

    /// A number is read as its text: names and passwords may look like one.
    pub(super) fn into_text(self) -> Result<String, ConfigError> {
        match self.value {
            Value::Text(text) => Ok(text),
            Value::Number(number) => Ok(number.to_string()),
            _ => Err(self.invalid("must be text")),
        }
    }

    /// Which setting it is, and where it stands.
    pub(super) fn setting(&self) -> Setting {
        Setting { key: self.path.clone(), place: self.place.clone() }
    }

    /// True or false; as text too, as variables are text.
    pub(super) fn into_flag(self) -> Result<bool, ConfigError> {
        match &self.value {
            Value::Bool(flag) => Ok(*flag),
            Value::Text(text) if text == "true" => Ok(true),
            Value::Text(text) if text == "false" => Ok(false),
            _ => Err(self.invalid("must be true or false")),
        }
    }

    /// One text, or a list of them.
    pub(super) fn into_texts(self) -> Result<Vec<String>, ConfigError> {
        if matches!(self.value, Value::List(_)) {
            return self.into_list()?.into_iter().map(Self::into_text).collect();
        }
        Ok(vec![self.into_text()?])
    }

    /// A number; its text counts too, as variables are text.
    pub(super) fn into_number(self) -> Result<u64, ConfigError> {
        let number = match &self.value {
            Value::Number(number) => number.as_u64(),
            Value::Text(text) => text.trim().parse().ok(),
            _ => None,
        };
        number.ok_or_else(|| self.invalid("must be a whole number"))
    }

    /// The value as JSON, for what is read by other types.
    pub(super) fn to_json(&self) -> serde_json::Value {
        match &self.value {
            Value::Null => serde_json::Value::Null,
            Value::Bool(flag) => (*flag).into(),
            Value::Number(number) => number.clone().into(),
            Value::Text(text) => text.as_str().into(),
            Value::List(items) => items.iter().map(Self::to_json).collect(),
            Value::Map(entries) => entries.iter().map(|(key, node)| (key.clone(), node.to_json())).collect(),
        }
    }
}

/// An error about a setting that is not there.
pub(super) fn missing(place: Place, key: &'static str, remedy: &'static str) -> ConfigError {
    ConfigError { place, problem: Problem::Missing { key, remedy } }
}
