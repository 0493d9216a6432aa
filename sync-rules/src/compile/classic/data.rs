//! Data queries: which rows go into which buckets.

use crate::{
    config::Report,
    definition::{AskedForm, DataQuery, OutputItem},
    diagnostic::Problem,
    expression::Expression,
    syntax::{Item, Name, Position, Source, parse_select},
    yaml::Node,
};

use super::{
    super::{
        Context,
        expression::{Leaf, RequestCall, Scope, lower},
        filter::{Slots, lower_filter, row_expression},
        table::{QueryTable, lost_case},
    },
    item_name,
};

/// Compiles a data query; `None` if output columns have findings, which are reported.
pub(super) fn data_query(
    node: &Node,
    names: Option<&[String]>,
    context: &Context<'_>,
    report: &mut Report<'_>,
) -> Result<Option<DataQuery>, Problem> {
    let select = parse_select(node.text().unwrap_or_default())?;
    let at = select.position;
    if let Some(problem) = select.refused_clause {
        return Err(problem);
    }
    let Some(Source::Table { schema, name, alias }) = &select.source else {
        return Err(Problem::new("single_table_required", "a data query reads one table", at).help("write FROM table"));
    };
    lost_case(&select, report, node);
    let table = QueryTable::new(schema.as_ref(), name, alias.as_ref(), context)?;
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
    let mut columns = Vec::new();
    for item in &select.items {
        match output_item(item, &scope) {
            Ok(item) => columns.push(item),
            Err(problem) if problem.code == "alias_required" => return Err(problem),
            Err(problem) => report.problem(node, problem),
        }
    }
    let has_id = columns.iter().any(|item| match item {
        OutputItem::Star => true,
        OutputItem::Column { name, .. } => name == "id",
    });
    if !has_id {
        return Err(Problem::new("id_column_missing", "the query has no column `id`", at)
            .help("clients know rows by their `id`: write `key AS id`"));
    }
    let QueryTable { pattern, object_type, .. } = scope.table;
    let is_complete = columns.len() == select.items.len();
    Ok(is_complete.then_some(DataQuery { table: pattern, object_type, columns, filter }))
}

fn output_item(item: &Item, scope: &DataScope<'_>) -> Result<OutputItem, Problem> {
    let (expr, alias) = match item {
        Item::Star { table: None, .. } => return Ok(OutputItem::Star),
        Item::Star { table: Some(table), .. } => return scope.table.check(table).map(|()| OutputItem::Star),
        Item::Column { expr, alias } => (expr, alias.as_ref()),
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
    fn column(&self, table: Option<&Name>, name: &Name) -> Result<Leaf, Problem> {
        if table.is_none_or(|table| table.text != "bucket") {
            return self.table.column(table, name).map(Leaf::Row);
        }
        self.names.iter().position(|known| *known == name.text).map(Leaf::Bucket).ok_or_else(|| {
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

    fn fixed_json(&self) -> bool {
        self.context.fixed_json
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
