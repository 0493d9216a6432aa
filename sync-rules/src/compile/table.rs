//! The table of a query.

use crate::{
    config::Report,
    definition::{RowInput, TablePart},
    diagnostic::Problem,
    plan::TablePattern,
    schema::Missing,
    syntax::{Expr, ExprKind, FromItem, Item, Name, Position, Select, Source},
    yaml::Node,
};

use super::Context;

/// Connection of tables that name none.
pub(super) const CONNECTION_DEFAULT: &str = "default";
/// Column of wildcard tables: what `%` stands for.
const SUFFIX_COLUMN: &str = "_table_suffix";

/// The source tables a name stands for.
pub(super) fn pattern(schema: Option<&Name>, name: &Name, context: &Context<'_>) -> Result<TablePattern, Problem> {
    let (connection, schema) = match schema {
        None => (CONNECTION_DEFAULT, context.default_schema),
        Some(path) => match path.text.split_once('.') {
            None => (CONNECTION_DEFAULT, path.text.as_str()),
            Some((connection, schema)) if !schema.contains('.') => (connection, schema),
            Some(_) => {
                return Err(Problem::new("invalid_schema_name", "a schema name has at most one dot", path.position)
                    .help("write \"connection.schema\".table"));
            }
        },
    };
    let pattern =
        TablePattern { connection: connection.to_owned(), schema: schema.to_owned(), name: name.text.clone() };
    context.note_name(&pattern, None, name.position);
    if let Some(Missing { message, similar }) = context.schema.and_then(|schema| schema.missing_table(&pattern)) {
        let help = "create it, or correct the name; names in double quotes keep their capital letters";
        let problem = Problem::new("table_not_found", message, name.position);
        context.warn(problem.help(similar.unwrap_or_else(|| help.to_owned())));
    }
    Ok(pattern)
}

/// Warns if the source has the table, but not the column.
pub(super) fn check_column(pattern: &TablePattern, name: &Name, context: &Context<'_>) {
    context.note_name(pattern, Some(name), name.position);
    let missing = context.schema.and_then(|schema| schema.missing_column(pattern, &name.text));
    if let Some(Missing { message, similar }) = missing {
        let help = "correct the name; names in double quotes keep their capital letters";
        let problem = Problem::new("column_not_found", message, name.position);
        context.warn(problem.help(similar.unwrap_or_else(|| help.to_owned())));
    }
}

/// The table of a query that reads one.
#[derive(Debug, Clone)]
pub(super) struct QueryTable {
    pub pattern: TablePattern,
    /// The name to use in references.
    name: String,
    /// Output table; `None`: as the source table is called.
    pub object_type: Option<String>,
    /// Whether the query sees what `%` stands for.
    has_suffix: bool,
}

impl QueryTable {
    pub(super) fn new(
        schema: Option<&Name>,
        name: &Name,
        alias: Option<&Name>,
        context: &Context<'_>,
    ) -> Result<Self, Problem> {
        let pattern = pattern(schema, name, context)?;
        let object_type = match alias {
            Some(alias) => Some(alias.text.clone()),
            None if name.text.ends_with('%') => None,
            None => Some(name.text.clone()),
        };
        Ok(Self { pattern, name: alias.unwrap_or(name).text.clone(), object_type, has_suffix: false })
    }

    /// The same table where the query sees what `%` stands for.
    pub(super) fn with_suffix(self) -> Self {
        Self { has_suffix: true, ..self }
    }

    /// The column a reference means.
    pub(super) fn column(
        &self,
        schema: Option<&Name>,
        table: Option<&Name>,
        name: &Name,
        context: &Context<'_>,
    ) -> Result<RowInput, Problem> {
        if let Some(schema) = schema {
            return Err(Problem::new(
                "schema_in_reference",
                "a schema cannot stand in a column reference",
                schema.position,
            )
            .help("write `table.column`, or give the table an alias"));
        }
        table.map_or(Ok(()), |table| self.check(table))?;
        check_column(&self.pattern, name, context);
        if self.has_suffix && self.pattern.is_wildcard() && name.text == SUFFIX_COLUMN {
            return Ok(RowInput::Table(TablePart::Suffix));
        }
        Ok(RowInput::Column(name.text.clone()))
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

/// What a query without joins reads; `None` without FROM.
pub(super) fn single_source(select: &Select) -> Result<Option<&FromItem>, Problem> {
    let single = |at: Position| {
        Problem::new("single_table_required", "a query reads one table", at)
            .help("use a parameter query for the other table, or `IN (SELECT …)` in a `filter`")
    };
    match select.from.as_slice() {
        [] => Ok(None),
        [item] if matches!(item.source, Source::Select(_)) || !item.columns.is_empty() => Err(single(select.position)),
        [item] => Ok(Some(item)),
        _ => Err(single(select.position)),
    }
}

/// The table of a query that must have one.
pub(super) fn single_table(select: &Select, context: &Context<'_>) -> Result<QueryTable, Problem> {
    match single_source(select)? {
        Some(FromItem { source: Source::Table { schema, name }, alias, .. }) => {
            QueryTable::new(schema.as_ref(), name, alias.as_ref(), context)
        }
        _ => {
            Err(Problem::new("single_table_required", "the query reads no table", select.position)
                .help("write FROM table"))
        }
    }
}

/// The column of a subquery, which has one.
pub(super) fn only_column(select: &Select) -> Result<&Expr, Problem> {
    let (code, message, at) = match select.items.as_slice() {
        [Item::Column { expr, .. }] => return Ok(expr),
        [Item::Star { position, .. }] => ("star_unsupported", "a subquery names its column", *position),
        _ => ("subquery_columns", "a subquery selects one column", select.position),
    };
    Err(Problem::new(code, message, at).help("write IN (SELECT column FROM …)"))
}

/// The clause of a query that editions 1 and 2 do not have.
pub(super) fn refused_clause(select: &Select) -> Result<(), Problem> {
    if let Some(problem) = &select.refused_clause {
        return Err(problem.clone());
    }
    if select.is_distinct {
        return Err(Problem::new("clause_unsupported", "DISTINCT cannot be used in rules", select.position)
            .help("leave it out: clients have each row once"));
    }
    Ok(())
}

/// Warns of every name whose capital letters are lost because it is not quoted.
pub(super) fn lost_case(select: &Select, report: &mut Report<'_>, node: &Node) {
    for item in &select.from {
        if let FromItem { source: Source::Table { schema: None, name }, alias: None, .. } = item {
            report.lost_case(node, name);
        }
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
        ExprKind::Column { table, name, .. } => {
            table.iter().chain([name]).for_each(|name| report.lost_case(node, name));
        }
        ExprKind::Subquery(select) => lost_case(select, report, node),
        _ => expr.visit_operands(&mut |operand| lost_case_expr(operand, report, node)),
    }
}

impl Report<'_> {
    /// Warns if a name lost capital letters.
    pub(super) fn lost_case(&mut self, node: &Node, name: &Name) {
        if !name.lost_case {
            return;
        }
        let message = format!("`{}` is read in lower case, because it is not quoted", name.text);
        let problem = Problem::new("identifier_case", message, name.position)
            .help("put names with capital letters into double quotes");
        self.warning(node, problem);
    }
}
