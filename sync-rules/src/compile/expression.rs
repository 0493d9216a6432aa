//! Expressions of the syntax tree to compiled ones. What names and calls mean is the business of a [`Scope`].

use crate::{
    cast::CastType,
    definition::RequestInput,
    diagnostic::Problem,
    expression::{BinaryOperator, Expression},
    functions::{Function, json::JsonPath},
    syntax::{Expr, ExprKind, Name, Position},
    value::SqlValue,
};

/// What an expression can read, over all places of a rules file.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Leaf {
    /// A column of the query's table; in checks, of the row as it would become.
    Row(String),
    /// In checks: a column of the stored row.
    Old(String),
    /// A value of the request.
    Request(RequestInput),
    /// A bucket parameter.
    Bucket(usize),
}

/// The meaning of names in one place of the file.
pub(super) trait Scope {
    /// A column reference.
    fn column(&self, table: Option<&Name>, name: &Name) -> Result<Leaf, Problem>;

    /// A call with a schema, such as `request.user_id()`. `None`: there is no such function here.
    fn request_call(&self, call: &RequestCall<'_>) -> Option<Result<Expression<Leaf>, Problem>>;

    /// `:name`
    fn placeholder(&self, name: &str, at: Position) -> Result<Leaf, Problem> {
        let problem = Problem::new("unsupported_expression", format!("`:{name}` has no meaning in this query"), at);
        Err(problem.help("write `bucket.name` in data queries, or use the form with `table` and `filter`"))
    }

    /// Refuses `value IN (SELECT …)` with the reason for this place.
    fn subquery_problem(&self, at: Position) -> Problem {
        Problem::new("unsupported_expression", "a subquery cannot be used here", at)
            .help("put the subquery into a parameter query, or use the form with `table` and `filter`")
    }

    /// Whether rows and requests may meet in one expression, as they may in checks.
    fn may_mix(&self) -> bool {
        false
    }

    /// The option `fixed_json_extract`.
    fn fixed_json(&self) -> bool;
}

/// A call of a function that belongs to a schema.
#[derive(Debug)]
pub(super) struct RequestCall<'a> {
    pub schema: &'a str,
    pub name: &'a str,
    pub arguments: &'a [Expr],
    pub at: Position,
}

impl RequestCall<'_> {
    /// The input, if the call has no arguments.
    pub(super) fn without_arguments(&self, input: RequestInput) -> Result<Expression<Leaf>, Problem> {
        if self.arguments.is_empty() {
            return Ok(Expression::Input(Leaf::Request(input)));
        }
        let Self { schema, name, .. } = self;
        Err(Problem::new("argument_count", format!("{schema}.{name}() takes no arguments"), self.at)
            .help(format!("write {schema}.{name}() ->> 'key'")))
    }

    /// The only argument, a text literal.
    pub(super) fn text_argument(&self) -> Result<&str, Problem> {
        let Self { schema, name, .. } = self;
        match self.arguments {
            [Expr { kind: ExprKind::Literal(SqlValue::Text(text)), .. }] => Ok(text),
            [_] => Err(Problem::new("expression_failed", format!("{schema}.{name}() needs a text literal"), self.at)),
            _ => Err(Problem::new("argument_count", format!("{schema}.{name}() takes one argument"), self.at)),
        }
    }
}

/// Compiles an expression. Parts without inputs are evaluated now.
pub(super) fn lower(expr: &Expr, scope: &dyn Scope) -> Result<Expression<Leaf>, Problem> {
    let nested = |expr: &Expr| lower(expr, scope);
    let boxed = |expr: &Expr| lower(expr, scope).map(Box::new);
    let at = expr.position;
    let lowered = match &expr.kind {
        ExprKind::Literal(value) => return Ok(Expression::Literal(value.clone())),
        ExprKind::Column { table, name } => return scope.column(table.as_ref(), name).map(Expression::Input),
        ExprKind::Placeholder(name) => return scope.placeholder(name, at).map(Expression::Input),
        ExprKind::Not(operand) => Expression::Not(boxed(operand)?),
        ExprKind::IsNull { operand, negated } => Expression::IsNull { operand: boxed(operand)?, negated: *negated },
        ExprKind::Binary { operator, left, right } => {
            Expression::Binary { operator: *operator, left: boxed(left)?, right: boxed(right)? }
        }
        ExprKind::Cast { operand, to } => Expression::Cast { operand: boxed(operand)?, to: cast_type(to, at)? },
        ExprKind::JsonMember { document, path, as_value } => Expression::JsonMember {
            document: boxed(document)?,
            path: JsonPath::new(path, scope.fixed_json()),
            as_value: *as_value,
        },
        ExprKind::Call { schema: None, name, arguments } => Expression::Call {
            function: function(name, scope.fixed_json(), at)?,
            arguments: arguments.iter().map(nested).collect::<Result<_, _>>()?,
        },
        ExprKind::Call { schema: Some(schema), name, arguments } => {
            let unknown =
                || Problem::new("unknown_function", format!("there is no function {schema}.{name}() here"), at);
            return scope.request_call(&RequestCall { schema, name, arguments, at }).ok_or_else(unknown)?;
        }
        ExprKind::NotIn => {
            return Err(Problem::new("unsupported_operator", "NOT IN cannot be used in rules", at)
                .help("write `NOT (a = 1 OR a = 2)`"));
        }
        ExprKind::InSelect { .. } => return Err(scope.subquery_problem(at)),
    };
    if !scope.may_mix() {
        refuse_mix(&lowered, at)?;
    }
    fold(lowered, at)
}

/// A filter is turned around: from a row to the buckets it belongs to. That works for the match forms alone.
fn refuse_mix(expression: &Expression<Leaf>, at: Position) -> Result<(), Problem> {
    let found = Dependencies::of(expression);
    if found.bucket {
        return Err(Problem::new(
            "bucket_parameter_in_expression",
            "a bucket parameter cannot be part of an expression",
            at,
        )
        .help("compare it with a column by `=`, or write `bucket.name IN column`, joined by AND"));
    }
    if !(found.row && found.request) {
        return Ok(());
    }
    let is_match = matches!(
        expression,
        Expression::Binary {
            operator: BinaryOperator::Equal | BinaryOperator::In | BinaryOperator::And | BinaryOperator::Or,
            ..
        } | Expression::Not(_)
    );
    let (code, message) = if is_match {
        ("match_clause_misplaced", "a comparison of a column with the request must stand alone or below AND and OR")
    } else {
        ("mixed_dependencies", "an expression reads either the row or the request, not both")
    };
    Err(Problem::new(code, message, at).help("compare them by `=` or IN, joined by AND"))
}

fn cast_type(name: &str, at: Position) -> Result<CastType, Problem> {
    CastType::named(name).ok_or_else(|| {
        Problem::new("invalid_cast", format!("values cannot be cast to {name}"), at)
            .help("types are text, numeric, integer, real and blob")
    })
}

fn function(name: &str, fixed_json: bool, at: Position) -> Result<Function, Problem> {
    Function::named(name, fixed_json)
        .ok_or_else(|| Problem::new("unknown_function", format!("there is no function {name}()"), at))
}

fn fold(expression: Expression<Leaf>, at: Position) -> Result<Expression<Leaf>, Problem> {
    if !Dependencies::of(&expression).is_static() {
        return Ok(expression);
    }
    match expression.evaluate(&|_| unreachable_input()) {
        Ok(value) => Ok(Expression::Literal(value.into_owned())),
        Err(failure) => {
            Err(Problem::new("expression_failed", format!("the constant expression fails: {}", failure.0), at))
        }
    }
}

/// Static expressions have no inputs; NULL is what an absent one would read as.
fn unreachable_input() -> std::borrow::Cow<'static, SqlValue> {
    std::borrow::Cow::Owned(SqlValue::Null)
}

/// What an expression reads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Dependencies {
    pub row: bool,
    pub request: bool,
    pub bucket: bool,
}

impl Dependencies {
    pub(super) fn of(expression: &Expression<Leaf>) -> Self {
        let mut found = Self::default();
        expression.visit_inputs(&mut |leaf| match leaf {
            Leaf::Row(_) | Leaf::Old(_) => found.row = true,
            Leaf::Request(_) => found.request = true,
            Leaf::Bucket(_) => found.bucket = true,
        });
        found
    }

    pub(super) const fn is_static(self) -> bool {
        !self.row && !self.request && !self.bucket
    }
}
