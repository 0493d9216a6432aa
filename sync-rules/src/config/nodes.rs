//! Nodes of the tree as the kinds of values that are expected.

use serde_json::Value;

use crate::{
    diagnostic::{Severity, Span},
    suggest::help_for,
    yaml::{Content, Node},
};

use super::Report;

/// The entries of a top-level map.
pub(super) fn section<'a, T>(
    file: &Map<'a>,
    key: &str,
    report: &mut Report<'_>,
    mut read: impl FnMut(&'a Node, &'a Node, &mut Report<'_>) -> Option<T>,
) -> Vec<T> {
    let Some(node) = file.get(key) else { return Vec::new() };
    let Content::Map(entries) = &node.content else {
        report.fatal("schema_violation", format!("`{key}` is a map, not {}", node.kind()), node.span);
        return Vec::new();
    };
    let mut found = Vec::new();
    for (name, node) in entries {
        if node.is_alias {
            let help = "write it out; queries may be aliases";
            report.fatal_with_help(
                "yaml_structure",
                format!("an alias cannot be an entry of `{key}`"),
                help,
                node.span,
            );
        } else {
            found.extend(read(name, node, report));
        }
    }
    found
}

/// A query: a text scalar.
pub(super) fn query_text<'a>(node: &'a Node, report: &mut Report<'_>) -> Option<&'a Node> {
    match &node.content {
        Content::Text(_) => return Some(node),
        Content::Sequence(_) | Content::Map(_) | Content::Null => {
            report.fatal("yaml_structure", format!("a query is text, not {}", node.kind()), node.span);
        }
        Content::Bool(_) | Content::Integer(_) | Content::Number(_) => {
            report.fatal("sql_syntax", format!("a query is SQL, not {}", node.kind()), node.span);
        }
    }
    None
}

pub(super) fn queries<'a>(node: &'a Node, what: &str, report: &mut Report<'_>) -> Option<Vec<&'a Node>> {
    let nodes = sequence(node, what, report)?;
    Some(nodes.into_iter().filter_map(|node| query_text(node, report)).collect())
}

pub(super) fn priority(map: &Map<'_>, report: &mut Report<'_>) -> Option<u8> {
    let node = map.get("priority")?;
    if let Some(priority @ 0..=3) = node.integer() {
        return u8::try_from(priority).ok();
    }
    report.fatal("priority_invalid", "`priority` is 0, 1, 2 or 3; 0 syncs first", node.span);
    None
}

pub(super) fn scalar_text<'a>(node: &'a Node, what: &str, report: &mut Report<'_>) -> Option<&'a str> {
    let text = node.text();
    if text.is_none() {
        report.fatal("yaml_structure", format!("{what} is text, not {}", node.kind()), node.span);
    }
    text
}

/// The text of a key. A whole number counts as its digits.
pub(super) fn key_text(node: &Node, report: &mut Report<'_>) -> Option<String> {
    match &node.content {
        Content::Text(text) => Some(text.clone()),
        Content::Integer(number) => Some(number.to_string()),
        _ => {
            report.fatal_with_help("yaml_structure", "a key must be text", "put it into quotes", node.span);
            None
        }
    }
}

pub(super) fn sequence<'a>(node: &'a Node, what: &str, report: &mut Report<'_>) -> Option<Vec<&'a Node>> {
    if let Content::Sequence(items) = &node.content {
        return Some(items.iter().collect());
    }
    report.fatal("yaml_structure", format!("{what} is a list, not {}", node.kind()), node.span);
    None
}

pub(super) fn entries<'a>(node: &'a Node, what: &str, report: &mut Report<'_>) -> Vec<(&'a Node, &'a Node)> {
    if let Content::Map(entries) = &node.content {
        return entries.iter().map(|(key, value)| (key, value)).collect();
    }
    report.fatal("yaml_structure", format!("{what} is a map, not {}", node.kind()), node.span);
    Vec::new()
}

/// Any node as JSON. A number of more digits than JSON's readers keep is one near it.
pub(super) fn json(node: &Node, report: &mut Report<'_>) -> Option<Value> {
    #[expect(clippy::cast_precision_loss, reason = "what is larger than 64 bits is near enough")]
    Some(match &node.content {
        Content::Null => Value::Null,
        Content::Bool(flag) => (*flag).into(),
        Content::Integer(number) => i64::try_from(*number).map_or_else(|_| (*number as f64).into(), Value::from),
        Content::Number(number) => (*number).into(),
        Content::Text(text) => text.clone().into(),
        Content::Sequence(items) => items.iter().map(|item| json(item, report)).collect::<Option<_>>()?,
        Content::Map(entries) => {
            let member = |(key, value): &(Node, Node)| Some((key_text(key, report)?, json(value, report)?));
            entries.iter().map(member).collect::<Option<serde_json::Map<_, _>>>()?.into()
        }
    })
}

/// A map whose keys are known.
#[derive(Debug, Default)]
pub(super) struct Map<'a> {
    entries: Vec<(String, &'a Node)>,
}

impl<'a> Map<'a> {
    pub(super) fn read(node: &'a Node, what: &str, keys: &[&str], report: &mut Report<'_>) -> Option<Self> {
        Self::read_as(node, what, keys, Severity::Fatal, report)
    }

    /// Unknown keys are warnings only, as PowerSync ignores them in this place.
    pub(super) fn read_leniently(node: &'a Node, what: &str, keys: &[&str], report: &mut Report<'_>) -> Option<Self> {
        Self::read_as(node, what, keys, Severity::Warning, report)
    }

    fn read_as(node: &'a Node, what: &str, keys: &[&str], unknown: Severity, report: &mut Report<'_>) -> Option<Self> {
        let Content::Map(entries) = &node.content else {
            report.fatal("yaml_structure", format!("{what} is a map, not {}", node.kind()), node.span);
            return None;
        };
        let mut map = Self::default();
        for (key, value) in entries {
            let Some(name) = key_text(key, report) else { continue };
            if keys.contains(&name.as_str()) {
                map.entries.push((name, value));
            } else {
                let help = Some(help_for(&name, "known keys", keys.iter().copied()));
                report.push("schema_violation", unknown, format!("{what} has no key `{name}`"), help, key.span);
            }
        }
        Some(map)
    }

    pub(super) fn get(&self, key: &str) -> Option<&'a Node> {
        self.entries.iter().find(|(name, _)| *name == key).map(|(_, node)| *node)
    }

    pub(super) fn span(&self, key: &str) -> Span {
        self.get(key).map_or(Span { line: 1, column: 1 }, |node| node.span)
    }

    pub(super) fn required(&self, key: &str, owner: &Node, report: &mut Report<'_>) -> Option<&'a Node> {
        let node = self.get(key);
        if node.is_none() {
            report.fatal("schema_violation", format!("`{key}` is missing"), owner.span);
        }
        node
    }

    pub(super) fn boolean(&self, key: &str, report: &mut Report<'_>) -> Option<bool> {
        let node = self.get(key)?;
        if let Content::Bool(value) = node.content {
            return Some(value);
        }
        report.fatal("schema_violation", format!("`{key}` is true or false"), node.span);
        None
    }
}
