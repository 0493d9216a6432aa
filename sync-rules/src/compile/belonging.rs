//! The Kairos dialect: rows belong to a principal, directly or through other rows.
//!
//! `habit_id IN (SELECT id FROM habits WHERE user_id = :user_id)` becomes a lookup from a habit's id to the users that
//! its row names. A nested subquery becomes a lookup that is itself fed through another one.

use super::{
    Settings,
    classic::priority,
    reader::{Findings, Section, list, text},
};
use crate::{
    expression::Expr,
    plan::{
        BelongingFilter, ClaimType, DataQuery, Definition, JoinLookup, Membership, OutputColumn, ParameterQuery,
        ParameterSource,
    },
    scope::{self, RequestInput},
    syntax::{self, Ast, BinaryOp, From, Select, SelectColumn, SqlFault},
    yaml::{Node, NodeKind},
};

/// Deepest nesting of subqueries.
const NESTING_MAX: usize = 8;

pub(super) fn definition(
    name: &str,
    node: &Node,
    settings: &Settings<'_>,
    joins: &mut Vec<JoinLookup>,
    findings: &mut Findings,
) -> Option<Definition> {
    let section = Section::new(node, &format!("definition `{name}`"), findings)?;
    section.only_known(&["parameters", "data", "priority"], findings);
    let priority = priority(section.get("priority"), findings);
    let mut parameters = Vec::new();
    for item in section.get("parameters").map_or(&[][..], |node| list(node, "`parameters`", findings)) {
        parameters.extend(parameter(item, findings));
    }
    let names: Vec<&str> = parameters.iter().map(|(name, _)| name.as_str()).collect();
    let types: Vec<ClaimType> = parameters.iter().map(|(_, kind)| *kind).collect();
    let claim = |(name, kind): &(String, ClaimType)| match name.as_str() {
        "user_id" => (RequestInput::UserId, *kind),
        _ => (RequestInput::Claim(name.clone()), *kind),
    };
    let source = ParameterSource::Claims(parameters.iter().map(claim).collect());
    let mut compiler = Compiler { definition: name, settings, names: &names, types: &types, joins };
    let Some(data) = section.get("data") else {
        findings.fatal(
            "schema_violation",
            node.span,
            format!("definition `{name}` has no `data`"),
            "add a list of tables",
        );
        return None;
    };
    let data_queries = list(data, "`data`", findings).iter().filter_map(|item| compiler.data(item, findings)).collect();
    let parameter_queries = vec![ParameterQuery { priority, condition: None, source }];
    Some(Definition { name: name.to_owned(), parameter_queries, data_queries })
}

fn parameter(node: &Node, findings: &mut Findings) -> Option<(String, ClaimType)> {
    let section = Section::new(node, "a parameter", findings)?;
    section.only_known(&["name", "type"], findings);
    let Some((name, _)) = section.text("name", findings) else {
        findings.fatal("schema_violation", node.span, "a parameter needs a `name`".to_owned(), "name: user_id");
        return None;
    };
    let kind = match section.text("type", findings) {
        None | Some(("string" | "text" | "uuid", _)) => ClaimType::Text,
        Some(("integer" | "int", _)) => ClaimType::Integer,
        Some((_, span)) => {
            findings.fatal("schema_violation", span, "this type is not known".to_owned(), "string or integer");
            return None;
        }
    };
    Some((name.to_owned(), kind))
}

struct Compiler<'a> {
    definition: &'a str,
    settings: &'a Settings<'a>,
    names: &'a [&'a str],
    types: &'a [ClaimType],
    joins: &'a mut Vec<JoinLookup>,
}

impl Compiler<'_> {
    fn data(&mut self, node: &Node, findings: &mut Findings) -> Option<DataQuery> {
        let section = Section::new(node, "a data entry", findings)?;
        section.only_known(&["table", "filter", "columns"], findings);
        let Some((table, _)) = section.text("table", findings) else {
            findings.fatal("schema_violation", node.span, "a data entry needs a `table`".to_owned(), "table: habits");
            return None;
        };
        let (schema, name) = match table.split_once('.') {
            Some((schema, name)) => (Some(schema.to_owned()), name.to_owned()),
            None => (None, table.to_owned()),
        };
        let (filter, span) = match section.get("filter") {
            None => (Ok(BelongingFilter::default()), node.span),
            Some(node) => {
                let (sql, span) = text(node, "`filter`", findings)?;
                (syntax::parse_expression(sql).and_then(|ast| self.filter(ast, &mut vec![name.clone()])), span)
            }
        };
        let columns = Self::columns(section.get("columns"), findings);
        let checked = filter.and_then(|filter| {
            let missing: Vec<&str> = (0..self.names.len())
                .filter(|index| !self.binds(&filter, *index))
                .map(|index| self.names[index])
                .collect();
            if missing.is_empty() {
                return Ok(filter);
            }
            Err(SqlFault::new(
                "bucket_parameters_not_covered",
                format!("the filter does not say whose rows they are: `:{}` is missing", missing.join("`, `:")),
            )
            .help("compare a column with it, or with a subquery that does"))
        });
        let filter = checked.map_err(|fault| findings.sql(fault, span)).ok()?;
        Some(DataQuery {
            table: self.settings.table(schema, name.clone()),
            object_type: Some(name),
            columns,
            membership: Membership::Belonging { types: self.types.to_vec(), filter },
        })
    }

    fn columns(node: Option<&Node>, findings: &mut Findings) -> Vec<OutputColumn> {
        let Some(node) = node else { return vec![OutputColumn::Star] };
        let mut columns: Vec<OutputColumn> = Vec::new();
        for item in list(node, "`columns`", findings) {
            if let Some((name, _)) = text(item, "a column", findings) {
                columns.push(OutputColumn::Named(name.to_owned(), Expr::Input(name.to_owned())));
            }
        }
        if !columns.iter().any(|column| matches!(column, OutputColumn::Named(name, _) if name == "id")) {
            findings.fatal("id_column_missing", node.span, "the columns must include `id`".to_owned(), "add `id`");
        }
        columns
    }

    fn binds(&self, filter: &BelongingFilter, parameter: usize) -> bool {
        filter.equalities.iter().any(|(index, _)| *index == parameter)
            || filter.joins.iter().any(|(_, join)| self.joins[*join].parameters.contains(&parameter))
    }

    /// `tables` are those read so far, outermost first.
    fn filter(&mut self, ast: Ast, tables: &mut Vec<String>) -> Result<BelongingFilter, SqlFault> {
        let mut filter = BelongingFilter::default();
        let mut conditions = vec![ast];
        let mut plain: Option<Ast> = None;
        while let Some(ast) = conditions.pop() {
            match ast {
                Ast::Binary(BinaryOp::And, left, right) => conditions.extend([*right, *left]),
                Ast::Binary(BinaryOp::Equal, left, right) if matches!(*right, Ast::Placeholder(_)) => {
                    self.equality(&left, &right, tables, &mut filter)?;
                }
                Ast::Binary(BinaryOp::Equal, left, right) if matches!(*left, Ast::Placeholder(_)) => {
                    self.equality(&right, &left, tables, &mut filter)?;
                }
                Ast::InSelect(left, select) => {
                    let column = self.row_expr(&left, tables)?;
                    let join = self.join(*select, tables)?;
                    filter.joins.push((column, join));
                }
                other if is_plain(&other) => {
                    plain = Some(match plain {
                        None => other,
                        Some(before) => Ast::Binary(BinaryOp::And, before.into(), other.into()),
                    });
                }
                _ => {
                    return Err(SqlFault::new(
                        "unsupported_expression",
                        "parameters and subqueries stand in `=`, `IN (SELECT …)` and AND only",
                    )
                    .help("for OR write two data entries; NOT IN is not supported"));
                }
            }
        }
        filter.condition = plain.map(|ast| self.row_expr(&ast, tables)).transpose()?;
        Ok(filter)
    }

    fn equality(
        &self,
        row: &Ast,
        placeholder: &Ast,
        tables: &[String],
        filter: &mut BelongingFilter,
    ) -> Result<(), SqlFault> {
        let Ast::Placeholder(name) = placeholder else { return Ok(()) };
        let Some(index) = self.names.iter().position(|known| known == name) else {
            return Err(SqlFault::new("undefined_reference", format!("`:{name}` is not among the parameters"))
                .help(format!("known are: {}", self.names.join(", "))));
        };
        filter.equalities.push((index, self.row_expr(row, tables)?));
        Ok(())
    }

    fn join(&mut self, select: Select, tables: &mut Vec<String>) -> Result<usize, SqlFault> {
        let Some(From::Table { schema, name, alias: None }) = select.from else {
            return Err(SqlFault::new("single_table_required", "a subquery reads one table, without an alias"));
        };
        if tables.contains(&name) || tables.len() > NESTING_MAX {
            return Err(SqlFault::new(
                "subquery_filter_unsupported",
                format!("a subquery on `{name}` inside a query on `{name}` is not supported"),
            )
            .help("compare the column itself, or add a column that names the owner"));
        }
        let [SelectColumn::Value(column, None)] = select.columns.as_slice() else {
            return Err(SqlFault::new("subquery_columns", "a subquery selects one column").help("SELECT id FROM …"));
        };
        tables.push(name.clone());
        let key = self.row_expr(column, tables)?;
        let filter = select.filter.map_or(Ok(BelongingFilter::default()), |ast| self.filter(ast, tables))?;
        tables.pop();
        let parameters: Vec<usize> = (0..self.names.len()).filter(|index| self.binds(&filter, *index)).collect();
        let lookup = JoinLookup {
            definition: self.definition.to_owned(),
            table: self.settings.table(schema, name),
            key,
            filter,
            parameters,
            types: self.types.to_vec(),
        };
        // The same subquery under several tables is one lookup.
        let same = self.joins.iter().position(|known| format!("{known:?}") == format!("{lookup:?}"));
        Ok(same.unwrap_or_else(|| {
            self.joins.push(lookup);
            self.joins.len() - 1
        }))
    }

    fn row_expr(&self, ast: &Ast, tables: &[String]) -> Result<Expr<String>, SqlFault> {
        let table = tables.last().map_or("", String::as_str);
        scope::compile(ast, self.settings.fixed_json, &|ast| match ast {
            Ast::Column(None, name) => Ok(Some(name.clone())),
            Ast::Column(Some(scope), name) if scope == table => Ok(Some(name.clone())),
            _ => Ok(None),
        })
    }
}

/// Speaks of the row alone.
fn is_plain(ast: &Ast) -> bool {
    match ast {
        Ast::Literal(_) | Ast::Column(..) => true,
        Ast::Placeholder(_) | Ast::InSelect(..) => false,
        Ast::Call(_, arguments) => arguments.iter().all(is_plain),
        Ast::Binary(_, left, right) | Ast::In(left, right) => is_plain(left) && is_plain(right),
        Ast::Not(value) | Ast::IsNull(value) | Ast::Json { left: value, .. } | Ast::Cast(value, _) => is_plain(value),
    }
}

/// Whether a node is written in this dialect.
pub(super) fn is_dialect(node: &Node) -> bool {
    let has_maps = |node: &Node| matches!(&node.kind, NodeKind::List(items) if items.iter().any(|item| matches!(item.kind, NodeKind::Map(_))));
    matches!(&node.kind, NodeKind::Map(entries)
        if entries.iter().any(|(key, value)| matches!(key.name.as_str(), "parameters" | "data") && has_maps(value)))
}
