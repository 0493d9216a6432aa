//! The table of a query.

use crate::{
    config::Report,
    diagnostic::{Problem, Severity},
    plan::TablePattern,
    syntax::{Expr, ExprKind, Item, Name, Select, Source},
    yaml::Node,
};

use super::Context;

/// Connection of tables that name none.
const CONNECTION_DEFAULT: &str = "default";

/// The table a query reads.
#[derive(Debug, Clone)]
pub(super) struct QueryTable {
    pub pattern: TablePattern,
    /// The name to use in references.
    name: String,
    /// Output table; `None`: as the source table is called.
    pub object_type: Option<String>,
}

impl QueryTable {
    pub(super) fn new(
        schema: Option<&Name>,
        name: &Name,
        alias: Option<&Name>,
        context: &Context<'_>,
    ) -> Result<Self, Problem> {
        let (connection, schema) = match schema {
            None => (CONNECTION_DEFAULT, context.default_schema),
            Some(path) => match path.text.split_once('.') {
                None => (CONNECTION_DEFAULT, path.text.as_str()),
                Some((connection, schema)) if !schema.contains('.') => (connection, schema),
                Some(_) => {
                    return Err(Problem::new(
                        "invalid_schema_name",
                        "a schema name has at most one dot",
                        path.position,
                    ));
                }
            },
        };
        let pattern =
            TablePattern { connection: connection.to_owned(), schema: schema.to_owned(), name: name.text.clone() };
        let object_type = match alias {
            Some(alias) => Some(alias.text.clone()),
            None if name.text.ends_with('%') => None,
            None => Some(name.text.clone()),
        };
        Ok(Self { pattern, name: alias.unwrap_or(name).text.clone(), object_type })
    }

    /// The column a reference means.
    pub(super) fn column(&self, table: Option<&Name>, name: &Name) -> Result<String, Problem> {
        table.map_or(Ok(()), |table| self.check(table))?;
        Ok(name.text.clone())
    }

    /// Whether a qualifier is this table.
    pub(super) fn check(&self, table: &Name) -> Result<(), Problem> {
        if table.text == self.name {
            return Ok(());
        }
        let message = format!("there is no table `{}` in this query", table.text);
        Err(Problem::new("undefined_reference", message, table.position)
            .help(format!("columns belong to `{}`", self.name)))
    }
}

/// Warns of every name whose capital letters are lost because it is not quoted.
pub(super) fn lost_case(select: &Select, report: &mut Report<'_>, node: &Node) {
    if let Some(Source::Table { schema: None, name, alias: None }) = &select.source {
        report.lost_case(node, name);
    }
    for item in &select.items {
        match item {
            Item::Star { table, .. } => table.iter().for_each(|table| report.lost_case(node, table)),
            Item::Column { expr, .. } => lost_case_expr(expr, report, node),
        }
    }
    select.filter.iter().for_each(|filter| lost_case_expr(filter, report, node));
}

fn lost_case_expr(expr: &Expr, report: &mut Report<'_>, node: &Node) {
    match &expr.kind {
        ExprKind::Literal(_) | ExprKind::Placeholder(_) | ExprKind::NotIn => {}
        ExprKind::Column { table, name } => {
            table.iter().chain([name]).for_each(|name| report.lost_case(node, name));
        }
        ExprKind::Call { arguments, .. } => arguments.iter().for_each(|each| lost_case_expr(each, report, node)),
        ExprKind::Not(operand) | ExprKind::IsNull { operand, .. } | ExprKind::Cast { operand, .. } => {
            lost_case_expr(operand, report, node);
        }
        ExprKind::JsonMember { document, .. } => lost_case_expr(document, report, node),
        ExprKind::Binary { left, right, .. } => {
            lost_case_expr(left, report, node);
            lost_case_expr(right, report, node);
        }
        ExprKind::InSelect { operand, select, .. } => {
            lost_case_expr(operand, report, node);
            lost_case(select, report, node);
        }
    }
}

impl Report<'_> {
    /// Adds a fatal problem of a query.
    pub(super) fn problem(&mut self, node: &Node, problem: Problem) {
        let diagnostic = node.diagnose(self.file, problem, Severity::Fatal);
        self.diagnostics.push(diagnostic);
    }

    /// Warns if a name lost capital letters.
    pub(super) fn lost_case(&mut self, node: &Node, name: &Name) {
        if !name.lost_case {
            return;
        }
        let message = format!("`{}` is read in lower case, because it is not quoted", name.text);
        let problem = Problem::new("identifier_case", message, name.position)
            .help("put names with capital letters into double quotes");
        let diagnostic = node.diagnose(self.file, problem, Severity::Warning);
        self.diagnostics.push(diagnostic);
    }
}
