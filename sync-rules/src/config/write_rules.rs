//! The `write_rules` section.

use crate::{conflict::ConflictStrategy, keys, write_policy::WriteOp, yaml::Node};

use super::{
    Report, WriteRuleConfig,
    conflict::conflict,
    nodes::{Map, entries, scalar_text, sequence},
    validators::validators,
};

pub(super) fn write_rule<'a>(name: &'a Node, node: &'a Node, report: &mut Report<'_>) -> Option<WriteRuleConfig<'a>> {
    let table = scalar_text(name, "a table", report)?;
    let map = Map::read(node, "a write rule", keys::WRITE_RULE, report)?;
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
    let conflict = map.get("conflict").map_or(Some(ConflictStrategy::ClientWins), |node| {
        let conflict = conflict(node, report)?;
        let is_stamped = |column: &String| stamp.iter().any(|(stamped, _): &(String, _)| stamped == column);
        if let Some(column) = conflict.columns().iter().find(|column| is_stamped(column)) {
            let message = format!("`{column}` cannot be stamped and decide conflicts");
            report.fatal("schema_violation", message, node.span);
        }
        if conflict == ConflictStrategy::AppendOnly && allow != [WriteOp::Put] {
            let help = "rows that are only added are neither changed nor deleted";
            report.fatal_with_help("schema_violation", "`append_only` goes with `allow: [put]`", help, node.span);
        }
        Some(conflict)
    })?;
    let validators = map.get("validators").map_or_else(Vec::new, |node| validators(node, report));
    Some(WriteRuleConfig {
        table,
        span: name.span,
        allow,
        columns_allow,
        columns_deny,
        stamp,
        check,
        conflict,
        validators,
    })
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
