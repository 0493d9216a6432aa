//! Classic bucket definitions: parameter queries and data queries in SQL.

mod dangerous;
mod data;
mod parameters;

use crate::{
    config::{DefinitionConfig, Report},
    definition::{Definition, ParameterQuery, ParameterSource},
    syntax::{Expr, ExprKind, Name, parse_select},
    yaml::Node,
};

use self::{
    data::data_query,
    parameters::{ParameterQuerySource, output_names},
};
use super::{Context, PRIORITY_DEFAULT};

/// Compiles a definition. Findings go to the report; queries that have one are left out.
pub(super) fn compile_definition(
    config: &DefinitionConfig<'_>,
    parameters: Option<&[&Node]>,
    data: &[&Node],
    context: &Context<'_>,
    report: &mut Report<'_>,
) -> Definition {
    let mut names: Option<Vec<String>> = parameters.is_none().then(Vec::new);
    let mut parameter_queries = Vec::new();
    if parameters.is_none() {
        let source = ParameterSource::Request { filter: None, values: Vec::new() };
        let priority = config.priority.unwrap_or(PRIORITY_DEFAULT);
        parameter_queries.push(ParameterQuery { priority, source });
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
        match query.compile(&select, report) {
            Ok(query) => parameter_queries.push(query),
            Err(problem) => report.problem(node, problem),
        }
    }
    let mut data_queries = Vec::new();
    for node in data {
        match data_query(node, names.as_deref(), context, report) {
            Ok(query) => data_queries.extend(query),
            Err(problem) => report.problem(node, problem),
        }
    }
    Definition {
        name: config.name.to_owned(),
        parameter_count: names.map_or(0, |names| names.len()),
        parameter_queries,
        data_queries,
        joins: Vec::new(),
    }
}

/// The output name of a column, if it has one.
fn item_name<'a>(expr: &'a Expr, alias: Option<&'a Name>) -> Option<&'a Name> {
    match (&expr.kind, alias) {
        (_, Some(alias)) => Some(alias),
        (ExprKind::Column { name, .. }, None) => Some(name),
        _ => None,
    }
}
