//! The `write_rules` section.

use crate::{keys, write_policy::WriteOp, yaml::Node};

use super::{
    Report, WriteRuleConfig,
    nodes::{Map, entries, scalar_text, sequence},
};

pub(super) fn write_rule<'a>(name: &'a Node, node: &'a Node, report: &mut Report<'_>) -> Option<WriteRuleConfig<'a>> {
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
