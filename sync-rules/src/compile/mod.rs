//! Rules text to a plan: YAML to [`crate::config`], SQL to [`crate::syntax`], both to [`crate::definition`].
//!
//! A front end per dialect ([`classic`], [`kairos`]) ends in the same plan. Both turn conditions into filters by
//! [`filter`] and expressions by [`expression`]; what names mean in a place is a `Scope`.
//!
//! **Invariants**
//!
//! - Nothing is dropped silently: what is not compiled is refused with a diagnostic.
//! - A finding in one query does not hide those in others.
//!
//! Start reading at [`compile`].

mod classic;
mod expression;
mod filter;
mod kairos;
mod table;
mod write;

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    config::{Body, Config, Report, read},
    definition::{Definition, ParameterSource},
    plan::{Compiled, SyncPlan, TablePattern},
    yaml::Node,
};

/// Priority of buckets that do not say.
const PRIORITY_DEFAULT: u8 = 3;

/// What all queries of a file share.
#[derive(Debug)]
pub(crate) struct Context<'a> {
    /// Schema of unqualified table names.
    pub default_schema: &'a str,
    /// The option `fixed_json_extract`.
    pub fixed_json: bool,
}

/// Compiles a rules file. `default_schema` is the schema of unqualified table names, `public` for Postgres.
pub fn compile(yaml: &str, default_schema: &str) -> Compiled {
    let root = match Node::parse(yaml) {
        Ok(root) => root,
        Err(diagnostic) => return Compiled { plan: None, diagnostics: vec![diagnostic] },
    };
    let mut report = Report { file: yaml, diagnostics: Vec::new() };
    let plan = read(&root, &mut report).map(|config| plan(&config, default_schema, &mut report));
    let is_fatal = report.has_fatal();
    report.diagnostics.sort_by_key(|diagnostic| diagnostic.span);
    Compiled { plan: plan.filter(|_| !is_fatal), diagnostics: report.diagnostics }
}

fn plan(config: &Config<'_>, default_schema: &str, report: &mut Report<'_>) -> SyncPlan {
    let context = Context { default_schema, fixed_json: config.options.fixed_json };
    let definitions: Vec<_> = config
        .definitions
        .iter()
        .map(|definition| match &definition.body {
            Body::Classic { parameters, data } => {
                classic::compile_definition(definition, parameters.as_deref(), data, &context, report)
            }
            Body::Kairos { parameters, data } => {
                kairos::compile_definition(definition, parameters, data, &context, report)
            }
        })
        .collect();
    let mut policies = BTreeMap::new();
    for rule in &config.write_rules {
        if let Some(policy) = write::compile_rule(rule, report) {
            policies.insert(rule.table.to_owned(), policy);
        }
    }
    SyncPlan {
        compatibility: config.options.compatibility,
        versioned_bucket_ids: config.options.versioned_bucket_ids,
        source_tables: source_tables(&definitions),
        definitions,
        policies,
    }
}

fn source_tables(definitions: &[Definition]) -> Vec<TablePattern> {
    let mut tables = BTreeSet::new();
    for definition in definitions {
        tables.extend(definition.data_queries.iter().map(|query| &query.table));
        tables.extend(definition.joins.iter().map(|join| &join.table));
        tables.extend(definition.parameter_queries.iter().filter_map(|query| match &query.source {
            ParameterSource::Table(query) => Some(&query.table),
            ParameterSource::Request { .. } | ParameterSource::Claims(_) => None,
        }));
    }
    tables.into_iter().cloned().collect()
}
