//! Reading sections of the file, and collecting what is wrong with them.

use crate::{
    diagnostic::{Diagnostic, Severity, Span},
    syntax::SqlFault,
    yaml::{Key, Node, NodeKind},
};

/// Everything found so far.
#[derive(Debug, Default)]
pub(super) struct Findings(Vec<Diagnostic>);

impl Findings {
    pub(super) fn push(&mut self, diagnostic: Diagnostic) {
        self.0.push(diagnostic);
    }

    pub(super) fn fatal(&mut self, code: &'static str, span: Span, message: String, help: &str) {
        let help = Some(help.to_owned());
        self.push(Diagnostic { code, severity: Severity::Fatal, message, help, span: Some(span) });
    }

    pub(super) fn warning(&mut self, code: &'static str, span: Span, message: String, help: &str) {
        let help = Some(help.to_owned());
        self.push(Diagnostic { code, severity: Severity::Warning, message, help, span: Some(span) });
    }

    pub(super) fn sql(&mut self, fault: SqlFault, span: Span) {
        let SqlFault { code, message, help } = fault;
        self.push(Diagnostic { code, severity: Severity::Fatal, message, help, span: Some(span) });
    }

    pub(super) fn has_fatal(&self) -> bool {
        self.0.iter().any(|diagnostic| diagnostic.severity == Severity::Fatal)
    }

    pub(super) fn into_list(mut self) -> Vec<Diagnostic> {
        self.0.sort_by_key(|diagnostic| diagnostic.span);
        self.0
    }
}

/// A map of the file.
pub(super) struct Section<'a> {
    name: String,
    entries: &'a [(Key, Node)],
}

impl<'a> Section<'a> {
    /// `None`, and a finding, if the node is no map.
    pub(super) fn new(node: &'a Node, name: &str, findings: &mut Findings) -> Option<Self> {
        match &node.kind {
            NodeKind::Map(entries) => Some(Self { name: name.to_owned(), entries }),
            NodeKind::Null => Some(Self { name: name.to_owned(), entries: &[] }),
            _ => {
                let message = format!("{name} must be a map, not {}", node.kind_name());
                findings.fatal("yaml_structure", node.span, message, "write `key: value` lines");
                None
            }
        }
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = (&'a Key, &'a Node)> {
        self.entries.iter().map(|(key, node)| (key, node))
    }

    pub(super) fn get(&self, name: &str) -> Option<&'a Node> {
        self.entries().find(|(key, _)| key.name == name).map(|(_, node)| node)
    }

    /// Reports keys that mean nothing here.
    pub(super) fn only_known(&self, known: &[&str], findings: &mut Findings) {
        for (key, _) in self.entries().filter(|(key, _)| !known.contains(&key.name.as_str())) {
            let message = format!("`{}` is not known in {}", key.name, self.name);
            findings.fatal("schema_violation", key.span, message, &format!("known are: {}", known.join(", ")));
        }
    }

    /// A text that must or may be there.
    pub(super) fn text(&self, name: &str, findings: &mut Findings) -> Option<(&'a str, Span)> {
        let node = self.get(name)?;
        text(node, &format!("`{name}`"), findings)
    }
}

/// The text of a node, or a finding.
pub(super) fn text<'a>(node: &'a Node, name: &str, findings: &mut Findings) -> Option<(&'a str, Span)> {
    if let NodeKind::Text(text) = &node.kind {
        return Some((text, node.span));
    }
    let message = format!("{name} must be text, not {}", node.kind_name());
    findings.fatal("yaml_structure", node.span, message, "put it in quotes");
    None
}

/// The items of a list, or a finding.
pub(super) fn list<'a>(node: &'a Node, name: &str, findings: &mut Findings) -> &'a [Node] {
    if let NodeKind::List(items) = &node.kind {
        return items;
    }
    let message = format!("{name} must be a list, not {}", node.kind_name());
    findings.fatal("yaml_structure", node.span, message, "begin each item with a dash");
    &[]
}
