//! Events: what is told of changed rows.

use crate::{
    config::{EventConfig, Report},
    definition::{EventQuery, OutputItem},
    diagnostic::Problem,
    expression::Expression,
    syntax::{Item, Name, Position, parse_select},
    yaml::Node,
};

use super::{
    Context,
    classic::data::{ColumnScope, output_items},
    expression::{Language, Leaf, RequestCall, Scope, finish_classic},
    table::{QueryTable, refused_clause, single_table},
};

/// Compiles the payload queries of an event.
pub(super) fn compile_event(
    config: &EventConfig<'_>,
    context: &Context<'_>,
    report: &mut Report<'_>,
) -> Vec<EventQuery> {
    let mut queries = Vec::new();
    for node in &config.payloads {
        match event_query(&config.name, node, context, report) {
            Ok(query) => queries.extend(query),
            Err(problem) => report.problem(node, problem),
        }
        report.noted(node, context);
    }
    queries
}

fn event_query(
    event: &str,
    node: &Node,
    context: &Context<'_>,
    report: &mut Report<'_>,
) -> Result<Option<EventQuery>, Problem> {
    let mut select = parse_select(node.text().unwrap_or_default())?;
    refused_clause(&select)?;
    let table = single_table(&select, context)?.with_suffix();
    if let Some(filter) = &select.filter {
        context.warn(
            Problem::new("event_filter_ignored", "the WHERE of a payload has no effect", filter.position)
                .help("leave it out; whoever receives the event can look at the columns"),
        );
    }
    let scope = EventScope { context, table };
    for item in &mut select.items {
        // There is one table whose columns `x.*` can mean, whatever `x` is.
        if let Item::Star { table, .. } = item {
            *table = None;
        }
    }
    let columns: Vec<OutputItem> = output_items(&select.items, &scope, node, report)?;
    let is_complete = columns.len() == select.items.len();
    Ok(is_complete.then(|| EventQuery { event: event.to_owned(), table: scope.table.pattern, columns }))
}

/// Names in a payload query.
struct EventScope<'a> {
    context: &'a Context<'a>,
    table: QueryTable,
}

impl ColumnScope for EventScope<'_> {
    fn table(&self) -> &QueryTable {
        &self.table
    }
}

impl Scope for EventScope<'_> {
    type Leaf = Leaf;

    fn column(&self, schema: Option<&Name>, table: Option<&Name>, name: &Name) -> Result<Expression<Leaf>, Problem> {
        self.table.column(schema, table, name, self.context).map(Leaf::Row).map(Expression::Input)
    }

    fn request_call(&self, call: &RequestCall<'_>) -> Option<Result<Expression<Leaf>, Problem>> {
        let message = format!("{}.{}() cannot be used in a payload", call.schema, call.name);
        Some(Err(Problem::new("request_function_in_data_query", message, call.at)))
    }

    fn finish(&self, expression: Expression<Leaf>, at: Position) -> Result<Expression<Leaf>, Problem> {
        finish_classic(expression, at)
    }

    fn language(&self) -> Language {
        Language::classic(self.context.fixed_json)
    }
}
