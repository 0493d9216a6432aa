//! The YAML tree to typed configuration. Knows the keys, nothing of SQL. A file per section; [`nodes`] has what they share.

mod buckets;
mod conflict;
mod limits;
mod nodes;
mod options;
mod report;
mod streams;
mod validators;
mod write_rules;

pub(crate) use self::report::Report;
use self::{
    buckets::bucket_definitions,
    nodes::{Map, key_text, queries, section},
    options::options,
    streams::{streams, with},
    write_rules::write_rule,
};
use crate::{
    conflict::ConflictStrategy,
    diagnostic::Span,
    keys,
    plan::Compatibility,
    validator::Validator,
    write_limits::WriteLimits,
    write_policy::WriteOp,
    yaml::{Content, Node},
};

/// A rules file.
#[derive(Debug)]
pub(crate) struct Config<'a> {
    pub options: Options,
    pub definitions: Vec<DefinitionConfig<'a>>,
    pub streams: Vec<StreamConfig<'a>>,
    /// `with` of all streams: name and SQL.
    pub with: Vec<(&'a Node, &'a Node)>,
    pub events: Vec<EventConfig<'a>>,
    pub write_rules: Vec<WriteRuleConfig<'a>>,
}

/// The `config` block.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Options {
    /// 1 to 3.
    pub edition: u8,
    pub compatibility: Compatibility,
    pub versioned_bucket_ids: bool,
    pub fixed_json: bool,
}

/// A bucket definition.
#[derive(Debug)]
pub(crate) struct DefinitionConfig<'a> {
    pub name: String,
    pub span: Span,
    pub priority: Option<u8>,
    pub accepts_dangerous: bool,
    pub body: Body<'a>,
}

/// The two ways of writing a definition.
#[derive(Debug)]
pub(crate) enum Body<'a> {
    /// Queries in SQL. No `parameters` key is not the same as an empty list.
    Classic { parameters: Option<Vec<&'a Node>>, data: Vec<&'a Node> },
    /// Parameters by name, tables with filters.
    Kairos { parameters: Vec<NamedParameter<'a>>, data: Vec<FilteredTable<'a>> },
}

/// `{name, type}`
#[derive(Debug)]
pub(crate) struct NamedParameter<'a> {
    pub name: &'a str,
    pub kind: &'a Node,
}

/// `{table, filter, columns}`
#[derive(Debug)]
pub(crate) struct FilteredTable<'a> {
    pub table: &'a Node,
    pub filter: Option<&'a Node>,
    pub columns: Option<Vec<&'a Node>>,
}

/// A stream.
#[derive(Debug)]
pub(crate) struct StreamConfig<'a> {
    pub name: String,
    pub span: Span,
    pub queries: Vec<&'a Node>,
    /// Its own `with`: name and SQL.
    pub with: Vec<(&'a Node, &'a Node)>,
    pub is_default: bool,
    pub priority: Option<u8>,
    pub accepts_dangerous: bool,
    /// Rows of joined tables go into the bucket of the request's values, not into one bucket per joined row.
    pub joins_at_write_time: bool,
}

/// What changed rows trigger.
#[derive(Debug)]
pub(crate) struct EventConfig<'a> {
    pub name: String,
    pub payloads: Vec<&'a Node>,
}

/// What clients may write to a table.
#[derive(Debug)]
pub(crate) struct WriteRuleConfig<'a> {
    pub table: &'a str,
    /// Where its name is.
    pub span: Span,
    pub allow: Vec<WriteOp>,
    pub columns: WriteColumnsConfig<'a>,
    pub check: &'a Node,
    pub conflict: ConflictStrategy,
    /// The column that a DELETE sets.
    pub soft_delete: Option<&'a str>,
    pub limits: WriteLimits,
    /// By column.
    pub validators: Vec<(String, Vec<Validator>)>,
}

/// Columns in a write rule.
#[derive(Debug, Default)]
pub(crate) struct WriteColumnsConfig<'a> {
    pub allow: Option<Vec<String>>,
    pub deny: Vec<String>,
    pub stamp: Vec<(String, &'a Node)>,
}

/// Reads the tree of a file.
pub(crate) fn read<'a>(root: &'a Node, report: &mut Report<'_>) -> Option<Config<'a>> {
    if matches!(root.content, Content::Null) {
        report.fatal("definitions_missing", "the rules file is empty", root.span);
        return None;
    }
    let file = Map::read(root, "the rules file", keys::FILE, report)?;
    let options = options(file.get("config"), report);
    let definitions = bucket_definitions(&file, root, options, report);
    let streams = streams(&file, &definitions, options, report);
    let with = file.get("with").map_or_else(Vec::new, |node| with(node, options, report));
    let events = section(&file, "event_definitions", report, |name, node, report| {
        let map = Map::read(node, "an event", keys::EVENT, report)?;
        let payloads = map.required("payloads", name, report)?;
        Some(EventConfig { name: key_text(name, report)?, payloads: queries(payloads, "`payloads`", report)? })
    });
    let write_rules = section(&file, "write_rules", report, write_rule);
    Some(Config { options, definitions, streams, with, events, write_rules })
}
