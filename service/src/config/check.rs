//! What a file says, compared with the table of settings: each value is of the kind that its setting takes, and nothing
//! else is there. What the file does not say, the environment may.

use base64::{Engine, engine::general_purpose::STANDARD};

use super::{
    environment::Environment,
    error::{ConfigError, Place, Problem},
    settings::{Key, ROOT, Shape, Takes},
    yaml::{self, Node, Value},
};

/// Stands in messages where a file would.
pub(super) const ENVIRONMENT: &str = "environment";

/// Settings that somebody wrote in a file or in the environment, all of them good. Adds a warning for each that changes
/// nothing.
pub(super) fn settings(
    mut root: Node,
    environment: &dyn Environment,
    warnings: &mut Vec<String>,
) -> Result<Node, ConfigError> {
    section(ROOT, &mut root, warnings)?;
    fill(ROOT, &mut root, "KAIROS", environment, warnings)?;
    Ok(root)
}

fn section(keys: &'static [Key], node: &mut Node, warnings: &mut Vec<String>) -> Result<(), ConfigError> {
    let invalid = node.invalid("must be a section with settings below it");
    let path = node.path.clone();
    let Value::Map(entries) = &mut node.value else { return Err(invalid) };
    for (name, value) in std::mem::take(entries) {
        let Some(key) = keys.iter().find(|key| key.name == name) else {
            let key = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            return Err(ConfigError {
                place: value.place,
                problem: Problem::UnknownKey { key, nearest: nearest(keys, &name) },
            });
        };
        let (key, name) = match key.takes {
            Takes::Renamed(newer) => (keys.iter().find(|key| key.name == newer).unwrap_or(key), newer.to_owned()),
            _ => (key, name),
        };
        if entries.iter().any(|(taken, _)| *taken == name) {
            return Err(value.invalid(format!("stands beside {name}: keep one of them")));
        }
        match (&key.takes, &value.value) {
            (Takes::Nothing(why), _) => {
                warnings.push(format!("{}: `{}` is ignored: {why}", value.place, value.path));
            }
            (Takes::Anything, _) | (_, Value::Null) => {}
            (takes, _) => entries.push((name, checked(takes, value, warnings)?)),
        }
    }
    Ok(())
}

fn checked(takes: &Takes, mut node: Node, warnings: &mut Vec<String>) -> Result<Node, ConfigError> {
    let text = |node: &Node| node.clone().into_text().map(Value::Text);
    node.value = match takes {
        Takes::Section(keys) | Takes::Whole(keys) => {
            section(keys, &mut node, warnings)?;
            return Ok(node);
        }
        Takes::One(keys) => {
            let invalid = node.invalid("must hold exactly one connection");
            let Value::List(items) = &mut node.value else { return Err(node.invalid("must be a list")) };
            let [one] = &mut items[..] else { return Err(invalid) };
            section(keys, one, warnings)?;
            return Ok(node);
        }
        Takes::Flag => Value::Bool(node.clone().into_flag()?),
        Takes::Number(min, max) => {
            let number = node.clone().into_number().ok().filter(|number| (*min..=*max).contains(number));
            let number = number.ok_or_else(|| node.invalid(format!("must be a whole number from {min} to {max}")))?;
            Value::Number(number.into())
        }
        Takes::Text | Takes::Secret => text(&node)?,
        Takes::Word(words) => {
            let word = match &node.value {
                Value::Bool(flag) => flag.to_string(),
                Value::Text(text) => text.clone(),
                _ => String::new(),
            };
            if !words.contains(&&*word) {
                return Err(node.invalid(format!("must be {}", one_of(words))));
            }
            Value::Text(word)
        }
        Takes::Texts | Takes::Secrets => {
            if let Value::List(items) = &mut node.value {
                for item in items {
                    item.value = text(item)?;
                }
                return Ok(node);
            }
            text(&node)?
        }
        Takes::Document(shape, expected) => match (shape, &node.value) {
            (Shape::List, Value::List(_)) | (Shape::Map, Value::Map(_)) => return Ok(node),
            _ => return Err(node.invalid(*expected)),
        },
        Takes::Renamed(_) | Takes::Nothing(_) | Takes::Anything => return Ok(node),
    };
    Ok(node)
}

/// Takes what is missing from variables. One of a setting is `KAIROS_` and its path in capitals.
fn fill(
    keys: &'static [Key],
    node: &mut Node,
    prefix: &str,
    environment: &dyn Environment,
    warnings: &mut Vec<String>,
) -> Result<(), ConfigError> {
    let Value::Map(entries) = &mut node.value else { return Ok(()) };
    for key in keys {
        let variable = variable(prefix, key);
        let found = entries.iter().position(|(name, _)| name == key.name);
        let below = match key.takes {
            Takes::Renamed(_) | Takes::Nothing(_) | Takes::Anything => continue,
            Takes::Section(keys) => Some(keys),
            Takes::Whole(keys) | Takes::One(keys) if found.is_none() => Some(keys),
            _ => None,
        };
        match (below, found) {
            (Some(keys), Some(index)) => fill(keys, &mut entries[index].1, &variable, environment, warnings)?,
            (Some(keys), None) => {
                let mut below = of_environment(&variable, Value::Map(Vec::new()));
                fill(keys, &mut below, &variable, environment, warnings)?;
                if !matches!(&below.value, Value::Map(entries) if entries.is_empty()) {
                    let is_list = matches!(key.takes, Takes::One(_));
                    let value = if is_list { of_environment(&variable, Value::List(vec![below])) } else { below };
                    entries.push((key.name.to_owned(), value));
                }
            }
            (None, Some(_)) => {}
            (None, None) => {
                if let Some(value) = said(key, &variable, environment, warnings)? {
                    entries.push((key.name.to_owned(), value));
                }
            }
        }
    }
    Ok(())
}

/// The variable of a setting below that of `prefix`. A list of one section has none of its own: its settings follow.
pub(super) fn variable(prefix: &str, key: &Key) -> String {
    match key.takes {
        Takes::One(_) => prefix.to_owned(),
        _ => format!("{prefix}_{}", key.name.to_ascii_uppercase()),
    }
}

/// What the first of a setting's variables that is set has to say.
fn said(
    key: &Key,
    variable: &str,
    environment: &dyn Environment,
    warnings: &mut Vec<String>,
) -> Result<Option<Node>, ConfigError> {
    let names = std::iter::once(variable).chain(key.aliases.iter().copied());
    let mut set = names.filter_map(|name| Some((name, environment.variable(name)?))).filter(|(name, text)| {
        let is_link = is_service_link(name, text);
        if is_link {
            warnings.push(format!(
                "{ENVIRONMENT}: `{name}` is ignored: Kubernetes sets it for a Service of that name; \
                 `enableServiceLinks: false` in the Pod's spec ends that"
            ));
        }
        !is_link
    });
    let Some((name, text)) = set.next() else { return Ok(None) };
    let node = of_environment(name, Value::Text(text.clone()));
    let text = if name.ends_with("_B64") { decoded(name, &text)? } else { text };
    let is_document = match key.takes {
        Takes::Document(..) => true,
        Takes::Texts | Takes::Secrets => text.trim_start().starts_with('['),
        _ => false,
    };
    let value = if is_document { yaml::parse(&text, &name.into(), environment)?.value } else { Value::Text(text) };
    checked(&key.takes, Node { value, ..node }, &mut Vec::new()).map(Some)
}

/// Kubernetes tells Pods where Services are: of one called `kairos`, `KAIROS_PORT=tcp://10.0.0.1:8080`, which is not for us.
fn is_service_link(name: &str, text: &str) -> bool {
    let addresses = ["tcp://", "udp://", "sctp://"];
    name.ends_with("_PORT") && addresses.iter().any(|scheme| text.starts_with(scheme))
}

/// What a variable says in base64.
pub(super) fn decoded(variable: &str, text: &str) -> Result<String, ConfigError> {
    let decoded = STANDARD.decode(text.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    decoded.ok_or_else(|| of_environment(variable, Value::Null).invalid("must be text encoded as base64"))
}

fn of_environment(variable: &str, value: Value) -> Node {
    let place = Place { file: ENVIRONMENT.into(), line: 0, column: 0 };
    Node { path: variable.to_owned(), place, value }
}

fn one_of(words: &[&str]) -> String {
    match words {
        [rest @ .., last] if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => words.concat(),
    }
}

/// A setting that looks like the name.
fn nearest(keys: &[Key], name: &str) -> Option<&'static str> {
    let nearest = keys.iter().map(|key| (distance(name, key.name), key.name)).min();
    nearest.filter(|(distance, _)| *distance <= name.len().div_ceil(3)).map(|(_, known)| known)
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
