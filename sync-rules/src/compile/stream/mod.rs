//! Streams of edition 3: joins, subqueries, arrays.
//!
//! A query's text becomes names and terms ([`query`], [`scope`], [`condition`]), the terms become alternatives
//! ([`conjunction`]), and each alternative, seen as a [`graph`] of tables that meet where values are equal, becomes a
//! row query and a bucket query. Alternatives with the same bucket query share a bucket, and so do streams that put the
//! same rows into one.

mod condition;
mod conjunction;
mod dangerous;
mod graph;
mod key_order;
mod leaf;
mod query;
mod scope;
mod with;
mod write_time;

use crate::{
    config::{Config, Report, StreamConfig},
    definition::{Bucket, BucketQuery, Definition, DefinitionKind, RowQuery, StreamEdition},
    diagnostic::Problem,
    syntax::parse_select,
    yaml::Node,
};

use self::{conjunction::conjunctions, dangerous::is_dangerous, graph::Graph, query::QueryReader, with::With};
use super::{Context, PRIORITY_DEFAULT, PlanBuilder};

/// How many buckets a stream may have for one combination of parameters.
const BUCKETS_MAX: usize = 100;

/// Compiles all streams of a file. Findings go to the report.
pub(super) fn compile_streams(
    config: &Config<'_>,
    context: &Context<'_>,
    builder: &mut PlanBuilder,
    report: &mut Report<'_>,
) -> Vec<Definition> {
    let shared = With::read(&config.with, None, context, report);
    let mut definitions: Vec<Definition> = Vec::new();
    for stream in &config.streams {
        let with = With::read(&stream.with, Some(&shared), context, report);
        let definition = compile_stream(stream, &with, &definitions, context, builder, report);
        with.warn_unused(report);
        definitions.push(definition);
    }
    shared.warn_unused(report);
    definitions
}

/// A bucket of a stream while its queries are read.
struct Group {
    /// Of its first alternative.
    number: usize,
    rows: Vec<usize>,
    query: BucketQuery,
}

fn compile_stream(
    config: &StreamConfig<'_>,
    with: &With<'_>,
    earlier: &[Definition],
    context: &Context<'_>,
    builder: &mut PlanBuilder,
    report: &mut Report<'_>,
) -> Definition {
    let mut groups: Vec<Group> = Vec::new();
    let mut count = 0;
    for node in &config.queries {
        match alternatives(config, node, with, context, builder) {
            Ok(found) => {
                for (row, query) in found {
                    let row = builder.share_rows(row);
                    match groups.iter_mut().find(|group| group.query == query) {
                        Some(group) if group.rows.contains(&row) => {}
                        Some(group) => group.rows.push(row),
                        None => groups.push(Group { number: count, rows: vec![row], query }),
                    }
                    count += 1;
                }
            }
            Err(problems) => {
                for problem in problems {
                    report.problem(context.node(problem.scalar, node), problem);
                }
            }
        }
        report.noted(node, context);
    }
    if groups.len() > BUCKETS_MAX {
        let message = format!("the stream has more than {BUCKETS_MAX} buckets per client");
        report.fatal_with_help("too_many_variants", message, "split it into several streams", config.span);
    }
    warn_dangerous(config, &groups, report);
    definition(config, groups, earlier)
}

/// The alternatives of a query.
fn alternatives(
    config: &StreamConfig<'_>,
    node: &Node,
    with: &With<'_>,
    context: &Context<'_>,
    builder: &mut PlanBuilder,
) -> Result<Vec<(RowQuery, BucketQuery)>, Vec<Problem>> {
    let select = parse_select(node.text().unwrap_or_default()).map_err(|problem| vec![problem])?;
    let query = QueryReader::new(context, with).read(&select)?;
    let conjunctions =
        conjunctions(query.condition.clone(), &query.instances, select.position).map_err(|problem| vec![problem])?;
    let mut found = Vec::new();
    for conjunction in &conjunctions {
        let graph = Graph::new(&query, conjunction, context.fixed_json);
        let planned = if config.joins_at_write_time {
            graph.plan_at_write_time(&config.name, select.position, builder)
        } else {
            graph.plan(&config.name, builder)
        };
        found.push(planned.map_err(|problem| vec![problem])?);
    }
    Ok(found)
}

fn warn_dangerous(config: &StreamConfig<'_>, groups: &[Group], report: &mut Report<'_>) {
    if config.accepts_dangerous || !groups.iter().any(|group| is_dangerous(&group.query)) {
        return;
    }
    let message = "the buckets depend on parameters that the client chooses freely".to_owned();
    let help = "use auth.user_id() or auth.parameter(); if everybody may read the rows, set \
                `accept_potentially_dangerous_queries: true`";
    let severity = crate::diagnostic::Severity::Warning;
    report.push("dangerous_parameters", severity, message, Some(help.to_owned()), config.span);
}

/// Names the buckets. One with the same rows as a bucket that is there already has that one's name.
fn definition(config: &StreamConfig<'_>, groups: Vec<Group>, earlier: &[Definition]) -> Definition {
    let kind = DefinitionKind::Stream { is_default: config.is_default, edition: StreamEdition::Compiled };
    let mut definition = Definition { name: config.name.clone(), kind, buckets: Vec::new(), queries: Vec::new() };
    for Group { number, mut rows, query } in groups {
        rows.sort_unstable();
        let known = earlier.iter().chain([&definition]).flat_map(|definition| &definition.buckets);
        let name = known.into_iter().find(|bucket| bucket.rows == rows).map(|bucket| bucket.name.clone());
        let bucket = name.unwrap_or_else(|| {
            let name = format!("{}|{number}", config.name);
            definition.buckets.push(Bucket { name: name.clone(), rows });
            name
        });
        let priority = config.priority.unwrap_or(PRIORITY_DEFAULT);
        definition.queries.push(BucketQuery { bucket, priority, ..query });
    }
    definition
}
