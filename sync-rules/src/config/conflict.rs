//! `conflict` of a write rule: the name of a strategy, or a map with what it needs besides.

use crate::{
    conflict::ConflictStrategy,
    keys,
    suggest::help_for,
    yaml::{Content, Node},
};

use super::{
    Report,
    nodes::{Map, scalar_text},
    write_rules::names,
};

pub(super) fn conflict(node: &Node, report: &mut Report<'_>) -> Option<ConflictStrategy> {
    let map = match node.content {
        Content::Map(_) => Map::read(node, "`conflict`", keys::WRITE_CONFLICT, report)?,
        _ => Map::default(),
    };
    let strategy = match node.content {
        Content::Map(_) => map.required("strategy", node, report)?,
        _ => node,
    };
    let name = scalar_text(strategy, "a strategy", report)?;
    let needs = match name {
        "lww" | "version" => Some("column"),
        "set_union" | "counter" => Some("columns"),
        _ => None,
    };
    for key in ["column", "columns"] {
        match (needs == Some(key), map.get(key)) {
            (true, None) => {
                let help = format!("write `conflict: {{ strategy: {name}, {key}: … }}`");
                report.fatal_with_help("schema_violation", format!("`{name}` needs `{key}`"), help, node.span);
                return None;
            }
            (false, Some(given)) if keys::STRATEGIES.contains(&name) => {
                report.fatal("schema_violation", format!("`{name}` has no `{key}`"), given.span);
            }
            _ => {}
        }
    }
    let mut column = |key| map.get(key).and_then(|node| scalar_text(node, "a column", report)).map(str::to_owned);
    Some(match name {
        "client_wins" => ConflictStrategy::ClientWins,
        "server_wins" => ConflictStrategy::ServerWins,
        "merge_fields" => ConflictStrategy::MergeFields,
        "append_only" => ConflictStrategy::AppendOnly,
        "lww" => ConflictStrategy::LastWriteWins { column: column("column")? },
        "version" => ConflictStrategy::Version { column: column("column")? },
        "set_union" => ConflictStrategy::SetUnion { columns: names(map.get("columns")?, "`columns`", report) },
        "counter" => ConflictStrategy::Counter { columns: names(map.get("columns")?, "`columns`", report) },
        "manual" => ConflictStrategy::Manual,
        _ => {
            let help = help_for(name, "strategies", keys::STRATEGIES.iter().copied());
            report.fatal_with_help("schema_violation", format!("no strategy `{name}`"), help, strategy.span);
            return None;
        }
    })
}
