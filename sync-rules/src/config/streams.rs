//! Streams, and `with`.

use crate::{
    diagnostic::{Severity, Span},
    keys,
    yaml::{Content, Node},
};

use super::{
    DefinitionConfig, Options, Report, StreamConfig,
    nodes::{Map, entries, key_text, priority, queries, query_text, section},
};

pub(super) fn streams<'a>(
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
pub(super) fn with<'a>(node: &'a Node, options: Options, report: &mut Report<'_>) -> Vec<(&'a Node, &'a Node)> {
    if options.edition < 3 {
        report.fatal("cte_unsupported", "`with` needs edition 3", node.span);
        return Vec::new();
    }
    let entries = entries(node, "`with`", report);
    let is_text =
        |(name, query): &(&'a Node, &'a Node)| key_text(name, report).is_some() && query_text(query, report).is_some();
    entries.into_iter().filter(is_text).collect()
}
