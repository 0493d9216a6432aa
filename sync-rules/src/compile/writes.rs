//! The `write_rules` section.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Settings,
    reader::{Findings, Section, list, text},
};
use crate::{
    expression::Expr,
    scope::{self, request_input},
    syntax::{self, Ast, SqlFault},
    value::SqlValue,
    write_policy::{CheckInput, ColumnRule, WriteOp, WritePolicy},
    yaml::{Node, NodeKind},
};

pub(super) fn compile(node: &Node, settings: &Settings<'_>, findings: &mut Findings) -> BTreeMap<String, WritePolicy> {
    let Some(section) = Section::new(node, "`write_rules`", findings) else { return BTreeMap::new() };
    let policies = section
        .entries()
        .filter_map(|(key, node)| Some((key.name.clone(), policy(&key.name, node, settings, findings)?)));
    policies.collect()
}

fn policy(table: &str, node: &Node, settings: &Settings<'_>, findings: &mut Findings) -> Option<WritePolicy> {
    let section = Section::new(node, &format!("write rule `{table}`"), findings)?;
    section.only_known(&["allow", "columns", "check", "conflict", "validators"], findings);
    for key in ["conflict", "validators"] {
        if let Some(node) = section.get(key) {
            let message = format!("`{key}` is not supported in this release");
            findings.fatal("schema_violation", node.span, message, "remove it; a later write replaces an earlier one");
        }
    }
    let operations = operations(section.get("allow"), node, findings);
    let (columns, stamps) = match section.get("columns") {
        None => (ColumnRule::All, Vec::new()),
        Some(node) => column_rule(node, settings, findings),
    };
    let Some(check) = section.get("check") else {
        let message = format!("write rule `{table}` has no `check`");
        findings.fatal(
            "schema_violation",
            node.span,
            message,
            "say whose rows may be written, such as `row.user_id = auth.user_id()`, or `check: true`",
        );
        return None;
    };
    let check = if let NodeKind::Bool(truth) = check.kind {
        Expr::Const(SqlValue::from_bool(truth))
    } else {
        let (sql, span) = text(check, "`check`", findings)?;
        let compiled =
            syntax::parse_expression(sql).and_then(|ast| scope::compile(&ast, settings.fixed_json, &check_input));
        compiled.map_err(|fault| findings.sql(fault, span)).ok()?
    };
    Some(WritePolicy { table: table.to_owned(), operations, columns, stamps, check })
}

fn check_input(ast: &Ast) -> Result<Option<CheckInput>, SqlFault> {
    match ast {
        Ast::Column(Some(scope), name) if scope == "row" => Ok(Some(CheckInput::Row(name.clone()))),
        Ast::Column(Some(scope), name) if scope == "old" => Ok(Some(CheckInput::Old(name.clone()))),
        Ast::InSelect(..) => Err(SqlFault::new("subquery_position", "a check cannot ask other tables")
            .help("let row-level security in Postgres decide that, with `check: true` here")),
        ast => match request_input(ast) {
            Some(input) if !input.is_authenticated() => {
                Err(SqlFault::new("undefined_reference", "a check cannot trust what any client can set")
                    .help("use auth.user_id() or auth.parameter('…')"))
            }
            input => Ok(input.map(CheckInput::Token)),
        },
    }
}

fn operations(node: Option<&Node>, rule: &Node, findings: &mut Findings) -> BTreeSet<WriteOp> {
    let Some(node) = node else {
        findings.fatal("schema_violation", rule.span, "`allow` is missing".to_owned(), "allow: [put, patch, delete]");
        return BTreeSet::new();
    };
    let mut operations = BTreeSet::new();
    for item in list(node, "`allow`", findings) {
        match text(item, "an operation", findings) {
            Some(("put", _)) => operations.insert(WriteOp::Put),
            Some(("patch", _)) => operations.insert(WriteOp::Patch),
            Some(("delete", _)) => operations.insert(WriteOp::Delete),
            Some((_, span)) => {
                findings.fatal(
                    "schema_violation",
                    span,
                    "this operation is not known".to_owned(),
                    "put, patch or delete",
                );
                false
            }
            None => false,
        };
    }
    operations
}

type Stamps = Vec<(String, Expr<scope::RequestInput>)>;

fn column_rule(node: &Node, settings: &Settings<'_>, findings: &mut Findings) -> (ColumnRule, Stamps) {
    let Some(section) = Section::new(node, "`columns`", findings) else { return (ColumnRule::All, Vec::new()) };
    section.only_known(&["allow", "deny", "stamp"], findings);
    let mut names = |key: &str| {
        let node = section.get(key)?;
        let mut names = BTreeSet::new();
        for item in list(node, &format!("`{key}`"), findings) {
            names.extend(text(item, "a column", findings).map(|(name, _)| name.to_owned()));
        }
        Some((names, node.span))
    };
    let rule = match (names("allow"), names("deny")) {
        (Some(_), Some((_, span))) => {
            findings.fatal(
                "schema_violation",
                span,
                "`allow` and `deny` exclude each other".to_owned(),
                "keep one of them",
            );
            ColumnRule::All
        }
        (Some((names, _)), None) => ColumnRule::Only(names),
        (None, Some((names, _))) => ColumnRule::AllBut(names),
        (None, None) => ColumnRule::All,
    };
    let mut stamps = Vec::new();
    if let Some(node) = section.get("stamp")
        && let Some(section) = Section::new(node, "`stamp`", findings)
    {
        for (key, node) in section.entries() {
            let Some((sql, span)) = text(node, "a stamp", findings) else { continue };
            let compiled = syntax::parse_expression(sql).and_then(|ast| {
                scope::compile(&ast, settings.fixed_json, &|ast| {
                    Ok(request_input(ast).filter(scope::RequestInput::is_authenticated))
                })
            });
            match compiled {
                Ok(expr) => stamps.push((key.name.clone(), expr)),
                Err(fault) => findings.sql(fault, span),
            }
        }
    }
    (rule, stamps)
}
