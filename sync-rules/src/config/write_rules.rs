//! The `write_rules` section.

use crate::{conflict::ConflictStrategy, keys, write_limits::WriteLimits, write_policy::WriteOp, yaml::Node};

use super::{
    Report, WriteColumnsConfig, WriteRuleConfig,
    conflict::conflict,
    limits::limits,
    nodes::{Map, entries, scalar_text, sequence},
    validators::validators,
};

pub(super) fn write_rule<'a>(name: &'a Node, node: &'a Node, report: &mut Report<'_>) -> Option<WriteRuleConfig<'a>> {
    let table = scalar_text(name, "a table", report)?;
    if table.ends_with('%') {
        let help = "write a rule for each table";
        report.fatal_with_help("schema_violation", "a write rule is about one table", help, name.span);
    }
    let map = Map::read(node, "a write rule", keys::WRITE_RULE, report)?;
    let allow = map.required("allow", name, report).and_then(|node| write_ops(node, report));
    let columns = columns(map.get("columns"), report);
    let check = map.get("check");
    if check.is_none() {
        let message = format!("the write rule of `{table}` has no `check`");
        let help = "write `check: row.user_id = auth.user_id()`, or `check: true` if every signed-in client may write";
        report.fatal_with_help("check_missing", message, help, name.span);
    }
    let conflict = map.get("conflict").map_or(Some(ConflictStrategy::ClientWins), |node| conflict(node, report));
    let validators = map.get("validators").map_or_else(Vec::new, |node| validators(node, report));
    let soft_delete = map.get("soft_delete").and_then(|node| scalar_text(node, "a column", report));
    let limits = map.get("limits").map_or_else(WriteLimits::default, |node| limits(node, report));
    // Everything was read by now, so that each mistake in the rule is told.
    let (allow, columns, check, conflict) = (allow?, columns?, check?, conflict?);
    let rule =
        WriteRuleConfig { table, span: name.span, allow, columns, check, conflict, soft_delete, limits, validators };
    if let Some(node) = map.get("conflict") {
        strategy_fits(&rule, node, report);
    }
    if let Some(node) = map.get("soft_delete") {
        soft_delete_fits(&rule, node, report);
    }
    Some(rule)
}

fn columns<'a>(node: Option<&'a Node>, report: &mut Report<'_>) -> Option<WriteColumnsConfig<'a>> {
    let Some(node) = node else { return Some(WriteColumnsConfig::default()) };
    let map = Map::read(node, "`columns`", keys::WRITE_COLUMNS, report)?;
    if let (Some(_), Some(deny)) = (map.get("allow"), map.get("deny")) {
        report.fatal("schema_violation", "`allow` and `deny` exclude each other", deny.span);
    }
    let allow = map.get("allow").map(|node| names(node, "`allow`", report));
    let deny = map.get("deny").map_or_else(Vec::new, |node| names(node, "`deny`", report));
    let stamp = map.get("stamp").map_or_else(Vec::new, |node| {
        let named = |(key, value): (&Node, &'a Node)| Some((key.text()?.to_owned(), value));
        entries(node, "`stamp`", report).into_iter().filter_map(named).collect()
    });
    Some(WriteColumnsConfig { allow, deny, stamp })
}

/// Whether the strategy goes with the rest of its rule.
fn strategy_fits(rule: &WriteRuleConfig<'_>, node: &Node, report: &mut Report<'_>) {
    let is_stamped = |column: &String| rule.columns.stamp.iter().any(|(stamped, _)| stamped == column);
    if let Some(column) = rule.conflict.columns().iter().find(|column| is_stamped(column)) {
        let message = format!("`{column}` cannot be stamped and decide conflicts");
        report.fatal("schema_violation", message, node.span);
    }
    if rule.conflict == ConflictStrategy::AppendOnly && rule.allow != [WriteOp::Put] {
        let help = "rows that are only added are neither changed nor deleted";
        report.fatal_with_help("schema_violation", "`append_only` goes with `allow: [put]`", help, node.span);
    }
}

/// Whether what a DELETE sets goes with the rest of its rule.
fn soft_delete_fits(rule: &WriteRuleConfig<'_>, node: &Node, report: &mut Report<'_>) {
    if !rule.allow.contains(&WriteOp::Delete) {
        let help = "add `delete` to `allow`, or leave `soft_delete` out";
        report.fatal_with_help("schema_violation", "`soft_delete` without deletes has no effect", help, node.span);
    }
    let Some(column) = rule.soft_delete else { return };
    let is_stamped = rule.columns.stamp.iter().any(|(stamped, _)| stamped == column);
    let is_named = |names: &[String]| names.iter().any(|name| name == column);
    if is_stamped || is_named(rule.conflict.columns()) || is_named(rule.columns.allow.as_deref().unwrap_or_default()) {
        let message = format!("`{column}` is set by deletes only: it cannot be stamped, allowed, or decide conflicts");
        report.fatal("schema_violation", message, node.span);
    }
}

fn write_ops(node: &Node, report: &mut Report<'_>) -> Option<Vec<WriteOp>> {
    sequence(node, "`allow`", report)?.into_iter().map(|node| write_op(node, report)).collect()
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

pub(super) fn names(node: &Node, what: &str, report: &mut Report<'_>) -> Vec<String> {
    let nodes = sequence(node, what, report).unwrap_or_default();
    nodes.into_iter().filter_map(|node| scalar_text(node, what, report).map(str::to_owned)).collect()
}
