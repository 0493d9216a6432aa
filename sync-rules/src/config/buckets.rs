//! Bucket definitions, classic and of the Kairos dialect.

use crate::{
    keys,
    yaml::{Content, Node},
};

use super::{
    Body, DefinitionConfig, FilteredTable, NamedParameter, Options, Report,
    nodes::{Map, key_text, priority, query_text, scalar_text, section, sequence},
};

pub(super) fn bucket_definitions<'a>(
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
