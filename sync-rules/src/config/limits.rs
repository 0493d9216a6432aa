//! `limits` of a write rule.

use std::num::NonZeroU32;

use crate::{keys, write_limits::WriteLimits, yaml::Node};

use super::{Report, nodes::Map};

pub(super) fn limits(node: &Node, report: &mut Report<'_>) -> WriteLimits {
    let Some(map) = Map::read(node, "`limits`", keys::WRITE_LIMITS, report) else { return WriteLimits::default() };
    let mut limit = |key| {
        let node = map.get(key)?;
        let limit = node.integer().and_then(|limit| NonZeroU32::new(u32::try_from(limit).ok()?));
        if limit.is_none() {
            let help = "leave it out for no limit";
            report.fatal_with_help(
                "schema_violation",
                format!("`{key}` is a whole number, 1 or more"),
                help,
                node.span,
            );
        }
        limit
    };
    WriteLimits {
        row_bytes: limit("row_bytes"),
        operations_per_batch: limit("operations_per_batch"),
        operations_per_minute: limit("operations_per_minute"),
    }
}
