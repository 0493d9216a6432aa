//! SQL text to our own small tree. The parser crate stays behind this file; what it accepts beyond the language is
//! refused here, with a code, a place and a way out.

use sqlparser::{
    ast::{self, BinaryOperator as SqlOperator, SetExpr, Spanned, TableFactor, UnaryOperator, Value},
    dialect::{Dialect, PostgreSqlDialect, Precedence},
    keywords::Keyword,
    parser::{Parser, ParserError},
    tokenizer::{Location, Token, Tokenizer},
};

use crate::{diagnostic::Problem, expression::BinaryOperator, value::SqlValue};

/// A query may have this many tokens; recursion over its tree is bounded by that and by [`DEPTH_MAX`].
const TOKENS_MAX: usize = 4000;
/// Expressions nested deeper are refused.
const DEPTH_MAX: usize = 120;

/// A place in the SQL text; lines and columns count from 1, columns in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Position {
    pub line: u64,
    pub column: u64,
}

/// A name, folded to lower case unless it was quoted.
#[derive(Debug, Clone)]
pub(crate) struct Name {
    pub text: String,
    /// Not quoted, and written with upper-case letters, which folding lost.
    pub lost_case: bool,
    pub position: Position,
}

/// `SELECT items [FROM source] [WHERE filter]`
#[derive(Debug)]
pub(crate) struct Select {
    pub items: Vec<Item>,
    pub source: Option<Source>,
    pub filter: Option<Expr>,
    pub position: Position,
}

/// What a query reads.
#[derive(Debug)]
pub(crate) enum Source {
    Table { schema: Option<Name>, name: Name, alias: Option<Name> },
    Function { name: Name },
}

/// An output column.
#[derive(Debug)]
pub(crate) enum Item {
    Star { table: Option<Name>, position: Position },
    Column { expr: Expr, alias: Option<Name> },
}

#[derive(Debug)]
pub(crate) struct Expr {
    pub kind: ExprKind,
    pub position: Position,
}

#[derive(Debug)]
pub(crate) enum ExprKind {
    Literal(SqlValue),
    Column {
        table: Option<Name>,
        name: Name,
    },
    /// `:name`
    Placeholder(String),
    Call {
        schema: Option<String>,
        name: String,
        arguments: Vec<Expr>,
    },
    Not(Box<Expr>),
    IsNull {
        operand: Box<Expr>,
        negated: bool,
    },
    Binary {
        operator: BinaryOperator,
        left: Box<Expr>,
        right: Box<Expr>,
    },
    NotIn,
    InSelect {
        operand: Box<Expr>,
        select: Box<Select>,
        negated: bool,
    },
    Cast {
        operand: Box<Expr>,
        to: String,
    },
    JsonMember {
        document: Box<Expr>,
        path: String,
        as_value: bool,
    },
}

/// Reads one `SELECT`.
pub(crate) fn parse_select(sql: &str) -> Result<Select, Problem> {
    let mut parser = parser(sql)?;
    let statements = parser.parse_statements().map_err(syntax_problem)?;
    let start = Position { line: 1, column: 1 };
    match <[ast::Statement; 1]>::try_from(statements) {
        Ok([ast::Statement::Query(query)]) => select(*query, 0),
        Ok(_) => Err(not_a_select(start)),
        Err(statements) if statements.is_empty() => Err(Problem::new("not_a_select", "there is no SQL here", start)),
        Err(_) => Err(Problem::new("multiple_statements", "there is more than one statement", start)
            .help("write each query as an entry of its own")),
    }
}

/// Reads one expression.
pub(crate) fn parse_expression(sql: &str) -> Result<Expr, Problem> {
    let mut parser = parser(sql)?;
    let parsed = parser.parse_expr().map_err(syntax_problem)?;
    let next = parser.peek_token();
    if next.token != Token::EOF {
        return Err(Problem::new("sql_syntax", "the expression ends before this", position(next.span.start)));
    }
    expression(parsed, 0)
}

const GRAMMAR: &RulesDialect = &RulesDialect;

fn parser(sql: &str) -> Result<Parser<'static>, Problem> {
    let tokens = Tokenizer::new(GRAMMAR, sql).tokenize_with_location().map_err(|error| {
        Problem::new("sql_syntax", format!("the SQL cannot be read: {}", error.message), position(error.location))
    })?;
    if tokens.len() > TOKENS_MAX {
        let start = Position { line: 1, column: 1 };
        return Err(Problem::new("sql_syntax", format!("the SQL has more than {TOKENS_MAX} tokens"), start));
    }
    Ok(Parser::new(GRAMMAR).with_tokens_with_locations(tokens))
}

/// The parser puts the place into the text of its message.
fn syntax_problem(error: ParserError) -> Problem {
    let start = Position { line: 1, column: 1 };
    let message = match error {
        ParserError::TokenizerError(message) | ParserError::ParserError(message) => message,
        ParserError::RecursionLimitExceeded => "it is nested too deeply".to_owned(),
    };
    let located = message.rsplit_once(" at Line: ").and_then(|(what, place)| {
        let (line, column) = place.split_once(", Column: ")?;
        Some((what.to_owned(), Position { line: line.parse().ok()?, column: column.parse().ok()? }))
    });
    let (what, position) = located.unwrap_or((message, start));
    Problem::new("sql_syntax", format!("the SQL cannot be read: {what}"), position)
}

/// Postgres' lexical rules with the operator precedence of the rules language.
#[derive(Debug)]
struct RulesDialect;

/// Binding strength of comparisons by size, between `IS` and `IN`.
const COMPARISON: u8 = 18;

impl Dialect for RulesDialect {
    fn dialect(&self) -> std::any::TypeId {
        // The parser asks for the type where it has Postgres' behaviour built in.
        std::any::TypeId::of::<PostgreSqlDialect>()
    }

    fn is_identifier_start(&self, ch: char) -> bool {
        PostgreSqlDialect {}.is_identifier_start(ch)
    }

    fn is_identifier_part(&self, ch: char) -> bool {
        PostgreSqlDialect {}.is_identifier_part(ch)
    }

    fn is_delimited_identifier_start(&self, ch: char) -> bool {
        ch == '"'
    }

    fn supports_string_escape_constant(&self) -> bool {
        true
    }

    fn supports_empty_projections(&self) -> bool {
        true
    }

    fn prec_value(&self, precedence: Precedence) -> u8 {
        match precedence {
            Precedence::Period => 100,
            Precedence::DoubleColon => 60,
            Precedence::AtTz | Precedence::MulDivModOp => 40,
            Precedence::PlusMinus => 30,
            Precedence::Xor | Precedence::Ampersand | Precedence::Caret | Precedence::Pipe | Precedence::PgOther => 25,
            Precedence::Colon => 0,
            Precedence::Between | Precedence::Like => 20,
            Precedence::Is => 16,
            Precedence::Eq => 14,
            Precedence::UnaryNot => 12,
            Precedence::And => 10,
            Precedence::Or => 5,
        }
    }

    fn get_next_precedence(&self, parser: &Parser) -> Option<Result<u8, ParserError>> {
        match parser.peek_token_ref().token {
            Token::Arrow | Token::LongArrow => Some(Ok(60)),
            Token::StringConcat => Some(Ok(30)),
            Token::Lt | Token::LtEq | Token::Gt | Token::GtEq => Some(Ok(COMPARISON)),
            // Never an infix operator here; otherwise `a :b` would be one.
            Token::Colon => Some(Ok(0)),
            _ => None,
        }
    }

    /// `x IN y` without parentheses, which SQL does not have. `x IN (SELECT …)` is left to the parser.
    fn parse_infix(&self, parser: &mut Parser, left: &ast::Expr, _: u8) -> Option<Result<ast::Expr, ParserError>> {
        let is_keyword = |at: usize, keyword: Keyword| matches!(&parser.peek_nth_token_ref(at).token, Token::Word(word) if word.keyword == keyword);
        let negated = is_keyword(0, Keyword::NOT);
        let after = usize::from(negated);
        let is_subquery = parser.peek_nth_token_ref(after + 1).token == Token::LParen
            && (is_keyword(after + 2, Keyword::SELECT) || is_keyword(after + 2, Keyword::WITH));
        if !is_keyword(after, Keyword::IN) || is_subquery {
            return None;
        }
        for _ in 0..=after {
            parser.advance_token();
        }
        let name = if negated { "NOT IN" } else { "IN" };
        let build = |right| ast::Expr::BinaryOp {
            left: Box::new(left.clone()),
            op: SqlOperator::Custom(name.to_owned()),
            right: Box::new(right),
        };
        Some(parser.parse_subexpr(self.prec_value(Precedence::Between)).map(build))
    }
}

const fn position(location: Location) -> Position {
    Position { line: location.line, column: location.column }
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
    let SetExpr::Select(select) = *query.body else { return Err(not_a_select(at)) };
    if query.with.is_some() {
        return Err(not_a_select(at));
    }
    let position = position(select.select_token.0.span.start);
    let clause = if query.order_by.is_some() {
        Some("ORDER BY")
    } else if query.limit_clause.is_some() || query.fetch.is_some() {
        Some("LIMIT")
    } else if !query.locks.is_empty() {
        Some("FOR UPDATE")
    } else if select.distinct.is_some() {
        Some("DISTINCT")
    } else if !matches!(&select.group_by, ast::GroupByExpr::Expressions(groups, _) if groups.is_empty()) {
        Some("GROUP BY")
    } else if select.having.is_some() {
        Some("HAVING")
    } else if !select.named_window.is_empty() || select.qualify.is_some() || select.into.is_some() {
        Some("a WINDOW, QUALIFY or INTO clause")
    } else {
        None
    };
    if let Some(clause) = clause {
        return Err(Problem::new("clause_unsupported", format!("{clause} cannot be used in rules"), position)
            .help("rules choose rows by WHERE only; sort and group in the client's database"));
    }
    let source = source(select.from, position)?;
    let items = select.projection.into_iter().map(|each| item(each, depth)).collect::<Result<_, _>>()?;
    let filter = select.selection.map(|filter| expression(filter, depth + 1)).transpose()?;
    Ok(Select { items, source, filter, position })
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
    let TableFactor::Table { name: path, alias, args, .. } = table.relation else { return Err(single(at)) };
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
        ast::Expr::Cast { expr, data_type, .. } => {
            ExprKind::Cast { operand: nested(expr)?, to: data_type.to_string().to_lowercase() }
        }
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
                return Err(
                    unsupported("a computed JSON path", right.position).help("write a text literal: j ->> 'key'")
                );
            };
            return Ok(ExprKind::JsonMember { document: left, path, as_value: op == SqlOperator::LongArrow });
        }
        other => return Err(unsupported_operator(&other.to_string(), at)),
    };
    Ok(ExprKind::Binary { operator, left, right })
}

fn call(function: ast::Function, at: Position, depth: usize) -> Result<ExprKind, Problem> {
    let plain = function.filter.is_none() && function.over.is_none() && function.within_group.is_empty();
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
