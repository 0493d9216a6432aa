//! Parameter queries: which buckets a client gets.

use crate::{
    config::{DefinitionConfig, Report},
    definition::{
        BucketQuery, ElementForm, ElementInput, ElementPart, IndexPart, Nulls, Parameter, RequestInput, RowInput,
        RowSource, Step, ValueSource,
    },
    diagnostic::Problem,
    expression::Expression,
    syntax::{Expr, ExprKind, FromItem, Item, Name, Position, Select, Source},
    value::SqlValue,
    yaml::Node,
};

use super::{
    super::{
        Context, PRIORITY_DEFAULT, PlanBuilder,
        expression::{Dependencies, Language, Leaf, RequestCall, Scope, finish_classic, lower},
        filter::{Asked, AskedForm, Slots, lower_filter},
        table::{QueryTable, lost_case, refused_clause, single_source},
    },
    dangerous::{is_dangerous_request, is_dangerous_table},
    item_name,
};

const PRIORITY_COLUMN: &str = "_priority";

/// Names of the bucket parameters a query gives, in their order.
///
/// What makes the names uncertain is a problem here; the definition's data queries cannot be checked then.
pub(super) fn output_names(select: &Select) -> Result<Vec<String>, Problem> {
    if let Some(FromItem { source: Source::Function { name, .. }, .. }) = single_source(select)?
        && name.text != "json_each"
    {
        let message = format!("there is no table function {}()", name.text);
        return Err(Problem::new("unknown_table_function", message, name.position));
    }
    // A query over json_each() has no priority of its own; PowerSync counts the column as a parameter there.
    let has_priority = !matches!(single_source(select)?, Some(FromItem { source: Source::Function { .. }, .. }));
    let mut names = Vec::new();
    for item in &select.items {
        let name = match item {
            Item::Column { expr, alias, .. } => item_name(expr, alias.as_ref()).ok_or_else(|| {
                Problem::new("alias_required", "a bucket parameter needs a name", expr.position)
                    .help("write `expression AS name`")
            })?,
            Item::Star { position, .. } => {
                return Err(Problem::new("star_unsupported", "a parameter query names its columns", *position)
                    .help("list the columns that become bucket parameters"));
            }
        };
        if name.text != PRIORITY_COLUMN || !has_priority {
            names.push(name.text.clone());
        }
    }
    Ok(names)
}

/// A compiled column and where it was written.
type SelectedColumn = (Expression<Leaf>, Position);

/// A bucket parameter of a query over a table.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum TableValue {
    /// A column of the row found.
    Row(RowInput),
    /// A value of the request.
    Request(Expression<RequestInput>),
}

/// A parameter query being compiled.
pub(super) struct ParameterQuerySource<'a> {
    pub node: &'a Node,
    pub config: &'a DefinitionConfig<'a>,
    pub context: &'a Context<'a>,
    /// Its number in the definition, from 1.
    pub id: usize,
    /// The bucket parameters, which the definition's first query names.
    pub names: &'a [String],
    pub own_names: &'a [String],
}

/// What a parameter query reads.
enum ParameterFrom<'s> {
    /// The request alone.
    Request,
    Table(QueryTable),
    /// `json_each(array)`, and the name its columns go by.
    Elements {
        array: &'s Expr,
        name: String,
    },
}

impl ParameterQuerySource<'_> {
    pub(super) fn compile(
        &self,
        select: &Select,
        builder: &mut PlanBuilder,
        report: &mut Report<'_>,
    ) -> Result<BucketQuery, Problem> {
        refused_clause(select)?;
        if let Some(unknown) = self.own_names.iter().find(|name| !self.names.contains(name)) {
            let message = format!("the definition's first parameter query has no `{unknown}`");
            return Err(Problem::new("bucket_parameters_mismatch", message, select.position)
                .help("give all parameter queries of a definition the same columns"));
        }
        let mut scope =
            ParameterScope { context: self.context, from: self.from(select)?, asked: Vec::new(), arrays: 0 };
        lost_case(select, report, self.node);
        let (columns, priority) = self.columns(select, &scope, report)?;
        let mut query = BucketQuery {
            bucket: self.config.name.clone(),
            priority: priority.or(self.config.priority).unwrap_or(PRIORITY_DEFAULT),
            conditions: Vec::new(),
            steps: Vec::new(),
            parameters: Vec::new(),
            nulls: Nulls::Keep,
        };
        match &scope.from {
            ParameterFrom::Request => self.request_query(select, &columns, &scope, &mut query, report)?,
            ParameterFrom::Elements { array, .. } => {
                let array = request_expression(&lower(array, &scope)?, array.position)?;
                self.elements_query(select, array, &columns, &scope, &mut query, report)?;
            }
            ParameterFrom::Table(_) => self.table_query(select, columns, &mut scope, &mut query, builder, report)?,
        }
        Ok(query)
    }

    fn from<'s>(&self, select: &'s Select) -> Result<ParameterFrom<'s>, Problem> {
        let Some(item) = single_source(select)? else { return Ok(ParameterFrom::Request) };
        match (&item.source, &item.alias) {
            (Source::Table { name, .. }, Some(alias)) if alias.text != name.text => {
                Err(Problem::new("parameter_query_alias", "a parameter query's table has no alias", alias.position)
                    .help("use the table's own name"))
            }
            (Source::Table { schema, name }, _) => {
                Ok(ParameterFrom::Table(QueryTable::new(schema.as_ref(), name, None, self.context)?))
            }
            (Source::Function { name, arguments }, alias) => match arguments.as_slice() {
                [array] => Ok(ParameterFrom::Elements { array, name: alias.as_ref().unwrap_or(name).text.clone() }),
                _ => Err(Problem::new("argument_count", "json_each() takes one argument", name.position)),
            },
            (Source::Select(_), _) => {
                Err(Problem::new("single_table_required", "a parameter query reads one table", select.position))
            }
        }
    }

    /// The select list without `_priority`, and that.
    fn columns(
        &self,
        select: &Select,
        scope: &ParameterScope<'_, '_>,
        report: &mut Report<'_>,
    ) -> Result<(Vec<SelectedColumn>, Option<u8>), Problem> {
        let mut columns = Vec::new();
        let mut priority = None;
        for item in &select.items {
            // `output_names` has refused everything else.
            let Item::Column { expr, alias, .. } = item else { continue };
            let Some(name) = item_name(expr, alias.as_ref()) else { continue };
            if alias.is_some() && name.lost_case {
                report.lost_case(self.node, name);
            }
            if name.text != PRIORITY_COLUMN || matches!(scope.from, ParameterFrom::Elements { .. }) {
                columns.push((lower(expr, scope)?, expr.position));
                continue;
            }
            if priority.is_some() || self.config.priority.is_some() {
                return Err(Problem::new("priority_duplicate", "the priority is set twice", expr.position));
            }
            priority = match expr.kind {
                ExprKind::Literal(SqlValue::Integer(value @ 0..=3)) => u8::try_from(value).ok(),
                _ => return Err(Problem::new("priority_invalid", "_priority is 0, 1, 2 or 3", expr.position)),
            };
        }
        Ok((columns, priority))
    }

    fn request_query(
        &self,
        select: &Select,
        columns: &[SelectedColumn],
        scope: &ParameterScope<'_, '_>,
        query: &mut BucketQuery,
        report: &mut Report<'_>,
    ) -> Result<(), Problem> {
        if let Some(filter) = &select.filter {
            query.conditions.push(request_expression(&lower(filter, scope)?, filter.position)?);
        }
        let columns: Vec<_> =
            columns.iter().map(|(column, at)| request_expression(column, *at)).collect::<Result<_, _>>()?;
        if is_dangerous_request(&query.conditions, &columns, &columns) {
            self.warn_dangerous(select.position, report);
        }
        let parameters = columns.into_iter().map(|column| Parameter(vec![ValueSource::Request(column)])).collect();
        query.parameters = self.in_order(parameters);
        Ok(())
    }

    fn elements_query(
        &self,
        select: &Select,
        array: Expression<RequestInput>,
        columns: &[SelectedColumn],
        scope: &ParameterScope<'_, '_>,
        query: &mut BucketQuery,
        report: &mut Report<'_>,
    ) -> Result<(), Problem> {
        let filter: Vec<_> = select
            .filter
            .iter()
            .map(|filter| element_expression(&lower(filter, scope)?, filter.position))
            .collect::<Result<_, _>>()?;
        let columns: Vec<_> =
            columns.iter().map(|(column, at)| element_expression(column, *at)).collect::<Result<_, _>>()?;
        // Elements are as trustworthy as the array they come from.
        let vouching = columns.iter().map(request_part).chain([array.clone()]).collect::<Vec<_>>();
        let conditions: Vec<_> = filter.iter().map(request_part).collect();
        if is_dangerous_request(&conditions, &vouching, &vouching) {
            self.warn_dangerous(select.position, report);
        }
        // What is the same for all elements is no part of what each gives.
        let mut outputs = Vec::new();
        let mut parameters = Vec::new();
        for column in columns {
            parameters.push(Parameter(vec![if reads_element(&column) {
                outputs.push(column);
                ValueSource::Found { step: 0, output: outputs.len() - 1 }
            } else {
                ValueSource::Request(request_part(&column))
            }]));
        }
        query.parameters = self.in_order(parameters);
        let form = ElementForm::JsonEach { fixed: self.context.fixed_json };
        query.steps.push(Step::Elements { array, form, filter, outputs });
        Ok(())
    }

    fn table_query(
        &self,
        select: &Select,
        columns: Vec<SelectedColumn>,
        scope: &mut ParameterScope<'_, '_>,
        query: &mut BucketQuery,
        builder: &mut PlanBuilder,
        report: &mut Report<'_>,
    ) -> Result<(), Problem> {
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
        let inputs: Vec<_> = asked.iter().map(|asked| asked.parameter(ElementForm::Any, &mut query.steps)).collect();
        let ParameterFrom::Table(QueryTable { pattern: table, .. }) = &scope.from else { return Ok(()) };
        let slot_count = asked.len();
        let source =
            RowSource { table: table.clone(), expansions: Vec::new(), conditions: Vec::new(), filter, slot_count };
        let key = (0..slot_count).map(IndexPart::Slot).collect();
        let mut outputs = Vec::new();
        let step = query.steps.len();
        let mut parameters = Vec::new();
        for value in values {
            parameters.push(Parameter(vec![match value {
                TableValue::Request(value) => ValueSource::Request(value),
                TableValue::Row(column) => {
                    outputs.push(IndexPart::Nullable(column));
                    ValueSource::Found { step, output: outputs.len() - 1 }
                }
            }]));
        }
        let label = format!("{}, parameter query {}", self.config.name, self.id);
        query.steps.push(Step::Lookup { index: builder.index(&label, source, key, outputs), inputs });
        query.parameters = self.in_order(parameters);
        Ok(())
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
        report.warning(self.node, Problem::new("dangerous_parameters", message, at).help(help));
    }
}

/// An expression over the elements of an array of the request.
fn element_expression(expression: &Expression<Leaf>, at: Position) -> Result<Expression<ElementInput>, Problem> {
    expression.try_map(&mut |leaf| match leaf {
        Leaf::Request(input) => Ok(ElementInput::Request(input.clone())),
        Leaf::Element(part) => Ok(ElementInput::Element(*part)),
        _ => Err(Problem::new("mixed_dependencies", "only values of the request can be used here", at)),
    })
}

fn reads_element(expression: &Expression<ElementInput>) -> bool {
    let mut found = false;
    expression.visit_inputs(&mut |input| found |= matches!(input, ElementInput::Element(_)));
    found
}

/// The expression with NULL for elements: what it reads of the request itself.
fn request_part(expression: &Expression<ElementInput>) -> Expression<RequestInput> {
    let replaced = expression.try_replace(&mut |input| {
        Ok::<_, std::convert::Infallible>(match input {
            ElementInput::Request(input) => Expression::Input(input.clone()),
            ElementInput::Element(_) => Expression::Literal(SqlValue::Null),
        })
    });
    match replaced {
        Ok(expression) => expression,
        Err(never) => match never {},
    }
}

fn request_expression(expression: &Expression<Leaf>, at: Position) -> Result<Expression<RequestInput>, Problem> {
    expression.try_map(&mut |leaf| match leaf {
        Leaf::Request(input) => Ok(input.clone()),
        _ => Err(Problem::new("mixed_dependencies", "only values of the request can be used here", at)),
    })
}

/// Names in a parameter query.
struct ParameterScope<'c, 's> {
    context: &'c Context<'c>,
    from: ParameterFrom<'s>,
    asked: Vec<Asked>,
    /// How many slots are asked by element.
    arrays: usize,
}

impl Scope for ParameterScope<'_, '_> {
    type Leaf = Leaf;

    fn column(&self, schema: Option<&Name>, table: Option<&Name>, name: &Name) -> Result<Expression<Leaf>, Problem> {
        let undefined = |what: &str| {
            Problem::new("undefined_reference", format!("there is no `{}` {what}", name.text), name.position)
                .help("write token_parameters.name or request.jwt() ->> 'name'")
        };
        let leaf = match (table.map(|table| table.text.as_str()), &self.from) {
            (Some("token_parameters"), _) => Leaf::Request(RequestInput::TokenParameter(name.text.clone())),
            (Some("user_parameters"), _) => Leaf::Request(RequestInput::UserParameter(name.text.clone())),
            (_, ParameterFrom::Table(own)) => Leaf::Row(own.column(schema, table, name, self.context)?),
            (_, ParameterFrom::Request) => return Err(undefined("without FROM")),
            (table, ParameterFrom::Elements { name: own, .. }) => {
                if table.is_some_and(|table| table != own) {
                    return Err(undefined("in json_each()"));
                }
                match name.text.as_str() {
                    "key" => Leaf::Element(ElementPart::Key),
                    "value" => Leaf::Element(ElementPart::Value),
                    _ => return Err(undefined("in json_each(), which has `key` and `value`")),
                }
            }
        };
        Ok(Expression::Input(leaf))
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

    fn finish(&self, expression: Expression<Leaf>, at: Position) -> Result<Expression<Leaf>, Problem> {
        finish_classic(expression, at)
    }

    fn language(&self) -> Language {
        Language::classic(self.context.fixed_json)
    }
}

impl Slots for ParameterScope<'_, '_> {
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
