//! The parser's queries to ours.

use sqlparser::{
    ast::{self, JoinConstraint, JoinOperator, SetExpr, TableFactor},
    keywords::Keyword,
    tokenizer::Token,
};

use crate::diagnostic::Problem;

use super::{
    Expr, FromItem, Item, Name, Position, START, Select, Source,
    dialect::{Text, position, syntax_problem},
    expression::{expression, name, object_name, place, schema_in_reference, unsupported},
};

/// Reads one `SELECT`.
pub(crate) fn parse_select(sql: &str) -> Result<Select, Problem> {
    let text = Text::read(sql)?;
    let statements = text.parser().parse_statements().map_err(syntax_problem)?;
    match <[ast::Statement; 1]>::try_from(statements) {
        Ok([ast::Statement::Query(query)]) => {
            let select = select(*query, &text, 0)?;
            Ok(if text.selects_nothing { Select { items: Vec::new(), ..select } } else { select })
        }
        Ok(_) => Err(not_a_select(START)),
        Err(statements) if statements.is_empty() => Err(Problem::new("not_a_select", "there is no SQL here", START)),
        Err(_) => Err(Problem::new("multiple_statements", "there is more than one statement", START)
            .help("write each query as an entry of its own")),
    }
}

fn not_a_select(position: Position) -> Problem {
    Problem::new("not_a_select", "a query here is one SELECT", position)
        .help("write SELECT columns FROM table WHERE condition")
}

pub(super) fn select(query: ast::Query, text: &Text<'_>, depth: usize) -> Result<Select, Problem> {
    let at = match &*query.body {
        SetExpr::Select(select) => position(select.select_token.0.span.start),
        _ => START,
    };
    let query_clause = query_clause(&query);
    let SetExpr::Select(select) = *query.body else { return Err(not_a_select(at)) };
    if query.with.is_some() {
        return Err(not_a_select(at));
    }
    let start = select.select_token.0.span.start;
    let position = position(start);
    let refused_clause = query_clause.or_else(|| select_clause(&select)).map(|clause| {
        Problem::new("clause_unsupported", format!("{clause} cannot be used in rules"), position)
            .help("rules choose rows by WHERE only; sort and group in the client's database")
    });
    let from = from(select.from, position, text, depth)?;
    let item_texts = text.items(start);
    let items = select
        .projection
        .into_iter()
        .enumerate()
        .map(|(index, each)| item(each, item_texts.get(index).copied().unwrap_or_default(), text, depth))
        .collect::<Result<_, _>>()?;
    let filter = select.selection.map(|filter| expression(filter, text, depth + 1)).transpose()?;
    Ok(Select { items, from, filter, refused_clause, is_distinct: select.distinct.is_some(), position })
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
    let is_distinct_on = select.distinct.as_ref().is_some_and(|distinct| *distinct != ast::Distinct::Distinct);
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
        (is_distinct_on, "DISTINCT ON"),
        (is_grouped, "GROUP BY"),
        (select.having.is_some(), "HAVING"),
        (rest, "this clause"),
    ]
    .into_iter()
    .find_map(|(found, clause)| found.then_some(clause))
}

fn from(
    tables: Vec<ast::TableWithJoins>,
    at: Position,
    text: &Text<'_>,
    depth: usize,
) -> Result<Vec<FromItem>, Problem> {
    let mut items = Vec::new();
    for table in tables {
        items.push(from_item(table.relation, at, text, depth)?);
        for join in table.joins {
            let item = from_item(join.relation, at, text, depth)?;
            let joined = match join.join_operator {
                JoinOperator::Join(JoinConstraint::On(on)) | JoinOperator::Inner(JoinConstraint::On(on)) => {
                    FromItem { on: Some(expression(on, text, depth + 1)?), ..item }
                }
                JoinOperator::Join(JoinConstraint::None) | JoinOperator::Inner(JoinConstraint::None) => item,
                JoinOperator::Join(JoinConstraint::Natural) | JoinOperator::Inner(JoinConstraint::Natural) => {
                    return Err(Problem::new("sql_syntax", "NATURAL JOIN cannot be used in rules", at));
                }
                _ => {
                    let problem = Problem::new("join_unsupported", "only JOIN … ON can be used in rules", at)
                        .help("write JOIN table ON table.column = other.column");
                    FromItem { refused_join: Some(problem), ..item }
                }
            };
            items.push(joined);
        }
    }
    Ok(items)
}

fn from_item(relation: TableFactor, at: Position, text: &Text<'_>, depth: usize) -> Result<FromItem, Problem> {
    let (source, alias) = match relation {
        TableFactor::Derived { lateral: false, subquery, alias, sample: None } => {
            (Source::Select(Box::new(select(*subquery, text, depth + 1)?)), alias)
        }
        TableFactor::Table {
            name: path,
            alias,
            args,
            with_hints,
            version: None,
            with_ordinality: false,
            partitions,
            json_path: None,
            sample: None,
            index_hints,
        } if with_hints.is_empty() && partitions.is_empty() && index_hints.is_empty() => {
            (table(object_name(path, at)?, args, at, text, depth)?, alias)
        }
        _ => return Err(unsupported("this form of table", at)),
    };
    let (alias, columns) = match alias {
        None => (None, Vec::new()),
        Some(alias) if alias.at.is_none() && alias.columns.iter().all(|column| column.data_type.is_none()) => {
            (Some(name(alias.name)), alias.columns.into_iter().map(|column| name(column.name)).collect())
        }
        Some(_) => return Err(unsupported("this form of alias", at)),
    };
    Ok(FromItem { source, alias, columns, on: None, refused_join: None })
}

fn table(
    mut path: Vec<Name>,
    args: Option<ast::TableFunctionArgs>,
    at: Position,
    text: &Text<'_>,
    depth: usize,
) -> Result<Source, Problem> {
    let last = path.pop().ok_or_else(|| unsupported("a table without a name", at))?;
    match (path.pop(), args) {
        _ if !path.is_empty() => {
            Err(Problem::new("invalid_schema_name", "a table is named by `schema.table`", last.position))
        }
        (None, Some(called)) if called.settings.is_none() => {
            let argument = |argument| match argument {
                ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(expr)) => expression(expr, text, depth + 1),
                _ => Err(Problem::new("star_unsupported", "`*` cannot be an argument", last.position)),
            };
            let arguments = called.args.into_iter().map(argument).collect::<Result<_, _>>()?;
            Ok(Source::Function { name: last, arguments })
        }
        (_, Some(_)) => Err(unsupported("this form of table function", at)),
        (schema, None) => Ok(Source::Table { schema, name: last }),
    }
}

fn item(item: ast::SelectItem, written: &str, text: &Text<'_>, depth: usize) -> Result<Item, Problem> {
    let at = match &item {
        // Their expressions know where they begin.
        ast::SelectItem::UnnamedExpr(_) | ast::SelectItem::ExprWithAlias { .. } => START,
        star => place(star),
    };
    let column = |expr: Expr, alias| Item::Column { expr, alias, text: written.to_owned() };
    match item {
        ast::SelectItem::UnnamedExpr(expr) => Ok(column(expression(expr, text, depth + 1)?, None)),
        ast::SelectItem::ExprWithAlias { expr, alias } => {
            Ok(column(expression(expr, text, depth + 1)?, Some(name(alias))))
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

impl Text<'_> {
    /// The texts of the select list that begins at a `SELECT`.
    fn items(&self, select: sqlparser::tokenizer::Location) -> Vec<&str> {
        let ends = [Keyword::FROM, Keyword::WHERE, Keyword::GROUP, Keyword::HAVING, Keyword::ORDER, Keyword::LIMIT];
        let Some(begin) = self.tokens.iter().position(|token| token.span.start == select) else { return Vec::new() };
        let mut texts = Vec::new();
        let (mut first, mut depth) = (begin + 1, 0_usize);
        for (at, token) in self.tokens.iter().enumerate().skip(begin + 1) {
            let is_end = match &token.token {
                Token::LParen | Token::LBracket => {
                    depth += 1;
                    false
                }
                Token::RParen | Token::RBracket if depth > 0 => {
                    depth -= 1;
                    false
                }
                Token::RParen | Token::EOF | Token::SemiColon => true,
                Token::Word(word) if depth == 0 => ends.contains(&word.keyword),
                _ => false,
            };
            let is_comma = depth == 0 && token.token == Token::Comma;
            if (is_end || is_comma) && first < at {
                texts.push(self.between(first, at - 1));
                first = at + 1;
            }
            if is_end {
                break;
            }
        }
        texts
    }
}
