//! The parser's expressions to ours.

use sqlparser::{
    ast::{self, BinaryOperator as SqlOperator, Spanned, UnaryOperator, Value},
    tokenizer::Token,
};

use crate::{
    diagnostic::Problem,
    expression::{BinaryOperator, fold},
    value::SqlValue,
};

use super::{
    Expr, ExprKind, Member, Name, Position, START,
    dialect::{IN, NOT_IN, Text, position, syntax_problem},
    select::select,
};

/// `substring(x FROM y)`, as a function with a name of its own.
pub(crate) const SUBSTRING_FROM: &str = "substring … from";

/// Expressions nested deeper are refused; however long, AND and OR do not nest.
const DEPTH_MAX: usize = 64;

/// Reads one expression.
pub(crate) fn parse_expression(sql: &str) -> Result<Expr, Problem> {
    let text = Text::read(sql)?;
    let mut parser = text.parser();
    let parsed = parser.parse_expr().map_err(syntax_problem)?;
    let next = parser.peek_token();
    if next.token != Token::EOF {
        return Err(Problem::new("sql_syntax", "the expression ends before this", position(next.span.start)));
    }
    expression(parsed, &text, 0)
}

pub(super) fn place(node: &impl Spanned) -> Position {
    position(node.span().start)
}

pub(super) fn name(ident: ast::Ident) -> Name {
    let position = position(ident.span.start);
    if ident.quote_style.is_some() {
        return Name { text: ident.value, lost_case: false, position };
    }
    let text = ident.value.to_lowercase();
    Name { lost_case: text != ident.value, text, position }
}

pub(super) fn object_name(path: ast::ObjectName, at: Position) -> Result<Vec<Name>, Problem> {
    path.0
        .into_iter()
        .map(|part| match part {
            ast::ObjectNamePart::Identifier(ident) => Ok(name(ident)),
            ast::ObjectNamePart::Function(_) => Err(unsupported("a computed name", at)),
        })
        .collect()
}

pub(super) fn schema_in_reference(at: Position) -> Problem {
    Problem::new("schema_in_reference", "a schema cannot stand in a column reference", at)
        .help("write `table.column`, or give the table an alias")
}

pub(super) fn unsupported(what: &str, at: Position) -> Problem {
    Problem::new("unsupported_expression", format!("{what} cannot be used in rules"), at)
}

fn unsupported_operator(operator: &str, at: Position) -> Problem {
    Problem::new("unsupported_operator", format!("the operator {operator} cannot be used in rules"), at)
}

/// Where an expression begins. The parser's own answer looks at all of it, again on every level.
fn beginning(mut expr: &ast::Expr) -> Position {
    loop {
        expr = match expr {
            ast::Expr::BinaryOp { left: first, .. }
            | ast::Expr::Nested(first)
            | ast::Expr::UnaryOp { expr: first, .. }
            | ast::Expr::IsNull(first)
            | ast::Expr::IsNotNull(first)
            | ast::Expr::IsTrue(first)
            | ast::Expr::IsNotTrue(first)
            | ast::Expr::IsFalse(first)
            | ast::Expr::IsNotFalse(first)
            | ast::Expr::InSubquery { expr: first, .. }
            | ast::Expr::Between { expr: first, .. }
            | ast::Expr::Cast { expr: first, .. } => first,
            ast::Expr::Case { case_token, .. } => return position(case_token.0.span.start),
            ast::Expr::Function(function) => return place(&function.name),
            other => return place(other),
        };
    }
}

pub(super) fn expression(expr: ast::Expr, text: &Text<'_>, depth: usize) -> Result<Expr, Problem> {
    let at = beginning(&expr);
    if depth > DEPTH_MAX {
        return Err(Problem::new("sql_syntax", "the expression is nested too deeply", at));
    }
    let nested = |operand: Box<ast::Expr>| expression(*operand, text, depth + 1).map(Box::new);
    let is_null = |operand: Box<ast::Expr>, negated| Ok(ExprKind::IsNull { operand: nested(operand)?, negated });
    let is_truth =
        |operand: Box<ast::Expr>, value, negated| Ok(ExprKind::IsTruth { operand: nested(operand)?, value, negated });
    let kind = match expr {
        ast::Expr::Nested(inner) => return expression(*inner, text, depth + 1),
        ast::Expr::Value(value) => literal(value.value, at),
        ast::Expr::Identifier(ident) => Ok(ExprKind::Column { schema: None, table: None, name: name(ident) }),
        ast::Expr::CompoundIdentifier(path) => column(path, at),
        ast::Expr::IsNull(operand) => is_null(operand, false),
        ast::Expr::IsNotNull(operand) => is_null(operand, true),
        ast::Expr::IsTrue(operand) => is_truth(operand, true, false),
        ast::Expr::IsNotTrue(operand) => is_truth(operand, true, true),
        ast::Expr::IsFalse(operand) => is_truth(operand, false, false),
        ast::Expr::IsNotFalse(operand) => is_truth(operand, false, true),
        ast::Expr::UnaryOp { op, expr } => unary(op, expression(*expr, text, depth + 1)?, at),
        ast::Expr::BinaryOp { left, op: op @ (SqlOperator::And | SqlOperator::Or), right } => {
            return chain(left, &op, right, text, depth);
        }
        ast::Expr::BinaryOp { left, op, right } => binary(nested(left)?, op, nested(right)?, at),
        ast::Expr::InSubquery { expr, subquery, negated } => {
            let subquery = ExprKind::Subquery(Box::new(select(*subquery, text, depth + 1)?));
            let right = Box::new(Expr { kind: subquery, position: at });
            Ok(ExprKind::In { operand: nested(expr)?, right, negated })
        }
        ast::Expr::Subquery(query) => Ok(ExprKind::Subquery(Box::new(select(*query, text, depth + 1)?))),
        ast::Expr::Between { expr, negated, low, high } => {
            Ok(ExprKind::Between { operand: nested(expr)?, low: nested(low)?, high: nested(high)?, negated })
        }
        ast::Expr::Case { operand, conditions, else_result, .. } => Ok(ExprKind::Case {
            operand: operand.map(nested).transpose()?,
            branches: conditions
                .into_iter()
                .map(|when| {
                    Ok((expression(when.condition, text, depth + 1)?, expression(when.result, text, depth + 1)?))
                })
                .collect::<Result<_, Problem>>()?,
            otherwise: else_result.map(nested).transpose()?,
        }),
        ast::Expr::Array(ast::Array { elem, named: true }) => {
            elem.into_iter().map(|each| expression(each, text, depth + 1)).collect::<Result<_, _>>().map(ExprKind::List)
        }
        ast::Expr::Cast {
            kind: ast::CastKind::Cast | ast::CastKind::DoubleColon,
            expr,
            data_type,
            format: None,
            ..
        } => Ok(ExprKind::Cast { operand: nested(expr)?, to: data_type.to_string().to_lowercase() }),
        ast::Expr::Function(function) => call(function, at, text, depth),
        ast::Expr::Substring { substring_from: None, .. } => {
            Err(Problem::new("sql_syntax", "substring() takes a text, a start and perhaps a length", at))
        }
        ast::Expr::Substring { expr, substring_from, substring_for, special, shorthand: false } => {
            let arguments = [Some(expr), substring_from, substring_for].into_iter().flatten();
            let arguments = arguments.map(|each| expression(*each, text, depth + 1)).collect::<Result<_, _>>()?;
            let name = if special { "substring" } else { SUBSTRING_FROM };
            Ok(ExprKind::Call { schema: None, name: name.to_owned(), arguments })
        }
        ast::Expr::TypedString(ast::TypedString { data_type, value, .. }) => {
            let operand = Box::new(Expr { kind: literal(value.value, at)?, position: at });
            Ok(ExprKind::Cast { operand, to: data_type.to_string().to_lowercase() })
        }
        other => Err(refused(&other, at)),
    };
    Ok(Expr { kind: kind?, position: at })
}

/// `a AND b AND c …`, however many: the parser's tree of it is as deep as it is long.
fn chain(
    left: Box<ast::Expr>,
    op: &SqlOperator,
    right: Box<ast::Expr>,
    text: &Text<'_>,
    depth: usize,
) -> Result<Expr, Problem> {
    let mut operands = vec![right];
    let mut first = left;
    while let ast::Expr::BinaryOp { left, op: inner, right } = *first {
        if inner != *op {
            first = Box::new(ast::Expr::BinaryOp { left, op: inner, right });
            break;
        }
        operands.push(right);
        first = left;
    }
    operands.push(first);
    let operator = if *op == SqlOperator::And { BinaryOperator::And } else { BinaryOperator::Or };
    let operands = operands.into_iter().rev().map(|operand| expression(*operand, text, depth + 1));
    let operands = operands.collect::<Result<Vec<_>, _>>()?;
    let join = |left: Expr, right: Expr| {
        let position = left.position;
        Expr { kind: ExprKind::Binary { operator, left: Box::new(left), right: Box::new(right) }, position }
    };
    fold(operands, &join).ok_or_else(|| unsupported("an operator without operands", START))
}

/// Why an expression the parser knows has no place in rules.
fn refused(expr: &ast::Expr, at: Position) -> Problem {
    match expr {
        ast::Expr::Trim { .. }
        | ast::Expr::Ceil { .. }
        | ast::Expr::Floor { .. }
        | ast::Expr::Position { .. }
        | ast::Expr::Substring { .. } => {
            Problem::new("unknown_function", "the rules language has no such function", at)
        }
        ast::Expr::Exists { .. } => Problem::new("unknown_function", "the rules language has no EXISTS", at)
            .help("write auth.user_id() IN (SELECT column FROM …)"),
        ast::Expr::Like { .. } | ast::Expr::ILike { .. } | ast::Expr::SimilarTo { .. } => {
            unsupported_operator("LIKE", at).help("compare with `=`, or with substring() or instr()")
        }
        ast::Expr::IsDistinctFrom(..) | ast::Expr::IsNotDistinctFrom(..) | ast::Expr::IsUnknown(_) => {
            Problem::new("sql_syntax", "IS is followed by [NOT] NULL, TRUE or FALSE", at)
        }
        ast::Expr::Tuple(_) | ast::Expr::InList { .. } => {
            unsupported("a list of values", at).help("write `a = 1 OR a = 2`, or with edition 3 `a IN ARRAY[1, 2]`")
        }
        _ => unsupported("this expression", at),
    }
}

fn column(path: Vec<ast::Ident>, at: Position) -> Result<ExprKind, Problem> {
    let mut names = path.into_iter().map(name).rev();
    match (names.next(), names.next(), names.next(), names.next()) {
        (Some(name), table, schema, None) => Ok(ExprKind::Column { schema, table, name }),
        _ => Err(schema_in_reference(at)),
    }
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

/// A literal with a dot is REAL.
fn number(digits: &str, at: Position) -> Result<SqlValue, Problem> {
    let is_plain = digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let number = if is_plain && digits.contains('.') {
        digits.parse().ok().filter(|number: &f64| number.is_finite()).map(SqlValue::Real)
    } else if is_plain {
        digits.parse().ok().map(SqlValue::Integer)
    } else {
        None
    };
    number.ok_or_else(|| {
        Problem::new("sql_syntax", "a number has up to 38 digits and at most one dot, or is too large", at)
    })
}

fn unary(op: UnaryOperator, operand: Expr, at: Position) -> Result<ExprKind, Problem> {
    match (op, operand.kind) {
        (UnaryOperator::Not, kind) => Ok(ExprKind::Not(Box::new(Expr { kind, ..operand }))),
        (UnaryOperator::Plus, kind) => Ok(ExprKind::Plus(Box::new(Expr { kind, ..operand }))),
        (UnaryOperator::Minus, ExprKind::Literal(SqlValue::Integer(number))) => {
            Ok(ExprKind::Literal(SqlValue::Integer(-number)))
        }
        (UnaryOperator::Minus, ExprKind::Literal(SqlValue::Real(number))) => {
            Ok(ExprKind::Literal(SqlValue::Real(-number)))
        }
        (op, _) => Err(unsupported_operator(&op.to_string(), at).help("write `0 - x` instead of `-x`")),
    }
}

fn binary(left: Box<Expr>, op: SqlOperator, right: Box<Expr>, at: Position) -> Result<ExprKind, Problem> {
    let operator = match op {
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
        SqlOperator::Modulo => BinaryOperator::Modulo,
        SqlOperator::BitwiseAnd => BinaryOperator::BitAnd,
        SqlOperator::BitwiseOr => BinaryOperator::BitOr,
        SqlOperator::PGBitwiseShiftLeft => BinaryOperator::ShiftLeft,
        SqlOperator::PGBitwiseShiftRight => BinaryOperator::ShiftRight,
        SqlOperator::StringConcat => BinaryOperator::Concatenate,
        SqlOperator::PGOverlap => return Ok(ExprKind::Overlap { left, right }),
        SqlOperator::Custom(name) if name == IN || name == NOT_IN => {
            return Ok(ExprKind::In { operand: left, right, negated: name == NOT_IN });
        }
        SqlOperator::Arrow | SqlOperator::LongArrow => {
            let path = match right.kind {
                ExprKind::Literal(SqlValue::Text(path)) => Member::Text(path),
                ExprKind::Literal(SqlValue::Integer(index)) => Member::Index(index),
                _ => {
                    return Err(unsupported_operator("-> with anything but a literal", right.position)
                        .help("write j ->> 'key', or j ->> '$.0' for an element"));
                }
            };
            return Ok(ExprKind::JsonMember { document: left, path, as_value: op == SqlOperator::LongArrow });
        }
        other => return Err(unsupported_operator(&other.to_string(), at)),
    };
    Ok(ExprKind::Binary { operator, left, right })
}

fn call(function: ast::Function, at: Position, text: &Text<'_>, depth: usize) -> Result<ExprKind, Problem> {
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
        ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(expr)) => expression(expr, text, depth + 1),
        _ => Err(Problem::new("star_unsupported", "`*` cannot be an argument", at)),
    };
    let arguments = list.args.into_iter().map(argument).collect::<Result<_, _>>()?;
    if path.is_empty() && name.text == "row" {
        return Ok(ExprKind::List(arguments));
    }
    let schema = (!path.is_empty()).then(|| path.iter().map(|part| part.text.as_str()).collect::<Vec<_>>().join("."));
    Ok(ExprKind::Call { schema, name: name.text, arguments })
}
