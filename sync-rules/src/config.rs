//! The YAML tree to typed configuration. Knows the keys, nothing of SQL.

use crate::{
    diagnostic::{Diagnostic, Severity, Span},
    keys,
    places::Places,
    plan::Compatibility,
    suggest::nearest,
    write_policy::WriteOp,
    yaml::{Content, Node},
};

/// Findings so far.
#[derive(Debug)]
pub(crate) struct Report<'a> {
    /// The text of the file.
    pub file: &'a str,
    pub diagnostics: Vec<Diagnostic>,
    /// Where the file speaks of what.
    pub places: Places,
}

impl Report<'_> {
    pub(crate) fn fatal(&mut self, code: &'static str, message: impl Into<String>, span: Span) {
        self.push(code, Severity::Fatal, message.into(), None, span);
    }

    pub(crate) fn fatal_with_help(
        &mut self,
        code: &'static str,
        message: impl Into<String>,
        help: impl Into<String>,
        span: Span,
    ) {
        self.push(code, Severity::Fatal, message.into(), Some(help.into()), span);
    }

    pub(crate) fn push(
        &mut self,
        code: &'static str,
        severity: Severity,
        message: String,
        help: Option<String>,
        span: Span,
    ) {
        self.diagnostics.push(Diagnostic { code, severity, message, help, span: Some(span) });
    }

    pub(crate) fn has_fatal(&self) -> bool {
        self.diagnostics.iter().any(|diagnostic| diagnostic.severity == Severity::Fatal)
    }
}

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
    pub allow: Vec<WriteOp>,
    pub columns_allow: Option<Vec<String>>,
    pub columns_deny: Vec<String>,
    pub stamp: Vec<(String, &'a Node)>,
    pub check: &'a Node,
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

/// The entries of a top-level map.
fn section<'a, T>(
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

fn bucket_definitions<'a>(
    file: &Map<'a>,
    root: &Node,
    options: Options,
    report: &mut Report<'_>,
) -> Vec<DefinitionConfig<'a>> {
    let (buckets, streams) = (file.get("bucket_definitions"), file.get("streams"));
    if let Some(buckets) = buckets.filter(|_| options.edition == 3) {
        let help = "write them below `streams`, or set `edition: 2`";
        let message = "edition 3 has streams, not bucket definitions";
        report.fatal_with_help("bucket_definitions_unsupported", message, help, buckets.span);
    }
    if streams.is_none() && (buckets.is_none() || options.edition == 3) {
        let (what, key) =
            if options.edition == 3 { ("streams", "streams") } else { ("bucket definitions", "bucket_definitions") };
        let help = format!("write `{key}:` with at least one definition, or `{{}}` for none");
        report.fatal_with_help("definitions_missing", format!("there are no {what}"), help, root.span);
    }
    if options.edition == 3 {
        return Vec::new();
    }
    section(file, "bucket_definitions", report, definition)
}

fn streams<'a>(
    file: &Map<'a>,
    definitions: &[DefinitionConfig<'_>],
    options: Options,
    report: &mut Report<'_>,
) -> Vec<StreamConfig<'a>> {
    if let Some(node) = file.get("streams").filter(|_| options.edition < 3) {
        let message = "streams of edition 2 are a preview that PowerSync has replaced".to_owned();
        let help = Some("set `config: { edition: 3 }`".to_owned());
        report.push("streams_alpha", Severity::Warning, message, help, node.span);
    }
    section(file, "streams", report, |name, node, report| {
        let text = key_text(name, report)?;
        if options.edition == 1 {
            let help = "set `config: { edition: 3 }`";
            report.fatal_with_help("streams_require_edition_2", "edition 1 has no streams", help, name.span);
            return None;
        }
        if definitions.iter().any(|definition| definition.name == text) {
            let message = format!("there is a bucket definition `{text}` already");
            report.fatal_with_help("duplicate_definition", message, "give the stream another name", name.span);
        }
        stream(text, name.span, node, options, report)
    })
}

fn stream<'a>(
    name: String,
    span: Span,
    node: &'a Node,
    options: Options,
    report: &mut Report<'_>,
) -> Option<StreamConfig<'a>> {
    let Content::Map(_) = &node.content else {
        report.fatal("schema_violation", format!("a stream is a map, not {}", node.kind()), node.span);
        return None;
    };
    let map = Map::read_leniently(node, "a stream", keys::STREAM, report)?;
    let own_with = map.get("with").map_or_else(Vec::new, |node| with(node, options, report));
    let priority = priority(&map, report);
    let is_default = map.boolean("auto_subscribe", report).unwrap_or(false);
    let accepts_dangerous = map.boolean("accept_potentially_dangerous_queries", report).unwrap_or(false);
    let joins_at_write_time = map.boolean("write_time_joins", report).unwrap_or(false);
    if joins_at_write_time && options.edition < 3 {
        let message = "`write_time_joins` needs edition 3";
        report.fatal("schema_violation", message, map.span("write_time_joins"));
    }
    let queries = match (map.get("query"), map.get("queries")) {
        (Some(query), None) => vec![query_text(query, report)?],
        (None, Some(node)) if options.edition == 3 => queries(node, "`queries`", report)?,
        (query, Some(node)) if options.edition < 3 => {
            let help = "write one stream per query, or set `edition: 3`";
            report.fatal_with_help("queries_unsupported", "`queries` needs edition 3", help, node.span);
            if query.is_none() {
                report.fatal("yaml_structure", "the stream has no `query`", span);
            }
            return None;
        }
        (None, None) if options.edition < 3 => {
            report.fatal("yaml_structure", "the stream has no `query`", span);
            return None;
        }
        _ => {
            report.fatal("query_or_queries", "a stream has either `query` or `queries`", span);
            return None;
        }
    };
    Some(StreamConfig {
        name,
        span,
        queries,
        with: own_with,
        is_default,
        priority,
        accepts_dangerous,
        joins_at_write_time,
    })
}

/// Named queries.
fn with<'a>(node: &'a Node, options: Options, report: &mut Report<'_>) -> Vec<(&'a Node, &'a Node)> {
    if options.edition < 3 {
        report.fatal("cte_unsupported", "`with` needs edition 3", node.span);
        return Vec::new();
    }
    let entries = entries(node, "`with`", report);
    let is_text =
        |(name, query): &(&'a Node, &'a Node)| key_text(name, report).is_some() && query_text(query, report).is_some();
    entries.into_iter().filter(is_text).collect()
}

/// A query: a text scalar.
fn query_text<'a>(node: &'a Node, report: &mut Report<'_>) -> Option<&'a Node> {
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

fn queries<'a>(node: &'a Node, what: &str, report: &mut Report<'_>) -> Option<Vec<&'a Node>> {
    let nodes = sequence(node, what, report)?;
    Some(nodes.into_iter().filter_map(|node| query_text(node, report)).collect())
}

fn priority(map: &Map<'_>, report: &mut Report<'_>) -> Option<u8> {
    let node = map.get("priority")?;
    if let Some(priority @ 0..=3) = node.integer() {
        return u8::try_from(priority).ok();
    }
    report.fatal("priority_invalid", "`priority` is 0, 1, 2 or 3; 0 syncs first", node.span);
    None
}

/// The options and the edition.
fn options(node: Option<&Node>, report: &mut Report<'_>) -> Options {
    let map = match node.map(|node| (&node.content, node)) {
        None => None,
        Some((Content::Map(_), node)) => Map::read(node, "`config`", keys::CONFIG, report),
        Some((Content::Null, node)) => {
            let help = "leave the key out, or write `config: { edition: 3 }`";
            report.fatal_with_help("yaml_structure", "`config` has no options", help, node.span);
            None
        }
        Some((_, node)) => {
            report.fatal("schema_violation", format!("`config` is a map, not {}", node.kind()), node.span);
            None
        }
    };
    let map = map.unwrap_or_default();
    let edition = match map.get("edition").map(|node| (node.integer(), node.span)) {
        None | Some((Some(1), _)) => 1,
        Some((Some(2), _)) => 2,
        Some((Some(3), _)) => 3,
        Some((_, span)) => {
            report.fatal("schema_violation", "`edition` is 1, 2 or 3", span);
            1
        }
    };
    let mut option = |name| map.boolean(name, report).unwrap_or(edition >= 2);
    let timestamps_iso8601 = option("timestamps_iso8601");
    let versioned_bucket_ids = option("versioned_bucket_ids");
    let fixed_json = option("fixed_json_extract");
    let custom_postgres_types = option("custom_postgres_types");
    // The option is about streams of edition 3; in edition 2 it changes nothing.
    if map.boolean("unstable_sqlite_expression_engine", report) == Some(true) && (edition != 2 || !fixed_json) {
        let span = map.span("unstable_sqlite_expression_engine");
        let help = "leave it out: expressions mean what docs/rules.md says";
        report.fatal_with_help("sqlite_engine_requirements", "there is no SQLite expression engine", help, span);
    }
    storage_version(&map, report);
    let timestamp_fraction_digits_max = fraction_digits(&map, timestamps_iso8601, report);
    let compatibility = Compatibility { timestamps_iso8601, custom_postgres_types, timestamp_fraction_digits_max };
    Options { edition, compatibility, versioned_bucket_ids, fixed_json }
}

/// The key means nothing here; it is read so that a file made for PowerSync loads.
fn storage_version(map: &Map<'_>, report: &mut Report<'_>) {
    let Some(node) = map.get("storage_version") else { return };
    match node.integer() {
        Some(2) => {}
        Some(3) => report.push(
            "storage_version_unstable",
            Severity::Warning,
            "`storage_version` has no effect here".to_owned(),
            None,
            node.span,
        ),
        _ => report.fatal("storage_version_invalid", "`storage_version` is 2 or 3", node.span),
    }
}

fn fraction_digits(map: &Map<'_>, timestamps_iso8601: bool, report: &mut Report<'_>) -> Option<u8> {
    let node = map.get("timestamp_max_precision")?;
    let digits = match node.text() {
        Some("seconds") => 0,
        Some("milliseconds") => 3,
        Some("microseconds") => 6,
        Some("nanoseconds") => 9,
        _ => {
            let message = "`timestamp_max_precision` is seconds, milliseconds, microseconds or nanoseconds";
            report.fatal("schema_violation", message, node.span);
            return None;
        }
    };
    if !timestamps_iso8601 {
        let message = "`timestamp_max_precision` needs `timestamps_iso8601: true`";
        report.fatal("timestamp_precision_requires_iso8601", message, node.span);
    }
    Some(digits)
}

fn definition<'a>(name: &'a Node, node: &'a Node, report: &mut Report<'_>) -> Option<DefinitionConfig<'a>> {
    let text = key_text(name, report)?;
    let map = Map::read(node, "a bucket definition", keys::DEFINITION, report)?;
    let priority = priority(&map, report);
    let accepts_dangerous = map.boolean("accept_potentially_dangerous_queries", report).unwrap_or(false);
    let Some(data) = map.get("data") else {
        report.fatal("schema_violation", format!("the definition `{text}` has no `data`"), name.span);
        return None;
    };
    let data = sequence(data, "`data`", report)?;
    let parameters = match map.get("parameters") {
        None => None,
        Some(node) if matches!(node.content, Content::Text(_)) => Some(vec![node]),
        Some(node) => Some(sequence(node, "`parameters`", report)?),
    };
    let is_map = |node: &&Node| matches!(node.content, Content::Map(_));
    let is_kairos = data.iter().any(is_map) || parameters.iter().flatten().any(is_map);
    let body = if is_kairos {
        let parameters = parameters.unwrap_or_default();
        Body::Kairos {
            parameters: parameters.into_iter().map(|node| parameter(node, report)).collect::<Option<_>>()?,
            data: data.into_iter().map(|node| filtered_table(node, report)).collect::<Option<_>>()?,
        }
    } else {
        let mut queries =
            |nodes: Vec<&'a Node>| nodes.into_iter().filter_map(|node| query_text(node, report)).collect();
        Body::Classic { parameters: parameters.map(&mut queries), data: queries(data) }
    };
    Some(DefinitionConfig { name: text, span: name.span, priority, accepts_dangerous, body })
}

fn parameter<'a>(node: &'a Node, report: &mut Report<'_>) -> Option<NamedParameter<'a>> {
    let map = Map::read(node, "a parameter beside `table` entries", keys::PARAMETER, report)?;
    let name = map.required("name", node, report)?;
    let kind = map.required("type", node, report)?;
    Some(NamedParameter { name: scalar_text(name, "`name`", report)?, kind })
}

fn filtered_table<'a>(node: &'a Node, report: &mut Report<'_>) -> Option<FilteredTable<'a>> {
    let map = Map::read(node, "an entry of `data` beside `name` parameters", keys::FILTERED_TABLE, report)?;
    let table = map.required("table", node, report)?;
    scalar_text(table, "`table`", report)?;
    let filter = map.get("filter");
    if let Some(filter) = filter {
        scalar_text(filter, "`filter`", report)?;
    }
    let columns = map.get("columns").map(|columns| sequence(columns, "`columns`", report));
    let columns = match columns {
        None => None,
        Some(columns) => Some(columns?),
    };
    Some(FilteredTable { table, filter, columns })
}

fn write_rule<'a>(name: &'a Node, node: &'a Node, report: &mut Report<'_>) -> Option<WriteRuleConfig<'a>> {
    let table = scalar_text(name, "a table", report)?;
    let map = Map::read(node, "a write rule", keys::WRITE_RULE, report)?;
    for key in keys::WRITE_RULE_NOT_YET {
        if let Some(node) = map.get(key) {
            report.fatal("not_supported_yet", format!("`{key}` is not available in this release yet"), node.span);
        }
    }
    let allow = map.required("allow", name, report)?;
    let allow =
        sequence(allow, "`allow`", report)?.into_iter().map(|node| write_op(node, report)).collect::<Option<_>>()?;
    let columns = match map.get("columns") {
        None => Map::default(),
        Some(node) => Map::read(node, "`columns`", keys::WRITE_COLUMNS, report)?,
    };
    if let (Some(_), Some(deny)) = (columns.get("allow"), columns.get("deny")) {
        report.fatal("schema_violation", "`allow` and `deny` exclude each other", deny.span);
    }
    let columns_allow = columns.get("allow").map(|node| names(node, "`allow`", report));
    let columns_deny = columns.get("deny").map_or_else(Vec::new, |node| names(node, "`deny`", report));
    let stamp = columns.get("stamp").map_or_else(Vec::new, |node| {
        let named = |(key, value): (&Node, &'a Node)| Some((key.text()?.to_owned(), value));
        entries(node, "`stamp`", report).into_iter().filter_map(named).collect()
    });
    let Some(check) = map.get("check") else {
        let message = format!("the write rule of `{table}` has no `check`");
        let help = "write `check: row.user_id = auth.user_id()`, or `check: true` if every signed-in client may write";
        report.fatal_with_help("check_missing", message, help, name.span);
        return None;
    };
    Some(WriteRuleConfig { table, allow, columns_allow, columns_deny, stamp, check })
}

fn write_op(node: &Node, report: &mut Report<'_>) -> Option<WriteOp> {
    match node.text() {
        Some("put") => Some(WriteOp::Put),
        Some("patch") => Some(WriteOp::Patch),
        Some("delete") => Some(WriteOp::Delete),
        _ => {
            report.fatal("schema_violation", "`allow` lists put, patch and delete", node.span);
            None
        }
    }
}

fn names(node: &Node, what: &str, report: &mut Report<'_>) -> Vec<String> {
    let nodes = sequence(node, what, report).unwrap_or_default();
    nodes.into_iter().filter_map(|node| scalar_text(node, what, report).map(str::to_owned)).collect()
}

fn scalar_text<'a>(node: &'a Node, what: &str, report: &mut Report<'_>) -> Option<&'a str> {
    let text = node.text();
    if text.is_none() {
        report.fatal("yaml_structure", format!("{what} is text, not {}", node.kind()), node.span);
    }
    text
}

/// The text of a key. A whole number counts as its digits.
fn key_text(node: &Node, report: &mut Report<'_>) -> Option<String> {
    match &node.content {
        Content::Text(text) => Some(text.clone()),
        Content::Integer(number) => Some(number.to_string()),
        _ => {
            report.fatal_with_help("yaml_structure", "a key must be text", "put it into quotes", node.span);
            None
        }
    }
}

fn sequence<'a>(node: &'a Node, what: &str, report: &mut Report<'_>) -> Option<Vec<&'a Node>> {
    if let Content::Sequence(items) = &node.content {
        return Some(items.iter().collect());
    }
    report.fatal("yaml_structure", format!("{what} is a list, not {}", node.kind()), node.span);
    None
}

fn entries<'a>(node: &'a Node, what: &str, report: &mut Report<'_>) -> Vec<(&'a Node, &'a Node)> {
    if let Content::Map(entries) = &node.content {
        return entries.iter().map(|(key, value)| (key, value)).collect();
    }
    report.fatal("yaml_structure", format!("{what} is a map, not {}", node.kind()), node.span);
    Vec::new()
}

/// A map whose keys are known.
#[derive(Debug, Default)]
struct Map<'a> {
    entries: Vec<(String, &'a Node)>,
}

impl<'a> Map<'a> {
    fn read(node: &'a Node, what: &str, keys: &[&str], report: &mut Report<'_>) -> Option<Self> {
        Self::read_as(node, what, keys, Severity::Fatal, report)
    }

    /// Unknown keys are warnings only, as PowerSync ignores them in this place.
    fn read_leniently(node: &'a Node, what: &str, keys: &[&str], report: &mut Report<'_>) -> Option<Self> {
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
                let help = Some(match nearest(&name, keys.iter().copied()) {
                    Some(similar) => format!("did you mean `{similar}`?"),
                    None => format!("known keys are {}", keys.join(", ")),
                });
                report.push("schema_violation", unknown, format!("{what} has no key `{name}`"), help, key.span);
            }
        }
        Some(map)
    }

    fn get(&self, key: &str) -> Option<&'a Node> {
        self.entries.iter().find(|(name, _)| *name == key).map(|(_, node)| *node)
    }

    fn span(&self, key: &str) -> Span {
        self.get(key).map_or(Span { line: 1, column: 1 }, |node| node.span)
    }

    fn required(&self, key: &str, owner: &Node, report: &mut Report<'_>) -> Option<&'a Node> {
        let node = self.get(key);
        if node.is_none() {
            report.fatal("schema_violation", format!("`{key}` is missing"), owner.span);
        }
        node
    }

    fn boolean(&self, key: &str, report: &mut Report<'_>) -> Option<bool> {
        let node = self.get(key)?;
        if let Content::Bool(value) = node.content {
            return Some(value);
        }
        report.fatal("schema_violation", format!("`{key}` is true or false"), node.span);
        None
    }
}
