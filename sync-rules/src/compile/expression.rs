//! Expressions of the syntax tree to compiled ones. What names and calls mean is the business of a [`Scope`].

use std::borrow::Cow;

use crate::{
    cast::{CastType, to_real},
    definition::{RequestInput, RowInput},
    diagnostic::Problem,
    expression::{BinaryOperator, Expression},
    functions::{Function, json::JsonPath},
    suggest::nearest,
    syntax::{Expr, ExprKind, Member, Name, Position, SUBSTRING_FROM},
    value::SqlValue,
    write_policy::UploadInput,
};

/// What an expression can read in bucket definitions, edition 2 streams and checks.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Leaf {
    /// Of the query's table; in checks, of the row as it would become.
    Row(RowInput),
    /// In checks: a column of the stored row.
    Old(String),
    /// In checks and stamps: of the upload.
    Upload(UploadInput),
    /// A value of the request.
    Request(RequestInput),
    /// A bucket parameter.
    Bucket(usize),
    /// Of an element of a request's array.
    Element(crate::definition::ElementPart),
}

/// Which language a place speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Language {
    /// The option `fixed_json_extract`.
    pub fixed_json: bool,
    /// Edition 3: more operators, argument counts are checked, nothing is evaluated in advance.
    pub is_edition_3: bool,
    /// Whether there is `&&`: in filters of streams.
    pub has_overlap: bool,
}

impl Language {
    /// Of bucket definitions, events and checks.
    pub(super) const fn classic(fixed_json: bool) -> Self {
        Self { fixed_json, is_edition_3: false, has_overlap: false }
    }
}

/// The meaning of names in one place of the file.
pub(super) trait Scope {
    /// What an expression can read here.
    type Leaf: Clone;

    /// A column reference.
    fn column(
        &self,
        schema: Option<&Name>,
        table: Option<&Name>,
        name: &Name,
    ) -> Result<Expression<Self::Leaf>, Problem>;

    /// A call with a schema, such as `request.user_id()`. `None`: there is no such function here.
    fn request_call(&self, call: &RequestCall<'_>) -> Option<Result<Expression<Self::Leaf>, Problem>>;

    /// `:name`
    fn placeholder(&self, name: &str, at: Position) -> Result<Expression<Self::Leaf>, Problem> {
        let problem = Problem::new("sql_syntax", format!("`:{name}` has no meaning in this query"), at);
        Err(problem.help("write `bucket.name` in data queries, or use the form with `table` and `filter`"))
    }

    /// Refuses a subquery with the reason for this place.
    fn subquery_problem(&self, at: Position) -> Problem {
        Problem::new("unsupported_expression", "a subquery cannot be used here", at)
            .help("put the subquery into a parameter query, or use the form with `table` and `filter`")
    }

    /// Refuses a positive `x IN y` or `x && y` that stands where rows cannot be matched; `None` allows it.
    fn membership_problem(&self, at: Position) -> Option<Problem> {
        let _ = at;
        None
    }

    /// Checks every expression that is put together, and may simplify it.
    fn finish(&self, expression: Expression<Self::Leaf>, at: Position) -> Result<Expression<Self::Leaf>, Problem>;

    /// The language of the place.
    fn language(&self) -> Language;
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

    /// The only argument.
    pub(super) fn argument(&self) -> Result<&Expr, Problem> {
        let Self { schema, name, .. } = self;
        match self.arguments {
            [argument] => Ok(argument),
            _ => Err(Problem::new("argument_count", format!("{schema}.{name}() takes one argument"), self.at)),
        }
    }

    /// The only argument, a text literal.
    pub(super) fn text_argument(&self) -> Result<&str, Problem> {
        let Self { schema, name, .. } = self;
        match &self.argument()?.kind {
            ExprKind::Literal(SqlValue::Text(text)) => Ok(text),
            _ => Err(Problem::new("expression_failed", format!("{schema}.{name}() needs a text literal"), self.at)),
        }
    }
}

/// Compiles an expression.
pub(super) fn lower<S: Scope + ?Sized>(expr: &Expr, scope: &S) -> Result<Expression<S::Leaf>, Problem> {
    let at = expr.position;
    let boxed = |expr: &Expr| lower(expr, scope).map(Box::new);
    let lowered = match &expr.kind {
        ExprKind::Literal(value) => return Ok(Expression::Literal(literal(value, scope.language()))),
        ExprKind::Column { schema, table, name } => return scope.column(schema.as_ref(), table.as_ref(), name),
        ExprKind::Placeholder(name) => return scope.placeholder(name, at),
        ExprKind::Not(operand) => Expression::Not(boxed(operand)?),
        ExprKind::IsNull { operand, negated } => Expression::IsNull { operand: boxed(operand)?, negated: *negated },
        ExprKind::Binary { operator, left, right } => binary(*operator, left, right, at, scope)?,
        ExprKind::Cast { operand, to } => Expression::Cast { operand: boxed(operand)?, to: cast_type(to, at)? },
        ExprKind::JsonMember { document, path, as_value } => Expression::JsonMember {
            document: boxed(document)?,
            path: json_path(path, at, scope.language())?,
            as_value: *as_value,
        },
        ExprKind::Call { schema: None, name, arguments } => call(name, arguments, at, scope)?,
        ExprKind::Call { schema: Some(schema), name, arguments } => {
            let unknown = || unknown_request_function(schema, name, at);
            return scope.request_call(&RequestCall { schema, name, arguments, at }).ok_or_else(unknown)?;
        }
        ExprKind::In { operand, right, negated } => membership(operand, right, *negated, at, scope)?,
        ExprKind::Overlap { left, right } => {
            if !scope.language().has_overlap {
                return Err(Problem::new("unsupported_operator", "&& needs a stream", at)
                    .help("write `bucket.name IN column` in a bucket definition"));
            }
            if let Some(problem) = scope.membership_problem(at) {
                return Err(problem);
            }
            Expression::binary(BinaryOperator::Overlap, lower(left, scope)?, lower(right, scope)?)
        }
        ExprKind::Subquery(_) => return Err(scope.subquery_problem(at)),
        ExprKind::Plus(_)
        | ExprKind::IsTruth { .. }
        | ExprKind::Between { .. }
        | ExprKind::Case { .. }
        | ExprKind::List(_) => edition_3(expr, scope)?,
    };
    scope.finish(lowered, at)
}

/// Integers of editions 1 and 2 pass through binary64.
#[expect(clippy::cast_possible_truncation, reason = "what comes from an integer goes back into one")]
fn literal(value: &SqlValue, language: Language) -> SqlValue {
    match value {
        SqlValue::Integer(number) if !language.is_edition_3 => SqlValue::Integer(to_real(*number) as i128),
        value => value.clone(),
    }
}

fn binary<S: Scope + ?Sized>(
    operator: BinaryOperator,
    left: &Expr,
    right: &Expr,
    at: Position,
    scope: &S,
) -> Result<Expression<S::Leaf>, Problem> {
    use BinaryOperator as Op;
    let is_edition_3 = scope.language().is_edition_3;
    if !is_edition_3 && matches!(operator, Op::Modulo | Op::BitAnd | Op::BitOr | Op::ShiftLeft | Op::ShiftRight) {
        return Err(Problem::new("unsupported_operator", "%, &, |, << and >> cannot be used in rules", at));
    }
    let (left, right) = (lower(left, scope)?, lower(right, scope)?);
    if is_edition_3 && operator == Op::NotEqual {
        let equal = scope.finish(Expression::binary(Op::Equal, left, right), at)?;
        return Ok(Expression::Not(Box::new(equal)));
    }
    Ok(Expression::binary(operator, left, right))
}

fn membership<S: Scope + ?Sized>(
    operand: &Expr,
    right: &Expr,
    negated: bool,
    at: Position,
    scope: &S,
) -> Result<Expression<S::Leaf>, Problem> {
    let negate = |expression| if negated { Expression::Not(Box::new(expression)) } else { expression };
    if let ExprKind::Subquery(_) = &right.kind {
        return Err(scope.subquery_problem(at));
    }
    if let ExprKind::List(list) = &right.kind {
        let list = list.iter().map(|element| lower(element, scope)).collect::<Result<_, _>>()?;
        refuse_before_edition_3("a list of values", at, scope)?;
        return Ok(negate(Expression::InList { operand: Box::new(lower(operand, scope)?), list }));
    }
    if negated && !scope.language().is_edition_3 {
        return Err(
            Problem::new("unsupported_operator", "NOT IN needs edition 3", at).help("write `NOT (a = 1 OR a = 2)`")
        );
    }
    let problem = if negated { None } else { scope.membership_problem(at) };
    let expression = Expression::binary(BinaryOperator::In, lower(operand, scope)?, lower(right, scope)?);
    match problem {
        Some(problem) => Err(problem),
        None if negated => Ok(Expression::Not(Box::new(scope.finish(expression, at)?))),
        None => Ok(expression),
    }
}

fn refuse_before_edition_3<S: Scope + ?Sized>(what: &str, at: Position, scope: &S) -> Result<(), Problem> {
    if scope.language().is_edition_3 {
        return Ok(());
    }
    Err(Problem::new("unsupported_expression", format!("{what} needs edition 3"), at)
        .help("write it with =, <, AND and OR"))
}

/// What only edition 3 has.
fn edition_3<S: Scope + ?Sized>(expr: &Expr, scope: &S) -> Result<Expression<S::Leaf>, Problem> {
    let at = expr.position;
    let boxed = |expr: &Expr| lower(expr, scope).map(Box::new);
    let negate = |expression, negated| if negated { Expression::Not(Box::new(expression)) } else { expression };
    let what = match &expr.kind {
        ExprKind::Plus(_) => "a plus sign",
        ExprKind::IsTruth { .. } => "IS TRUE",
        ExprKind::Between { .. } => "BETWEEN",
        ExprKind::Case { .. } => "CASE",
        _ => "a list of values",
    };
    if matches!(expr.kind, ExprKind::Plus(_) | ExprKind::IsTruth { .. }) && !scope.language().is_edition_3 {
        return Err(Problem::new("unsupported_operator", format!("{what} needs edition 3"), at)
            .help("write the condition itself, or `NOT condition`"));
    }
    refuse_before_edition_3(what, at, scope)?;
    match &expr.kind {
        ExprKind::Plus(operand) => lower(operand, scope),
        ExprKind::IsTruth { operand, value, negated } => {
            Ok(negate(Expression::IsTruth { operand: boxed(operand)?, value: *value }, *negated))
        }
        ExprKind::Between { operand, low, high, negated } => {
            let between = Expression::Between { operand: boxed(operand)?, low: boxed(low)?, high: boxed(high)? };
            Ok(negate(between, *negated))
        }
        ExprKind::Case { operand, branches, otherwise } => Ok(Expression::Case {
            operand: operand.as_deref().map(boxed).transpose()?,
            branches: branches
                .iter()
                .map(|(when, then)| Ok((lower(when, scope)?, lower(then, scope)?)))
                .collect::<Result<_, Problem>>()?,
            otherwise: otherwise.as_deref().map(boxed).transpose()?,
        }),
        _ => Err(Problem::new("unsupported_expression", "a list stands to the right of IN only", at)),
    }
}

fn json_path(path: &Member, at: Position, language: Language) -> Result<JsonPath, Problem> {
    match path {
        Member::Text(path) => Ok(JsonPath::new(path, language.fixed_json)),
        Member::Index(index) if language.is_edition_3 => Ok(JsonPath::new(&index.to_string(), language.fixed_json)),
        Member::Index(_) => Err(Problem::new("unsupported_operator", "-> with a number needs edition 3", at)
            .help("write j ->> '$.0' for an element")),
    }
}

fn cast_type(name: &str, at: Position) -> Result<CastType, Problem> {
    CastType::named(name).ok_or_else(|| {
        Problem::new("invalid_cast", format!("values cannot be cast to {name}"), at)
            .help("types are text, numeric, integer, real and blob")
    })
}

fn call<S: Scope + ?Sized>(
    name: &str,
    arguments: &[Expr],
    at: Position,
    scope: &S,
) -> Result<Expression<S::Leaf>, Problem> {
    let language = scope.language();
    if language.is_edition_3 && name == "random" {
        return Err(Problem::new("forbidden_function", "random() gives every evaluation another value", at));
    }
    if name == SUBSTRING_FROM {
        let code = if language.is_edition_3 { "load_failed" } else { "unsupported_expression" };
        return Err(Problem::new(code, "substring(x FROM start) cannot be used in rules", at)
            .help("write substring(x, start, length)"));
    }
    let function = Function::named(name, language.fixed_json)
        .filter(|function| !language.is_edition_3 || function.in_edition_3())
        .ok_or_else(|| unknown_function(name, language, at))?;
    let (fewest, most) = function.arity();
    let is_counted = arguments.len() >= fewest && most.is_none_or(|most| arguments.len() <= most);
    if language.is_edition_3 && !is_counted {
        let expected = match most {
            Some(most) if most == fewest => format!("{most}"),
            Some(most) => format!("{fewest} to {most}"),
            None => format!("{fewest} or more"),
        };
        let message = format!("{name}() takes {expected} arguments, not {}", arguments.len());
        return Err(Problem::new("argument_count", message, at));
    }
    let arguments = arguments.iter().map(|argument| lower(argument, scope)).collect::<Result<_, _>>()?;
    Ok(Expression::Call { function, arguments })
}

fn unknown_function(name: &str, language: Language, at: Position) -> Problem {
    let problem = Problem::new("unknown_function", format!("there is no function {name}()"), at);
    let instead = match name {
        "coalesce" => "ifnull(a, b), nested for more",
        "substr" => "substring(text, start, length)",
        "nullif" => "iif(a = b, NULL, a)",
        "json_array_contains" | "any" => "value IN array",
        "strftime" | "date" | "time" | "to_char" => "datetime(column) or unixepoch(column)",
        "now" | "current_timestamp" | "datetime_now" => {
            "a column: rules are evaluated when rows change, not when time passes"
        }
        "concat" => "a || b",
        "char_length" | "character_length" => "length(text)",
        "exists" => "auth.user_id() IN (SELECT column FROM …)",
        "json" | "jsonb" => "the column as it is: JSON is text here",
        _ => {
            let known = Function::names().filter(|(_, is_in_3)| *is_in_3 || !language.is_edition_3);
            return match nearest(name, known.map(|(name, _)| name)) {
                Some(similar) => problem.help(format!("did you mean {similar}()?")),
                None => {
                    problem.help("docs/rules.md lists the functions; compute anything else in a column of the table")
                }
            };
        }
    };
    problem.help(format!("use {instead}"))
}

fn unknown_request_function(schema: &str, name: &str, at: Position) -> Problem {
    const KNOWN: [&str; 14] = [
        "auth.user_id",
        "auth.parameter",
        "auth.parameters",
        "connection.parameter",
        "connection.parameters",
        "subscription.parameter",
        "subscription.parameters",
        "request.user_id",
        "request.jwt",
        "request.parameter",
        "request.parameters",
        "upload.received_at",
        "upload.client_id",
        "auth.jwt",
    ];
    let called = format!("{schema}.{name}");
    let problem = Problem::new("unknown_function", format!("there is no function {called}() here"), at);
    match nearest(&called, KNOWN.into_iter().filter(|known| *known != called)) {
        Some("auth.jwt") => problem.help("write auth.parameters()"),
        Some(similar) => problem.help(format!("did you mean {similar}()?")),
        None => problem.help(
            "bucket definitions have request.…(), streams have auth.…(), connection.…() and subscription.…(), write \
             rules have auth.…() and upload.…()",
        ),
    }
}

/// [`Scope::finish`] of classic rules: a filter is turned around, from a row to the buckets it belongs to, which works
/// for the match forms alone; and what needs no row and no request is evaluated now.
pub(super) fn finish_classic(expression: Expression<Leaf>, at: Position) -> Result<Expression<Leaf>, Problem> {
    refuse_mix(&expression, at)?;
    finish_static(expression, at)
}

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

/// Evaluates what has no inputs now.
pub(super) fn finish_static(expression: Expression<Leaf>, at: Position) -> Result<Expression<Leaf>, Problem> {
    if !Dependencies::of(&expression).is_static() {
        return Ok(expression);
    }
    match expression.evaluate(&|_| unreachable_input()) {
        // A plan is stored as JSON, which has no such numbers.
        Ok(value) if matches!(*value, SqlValue::Real(number) if !number.is_finite()) => Ok(expression.clone()),
        Ok(value) => Ok(Expression::Literal(value.into_owned())),
        Err(failure) => {
            Err(Problem::new("expression_failed", format!("the constant expression fails: {}", failure.0), at))
        }
    }
}

/// Static expressions have no inputs; NULL is what an absent one would read as.
fn unreachable_input() -> Cow<'static, SqlValue> {
    Cow::Owned(SqlValue::Null)
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
            Leaf::Request(_) | Leaf::Upload(_) | Leaf::Element(_) => found.request = true,
            Leaf::Bucket(_) => found.bucket = true,
        });
        found
    }

    /// Whether it reads what a request knows.
    pub(super) const fn is_request(self) -> bool {
        self.request || self.bucket
    }

    pub(super) const fn is_static(self) -> bool {
        !self.row && !self.request && !self.bucket
    }
}
