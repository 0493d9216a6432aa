//! Classic bucket definitions: parameter queries and data queries in SQL.

use crate::{
    config::{DefinitionConfig, Report},
    definition::{
        Asked, AskedForm, DataQuery, Definition, Filter, OutputItem, ParameterQuery, ParameterSource, RequestInput,
        TableParameterQuery, TableValue,
    },
    diagnostic::{Problem, Severity},
    expression::Expression,
    plan::TablePattern,
    syntax::{Expr, ExprKind, Item, Name, Position, Select, Source, parse_select},
    value::SqlValue,
    yaml::Node,
};

use super::{
    Context,
    dangerous::{is_dangerous_request, is_dangerous_table},
    expression::{Dependencies, Leaf, RequestCall, Scope, lower},
    filter::{Slots, lower_filter, row_expression},
    table::{QueryTable, lost_case},
};

/// Priority of buckets that do not say.
const PRIORITY_DEFAULT: u8 = 3;
const PRIORITY_COLUMN: &str = "_priority";

/// Compiles a definition. Findings go to the report; queries that have one are left out.
pub(super) fn compile_definition(
    config: &DefinitionConfig<'_>,
    parameters: Option<&[&Node]>,
    data: &[&Node],
    context: &Context<'_>,
    report: &mut Report<'_>,
) -> Definition {
    let mut names: Option<Vec<String>> = parameters.is_none().then(Vec::new);
    let mut parameter_queries = Vec::new();
    if parameters.is_none() {
        let source = ParameterSource::Request { filter: None, values: Vec::new() };
        let priority = config.priority.unwrap_or(PRIORITY_DEFAULT);
        parameter_queries.push(ParameterQuery { priority, source });
    }
    for (index, node) in parameters.unwrap_or_default().iter().enumerate() {
        let select = match parse_select(node.text().unwrap_or_default()) {
            Ok(select) => select,
            Err(problem) => {
                report.problem(node, problem);
                continue;
            }
        };
        let own_names = output_names(&select);
        let first = names.get_or_insert_with(|| own_names.clone());
        let mut query = Query { node, config, context, id: index + 1, names: first, own_names: &own_names };
        match query.compile(&select, report) {
            Ok(query) => parameter_queries.push(query),
            Err(problem) => report.problem(node, problem),
        }
    }
    let mut data_queries = Vec::new();
    for node in data {
        match data_query(node, names.as_deref(), context, report) {
            Ok(query) => data_queries.push(query),
            Err(problem) => report.problem(node, problem),
        }
    }
    Definition {
        name: config.name.to_owned(),
        parameter_count: names.map_or(0, |names| names.len()),
        parameter_queries,
        data_queries,
        joins: Vec::new(),
    }
}

fn item_name<'a>(expr: &'a Expr, alias: Option<&'a Name>) -> Option<&'a Name> {
    match (&expr.kind, alias) {
        (_, Some(alias)) => Some(alias),
        (ExprKind::Column { name, .. }, None) => Some(name),
        _ => None,
    }
}

/// Names of the bucket parameters a query gives, in their order.
fn output_names(select: &Select) -> Vec<String> {
    let name = |item: &Item| match item {
        Item::Column { expr, alias } => item_name(expr, alias.as_ref()).map(|name| name.text.clone()),
        Item::Star { .. } => None,
    };
    select.items.iter().filter_map(name).filter(|name| name != PRIORITY_COLUMN).collect()
}

/// A compiled column and where it was written.
type SelectedColumn = (Expression<Leaf>, Position);

/// A parameter query being compiled.
struct Query<'a> {
    node: &'a Node,
    config: &'a DefinitionConfig<'a>,
    context: &'a Context<'a>,
    id: usize,
    /// The bucket parameters, which the definition's first query names.
    names: &'a [String],
    own_names: &'a [String],
}

impl Query<'_> {
    fn compile(&mut self, select: &Select, report: &mut Report<'_>) -> Result<ParameterQuery, Problem> {
        if let Some(unknown) = self.own_names.iter().find(|name| !self.names.contains(name)) {
            let message = format!("the definition's first parameter query has no `{unknown}`");
            return Err(Problem::new("bucket_parameters_mismatch", message, select.position)
                .help("give all parameter queries of a definition the same columns"));
        }
        let table = match &select.source {
            None => None,
            Some(Source::Table { schema, name, alias }) => {
                if let Some(alias) = alias.as_ref().filter(|alias| alias.text != name.text) {
                    return Err(Problem::new(
                        "parameter_query_alias",
                        "a parameter query's table has no alias",
                        alias.position,
                    )
                    .help("use the table's own name"));
                }
                Some(QueryTable::new(schema.as_ref(), name, None, self.context)?)
            }
            Some(Source::Function { name }) if name.text == "json_each" => {
                let message = "parameter queries over json_each() are not available in this release yet";
                return Err(Problem::new("not_supported_yet", message, name.position));
            }
            Some(Source::Function { name }) => {
                let message = format!("there is no table function {}()", name.text);
                return Err(Problem::new("unknown_table_function", message, name.position));
            }
        };
        let mut scope = ParameterScope { context: self.context, table, asked: Vec::new(), arrays: 0 };
        lost_case(select, report, self.node);
        let (columns, priority) = self.columns(select, &scope, report)?;
        let source = match scope.table.as_ref().map(|table| table.pattern.clone()) {
            None => self.request_source(select, &columns, &scope, report)?,
            Some(table) => self.table_source(select, columns, table, &mut scope, report)?,
        };
        Ok(ParameterQuery { priority: priority.or(self.config.priority).unwrap_or(PRIORITY_DEFAULT), source })
    }

    /// The select list without `_priority`, and that.
    fn columns(
        &self,
        select: &Select,
        scope: &ParameterScope<'_>,
        report: &mut Report<'_>,
    ) -> Result<(Vec<SelectedColumn>, Option<u8>), Problem> {
        let mut columns = Vec::new();
        let mut priority = None;
        for item in &select.items {
            let (expr, alias) = match item {
                Item::Column { expr, alias } => (expr, alias.as_ref()),
                Item::Star { position, .. } => {
                    return Err(Problem::new("star_unsupported", "a parameter query names its columns", *position)
                        .help("list the columns that become bucket parameters"));
                }
            };
            let Some(name) = item_name(expr, alias) else {
                return Err(Problem::new("alias_required", "a bucket parameter needs a name", expr.position)
                    .help("write `expression AS name`"));
            };
            if alias.is_some() && name.lost_case {
                report.lost_case(self.node, name);
            }
            let lowered = lower(expr, scope)?;
            if name.text != PRIORITY_COLUMN {
                columns.push((lowered, expr.position));
                continue;
            }
            if priority.is_some() || self.config.priority.is_some() {
                return Err(Problem::new("priority_duplicate", "the priority is set twice", expr.position));
            }
            priority = match lowered {
                Expression::Literal(SqlValue::Integer(value @ 0..=3)) => u8::try_from(value).ok(),
                _ => return Err(Problem::new("priority_invalid", "_priority is 0, 1, 2 or 3", expr.position)),
            };
        }
        Ok((columns, priority))
    }

    fn request_source(
        &self,
        select: &Select,
        columns: &[SelectedColumn],
        scope: &ParameterScope<'_>,
        report: &mut Report<'_>,
    ) -> Result<ParameterSource, Problem> {
        let at = select.position;
        let filter = match &select.filter {
            None => None,
            Some(filter) => Some(request_expression(&lower(filter, scope)?, filter.position)?),
        };
        let columns: Vec<_> =
            columns.iter().map(|(column, at)| request_expression(column, *at)).collect::<Result<_, _>>()?;
        if is_dangerous_request(filter.as_ref(), &columns) {
            self.warn_dangerous(at, report);
        }
        Ok(ParameterSource::Request { filter, values: self.in_order(columns) })
    }

    fn table_source(
        &self,
        select: &Select,
        columns: Vec<SelectedColumn>,
        table: TablePattern,
        scope: &mut ParameterScope<'_>,
        report: &mut Report<'_>,
    ) -> Result<ParameterSource, Problem> {
        let filter = lower_filter(select.filter.as_ref(), scope)?;
        let values = columns
            .into_iter()
            .map(|(column, at)| match column {
                Expression::Input(Leaf::Row(column)) => Ok(TableValue::Row(column)),
                column if Dependencies::of(&column).row => {
                    let message = "a parameter query selects plain columns of its table";
                    Err(Problem::new("match_clause_misplaced", message, at)
                        .help("select the column as it is and compare the expression in the data query"))
                }
                column => request_expression(&column, at).map(TableValue::Request),
            })
            .collect::<Result<Vec<_>, _>>()?;
        let asked = std::mem::take(&mut scope.asked);
        if is_dangerous_table(&filter, &asked, &values) {
            self.warn_dangerous(select.position, report);
        }
        let values = self.in_order(values);
        Ok(ParameterSource::Table(TableParameterQuery { id: self.id, table, filter, asked, values }))
    }

    /// The values in the order of the definition's bucket parameters, if they are all there. A query that lacks some
    /// keeps its own order; its buckets have another number of parameters and stay empty.
    fn in_order<T>(&self, values: Vec<T>) -> Vec<T> {
        if self.own_names.len() != self.names.len() {
            return values;
        }
        let mut ordered: Vec<_> = values.into_iter().zip(self.own_names).collect();
        ordered.sort_by_key(|(_, own)| self.names.iter().position(|name| name == *own));
        ordered.into_iter().map(|(value, _)| value).collect()
    }

    fn warn_dangerous(&self, at: Position, report: &mut Report<'_>) {
        if self.config.accepts_dangerous {
            return;
        }
        let message = "the buckets depend on parameters that the client chooses freely";
        let help = "use request.user_id() or request.jwt(); if everybody may read the rows, set \
                    `accept_potentially_dangerous_queries: true`";
        let problem = Problem::new("dangerous_parameters", message, at).help(help);
        let diagnostic = self.node.diagnose(report.file, problem, Severity::Warning);
        report.diagnostics.push(diagnostic);
    }
}

fn request_expression(expression: &Expression<Leaf>, at: Position) -> Result<Expression<RequestInput>, Problem> {
    expression.try_map(&mut |leaf| match leaf {
        Leaf::Request(input) => Ok(input.clone()),
        _ => Err(Problem::new("mixed_dependencies", "only values of the request can be used here", at)),
    })
}

/// Names in a parameter query.
struct ParameterScope<'a> {
    context: &'a Context<'a>,
    table: Option<QueryTable>,
    asked: Vec<Asked>,
    /// How many slots are asked by element.
    arrays: usize,
}

impl Scope for ParameterScope<'_> {
    fn column(&self, table: Option<&Name>, name: &Name) -> Result<Leaf, Problem> {
        match table.map(|table| table.text.as_str()) {
            Some("token_parameters") => Ok(Leaf::Request(RequestInput::TokenParameter(name.text.clone()))),
            Some("user_parameters") => Ok(Leaf::Request(RequestInput::UserParameter(name.text.clone()))),
            _ => match &self.table {
                Some(own) => own.column(table, name).map(Leaf::Row),
                None => Err(Problem::new(
                    "undefined_reference",
                    format!("there is no `{}` without FROM", name.text),
                    name.position,
                )
                .help("write token_parameters.name or request.jwt() ->> 'name'")),
            },
        }
    }

    fn request_call(&self, call: &RequestCall<'_>) -> Option<Result<Expression<Leaf>, Problem>> {
        if call.schema != "request" {
            return None;
        }
        Some(match call.name {
            "user_id" => call.without_arguments(RequestInput::UserId),
            "jwt" => call.without_arguments(RequestInput::Token),
            "parameters" => call.without_arguments(RequestInput::Parameters),
            "parameter" => call
                .text_argument()
                .map(|name| Expression::Input(Leaf::Request(RequestInput::UserParameter(name.to_owned())))),
            _ => return None,
        })
    }

    fn fixed_json(&self) -> bool {
        self.context.fixed_json
    }
}

impl Slots for ParameterScope<'_> {
    fn slot(&mut self, value: &Expression<Leaf>, form: AskedForm, at: Position) -> Result<usize, Problem> {
        let asked = Asked { value: request_expression(value, at)?, form };
        if let Some(slot) = self.asked.iter().position(|earlier| *earlier == asked) {
            return Ok(slot);
        }
        self.arrays += usize::from(form == AskedForm::Elements);
        if self.arrays > 1 {
            return Err(Problem::new("multiple_array_filters", "only one condition can look into an array", at)
                .help("write two parameter queries"));
        }
        self.asked.push(asked);
        Ok(self.asked.len() - 1)
    }
}

fn data_query(
    node: &Node,
    names: Option<&[String]>,
    context: &Context<'_>,
    report: &mut Report<'_>,
) -> Result<DataQuery, Problem> {
    let select = parse_select(node.text().unwrap_or_default())?;
    let at = select.position;
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
    if filter.slots().len() != names.len() {
        let bound = filter.slots();
        let missing: Vec<_> = names.iter().enumerate().filter(|(slot, _)| !bound.contains(slot)).collect();
        let list = missing.iter().map(|(_, name)| format!("bucket.{name}")).collect::<Vec<_>>().join(", ");
        return Err(Problem::new("bucket_parameters_not_covered", format!("the filter does not use {list}"), at)
            .help("every data query compares each bucket parameter with a column"));
    }
    let columns = output_items(&select, &scope)?;
    let has_id = columns.iter().any(|item| match item {
        OutputItem::Star => true,
        OutputItem::Column { name, .. } => name == "id",
    });
    if !has_id {
        return Err(Problem::new("id_column_missing", "the query has no column `id`", at)
            .help("clients know rows by their `id`: write `key AS id`"));
    }
    let object_type = scope.table.object_type.clone();
    Ok(DataQuery { table: scope.table.pattern, object_type, columns, filter })
}

/// The select list of a data query.
pub(super) fn output_items(select: &Select, scope: &DataScope<'_>) -> Result<Vec<OutputItem>, Problem> {
    select
        .items
        .iter()
        .map(|item| match item {
            Item::Star { table: None, .. } => Ok(OutputItem::Star),
            Item::Star { table: Some(table), .. } => scope.table.check(table).map(|()| OutputItem::Star),
            Item::Column { expr, alias } => {
                let Some(name) = item_name(expr, alias.as_ref()) else {
                    return Err(Problem::new("alias_required", "an output column needs a name", expr.position)
                        .help("write `expression AS name`"));
                };
                let lowered = lower(expr, scope)?;
                if Dependencies::of(&lowered).bucket {
                    let message = "a bucket parameter cannot be an output column";
                    return Err(Problem::new("bucket_parameter_in_expression", message, expr.position));
                }
                Ok(OutputItem::Column { name: name.text.clone(), value: row_expression(&lowered, expr.position)? })
            }
        })
        .collect()
}

/// Names in a data query.
pub(super) struct DataScope<'a> {
    pub context: &'a Context<'a>,
    pub table: QueryTable,
    /// The bucket parameters.
    pub names: &'a [String],
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

impl Filter<String> {
    /// Whether a slot that `trusted` accepts restricts the filter. OR never counts: each side could be the open one.
    pub(super) fn is_restricted_by(&self, trusted: &dyn Fn(usize) -> bool) -> bool {
        match self {
            Self::Equals { slot, .. } | Self::Contains { slot, .. } | Self::IsTrue { slot } => trusted(*slot),
            Self::All(parts) => parts.iter().any(|part| part.is_restricted_by(trusted)),
            Self::Condition(_) | Self::Joined { .. } | Self::Any(_) => false,
        }
    }
}
