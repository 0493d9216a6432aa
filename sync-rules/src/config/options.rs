//! The `config` block.

use crate::{
    diagnostic::Severity,
    keys,
    plan::Compatibility,
    yaml::{Content, Node},
};

use super::{Options, Report, nodes::Map};

/// The options and the edition.
pub(super) fn options(node: Option<&Node>, report: &mut Report<'_>) -> Options {
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
