//! Bucket definitions as PowerSync has them: parameter queries and data queries in SQL.

use super::{
    Settings,
    reader::{Findings, Section, list, text},
};
use crate::{
    diagnostic::Span,
    expression::Expr,
    plan::{
        Conjunction, DataQuery, Definition, LookupInput, Membership, OutputColumn, ParameterOutput, ParameterQuery,
        ParameterSource, TableLookup, Term, TermValues,
    },
    scope::{self, RequestInput, request_input},
    syntax::{self, Ast, BinaryOp, From, Select, SelectColumn, SqlFault},
    value::SqlValue,
    yaml::{Node, NodeKind},
};

/// Priority of a definition that names none.
const DEFAULT_PRIORITY: u8 = 3;

pub(super) fn definition(
    name: &str,
    node: &Node,
    settings: &Settings<'_>,
    findings: &mut Findings,
) -> Option<Definition> {
    let section = Section::new(node, &format!("definition `{name}`"), findings)?;
    section.only_known(&["parameters", "data", "priority", "accept_potentially_dangerous_queries"], findings);
    let priority = priority(section.get("priority"), findings);
    let accepted = matches!(
        section.get("accept_potentially_dangerous_queries").map(|node| &node.kind),
        Some(NodeKind::Bool(true))
    );
    let mut compiler = Compiler { name, settings, priority, warn_of_danger: !accepted };
    let queries = match section.get("parameters") {
        None => vec![(
            ParameterQuery { priority, condition: None, source: ParameterSource::Request(Vec::new()) },
            Vec::new(),
        )],
        Some(node) => {
            let items = if matches!(node.kind, NodeKind::Text(_)) {
                std::slice::from_ref(node)
            } else {
                list(node, "`parameters`", findings)
            };
            items
                .iter()
                .enumerate()
                .filter_map(|(index, item)| compiler.parameters(index + 1, item, findings))
                .collect()
        }
    };
    let names = queries.first().map(|(_, names)| names.clone()).unwrap_or_default();
    for (_, other) in &queries {
        if *other != names {
            findings.fatal(
                "bucket_parameters_mismatch",
                node.span,
                format!("the parameter queries of `{name}` select different parameters"),
                "select the same names in the same order in each",
            );
        }
    }
    let Some(data) = section.get("data") else {
        findings.fatal(
            "schema_violation",
            node.span,
            format!("definition `{name}` has no `data`"),
            "add a list of data queries",
        );
        return None;
    };
    let data_queries = list(data, "`data`", findings).iter().filter_map(|item| {
        let (sql, span) = text(item, "a data query", findings)?;
        compiler.data(sql, &names).map_err(|fault| findings.sql(fault, span)).ok()
    });
    let data_queries = data_queries.collect();
    let parameter_queries = queries.into_iter().map(|(query, _)| query).collect();
    Some(Definition { name: name.to_owned(), parameter_queries, data_queries })
}

pub(super) fn priority(node: Option<&Node>, findings: &mut Findings) -> u8 {
    match node.map(|node| (&node.kind, node.span)) {
        None => DEFAULT_PRIORITY,
        Some((NodeKind::Integer(number @ 0..=3), _)) => u8::try_from(*number).unwrap_or(DEFAULT_PRIORITY),
        Some((_, span)) => {
            findings.fatal("priority_invalid", span, "a priority is 0, 1, 2 or 3".to_owned(), "0 syncs first, 3 last");
            DEFAULT_PRIORITY
        }
    }
}

struct Compiler<'a> {
    name: &'a str,
    settings: &'a Settings<'a>,
    priority: u8,
    warn_of_danger: bool,
}

/// What a condition is made of.
enum Clause {
    /// The row alone.
    Row(Ast),
    /// The parameters alone.
    Parameter(Ast),
    /// Both, as alternatives of conditions that all must hold.
    Match(Vec<MatchConjunction>),
}

#[derive(Clone, Default)]
struct MatchConjunction {
    rows: Vec<Ast>,
    terms: Vec<(Ast, Form)>,
}

/// How a row and a parameter meet.
#[derive(Clone, PartialEq)]
enum Form {
    Equal(Ast),
    ElementOf(Ast),
    MemberOf(Ast),
    True,
}

/// Which names are parameters where a filter stands.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    ParameterQuery,
    DataQuery,
}

impl Place {
    fn is_parameter(self, ast: &Ast) -> bool {
        match self {
            Self::ParameterQuery => request_input(ast).is_some(),
            Self::DataQuery => matches!(ast, Ast::Column(Some(table), _) if table == "bucket"),
        }
    }

    /// Whether an expression speaks of rows, and whether of parameters.
    fn dependencies(self, ast: &Ast) -> (bool, bool) {
        if self.is_parameter(ast) {
            return (false, true);
        }
        let both = |parts: &[&Ast]| {
            parts
                .iter()
                .map(|part| self.dependencies(part))
                .fold((false, false), |all, one| (all.0 || one.0, all.1 || one.1))
        };
        match ast {
            Ast::Literal(_) | Ast::Placeholder(_) | Ast::InSelect(..) => (false, false),
            Ast::Column(..) => (true, false),
            Ast::Call(_, arguments) => both(&arguments.iter().collect::<Vec<_>>()),
            Ast::Binary(_, left, right) | Ast::In(left, right) => both(&[left, right]),
            Ast::Not(value) | Ast::IsNull(value) | Ast::Json { left: value, .. } | Ast::Cast(value, _) => {
                both(&[value])
            }
        }
    }

    fn clause(self, ast: Ast) -> Result<Clause, SqlFault> {
        let ast = match self.dependencies(&ast) {
            (_, false) => return Ok(Clause::Row(ast)),
            (false, true) if !self.needs_match(&ast) => return Ok(Clause::Parameter(ast)),
            _ => ast,
        };
        let one = |parameter: Ast, form: Form| {
            Clause::Match(vec![MatchConjunction { rows: Vec::new(), terms: vec![(parameter, form)] }])
        };
        let only = |ast: &Ast| self.dependencies(ast);
        match ast {
            Ast::Binary(BinaryOp::And, left, right) => Ok(Self::and(self.clause(*left)?, self.clause(*right)?)),
            Ast::Binary(BinaryOp::Or, left, right) => Self::or(self.clause(*left)?, self.clause(*right)?),
            Ast::Binary(BinaryOp::Equal, left, right) => match (only(&left), only(&right)) {
                ((true, false), (false, true)) => Ok(one(*right, Form::Equal(*left))),
                ((false, true), (true, false)) => Ok(one(*left, Form::Equal(*right))),
                _ => Err(mixed()),
            },
            Ast::In(left, right) => match (only(&left), only(&right)) {
                ((false, true), (true, false)) => Ok(one(*left, Form::ElementOf(*right))),
                ((true, false), (false, true)) if self == Self::ParameterQuery => {
                    Ok(one(*right, Form::MemberOf(*left)))
                }
                _ => Err(mixed()),
            },
            ast if self.is_parameter(&ast) => Ok(one(ast, Form::True)),
            _ => Err(mixed()),
        }
    }

    /// In a data query a bare `bucket.x` is a match with rows, since no request is known there.
    fn needs_match(self, ast: &Ast) -> bool {
        self == Self::DataQuery && self.is_parameter(ast)
    }

    fn alternatives(clause: Clause) -> Vec<MatchConjunction> {
        match clause {
            Clause::Row(ast) => vec![MatchConjunction { rows: vec![ast], terms: Vec::new() }],
            Clause::Parameter(ast) => vec![MatchConjunction { rows: Vec::new(), terms: vec![(ast, Form::True)] }],
            Clause::Match(alternatives) => alternatives,
        }
    }

    fn and(left: Clause, right: Clause) -> Clause {
        match (left, right) {
            (Clause::Row(left), Clause::Row(right)) => {
                Clause::Row(Ast::Binary(BinaryOp::And, left.into(), right.into()))
            }
            (Clause::Parameter(left), Clause::Parameter(right)) => {
                Clause::Parameter(Ast::Binary(BinaryOp::And, left.into(), right.into()))
            }
            (left, right) => {
                let right = Self::alternatives(right);
                let pair = |a: MatchConjunction| {
                    right
                        .iter()
                        .map(move |b| MatchConjunction {
                            rows: [a.rows.as_slice(), &b.rows].concat(),
                            terms: [a.terms.as_slice(), &b.terms].concat(),
                        })
                        .collect::<Vec<_>>()
                };
                Clause::Match(Self::alternatives(left).into_iter().flat_map(pair).collect())
            }
        }
    }

    fn or(left: Clause, right: Clause) -> Result<Clause, SqlFault> {
        match (left, right) {
            (Clause::Row(left), Clause::Row(right)) => {
                Ok(Clause::Row(Ast::Binary(BinaryOp::Or, left.into(), right.into())))
            }
            (Clause::Parameter(left), Clause::Parameter(right)) => {
                Ok(Clause::Parameter(Ast::Binary(BinaryOp::Or, left.into(), right.into())))
            }
            (left, right) => {
                let mut alternatives = Self::alternatives(left);
                alternatives.extend(Self::alternatives(right));
                let parameters = |conjunction: &MatchConjunction| {
                    let mut names: Vec<String> = conjunction.terms.iter().map(|(ast, _)| format!("{ast:?}")).collect();
                    names.sort_unstable();
                    names.dedup();
                    names
                };
                let first = alternatives.first().map(parameters);
                if alternatives.iter().any(|other| Some(parameters(other)) != first) {
                    return Err(SqlFault::new("or_parameters_differ", "both sides of OR must use the same parameters")
                        .help("write two queries, one for each side"));
                }
                Ok(Clause::Match(alternatives))
            }
        }
    }
}

fn mixed() -> SqlFault {
    SqlFault::new("mixed_dependencies", "a row and a parameter meet in `=` or `IN` only")
        .help("compare a plain column with the parameter, and combine comparisons with AND")
}

impl Compiler<'_> {
    fn row_expr(&self, ast: &Ast, table: &str) -> Result<Expr<String>, SqlFault> {
        scope::compile(ast, self.settings.fixed_json, &|ast| match ast {
            Ast::Column(Some(scope), _) if scope == "bucket" => {
                Err(SqlFault::new("bucket_parameter_in_expression", "`bucket.…` can only be compared with `=` or `IN`"))
            }
            Ast::Column(None, name) => Ok(Some(name.clone())),
            Ast::Column(Some(scope), name) if scope == table => Ok(Some(name.clone())),
            ast if request_input(ast).is_some() => {
                Err(SqlFault::new("request_function_in_data_query", "a data query does not know the request")
                    .help("select the value in `parameters` and compare with `bucket.…`"))
            }
            _ => Ok(None),
        })
    }

    fn request_expr(&self, ast: &Ast) -> Result<Expr<RequestInput>, SqlFault> {
        scope::compile(ast, self.settings.fixed_json, &|ast| Ok(request_input(ast)))
    }

    /// The same conjunctions, with parameters as indexes into `parameters`, which grows where `grow` allows it.
    fn conjunctions(
        &self,
        alternatives: Vec<MatchConjunction>,
        table: &str,
        parameters: &mut Vec<Ast>,
    ) -> Result<Vec<Conjunction>, SqlFault> {
        alternatives
            .into_iter()
            .map(|conjunction| {
                let condition =
                    conjunction.rows.into_iter().reduce(|a, b| Ast::Binary(BinaryOp::And, a.into(), b.into()));
                let condition = condition.map(|ast| self.row_expr(&ast, table)).transpose()?;
                let terms = conjunction.terms.into_iter().map(|(ast, form)| {
                    let parameter = parameters.iter().position(|known| *known == ast).unwrap_or_else(|| {
                        parameters.push(ast);
                        parameters.len() - 1
                    });
                    let values = match form {
                        Form::Equal(row) => TermValues::Equal(self.row_expr(&row, table)?),
                        Form::ElementOf(row) => TermValues::ElementOf(self.row_expr(&row, table)?),
                        Form::MemberOf(row) => TermValues::MemberOf(self.row_expr(&row, table)?),
                        Form::True => TermValues::True,
                    };
                    Ok(Term { parameter, values })
                });
                Ok(Conjunction { condition, terms: terms.collect::<Result<_, SqlFault>>()? })
            })
            .collect()
    }

    fn data(&self, sql: &str, names: &[String]) -> Result<DataQuery, SqlFault> {
        let Select { columns, from, filter } = syntax::parse_select(sql)?;
        let Some(From::Table { schema, name, alias }) = from else {
            return Err(
                SqlFault::new("single_table_required", "a data query reads one table").help("SELECT … FROM table")
            );
        };
        let scope_name = alias.clone().unwrap_or_else(|| name.clone());
        let clause =
            filter.map_or(Ok(Clause::Match(vec![MatchConjunction::default()])), |ast| Place::DataQuery.clause(ast))?;
        let wanted: Vec<Ast> = names.iter().map(|name| Ast::Column(Some("bucket".to_owned()), name.clone())).collect();
        let mut parameters = wanted.clone();
        let alternatives = self.conjunctions(Place::alternatives(clause), &scope_name, &mut parameters)?;
        let covers = |conjunction: &Conjunction| {
            (0..names.len()).all(|index| conjunction.terms.iter().any(|term| term.parameter == index))
        };
        if parameters != wanted || !alternatives.iter().all(covers) {
            let expected = names.iter().map(|name| format!("bucket.{name}")).collect::<Vec<_>>().join(", ");
            return Err(SqlFault::new(
                "bucket_parameters_not_covered",
                "the filter must use each bucket parameter, and no other",
            )
            .help(if expected.is_empty() {
                "this definition has no bucket parameters".to_owned()
            } else {
                format!("it must compare: {expected}")
            }));
        }
        let outputs = self.outputs(columns, &scope_name)?;
        let has_id = outputs.iter().any(|column| {
            matches!(column, OutputColumn::Star) || matches!(column, OutputColumn::Named(name, _) if name == "id")
        });
        if !has_id {
            return Err(
                SqlFault::new("id_column_missing", "a data query must select a column `id`").help("add `… AS id`")
            );
        }
        let object_type = alias.or_else(|| (!name.ends_with('%')).then(|| name.clone()));
        Ok(DataQuery {
            table: self.settings.table(schema, name),
            object_type,
            columns: outputs,
            membership: Membership::Matching { parameter_count: names.len(), alternatives },
        })
    }

    fn outputs(&self, columns: Vec<SelectColumn>, table: &str) -> Result<Vec<OutputColumn>, SqlFault> {
        let output = |column| match column {
            SelectColumn::Star(scope) if scope.as_deref().is_none_or(|scope| scope == table) => Ok(OutputColumn::Star),
            SelectColumn::Star(_) => Err(SqlFault::new("undefined_reference", "`*` of a table that is not read here")),
            SelectColumn::Value(ast, alias) => {
                let name = alias.or_else(|| match &ast {
                    Ast::Column(_, name) => Some(name.clone()),
                    _ => None,
                });
                let name = name.ok_or_else(|| {
                    SqlFault::new("alias_required", "an expression needs a name").help("add `AS name`")
                })?;
                Ok(OutputColumn::Named(name, self.row_expr(&ast, table)?))
            }
        };
        columns.into_iter().map(output).collect()
    }

    fn parameters(
        &mut self,
        number: usize,
        node: &Node,
        findings: &mut Findings,
    ) -> Option<(ParameterQuery, Vec<String>)> {
        let (sql, span) = text(node, "a parameter query", findings)?;
        match self.parameter_query(number, sql) {
            Ok((query, names, is_dangerous)) => {
                if is_dangerous && self.warn_of_danger {
                    self.warn(span, findings);
                }
                Some((query, names))
            }
            Err(fault) => {
                findings.sql(fault, span);
                None
            }
        }
    }

    fn warn(&self, span: Span, findings: &mut Findings) {
        findings.warning(
            "dangerous_parameters",
            span,
            format!("buckets of `{}` depend on parameters that any client can set", self.name),
            "compare with request.user_id() too, or set accept_potentially_dangerous_queries: true",
        );
    }

    fn parameter_query(&self, number: usize, sql: &str) -> Result<(ParameterQuery, Vec<String>, bool), SqlFault> {
        let Select { columns, from, filter } = syntax::parse_select(sql)?;
        let mut named = Vec::new();
        let mut priority = self.priority;
        for column in columns {
            let SelectColumn::Value(ast, alias) = column else {
                return Err(SqlFault::new("star_unsupported", "name the parameters one by one instead of `*`"));
            };
            let name = alias.or_else(|| match &ast {
                Ast::Column(_, name) => Some(name.clone()),
                _ => None,
            });
            let name = name
                .ok_or_else(|| SqlFault::new("alias_required", "an expression needs a name").help("add `AS name`"))?;
            match (name.as_str(), &ast) {
                ("_priority", Ast::Literal(SqlValue::Integer(number @ 0..=3))) => {
                    priority = u8::try_from(*number).unwrap_or(DEFAULT_PRIORITY);
                }
                ("_priority", _) => return Err(SqlFault::new("priority_invalid", "a priority is 0, 1, 2 or 3")),
                _ => named.push((name, ast)),
            }
        }
        let parameter_names = named.iter().map(|(name, _)| name.clone()).collect();
        let (query, is_dangerous) = match from {
            None => self.static_query(&named, filter, priority)?,
            Some(From::Function { name }) => {
                return Err(SqlFault::new(
                    "unknown_table_function",
                    format!("`{name}(…)` after FROM is not supported in this release"),
                ));
            }
            Some(From::Table { schema, name, alias }) => {
                if alias.is_some_and(|alias| alias != name) {
                    return Err(SqlFault::new(
                        "parameter_query_alias",
                        "the table of a parameter query takes no alias",
                    ));
                }
                self.table_query(number, named, filter, priority, schema, name)?
            }
        };
        Ok((query, parameter_names, is_dangerous))
    }

    fn static_query(
        &self,
        named: &[(String, Ast)],
        filter: Option<Ast>,
        priority: u8,
    ) -> Result<(ParameterQuery, bool), SqlFault> {
        let values = named.iter().map(|(_, ast)| self.request_expr(ast)).collect::<Result<Vec<_>, _>>()?;
        let condition = filter.map(|ast| self.request_expr(&ast)).transpose()?;
        let columns = Trust::of(&values);
        let all = condition.iter().map(|expr| Trust::of(std::slice::from_ref(expr))).fold(columns, Trust::and);
        let query = ParameterQuery { priority, condition, source: ParameterSource::Request(values) };
        Ok((query, all.unauthenticated && !columns.authenticated))
    }

    fn table_query(
        &self,
        number: usize,
        named: Vec<(String, Ast)>,
        filter: Option<Ast>,
        priority: u8,
        schema: Option<String>,
        table: String,
    ) -> Result<(ParameterQuery, bool), SqlFault> {
        let place = Place::ParameterQuery;
        let mut trust = Trust::default();
        let outputs = named
            .into_iter()
            .map(|(_, ast)| match place.dependencies(&ast) {
                (false, _) => {
                    let expr = self.request_expr(&ast)?;
                    trust = trust.and(Trust::of(std::slice::from_ref(&expr)));
                    Ok(ParameterOutput::Request(expr))
                }
                (true, _) => match ast {
                    Ast::Column(scope, name) if scope.as_deref().is_none_or(|scope| scope == table) => {
                        Ok(ParameterOutput::Column(name))
                    }
                    _ => Err(SqlFault::new(
                        "match_clause_misplaced",
                        "a parameter is a plain column or a value of the request",
                    )),
                },
            })
            .collect::<Result<Vec<_>, SqlFault>>()?;
        let clause = filter.map_or(Ok(Clause::Match(vec![MatchConjunction::default()])), |ast| place.clause(ast))?;
        let mut parameters = Vec::new();
        let alternatives = Place::alternatives(clause);
        let arrays: Vec<Ast> = alternatives
            .iter()
            .flat_map(|conjunction| &conjunction.terms)
            .filter(|(_, form)| matches!(form, Form::MemberOf(_)))
            .map(|(ast, _)| ast.clone())
            .collect();
        let truths: Vec<Ast> = alternatives
            .iter()
            .flat_map(|conjunction| &conjunction.terms)
            .filter(|(_, form)| *form == Form::True)
            .map(|(ast, _)| ast.clone())
            .collect();
        let alternatives = self.conjunctions(alternatives, &table, &mut parameters)?;
        if arrays.len() > 1 {
            return Err(SqlFault::new("multiple_array_filters", "one condition `column IN array` is allowed"));
        }
        let inputs = parameters
            .iter()
            .map(|ast| {
                let expr = self.request_expr(ast)?;
                trust = trust.and(Trust::of(std::slice::from_ref(&expr)));
                Ok(if arrays.contains(ast) {
                    LookupInput::Elements(expr)
                } else if truths.contains(ast) {
                    LookupInput::Truth(expr)
                } else {
                    LookupInput::Value(expr)
                })
            })
            .collect::<Result<Vec<_>, SqlFault>>()?;
        let lookup = TableLookup {
            definition: self.name.to_owned(),
            number,
            table: self.settings.table(schema, table),
            alternatives,
            inputs,
            outputs,
        };
        let query = ParameterQuery { priority, condition: None, source: ParameterSource::Table(lookup) };
        Ok((query, trust.unauthenticated && !trust.authenticated))
    }
}

/// Whether expressions use what a token proves, and what any client can set.
#[derive(Clone, Copy, Default)]
struct Trust {
    authenticated: bool,
    unauthenticated: bool,
}

impl Trust {
    fn of(exprs: &[Expr<RequestInput>]) -> Self {
        let mut trust = Self::default();
        for expr in exprs {
            expr.visit(&mut |input| {
                if input.is_authenticated() {
                    trust.authenticated = true;
                } else {
                    trust.unauthenticated = true;
                }
            });
        }
        trust
    }

    fn and(self, other: Self) -> Self {
        Self {
            authenticated: self.authenticated || other.authenticated,
            unauthenticated: self.unauthenticated || other.unauthenticated,
        }
    }
}
