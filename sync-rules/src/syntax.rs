//! SQL text as our own small tree. The parser crate stays behind this file.

use sqlparser::{
    ast,
    dialect::PostgreSqlDialect,
    keywords::Keyword,
    parser::Parser,
    tokenizer::{Token, TokenWithSpan, Tokenizer, Word},
};

use crate::value::SqlValue;

/// Deepest nesting of expressions. Bounds the stack, whatever a file contains.
const DEPTH_MAX: usize = 50;
/// Longest statement.
const SQL_BYTES_MAX: usize = 64 << 10;

/// What is wrong with a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SqlFault {
    pub(crate) code: &'static str,
    pub(crate) message: String,
    pub(crate) help: Option<String>,
}

impl SqlFault {
    pub(crate) fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), help: None }
    }

    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// A select statement, as far as rules know them.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Select {
    pub(crate) columns: Vec<SelectColumn>,
    pub(crate) from: Option<From>,
    pub(crate) filter: Option<Ast>,
}

/// An item of the select list.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum SelectColumn {
    /// `*` or `t.*`.
    Star(Option<String>),
    /// An expression and its alias.
    Value(Ast, Option<String>),
}

/// What a statement reads.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum From {
    /// A table.
    Table { schema: Option<String>, name: String, alias: Option<String> },
    /// A table-valued function.
    Function { name: String },
}

/// An expression as written.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Ast {
    Literal(SqlValue),
    /// `table.column` or `column`.
    Column(Option<String>, String),
    /// `:name`.
    Placeholder(String),
    /// `schema.name(…)` or `name(…)`, lower case.
    Call(String, Vec<Ast>),
    Binary(BinaryOp, Box<Ast>, Box<Ast>),
    Not(Box<Ast>),
    IsNull(Box<Ast>),
    /// `left IN right`, the right side being a JSON array.
    In(Box<Ast>, Box<Ast>),
    InSelect(Box<Ast>, Box<Select>),
    /// `left -> 'key'`, or `->>` as text.
    Json {
        left: Box<Ast>,
        key: String,
        text: bool,
    },
    Cast(Box<Ast>, CastTo),
}

/// Operators between two values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BinaryOp {
    And,
    Or,
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
    Concat,
}

/// Targets of a cast.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CastTo {
    Text,
    Integer,
    Real,
}

type Parsed<T> = Result<T, SqlFault>;

/// Parses one select statement.
pub(crate) fn parse_select(sql: &str) -> Parsed<Select> {
    let dialect = PostgreSqlDialect {};
    let mut statements =
        parser(&dialect, sql)?.parse_statements().map_err(|error| SqlFault::new("sql_syntax", clean(&error)))?;
    if statements.len() > 1 {
        return Err(SqlFault::new("multiple_statements", "one statement is expected").help("make it two list items"));
    }
    match statements.pop() {
        Some(ast::Statement::Query(query)) => select(*query),
        _ => Err(SqlFault::new("not_a_select", "a SELECT statement is expected")),
    }
}

/// Parses one expression, such as a filter.
pub(crate) fn parse_expression(sql: &str) -> Parsed<Ast> {
    let dialect = PostgreSqlDialect {};
    let mut parser = parser(&dialect, sql)?;
    let syntax = |error: &sqlparser::parser::ParserError| SqlFault::new("sql_syntax", clean(error));
    let parsed = parser.parse_expr().map_err(|error| syntax(&error))?;
    parser.expect_token(&Token::EOF).map_err(|error| syntax(&error))?;
    expression(parsed)
}

fn parser<'a>(dialect: &'a PostgreSqlDialect, sql: &str) -> Parsed<Parser<'a>> {
    if sql.len() > SQL_BYTES_MAX {
        return Err(SqlFault::new("sql_syntax", format!("a statement may have {SQL_BYTES_MAX} bytes at most")));
    }
    let tokens = Tokenizer::new(dialect, sql)
        .tokenize_with_location()
        .map_err(|error| SqlFault::new("sql_syntax", error.to_string()))?;
    Ok(Parser::new(dialect).with_recursion_limit(DEPTH_MAX).with_tokens_with_locations(bracket_in_operands(tokens)))
}

fn clean(error: &sqlparser::parser::ParserError) -> String {
    error.to_string().trim_start_matches("sql parser error: ").to_owned()
}

/// The rules language writes `x IN y` without brackets; the parser knows `x IN (y)` only. Brackets are put around the
/// operand: a name, a call, and what `->` or `->>` take from it.
fn bracket_in_operands(tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let is_space = |token: &TokenWithSpan| matches!(token.token, Token::Whitespace(_));
    let tokens: Vec<TokenWithSpan> = tokens.into_iter().filter(|token| !is_space(token)).collect();
    let mut out = Vec::with_capacity(tokens.len() + 2);
    let mut index = 0;
    while let Some(token) = tokens.get(index) {
        out.push(token.clone());
        index += 1;
        let is_in = matches!(&token.token, Token::Word(Word { keyword: Keyword::IN, .. }));
        let starts_name = matches!(tokens.get(index).map(|next| &next.token), Some(Token::Word(_)));
        if is_in && starts_name {
            let end = operand_end(&tokens, index);
            out.push(TokenWithSpan { token: Token::LParen, span: token.span });
            out.extend_from_slice(&tokens[index..end]);
            out.push(TokenWithSpan { token: Token::RParen, span: token.span });
            index = end;
        }
    }
    out
}

fn operand_end(tokens: &[TokenWithSpan], start: usize) -> usize {
    let at = |index: usize| tokens.get(index).map(|token| &token.token);
    let mut end = start + 1;
    loop {
        match at(end) {
            Some(Token::Period | Token::Arrow | Token::LongArrow) => end += 2,
            Some(Token::LParen) => {
                let mut depth = 0_usize;
                while let Some(token) = at(end) {
                    end += 1;
                    match token {
                        Token::LParen => depth += 1,
                        Token::RParen if depth == 1 => break,
                        Token::RParen => depth -= 1,
                        _ => {}
                    }
                }
            }
            _ => return end.min(tokens.len()),
        }
    }
}

fn select(query: ast::Query) -> Parsed<Select> {
    let unsupported =
        |clause: &str| SqlFault::new("clause_unsupported", format!("{clause} is not part of the language"));
    if query.order_by.is_some() {
        return Err(unsupported("ORDER BY"));
    }
    if query.limit_clause.is_some() || query.fetch.is_some() {
        return Err(unsupported("LIMIT"));
    }
    if !query.locks.is_empty() {
        return Err(unsupported("FOR UPDATE"));
    }
    let not_a_select = || SqlFault::new("not_a_select", "a plain SELECT statement is expected");
    if query.with.is_some() {
        return Err(not_a_select());
    }
    let ast::SetExpr::Select(select) = *query.body else { return Err(not_a_select()) };
    if select.distinct.is_some() {
        return Err(unsupported("DISTINCT"));
    }
    if select.having.is_some() {
        return Err(unsupported("HAVING"));
    }
    if !matches!(&select.group_by, ast::GroupByExpr::Expressions(list, _) if list.is_empty()) {
        return Err(unsupported("GROUP BY"));
    }
    let columns = select.projection.into_iter().map(select_column).collect::<Parsed<_>>()?;
    let from = from(select.from)?;
    let filter = select.selection.map(expression).transpose()?;
    Ok(Select { columns, from, filter })
}

fn select_column(item: ast::SelectItem) -> Parsed<SelectColumn> {
    Ok(match item {
        ast::SelectItem::UnnamedExpr(value) => SelectColumn::Value(expression(value)?, None),
        ast::SelectItem::ExprWithAlias { expr, alias } => {
            SelectColumn::Value(expression(expr)?, Some(identifier(&alias)))
        }
        ast::SelectItem::Wildcard(_) => SelectColumn::Star(None),
        ast::SelectItem::QualifiedWildcard(ast::SelectItemQualifiedWildcardKind::ObjectName(name), _) => {
            SelectColumn::Star(Some(object_name(&name)?.1))
        }
        _ => return Err(SqlFault::new("unsupported_expression", "this kind of column is not part of the language")),
    })
}

fn from(mut tables: Vec<ast::TableWithJoins>) -> Parsed<Option<From>> {
    let single =
        || SqlFault::new("single_table_required", "one table is expected after FROM").help("use IN (SELECT …)");
    let Some(table) = tables.pop() else { return Ok(None) };
    if !tables.is_empty() || !table.joins.is_empty() {
        return Err(single());
    }
    let ast::TableFactor::Table { name, alias, args, .. } = table.relation else { return Err(single()) };
    let (schema, name) = object_name(&name)?;
    if args.is_some() {
        return Ok(Some(From::Function { name }));
    }
    Ok(Some(From::Table { schema, name, alias: alias.map(|alias| identifier(&alias.name)) }))
}

fn object_name(name: &ast::ObjectName) -> Parsed<(Option<String>, String)> {
    let parts: Vec<String> = name.0.iter().filter_map(|part| part.as_ident().map(identifier)).collect();
    match parts.as_slice() {
        [name] => Ok((None, name.clone())),
        [schema, name] => Ok((Some(schema.clone()), name.clone())),
        _ => Err(SqlFault::new("invalid_schema_name", "a table is named `table` or `schema.table`")),
    }
}

fn identifier(name: &ast::Ident) -> String {
    if name.quote_style.is_some() { name.value.clone() } else { name.value.to_lowercase() }
}

fn boxed(value: ast::Expr) -> Parsed<Box<Ast>> {
    expression(value).map(Box::new)
}

fn expression(value: ast::Expr) -> Parsed<Ast> {
    use ast::Expr;
    Ok(match value {
        Expr::Nested(inner) => expression(*inner)?,
        Expr::Identifier(name) => Ast::Column(None, identifier(&name)),
        Expr::CompoundIdentifier(names) => match names.as_slice() {
            [table, column] => Ast::Column(Some(identifier(table)), identifier(column)),
            _ => return Err(SqlFault::new("schema_in_reference", "name a column as `column` or `table.column`")),
        },
        Expr::Value(value) => literal(value.value)?,
        Expr::Function(call) => function(call)?,
        Expr::UnaryOp { op: ast::UnaryOperator::Not, expr } => Ast::Not(boxed(*expr)?),
        Expr::UnaryOp { op: ast::UnaryOperator::Minus, expr } => match expression(*expr)? {
            Ast::Literal(SqlValue::Integer(number)) => Ast::Literal(SqlValue::Integer(-number)),
            Ast::Literal(SqlValue::Real(number)) => Ast::Literal(SqlValue::Real(-number)),
            _ => return Err(SqlFault::new("unsupported_operator", "a minus sign may stand before a number only")),
        },
        Expr::IsNull(inner) => Ast::IsNull(boxed(*inner)?),
        Expr::IsNotNull(inner) => Ast::Not(Box::new(Ast::IsNull(boxed(*inner)?))),
        Expr::InSubquery { expr, subquery, negated } => {
            negate(negated, Ast::InSelect(boxed(*expr)?, Box::new(select(*subquery)?)))
        }
        Expr::InList { expr, mut list, negated } => {
            let (Some(operand), true) = (list.pop(), list.is_empty()) else {
                return Err(SqlFault::new("unsupported_expression", "IN takes a JSON array or a SELECT, not a list"));
            };
            if matches!(operand, Expr::Value(_)) {
                return Err(SqlFault::new("unsupported_expression", "IN takes a JSON array or a SELECT, not a list"));
            }
            negate(negated, Ast::In(boxed(*expr)?, boxed(operand)?))
        }
        Expr::Cast { expr, data_type, .. } => Ast::Cast(boxed(*expr)?, cast_target(&data_type)?),
        Expr::BinaryOp { left, op, right } => binary(*left, &op, *right)?,
        _ => return Err(SqlFault::new("unsupported_expression", "this expression is not part of the language")),
    })
}

fn negate(negated: bool, ast: Ast) -> Ast {
    if negated { Ast::Not(Box::new(ast)) } else { ast }
}

fn literal(value: ast::Value) -> Parsed<Ast> {
    use ast::Value;
    Ok(match value {
        Value::Null => Ast::Literal(SqlValue::Null),
        Value::Boolean(truth) => Ast::Literal(SqlValue::from_bool(truth)),
        Value::SingleQuotedString(text) | Value::EscapedStringLiteral(text) => Ast::Literal(SqlValue::Text(text)),
        Value::Number(digits, _) => {
            let number = || SqlFault::new("sql_syntax", "this number cannot be read");
            if digits.contains(['e', 'E']) {
                return Err(SqlFault::new("sql_syntax", "numbers have no exponent in this language"));
            }
            Ast::Literal(if digits.contains('.') {
                SqlValue::Real(digits.parse().map_err(|_| number())?)
            } else {
                SqlValue::Integer(digits.parse().map_err(|_| number())?)
            })
        }
        Value::Placeholder(name) => Ast::Placeholder(name.trim_start_matches(':').to_owned()),
        _ => return Err(SqlFault::new("unsupported_expression", "this literal is not part of the language")),
    })
}

fn function(call: ast::Function) -> Parsed<Ast> {
    let unsupported = || SqlFault::new("unsupported_expression", "a function takes a plain list of arguments");
    let name = call.name.0.iter().filter_map(|part| part.as_ident()).map(|part| part.value.to_lowercase());
    let name = name.collect::<Vec<_>>().join(".");
    if call.over.is_some() || call.filter.is_some() || !call.within_group.is_empty() {
        return Err(unsupported());
    }
    let arguments = match call.args {
        ast::FunctionArguments::None => Vec::new(),
        ast::FunctionArguments::List(list) if list.clauses.is_empty() && list.duplicate_treatment.is_none() => {
            list.args
        }
        _ => return Err(unsupported()),
    };
    let arguments = arguments.into_iter().map(|argument| match argument {
        ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(value)) => expression(value),
        _ => Err(unsupported()),
    });
    Ok(Ast::Call(name, arguments.collect::<Parsed<_>>()?))
}

fn cast_target(data_type: &ast::DataType) -> Parsed<CastTo> {
    match data_type.to_string().to_lowercase().as_str() {
        "text" => Ok(CastTo::Text),
        "integer" | "int" => Ok(CastTo::Integer),
        "real" | "numeric" => Ok(CastTo::Real),
        other => Err(SqlFault::new("invalid_cast", format!("cannot cast to {other}")).help("text, integer or real")),
    }
}

fn binary(left: ast::Expr, op: &ast::BinaryOperator, right: ast::Expr) -> Parsed<Ast> {
    use ast::BinaryOperator as Op;
    let op = match op {
        Op::Arrow | Op::LongArrow => {
            let text = matches!(op, Op::LongArrow);
            let ast::Expr::Value(ast::ValueWithSpan { value: ast::Value::SingleQuotedString(key), .. }) = right else {
                return Err(SqlFault::new("unsupported_expression", "a text in quotes is expected after -> and ->>"));
            };
            return Ok(Ast::Json { left: boxed(left)?, key, text });
        }
        Op::And => BinaryOp::And,
        Op::Or => BinaryOp::Or,
        Op::Eq => BinaryOp::Equal,
        Op::NotEq => BinaryOp::NotEqual,
        Op::Lt => BinaryOp::Less,
        Op::LtEq => BinaryOp::LessOrEqual,
        Op::Gt => BinaryOp::Greater,
        Op::GtEq => BinaryOp::GreaterOrEqual,
        Op::Plus => BinaryOp::Add,
        Op::Minus => BinaryOp::Subtract,
        Op::Multiply => BinaryOp::Multiply,
        Op::Divide => BinaryOp::Divide,
        Op::Modulo => BinaryOp::Remainder,
        Op::StringConcat => BinaryOp::Concat,
        other => {
            return Err(SqlFault::new(
                "unsupported_operator",
                format!("the operator {other} is not part of the language"),
            ));
        }
    };
    Ok(Ast::Binary(op, boxed(left)?, boxed(right)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_without_brackets_is_understood() {
        for sql in ["a IN b.c", "a IN request.jwt() ->> 'x' AND d = 1", "a in (b)", "a IN upper(b)"] {
            assert!(parse_expression(sql).is_ok(), "{sql}: {:?}", parse_expression(sql));
        }
    }

    #[test]
    fn placeholders_and_subqueries_are_read() {
        let ast = parse_expression("habit_id IN (SELECT id FROM habits WHERE user_id = :user_id)").expect("valid");
        let Ast::InSelect(_, select) = ast else { panic!("a subquery") };
        let Some(Ast::Binary(BinaryOp::Equal, _, right)) = select.filter else { panic!("an equality") };
        assert_eq!(*right, Ast::Placeholder("user_id".to_owned()));
    }

    #[test]
    fn what_is_not_in_the_language_is_refused_with_a_code() {
        for (sql, code) in [
            ("SELECT a FROM b ORDER BY a", "clause_unsupported"),
            ("SELECT a FROM b, c", "single_table_required"),
            ("DELETE FROM b", "not_a_select"),
            ("SELECT a FROM b; SELECT 1", "multiple_statements"),
            ("SELECT a FROM b WHERE x IN ('a', 'b')", "unsupported_expression"),
            ("SELECT", "sql_syntax"),
            ("SELECT a FROM b WHERE ((", "sql_syntax"),
        ] {
            assert_eq!(parse_select(sql).map_err(|fault| fault.code), Err(code), "{sql}");
        }
    }

    #[test]
    fn deep_nesting_is_an_error_not_a_crash() {
        let sql = format!("SELECT {}1{} FROM a", "(".repeat(10_000), ")".repeat(10_000));
        assert_eq!(parse_select(&sql).map_err(|fault| fault.code), Err("sql_syntax"));
    }
}
