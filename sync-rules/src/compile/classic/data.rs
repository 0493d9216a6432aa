//! Data queries: which rows go into which buckets.

use crate::{
    config::Report,
    definition::{OutputItem, OutputStyle, RowQuery, RowSource},
    diagnostic::Problem,
    expression::Expression,
    syntax::{Item, Name, Position, parse_select},
    yaml::Node,
};

use super::{
    super::{
        Context,
        expression::{Language, Leaf, RequestCall, Scope, finish_classic, lower},
        filter::{AskedForm, Slots, lower_filter, row_expression},
        table::{QueryTable, lost_case, refused_clause, single_table},
    },
    item_name,
};

/// Compiles a data query; `None` if output columns have findings, which are reported.
pub(super) fn data_query(
    node: &Node,
    names: Option<&[String]>,
    context: &Context<'_>,
    report: &mut Report<'_>,
) -> Result<Option<RowQuery>, Problem> {
    let select = parse_select(node.text().unwrap_or_default())?;
    let at = select.position;
    refused_clause(&select)?;
    lost_case(&select, report, node);
    let table = single_table(&select, context)?.with_suffix();
    let Some(names) = names else {
        return Err(Problem::new("bucket_parameters_undefined", "the definition's parameters are not known", at)
            .help("correct the parameter query, or leave `parameters` out for a bucket that everybody gets"));
    };
    let mut scope = DataScope { context, table, names };
    let filter = lower_filter(select.filter.as_ref(), &mut scope)?;
    let bound = filter.slots();
    if bound.len() != names.len() {
        let missing = names.iter().enumerate().filter(|(slot, _)| !bound.contains(slot));
        let list = missing.map(|(_, name)| format!("bucket.{name}")).collect::<Vec<_>>().join(", ");
        return Err(Problem::new("bucket_parameters_not_covered", format!("the filter does not use {list}"), at)
            .help("every data query compares each bucket parameter with a column"));
    }
    let columns = output_items(&select.items, &scope, node, report)?;
    check_id(&columns, &scope.table, at, context)?;
    let QueryTable { pattern: table, object_type, .. } = scope.table;
    let is_complete = columns.len() == select.items.len();
    let source = RowSource { table, expansions: Vec::new(), conditions: Vec::new(), filter, slot_count: names.len() };
    Ok(is_complete.then_some(RowQuery { source, object_type, columns, style: OutputStyle::Classic }))
}

/// The columns of a select list. Those with findings are left out.
pub(in crate::compile) fn output_items<S: ColumnScope>(
    items: &[Item],
    scope: &S,
    node: &Node,
    report: &mut Report<'_>,
) -> Result<Vec<OutputItem>, Problem> {
    let mut columns = Vec::new();
    for item in items {
        match output_item(item, scope) {
            Ok(item) => columns.push(item),
            Err(problem) if problem.code == "alias_required" => return Err(problem),
            Err(problem) => report.problem(node, problem),
        }
    }
    Ok(columns)
}

/// Refuses a query without `id`; warns if `*` has none.
pub(in crate::compile) fn check_id(
    columns: &[OutputItem],
    table: &QueryTable,
    at: Position,
    context: &Context<'_>,
) -> Result<(), Problem> {
    let is_named = columns.iter().any(|item| matches!(item, OutputItem::Column { name, .. } if name == "id"));
    let has_star = columns.contains(&OutputItem::Star);
    if is_named {
        return Ok(());
    }
    let problem = Problem::new("id_column_missing", "the query has no column `id`", at)
        .help("clients know rows by their `id`: write `key AS id`");
    if !has_star {
        return Err(problem);
    }
    let mut tables = context.schema.into_iter().flat_map(|schema| schema.matching(&table.pattern));
    if tables.any(|table| !table.columns.iter().any(|column| column == "id")) {
        context.warn(problem);
    }
    Ok(())
}

/// A scope of a query over one table.
pub(in crate::compile) trait ColumnScope: Scope<Leaf = Leaf> {
    /// The table.
    fn table(&self) -> &QueryTable;
}

impl ColumnScope for DataScope<'_> {
    fn table(&self) -> &QueryTable {
        &self.table
    }
}

fn output_item<S: ColumnScope>(item: &Item, scope: &S) -> Result<OutputItem, Problem> {
    let (expr, alias) = match item {
        Item::Star { table: None, .. } => return Ok(OutputItem::Star),
        Item::Star { table: Some(table), .. } => return scope.table().check(table).map(|()| OutputItem::Star),
        Item::Column { expr, alias, .. } => (expr, alias.as_ref()),
    };
    let Some(name) = item_name(expr, alias) else {
        return Err(Problem::new("alias_required", "an output column needs a name", expr.position)
            .help("write `expression AS name`"));
    };
    let value = row_expression(&lower(expr, scope)?, expr.position)?;
    Ok(OutputItem::Column { name: name.text.clone(), value })
}

/// Names in a data query.
struct DataScope<'a> {
    context: &'a Context<'a>,
    table: QueryTable,
    /// The bucket parameters.
    names: &'a [String],
}

impl Scope for DataScope<'_> {
    type Leaf = Leaf;

    fn column(&self, schema: Option<&Name>, table: Option<&Name>, name: &Name) -> Result<Expression<Leaf>, Problem> {
        if table.is_none_or(|table| table.text != "bucket") {
            return self.table.column(schema, table, name, self.context).map(Leaf::Row).map(Expression::Input);
        }
        let slot = self.names.iter().position(|known| *known == name.text);
        slot.map(|slot| Expression::Input(Leaf::Bucket(slot))).ok_or_else(|| {
            let message = format!("the parameter queries have no column `{}`", name.text);
            Problem::new("bucket_parameters_not_covered", message, name.position)
        })
    }

    fn request_call(&self, call: &RequestCall<'_>) -> Option<Result<Expression<Leaf>, Problem>> {
        (call.schema == "request").then(|| {
            let message = format!("request.{}() cannot be used in a data query", call.name);
            Err(Problem::new("request_function_in_data_query", message, call.at)
                .help("select it in a parameter query and compare with `bucket.name` here"))
        })
    }

    fn finish(&self, expression: Expression<Leaf>, at: Position) -> Result<Expression<Leaf>, Problem> {
        finish_classic(expression, at)
    }

    fn language(&self) -> Language {
        Language::classic(self.context.fixed_json)
    }
}

impl Slots for DataScope<'_> {
    fn slot(&mut self, value: &Expression<Leaf>, form: AskedForm, at: Position) -> Result<usize, Problem> {
        match value {
            Expression::Input(Leaf::Bucket(slot)) if form != AskedForm::Elements => Ok(*slot),
            _ => Err(Problem::new(
                "bucket_parameter_in_expression",
                "a bucket parameter stands alone in a comparison",
                at,
            )
            .help("write `column = bucket.name` or `bucket.name IN column`")),
        }
    }
}
