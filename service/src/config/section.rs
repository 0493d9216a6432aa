//! Taking settings out of a section, one by one; what is left in the end is unknown.

use super::{
    Setting,
    error::{ConfigError, Place, Problem},
    yaml::{Node, Value},
};

/// A mapping whose settings are being taken.
pub(super) struct Section {
    path: String,
    entries: Vec<(String, Node)>,
    /// Keys that were asked for, to suggest one for an unknown key.
    known: Vec<&'static str>,
}

impl Section {
    /// A section without settings.
    pub(super) fn empty() -> Self {
        Self { path: String::new(), entries: Vec::new(), known: Vec::new() }
    }

    /// The setting, if it is there and not null.
    pub(super) fn take(&mut self, key: &'static str) -> Option<Node> {
        self.known.push(key);
        let index = self.entries.iter().position(|(name, _)| name == key)?;
        Some(self.entries.remove(index).1).filter(|node| !matches!(node.value, Value::Null))
    }

    /// Where a setting stands, if it is there.
    pub(super) fn place_of(&self, key: &str) -> Option<Place> {
        self.entries.iter().find(|(name, _)| name == key).map(|(_, node)| node.place.clone())
    }

    /// The section of this name; an empty one where it is not there.
    pub(super) fn section(&mut self, key: &'static str) -> Result<Self, ConfigError> {
        self.take(key).map_or_else(|| Ok(Self::empty()), Node::into_section)
    }

    /// A text setting.
    pub(super) fn text(&mut self, key: &'static str) -> Result<Option<String>, ConfigError> {
        self.take(key).map(Node::into_text).transpose()
    }

    /// A number between bounds.
    pub(super) fn number(&mut self, key: &'static str, min: u64, max: u64) -> Result<Option<u64>, ConfigError> {
        self.take(key).map(|node| node.into_number(min, max)).transpose()
    }

    /// A setting that is known but changes nothing here.
    pub(super) fn unneeded(&mut self, key: &'static str, why: &str, warnings: &mut Vec<String>) {
        if let Some(node) = self.take(key) {
            warnings.push(format!("{}: `{}` is ignored: {why}", node.place, node.path));
        }
    }

    /// All settings were taken.
    pub(super) fn finish(self) -> Result<(), ConfigError> {
        let Some((key, node)) = self.entries.into_iter().next() else { return Ok(()) };
        let nearest = self.known.into_iter().map(|known| (distance(&key, known), known)).min();
        let nearest = nearest.filter(|(distance, _)| *distance <= key.len().div_ceil(3)).map(|(_, known)| known);
        let key = if self.path.is_empty() { key } else { format!("{}.{key}", self.path) };
        Err(ConfigError { place: node.place, problem: Problem::UnknownKey { key, nearest } })
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
            Value::Map(entries) => Ok(Section { path: self.path, entries, known: Vec::new() }),
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
    pub(super) fn into_number(self, min: u64, max: u64) -> Result<u64, ConfigError> {
        let number = match &self.value {
            Value::Number(number) => number.as_u64(),
            Value::Text(text) => text.trim().parse().ok(),
            _ => None,
        };
        let number = number.filter(|number| (min..=max).contains(number));
        number.ok_or_else(|| self.invalid(format!("must be a whole number from {min} to {max}")))
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

/// How many letters must be inserted, removed or replaced to make one word the other.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (index, letter) in left.chars().enumerate() {
        let mut diagonal = index;
        row[0] = index + 1;
        for (column, other) in right.iter().enumerate() {
            let replaced = diagonal + usize::from(letter != *other);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[right.len()]
}
