//! The parser's tree to ours.

use sqlparser::{
    ast::{self, BinaryOperator as SqlOperator, SetExpr, Spanned, TableFactor, UnaryOperator, Value},
    tokenizer::Token,
};

use crate::{diagnostic::Problem, expression::BinaryOperator, value::SqlValue};

use super::{
    Expr, ExprKind, Item, Name, Position, START, Select, Source,
    dialect::{parser, position, syntax_problem},
};

/// Expressions nested deeper are refused.
const DEPTH_MAX: usize = 120;

/// Reads one `SELECT`.
pub(crate) fn parse_select(sql: &str) -> Result<Select, Problem> {
    let (mut parser, selects_nothing) = parser(sql)?;
    let statements = parser.parse_statements().map_err(syntax_problem)?;
    match <[ast::Statement; 1]>::try_from(statements) {
        Ok([ast::Statement::Query(query)]) => {
            let select = select(*query, 0)?;
            Ok(if selects_nothing { Select { items: Vec::new(), ..select } } else { select })
        }
        Ok(_) => Err(not_a_select(START)),
        Err(statements) if statements.is_empty() => Err(Problem::new("not_a_select", "there is no SQL here", START)),
        Err(_) => Err(Problem::new("multiple_statements", "there is more than one statement", START)
            .help("write each query as an entry of its own")),
    }
}

/// Reads one expression.
pub(crate) fn parse_expression(sql: &str) -> Result<Expr, Problem> {
    let (mut parser, _) = parser(sql)?;
    let parsed = parser.parse_expr().map_err(syntax_problem)?;
    let next = parser.peek_token();
    if next.token != Token::EOF {
        return Err(Problem::new("sql_syntax", "the expression ends before this", position(next.span.start)));
    }
    expression(parsed, 0)
}

fn place(node: &impl Spanned) -> Position {
    position(node.span().start)
}

fn not_a_select(position: Position) -> Problem {
    Problem::new("not_a_select", "a query here is one SELECT", position)
        .help("write SELECT columns FROM table WHERE condition")
}

fn name(ident: ast::Ident) -> Name {
    let position = position(ident.span.start);
    if ident.quote_style.is_some() {
        return Name { text: ident.value, lost_case: false, position };
    }
    let text = ident.value.to_lowercase();
    Name { lost_case: text != ident.value, text, position }
}

fn select(query: ast::Query, depth: usize) -> Result<Select, Problem> {
    let at = place(&query);
    let query_clause = query_clause(&query);
    let SetExpr::Select(select) = *query.body else { return Err(not_a_select(at)) };
    if query.with.is_some() {
        return Err(not_a_select(at));
    }
    let position = position(select.select_token.0.span.start);
    let refused_clause = query_clause.or_else(|| select_clause(&select)).map(|clause| {
        Problem::new("clause_unsupported", format!("{clause} cannot be used in rules"), position)
            .help("rules choose rows by WHERE only; sort and group in the client's database")
    });
    let source = source(select.from, position)?;
    let items = select.projection.into_iter().map(|each| item(each, depth)).collect::<Result<_, _>>()?;
    let filter = select.selection.map(|filter| expression(filter, depth + 1)).transpose()?;
    Ok(Select { items, source, filter, refused_clause, position })
}

/// The clause of a query that rules do not have.
fn query_clause(query: &ast::Query) -> Option<&'static str> {
    let rest = query.for_clause.is_some()
        || query.settings.is_some()
        || query.format_clause.is_some()
        || !query.pipe_operators.is_empty();
    [
        (query.order_by.is_some(), "ORDER BY"),
        (query.limit_clause.is_some() || query.fetch.is_some(), "LIMIT"),
        (!query.locks.is_empty(), "FOR UPDATE"),
        (rest, "this clause"),
    ]
    .into_iter()
    .find_map(|(found, clause)| found.then_some(clause))
}

fn select_clause(select: &ast::Select) -> Option<&'static str> {
    let is_grouped = !matches!(&select.group_by, ast::GroupByExpr::Expressions(groups, more) if groups.is_empty() && more.is_empty());
    let rest = select.into.is_some()
        || select.qualify.is_some()
        || select.top.is_some()
        || select.exclude.is_some()
        || select.prewhere.is_some()
        || select.value_table_mode.is_some()
        || select.select_modifiers.is_some()
        || !select.named_window.is_empty()
        || !select.lateral_views.is_empty()
        || !select.connect_by.is_empty()
        || !select.cluster_by.is_empty()
        || !select.distribute_by.is_empty()
        || !select.sort_by.is_empty();
    [
        (select.distinct.is_some(), "DISTINCT"),
        (is_grouped, "GROUP BY"),
        (select.having.is_some(), "HAVING"),
        (rest, "this clause"),
    ]
    .into_iter()
    .find_map(|(found, clause)| found.then_some(clause))
}

fn source(from: Vec<ast::TableWithJoins>, at: Position) -> Result<Option<Source>, Problem> {
    if from.is_empty() {
        return Ok(None);
    }
    let single = |at| {
        Problem::new("single_table_required", "a query reads one table", at)
            .help("use a parameter query for the other table, or `IN (SELECT …)` in a `filter`")
    };
    let Ok([table]) = <[ast::TableWithJoins; 1]>::try_from(from) else { return Err(single(at)) };
    if !table.joins.is_empty() {
        return Err(single(at));
    }
    let plain = matches!(
        &table.relation,
        TableFactor::Table { with_hints, version: None, with_ordinality: false, partitions, json_path: None, sample: None, index_hints, .. }
            if with_hints.is_empty() && partitions.is_empty() && index_hints.is_empty()
    );
    let TableFactor::Table { name: path, alias, args, .. } = table.relation else { return Err(single(at)) };
    if !plain || alias.as_ref().is_some_and(|alias| !alias.columns.is_empty() || alias.at.is_some()) {
        return Err(unsupported("this form of table", at));
    }
    let mut path = object_name(path, at)?;
    let alias = alias.map(|alias| name(alias.name));
    let last = path.pop().ok_or_else(|| single(at))?;
    match (path.pop(), args) {
        _ if !path.is_empty() => {
            Err(Problem::new("invalid_schema_name", "a table is named by `schema.table`", last.position))
        }
        (None, Some(_)) => Ok(Some(Source::Function { name: last })),
        (Some(_), Some(_)) => Err(single(at)),
        (schema, None) => Ok(Some(Source::Table { schema, name: last, alias })),
    }
}

fn object_name(path: ast::ObjectName, at: Position) -> Result<Vec<Name>, Problem> {
    path.0
        .into_iter()
        .map(|part| match part {
            ast::ObjectNamePart::Identifier(ident) => Ok(name(ident)),
            ast::ObjectNamePart::Function(_) => Err(unsupported("a computed name", at)),
        })
        .collect()
}

fn item(item: ast::SelectItem, depth: usize) -> Result<Item, Problem> {
    let at = place(&item);
    match item {
        ast::SelectItem::UnnamedExpr(expr) => Ok(Item::Column { expr: expression(expr, depth + 1)?, alias: None }),
        ast::SelectItem::ExprWithAlias { expr, alias } => {
            Ok(Item::Column { expr: expression(expr, depth + 1)?, alias: Some(name(alias)) })
        }
        ast::SelectItem::Wildcard(options) | ast::SelectItem::QualifiedWildcard(_, options)
            if options != ast::WildcardAdditionalOptions::default() =>
        {
            Err(unsupported("this form of `*`", at))
        }
        ast::SelectItem::Wildcard(_) => Ok(Item::Star { table: None, position: at }),
        ast::SelectItem::QualifiedWildcard(ast::SelectItemQualifiedWildcardKind::ObjectName(path), _) => {
            match <[Name; 1]>::try_from(object_name(path, at)?) {
                Ok([table]) => Ok(Item::Star { table: Some(table), position: at }),
                Err(_) => Err(schema_in_reference(at)),
            }
        }
        _ => Err(unsupported("this form of output column", at)),
    }
}

fn schema_in_reference(at: Position) -> Problem {
    Problem::new("schema_in_reference", "a schema cannot stand in a column reference", at)
        .help("write `table.column`, or give the table an alias")
}

fn unsupported(what: &str, at: Position) -> Problem {
    Problem::new("unsupported_expression", format!("{what} cannot be used in rules"), at)
}

fn expression(expr: ast::Expr, depth: usize) -> Result<Expr, Problem> {
    let at = place(&expr);
    if depth > DEPTH_MAX {
        return Err(Problem::new("sql_syntax", "the expression is nested too deeply", at));
    }
    let nested = |operand: Box<ast::Expr>| expression(*operand, depth + 1).map(Box::new);
    let kind = match expr {
        ast::Expr::Nested(inner) => return expression(*inner, depth + 1),
        ast::Expr::Value(value) => literal(value.value, at)?,
        ast::Expr::Identifier(ident) => ExprKind::Column { table: None, name: name(ident) },
        ast::Expr::CompoundIdentifier(path) => match <[ast::Ident; 2]>::try_from(path) {
            Ok([table, column]) => ExprKind::Column { table: Some(name(table)), name: name(column) },
            Err(_) => return Err(schema_in_reference(at)),
        },
        ast::Expr::IsNull(operand) => ExprKind::IsNull { operand: nested(operand)?, negated: false },
        ast::Expr::IsNotNull(operand) => ExprKind::IsNull { operand: nested(operand)?, negated: true },
        ast::Expr::UnaryOp { op, expr } => unary(op, *expr, at, depth)?,
        ast::Expr::BinaryOp { left, op, right } => binary(*left, op, *right, at, depth)?,
        ast::Expr::InSubquery { expr, subquery, negated } => {
            ExprKind::InSelect { operand: nested(expr)?, select: Box::new(select(*subquery, depth + 1)?), negated }
        }
        ast::Expr::Cast {
            kind: ast::CastKind::Cast | ast::CastKind::DoubleColon,
            expr,
            data_type,
            format: None,
            ..
        } => ExprKind::Cast { operand: nested(expr)?, to: data_type.to_string().to_lowercase() },
        ast::Expr::Function(function) => call(function, at, depth)?,
        ast::Expr::Substring { expr, substring_from, substring_for, special: true, shorthand: false } => {
            let arguments = [Some(expr), substring_from, substring_for].into_iter().flatten();
            let arguments = arguments.map(|argument| expression(*argument, depth + 1)).collect::<Result<_, _>>()?;
            ExprKind::Call { schema: None, name: "substring".to_owned(), arguments }
        }
        ast::Expr::Trim { .. }
        | ast::Expr::Ceil { .. }
        | ast::Expr::Floor { .. }
        | ast::Expr::Position { .. }
        | ast::Expr::Substring { shorthand: true, .. } => {
            return Err(Problem::new("unknown_function", "the rules language has no such function", at));
        }
        ast::Expr::Like { .. } | ast::Expr::ILike { .. } | ast::Expr::SimilarTo { .. } => {
            return Err(unsupported_operator("LIKE", at));
        }
        ast::Expr::Subquery(_) | ast::Expr::Exists { .. } => {
            return Err(unsupported("a subquery outside of IN", at).help("write `column IN (SELECT column FROM …)`"));
        }
        ast::Expr::IsTrue(_) | ast::Expr::IsFalse(_) | ast::Expr::IsNotTrue(_) | ast::Expr::IsNotFalse(_) => {
            return Err(unsupported_operator("IS TRUE", at).help("write the condition itself, or `NOT condition`"));
        }
        ast::Expr::Tuple(_) | ast::Expr::InList { .. } => {
            return Err(unsupported("a list of values", at).help("write `a = 1 OR a = 2`"));
        }
        ast::Expr::Between { .. } => {
            return Err(unsupported("BETWEEN", at).help("write `a >= 1 AND a <= 2`"));
        }
        _ => return Err(unsupported("this expression", at)),
    };
    Ok(Expr { kind, position: at })
}

fn literal(value: Value, at: Position) -> Result<ExprKind, Problem> {
    Ok(ExprKind::Literal(match value {
        Value::Null => SqlValue::Null,
        Value::Boolean(value) => value.into(),
        Value::SingleQuotedString(text) | Value::EscapedStringLiteral(text) => SqlValue::Text(text),
        Value::Number(digits, _) => number(&digits, at)?,
        Value::Placeholder(name) if name.starts_with(':') => {
            return Ok(ExprKind::Placeholder(name[1..].to_lowercase()));
        }
        Value::Placeholder(_) => return Err(unsupported("a numbered placeholder", at)),
        _ => return Err(unsupported("this kind of literal", at)),
    }))
}

/// A literal with a dot is REAL. Integers pass through binary64, as in the reference.
#[expect(clippy::cast_possible_truncation, reason = "saturates far outside what a source sends")]
fn number(digits: &str, at: Position) -> Result<SqlValue, Problem> {
    let parsed = if digits.contains(['e', 'E']) { None } else { digits.parse::<f64>().ok() };
    match parsed {
        Some(number) if digits.contains('.') => Ok(SqlValue::Real(number)),
        Some(number) => Ok(SqlValue::Integer(number as i128)),
        None => Err(Problem::new("sql_syntax", "a number has digits and at most one dot", at)),
    }
}

fn unary(op: UnaryOperator, operand: ast::Expr, at: Position, depth: usize) -> Result<ExprKind, Problem> {
    let operand = expression(operand, depth + 1)?;
    match (op, operand.kind) {
        (UnaryOperator::Not, kind) => Ok(ExprKind::Not(Box::new(Expr { kind, position: operand.position }))),
        (UnaryOperator::Minus, ExprKind::Literal(SqlValue::Integer(number))) => {
            Ok(ExprKind::Literal(SqlValue::Integer(-number)))
        }
        (UnaryOperator::Minus, ExprKind::Literal(SqlValue::Real(number))) => {
            Ok(ExprKind::Literal(SqlValue::Real(-number)))
        }
        (op, _) => Err(unsupported_operator(&op.to_string(), at)),
    }
}

fn unsupported_operator(operator: &str, at: Position) -> Problem {
    Problem::new("unsupported_operator", format!("the operator {operator} cannot be used in rules"), at)
}

fn binary(left: ast::Expr, op: SqlOperator, right: ast::Expr, at: Position, depth: usize) -> Result<ExprKind, Problem> {
    let left = Box::new(expression(left, depth + 1)?);
    let right = Box::new(expression(right, depth + 1)?);
    let operator = match op {
        SqlOperator::And => BinaryOperator::And,
        SqlOperator::Or => BinaryOperator::Or,
        SqlOperator::Eq => BinaryOperator::Equal,
        SqlOperator::NotEq => BinaryOperator::NotEqual,
        SqlOperator::Lt => BinaryOperator::Less,
        SqlOperator::LtEq => BinaryOperator::LessOrEqual,
        SqlOperator::Gt => BinaryOperator::Greater,
        SqlOperator::GtEq => BinaryOperator::GreaterOrEqual,
        SqlOperator::Plus => BinaryOperator::Add,
        SqlOperator::Minus => BinaryOperator::Subtract,
        SqlOperator::Multiply => BinaryOperator::Multiply,
        SqlOperator::Divide => BinaryOperator::Divide,
        SqlOperator::StringConcat => BinaryOperator::Concatenate,
        SqlOperator::Custom(name) if name == "IN" => BinaryOperator::In,
        SqlOperator::Custom(_) => return Ok(ExprKind::NotIn),
        SqlOperator::Arrow | SqlOperator::LongArrow => {
            let ExprKind::Literal(SqlValue::Text(path)) = right.kind else {
                return Err(unsupported_operator("-> with anything but a text literal", right.position)
                    .help("write j ->> 'key', or j ->> '$.0' for an element"));
            };
            return Ok(ExprKind::JsonMember { document: left, path, as_value: op == SqlOperator::LongArrow });
        }
        other => return Err(unsupported_operator(&other.to_string(), at)),
    };
    Ok(ExprKind::Binary { operator, left, right })
}

fn call(function: ast::Function, at: Position, depth: usize) -> Result<ExprKind, Problem> {
    let plain = function.filter.is_none()
        && function.over.is_none()
        && function.within_group.is_empty()
        && function.null_treatment.is_none()
        && function.parameters == ast::FunctionArguments::None;
    let mut path = object_name(function.name, at)?;
    let (Some(name), ast::FunctionArguments::List(list), true) = (path.pop(), function.args, plain) else {
        return Err(unsupported("this form of call", at));
    };
    if list.duplicate_treatment.is_some() || !list.clauses.is_empty() {
        return Err(unsupported("this form of call", at));
    }
    let argument = |argument| match argument {
        ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(expr)) => expression(expr, depth + 1),
        _ => Err(Problem::new("star_unsupported", "`*` cannot be an argument", at)),
    };
    let arguments = list.args.into_iter().map(argument).collect::<Result<_, _>>()?;
    let schema = (!path.is_empty()).then(|| path.iter().map(|part| part.text.as_str()).collect::<Vec<_>>().join("."));
    Ok(ExprKind::Call { schema, name: name.text, arguments })
}
