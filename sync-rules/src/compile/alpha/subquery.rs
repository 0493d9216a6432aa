//! Subqueries of edition 2 streams: one table, asked through a lookup.

use crate::{
    definition::{ElementForm, Filter, IndexId, IndexPart, Parameter, RequestInput, RowInput, RowSource, Step},
    diagnostic::Problem,
    expression::Expression,
    syntax::{Name, Position, Select},
};

use super::{
    super::{
        Context, PlanBuilder,
        expression::{Language, Leaf, RequestCall, Scope, finish_classic, lower},
        filter::{Asked, AskedForm, Slots, lower_filter, row_expression},
        table::{QueryTable, only_column, refused_clause, single_table},
    },
    condition::request_expression,
    scope::request_call,
};

/// A compiled subquery.
#[derive(Debug, Clone)]
pub(super) struct Subquery {
    index: IndexId,
    asked: Vec<Asked>,
}

impl Subquery {
    /// The lookup; arrays it asks with element by element become steps before it.
    pub(super) fn step(&self, steps: &mut Vec<Step>) -> Step {
        let inputs: Vec<Parameter> =
            self.asked.iter().map(|asked| asked.parameter(ElementForm::Scalars, steps)).collect();
        Step::Lookup { index: self.index.clone(), inputs }
    }
}

/// Compiles a subquery. With `member` it asks whether that is among the results, otherwise for the results.
pub(super) fn compile_subquery(
    select: &Select,
    member: Option<Expression<RequestInput>>,
    stream: &str,
    context: &Context<'_>,
    builder: &mut PlanBuilder,
) -> Result<Subquery, Problem> {
    refused_clause(select)?;
    let table = single_table(select, context)?;
    let expr = only_column(select)?;
    let mut scope = SubqueryScope { context, table, asked: Vec::new() };
    let column = row_expression(&lower(expr, &scope)?, expr.position)?;
    let mut filter = lower_filter(select.filter.as_ref(), &mut scope)?;
    if scope.asked.is_empty() && member.is_none() {
        let message = "the subquery does not depend on the request";
        return Err(Problem::new("subquery_without_parameter", message, select.position)
            .help("compare one of its columns with auth.user_id(), or use edition 3"));
    }
    let SubqueryScope { mut asked, table: QueryTable { pattern, .. }, .. } = scope;
    let mut value = vec![IndexPart::Row(column.clone())];
    if let Some(member) = member {
        let asks = Asked { value: member, form: AskedForm::Value };
        filter = Filter::All(vec![filter, Filter::Equals { slot: asked.len(), value: column }]);
        asked.push(asks);
        value.clear();
    }
    let slot_count = asked.len();
    let source = RowSource { table: pattern, expansions: Vec::new(), conditions: Vec::new(), filter, slot_count };
    let key = (0..slot_count).map(IndexPart::Slot).collect();
    let label = format!("{stream}, subquery on {}", source.table.name);
    Ok(Subquery { index: builder.index(&label, source, key, value), asked })
}

/// Names in a subquery.
struct SubqueryScope<'a> {
    context: &'a Context<'a>,
    table: QueryTable,
    asked: Vec<Asked>,
}

impl Scope for SubqueryScope<'_> {
    type Leaf = Leaf;

    fn column(&self, schema: Option<&Name>, table: Option<&Name>, name: &Name) -> Result<Expression<Leaf>, Problem> {
        self.table.column(schema, table, name, self.context).map(Leaf::Row).map(Expression::Input)
    }

    fn request_call(&self, call: &RequestCall<'_>) -> Option<Result<Expression<Leaf>, Problem>> {
        request_call(call)
    }

    fn subquery_problem(&self, at: Position) -> Problem {
        Problem::new("subquery_filter_unsupported", "subqueries cannot be nested in edition 2", at)
            .help("set `config: { edition: 3 }`")
    }

    fn finish(&self, expression: Expression<Leaf>, at: Position) -> Result<Expression<Leaf>, Problem> {
        finish_classic(expression, at)
    }

    fn language(&self) -> Language {
        Language { has_overlap: true, ..Language::classic(self.context.fixed_json) }
    }
}

impl Slots for SubqueryScope<'_> {
    fn slot(&mut self, value: &Expression<Leaf>, form: AskedForm, at: Position) -> Result<usize, Problem> {
        self.asked.push(Asked { value: request_expression(value, at)?, form });
        Ok(self.asked.len() - 1)
    }

    fn join(&mut self, _: Expression<RowInput>, _: &Select, at: Position) -> Result<Filter<RowInput>, Problem> {
        Err(self.subquery_problem(at))
    }

    fn allow_or(&self, at: Position) -> Result<(), Problem> {
        Err(Problem::new("subquery_filter_unsupported", "OR cannot stand between matches in a subquery", at)
            .help("write two conditions with a subquery each, joined by OR"))
    }
}
