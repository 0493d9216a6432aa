//! Names and functions of edition 2 streams.

use crate::{
    definition::RequestInput,
    diagnostic::Problem,
    expression::Expression,
    functions::json::JsonPath,
    syntax::{Name, Position},
};

use super::super::{
    Context,
    classic::data::ColumnScope,
    expression::{Dependencies, Language, Leaf, RequestCall, Scope, finish_classic},
    table::QueryTable,
};

/// Names in the select list or in the filter.
pub(super) struct AlphaScope<'a> {
    pub context: &'a Context<'a>,
    pub table: QueryTable,
    /// In the select list: rows only.
    pub is_output: bool,
}

impl ColumnScope for AlphaScope<'_> {
    fn table(&self) -> &QueryTable {
        &self.table
    }
}

impl Scope for AlphaScope<'_> {
    type Leaf = Leaf;

    fn column(&self, schema: Option<&Name>, table: Option<&Name>, name: &Name) -> Result<Expression<Leaf>, Problem> {
        self.table.column(schema, table, name, self.context).map(Leaf::Row).map(Expression::Input)
    }

    fn request_call(&self, call: &RequestCall<'_>) -> Option<Result<Expression<Leaf>, Problem>> {
        let value = request_call(call)?;
        if self.is_output {
            let problem = Problem::new("match_clause_misplaced", "an output column reads the row only", call.at);
            return Some(Err(problem.help("clients know their own token and parameters")));
        }
        Some(value)
    }

    fn subquery_problem(&self, at: Position) -> Problem {
        if self.is_output {
            return Problem::new("unsupported_expression", "a subquery cannot be an output column", at);
        }
        Problem::new("match_clause_misplaced", "a subquery stands to the right of IN, joined by AND and OR", at)
    }

    fn finish(&self, expression: Expression<Leaf>, at: Position) -> Result<Expression<Leaf>, Problem> {
        let found = Dependencies::of(&expression);
        if found.row && found.request {
            return finish_classic(expression, at).map_err(|problem| problem.help("compare them by `=`, IN or &&"));
        }
        finish_classic(expression, at)
    }

    fn language(&self) -> Language {
        Language { has_overlap: !self.is_output, ..Language::classic(self.context.fixed_json) }
    }
}

/// `auth.user_id()` and its like.
pub(super) fn request_call(call: &RequestCall<'_>) -> Option<Result<Expression<Leaf>, Problem>> {
    let input = |input| Expression::Input(Leaf::Request(input));
    let member = |document, path: &str| Expression::JsonMember {
        document: Box::new(input(document)),
        path: JsonPath::new(path, true),
        as_value: true,
    };
    Some(match (call.schema, call.name) {
        ("auth", "user_id") => call.without_arguments(RequestInput::UserId),
        ("auth", "parameters") => call.without_arguments(RequestInput::Token),
        ("connection", "parameters") => call.without_arguments(RequestInput::Parameters),
        ("subscription", "parameters") => call.without_arguments(RequestInput::SubscriptionOrEmpty),
        ("auth", "parameter") => call.text_argument().map(|path| member(RequestInput::Token, path)),
        ("subscription", "parameter") => {
            call.text_argument().map(|path| member(RequestInput::SubscriptionOrEmpty, path))
        }
        // These are converted to columns first, so that there is nothing below their names.
        ("connection", "parameter") => call.text_argument().map(|path| member(RequestInput::ParameterColumns, path)),
        _ => return None,
    })
}
