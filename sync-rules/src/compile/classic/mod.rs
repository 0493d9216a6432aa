//! Classic bucket definitions: parameter queries and data queries in SQL.

mod dangerous;
pub(super) mod data;
mod parameters;

use crate::{
    config::{DefinitionConfig, Report},
    definition::{Bucket, BucketQuery, Definition, DefinitionKind, Nulls},
    syntax::{Expr, ExprKind, Name, parse_select},
    yaml::Node,
};

use self::{
    data::data_query,
    parameters::{ParameterQuerySource, output_names},
};
use super::{Context, PRIORITY_DEFAULT, PlanBuilder};

/// Compiles a definition. Findings go to the report; queries that have one are left out.
pub(super) fn compile_definition(
    config: &DefinitionConfig<'_>,
    parameters: Option<&[&Node]>,
    data: &[&Node],
    context: &Context<'_>,
    builder: &mut PlanBuilder,
    report: &mut Report<'_>,
) -> Definition {
    let mut names: Option<Vec<String>> = parameters.is_none().then(Vec::new);
    let mut queries = Vec::new();
    if parameters.is_none() {
        queries.push(BucketQuery {
            bucket: config.name.clone(),
            priority: config.priority.unwrap_or(PRIORITY_DEFAULT),
            conditions: Vec::new(),
            steps: Vec::new(),
            parameters: Vec::new(),
            nulls: Nulls::Keep,
        });
    }
    for (index, node) in parameters.unwrap_or_default().iter().enumerate() {
        let select = match parse_select(node.text().unwrap_or_default()) {
            Ok(select) => select,
            Err(problem) => {
                report.problem(node, problem);
                continue;
            }
        };
        let own_names = match output_names(&select) {
            Ok(names) => names,
            Err(problem) => {
                report.problem(node, problem);
                continue;
            }
        };
        let first = names.get_or_insert_with(|| own_names.clone());
        let query = ParameterQuerySource { node, config, context, id: index + 1, names: first, own_names: &own_names };
        match query.compile(&select, builder, report) {
            Ok(query) => queries.push(query),
            Err(problem) => report.problem(node, problem),
        }
        report.noted(node, context);
    }
    let mut rows = Vec::new();
    for node in data {
        match data_query(node, names.as_deref(), context, report) {
            Ok(query) => rows.extend(query.map(|query| builder.add_rows(query))),
            Err(problem) => report.problem(node, problem),
        }
        report.noted(node, context);
    }
    let buckets = vec![Bucket { name: config.name.clone(), rows }];
    Definition { name: config.name.clone(), kind: DefinitionKind::Buckets, buckets, queries }
}

/// The output name of a column, if it has one.
fn item_name<'a>(expr: &'a Expr, alias: Option<&'a Name>) -> Option<&'a Name> {
    match (&expr.kind, alias) {
        (_, Some(alias)) => Some(alias),
        (ExprKind::Column { name, .. }, None) => Some(name),
        _ => None,
    }
}
