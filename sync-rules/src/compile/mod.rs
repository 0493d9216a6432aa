//! From text to plan: three sections of one file, each with its own front end.
//!
//! - `classic`: bucket definitions as PowerSync has them;
//! - `belonging`: the Kairos dialect, `parameters: [{name, type}]` and `data: [{table, filter}]`;
//! - `writes`: the `write_rules` section.
//!
//! Faults are collected, not thrown: one run says everything that is wrong.

mod belonging;
mod classic;
mod reader;
mod writes;

use std::collections::BTreeMap;

use self::reader::{Findings, Section};
use crate::{
    plan::{Compatibility, Compiled, Definition, ParameterSource, SyncPlan, TablePattern},
    yaml::{self, Node, NodeKind},
};

/// What the whole file says about evaluation.
struct Settings<'a> {
    default_schema: &'a str,
    fixed_json: bool,
}

impl Settings<'_> {
    fn table(&self, schema: Option<String>, name: String) -> TablePattern {
        let schema = schema.unwrap_or_else(|| self.default_schema.to_owned());
        TablePattern { connection: "default".to_owned(), schema, name }
    }
}

pub(crate) fn compile(text: &str, default_schema: &str) -> Compiled {
    let mut findings = Findings::default();
    let plan = match yaml::parse(text) {
        Ok(root) => document(&root, default_schema, &mut findings),
        Err(diagnostic) => {
            findings.push(diagnostic);
            None
        }
    };
    let fatal = findings.has_fatal();
    Compiled { plan: plan.filter(|_| !fatal), diagnostics: findings.into_list() }
}

fn document(root: &Node, default_schema: &str, findings: &mut Findings) -> Option<SyncPlan> {
    let section = Section::new(root, "the rules file", findings)?;
    section
        .only_known(&["config", "bucket_definitions", "streams", "event_definitions", "with", "write_rules"], findings);
    let compatibility = compatibility(section.get("config"), findings);
    for (key, code) in [
        ("streams", "streams_require_edition_2"),
        ("event_definitions", "schema_violation"),
        ("with", "schema_violation"),
    ] {
        if let Some(node) = section.get(key) {
            findings.fatal(
                code,
                node.span,
                format!("`{key}` is not supported in this release"),
                "use `bucket_definitions`",
            );
        }
    }
    let settings = Settings { default_schema, fixed_json: compatibility.timestamps_iso8601 };
    let mut plan = SyncPlan {
        compatibility,
        definitions: Vec::new(),
        joins: Vec::new(),
        tables: Vec::new(),
        write_policies: BTreeMap::new(),
    };
    match section.get("bucket_definitions") {
        Some(node) => definitions(node, &settings, &mut plan, findings),
        None => findings.fatal(
            "definitions_missing",
            root.span,
            "there are no bucket definitions".to_owned(),
            "add a section `bucket_definitions`",
        ),
    }
    if let Some(node) = section.get("write_rules") {
        plan.write_policies = writes::compile(node, &settings, findings);
    }
    plan.tables = tables(&plan);
    Some(plan)
}

fn definitions(node: &Node, settings: &Settings<'_>, plan: &mut SyncPlan, findings: &mut Findings) {
    let Some(section) = Section::new(node, "`bucket_definitions`", findings) else { return };
    for (key, value) in section.entries() {
        let definition: Option<Definition> = if belonging::is_dialect(value) {
            belonging::definition(&key.name, value, settings, &mut plan.joins, findings)
        } else {
            classic::definition(&key.name, value, settings, findings)
        };
        plan.definitions.extend(definition);
    }
}

fn compatibility(node: Option<&Node>, findings: &mut Findings) -> Compatibility {
    let mut edition = 1;
    if let Some(node) = node
        && let Some(section) = Section::new(node, "`config`", findings)
    {
        section.only_known(
            &["edition", "timestamps_iso8601", "versioned_bucket_ids", "fixed_json_extract", "custom_postgres_types"],
            findings,
        );
        match section.get("edition").map(|node| (&node.kind, node.span)) {
            None => {}
            Some((NodeKind::Integer(number @ 1..=2), _)) => edition = *number,
            Some((_, span)) => {
                findings.fatal(
                    "schema_violation",
                    span,
                    "`edition` is 1 or 2 in this release".to_owned(),
                    "remove `streams` and use edition 1 or 2",
                );
            }
        }
        let switch = |name: &str, findings: &mut Findings| match section.get(name).map(|node| (&node.kind, node.span)) {
            None => edition >= 2,
            Some((NodeKind::Bool(on), _)) => *on,
            Some((_, span)) => {
                findings.fatal("schema_violation", span, format!("`{name}` is true or false"), "write true or false");
                false
            }
        };
        return Compatibility {
            timestamps_iso8601: switch("timestamps_iso8601", findings),
            custom_postgres_types: switch("custom_postgres_types", findings),
            timestamp_fraction_digits_max: None,
        };
    }
    Compatibility { timestamps_iso8601: false, custom_postgres_types: false, timestamp_fraction_digits_max: None }
}

fn tables(plan: &SyncPlan) -> Vec<TablePattern> {
    let mut tables: Vec<TablePattern> = plan.joins.iter().map(|join| join.table.clone()).collect();
    for definition in &plan.definitions {
        tables.extend(definition.data_queries.iter().map(|query| query.table.clone()));
        tables.extend(definition.parameter_queries.iter().filter_map(|query| match &query.source {
            ParameterSource::Table(lookup) => Some(lookup.table.clone()),
            _ => None,
        }));
    }
    tables.sort_unstable();
    tables.dedup();
    tables
}
