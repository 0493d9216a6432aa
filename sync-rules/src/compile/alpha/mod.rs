//! Streams of edition 2: one table, a filter, subqueries one level deep.
//!
//! The filter is brought into alternatives; each is a *variant* with buckets of its own, `stream|0`, `stream|1`, …
//! [`condition`] finds the terms, [`subquery`] compiles what stands behind IN.

mod condition;
mod scope;
mod subquery;

use crate::{
    config::{Report, StreamConfig},
    definition::{
        Bucket, BucketQuery, Definition, DefinitionKind, ElementForm, Filter, Nulls, OutputStyle, Parameter, RowQuery,
        RowSource, Step, StreamEdition, ValueSource,
    },
    diagnostic::Problem,
    syntax::{Expr, ExprKind, parse_select},
    yaml::Node,
};

use self::{
    condition::{Condition, MatchValue, Side, Term},
    scope::AlphaScope,
};
use super::{
    Context, PRIORITY_DEFAULT, PlanBuilder,
    classic::data::{check_id, output_items},
    normal_form::{ALTERNATIVES_MAX, alternatives},
    table::{QueryTable, lost_case, refused_clause, single_table},
};

/// Compiles a stream. Findings go to the report.
pub(super) fn compile_stream(
    config: &StreamConfig<'_>,
    context: &Context<'_>,
    builder: &mut PlanBuilder,
    report: &mut Report<'_>,
) -> Definition {
    let kind = DefinitionKind::Stream { is_default: config.is_default, edition: StreamEdition::Alpha };
    let mut definition = Definition { name: config.name.clone(), kind, buckets: Vec::new(), queries: Vec::new() };
    for node in &config.queries {
        if let Err(problem) = compile_query(config, node, context, builder, &mut definition, report) {
            report.problem(node, problem);
        }
        report.noted(node, context);
    }
    definition
}

fn compile_query(
    config: &StreamConfig<'_>,
    node: &Node,
    context: &Context<'_>,
    builder: &mut PlanBuilder,
    definition: &mut Definition,
    report: &mut Report<'_>,
) -> Result<(), Problem> {
    let select = parse_select(node.text().unwrap_or_default())?;
    refused_clause(&select)?;
    lost_case(&select, report, node);
    let table = single_table(&select, context)?;
    let output_scope = AlphaScope { context, table: table.clone().with_suffix(), is_output: true };
    let columns = output_items(&select.items, &output_scope, node, report)?;
    check_id(&columns, &table, select.position, context)?;
    let scope = AlphaScope { context, table, is_output: false };
    let variants = match &select.filter {
        None => vec![Vec::new()],
        Some(filter) => {
            if config.is_default && reads_subscription(filter) {
                context.warn(
                    Problem::new(
                        "auto_subscribe_with_parameters",
                        "the default subscription has no parameters",
                        filter.position,
                    )
                    .help("leave `auto_subscribe` out, or use auth.parameter() instead"),
                );
            }
            let tree = Condition { scope: &scope, stream: &config.name, builder }.tree(filter, Side::Holds)?;
            alternatives(tree).ok_or_else(|| {
                let message = format!("the filter has more than {ALTERNATIVES_MAX} alternatives");
                Problem::new("too_many_variants", message, filter.position).help("write several streams")
            })?
        }
    };
    let is_complete = columns.len() == select.items.len();
    for (number, terms) in variants.into_iter().enumerate().filter(|_| is_complete) {
        let (source, query) = variant(terms, &scope.table, format!("{}|{number}", config.name));
        let object_type = scope.table.object_type.clone();
        let row = RowQuery { source, object_type, columns: columns.clone(), style: OutputStyle::Classic };
        let rows = vec![builder.add_rows(row)];
        definition.buckets.push(Bucket { name: query.bucket.clone(), rows });
        definition.queries.push(query);
    }
    Ok(())
}

/// The two sides of a variant. Every match is a bucket parameter of its own.
fn variant(terms: Vec<Term>, table: &QueryTable, bucket: String) -> (RowSource, BucketQuery) {
    let mut source = RowSource {
        table: table.pattern.clone(),
        expansions: Vec::new(),
        conditions: Vec::new(),
        filter: Filter::always(),
        slot_count: 0,
    };
    let mut query = BucketQuery {
        bucket,
        priority: PRIORITY_DEFAULT,
        conditions: Vec::new(),
        steps: Vec::new(),
        parameters: Vec::new(),
        nulls: Nulls::Keep,
    };
    let mut filters = Vec::new();
    for term in terms {
        match term {
            Term::Row(condition) => source.conditions.push(condition),
            Term::Request(condition) => query.conditions.push(condition),
            Term::Exists(subquery) => {
                let step = subquery.step(&mut query.steps);
                query.steps.push(step);
            }
            Term::Match { row, value } => {
                filters.push(row.filter(source.slot_count));
                source.slot_count += 1;
                let parameter = match value {
                    MatchValue::Asked(asked) => asked.parameter(ElementForm::Scalars, &mut query.steps),
                    MatchValue::Found(subquery) => {
                        let step: Step = subquery.step(&mut query.steps);
                        query.steps.push(step);
                        Parameter(vec![ValueSource::Found { step: query.steps.len() - 1, output: 0 }])
                    }
                };
                query.parameters.push(parameter);
            }
        }
    }
    source.filter = Filter::All(filters);
    (source, query)
}

/// Whether a condition, subqueries included, reads parameters of the subscription.
fn reads_subscription(expr: &Expr) -> bool {
    match &expr.kind {
        ExprKind::Call { schema: Some(schema), .. } if schema == "subscription" => true,
        ExprKind::Subquery(select) => select.filter.as_ref().is_some_and(reads_subscription),
        _ => {
            let mut found = false;
            expr.visit_operands(&mut |operand| found |= reads_subscription(operand));
            found
        }
    }
}
