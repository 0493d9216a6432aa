//! YAML as a tree that remembers where everything stands. Nothing of the parser leaks past this file.

use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, SeqAccess, Visitor},
};
use serde_saphyr::{Budget, DuplicateKeyPolicy, Spanned};

use crate::diagnostic::{Diagnostic, Severity, Span};

/// Longest rules file.
const TEXT_BYTES_MAX: usize = 4 << 20;
/// Deepest nesting.
const DEPTH_MAX: usize = 32;

/// A node and where it begins.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) kind: NodeKind,
    pub(crate) span: Span,
}

/// What a node is.
#[derive(Debug, Clone)]
pub(crate) enum NodeKind {
    Null,
    Bool(bool),
    Integer(i64),
    Real,
    Text(String),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

/// A key and where it stands.
#[derive(Debug, Clone)]
pub(crate) struct Key {
    pub(crate) name: String,
    pub(crate) span: Span,
}

impl Node {
    /// For messages.
    pub(crate) fn kind_name(&self) -> &'static str {
        match self.kind {
            NodeKind::Null => "nothing",
            NodeKind::Bool(_) => "true or false",
            NodeKind::Integer(_) | NodeKind::Real => "a number",
            NodeKind::Text(_) => "text",
            NodeKind::List(_) => "a list",
            NodeKind::Map(_) => "a map",
        }
    }
}

/// Parses a document.
pub(crate) fn parse(text: &str) -> Result<Node, Diagnostic> {
    let fault = |code, message, span| Diagnostic { code, severity: Severity::Fatal, message, help: None, span };
    if text.len() > TEXT_BYTES_MAX {
        let message = format!("the file has more than {TEXT_BYTES_MAX} bytes");
        return Err(fault("yaml_syntax", message, None));
    }
    let mut budget = Budget::default();
    budget.max_depth = DEPTH_MAX;
    budget.max_aliases = 0;
    let mut options = serde_saphyr::Options::default();
    options.budget = Some(budget);
    options.duplicate_keys = DuplicateKeyPolicy::Error;
    options.with_snippet = false;
    match serde_saphyr::from_str_with_options::<Spanned<Tree>>(text, options) {
        Ok(tree) => Ok(node(tree)),
        Err(error) => {
            let span = error.location().map(span);
            let message = error.to_string();
            let code = if message.contains("duplicate") { "yaml_duplicate_key" } else { "yaml_syntax" };
            Err(fault(code, message, span))
        }
    }
}

fn span(location: serde_saphyr::Location) -> Span {
    let number = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
    Span { line: number(location.line()), column: number(location.column()) }
}

fn node(spanned: Spanned<Tree>) -> Node {
    let kind = match spanned.value {
        Tree::Leaf(kind) => kind,
        Tree::List(items) => NodeKind::List(items.into_iter().map(node).collect()),
        Tree::Map(entries) => NodeKind::Map(
            entries
                .into_iter()
                .map(|(key, value)| (Key { span: span(key.referenced), name: key.value }, node(value)))
                .collect(),
        ),
    };
    Node { kind, span: span(spanned.referenced) }
}

enum Tree {
    Leaf(NodeKind),
    List(Vec<Spanned<Tree>>),
    Map(Vec<(Spanned<String>, Spanned<Tree>)>),
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Tree;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a value")
            }

            fn visit_unit<E: de::Error>(self) -> Result<Tree, E> {
                Ok(Tree::Leaf(NodeKind::Null))
            }

            fn visit_none<E: de::Error>(self) -> Result<Tree, E> {
                Ok(Tree::Leaf(NodeKind::Null))
            }

            fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Tree, D::Error> {
                Tree::deserialize(deserializer)
            }

            fn visit_bool<E: de::Error>(self, truth: bool) -> Result<Tree, E> {
                Ok(Tree::Leaf(NodeKind::Bool(truth)))
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Tree, E> {
                Ok(Tree::Leaf(NodeKind::Integer(number)))
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Tree, E> {
                Ok(Tree::Leaf(i64::try_from(number).map_or(NodeKind::Real, NodeKind::Integer)))
            }

            fn visit_f64<E: de::Error>(self, _: f64) -> Result<Tree, E> {
                Ok(Tree::Leaf(NodeKind::Real))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Tree, E> {
                Ok(Tree::Leaf(NodeKind::Text(text.to_owned())))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Tree, A::Error> {
                let mut list = Vec::new();
                while let Some(item) = items.next_element()? {
                    list.push(item);
                }
                Ok(Tree::List(list))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Tree, A::Error> {
                let mut map = Vec::new();
                while let Some(entry) = entries.next_entry()? {
                    map.push(entry);
                }
                Ok(Tree::Map(map))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_know_where_they_stand() {
        let node = parse("a: 1\nb:\n  - x\n  - {c: true}\n").expect("valid");
        let NodeKind::Map(entries) = node.kind else { panic!("a map") };
        assert_eq!(entries[1].0.span, Span { line: 2, column: 1 });
        let NodeKind::List(items) = &entries[1].1.kind else { panic!("a list") };
        assert_eq!(items[0].span, Span { line: 3, column: 5 });
        assert!(matches!(&items[0].kind, NodeKind::Text(text) if text == "x"));
    }

    #[test]
    fn broken_yaml_is_one_diagnostic_with_a_place() {
        assert_eq!(parse("a: [1").expect_err("unclosed").code, "yaml_syntax");
        let twice = parse("a: 1\na: 2\n").expect_err("duplicate");
        assert_eq!((twice.code, twice.span.map(|span| span.line)), ("yaml_duplicate_key", Some(2)));
    }
}
