//! Parameter queries: which buckets a client gets.

use crate::{
    config::{DefinitionConfig, Report},
    definition::{Asked, AskedForm, ParameterQuery, ParameterSource, RequestInput, TableParameterQuery, TableValue},
    diagnostic::{Problem, Severity},
    expression::Expression,
    plan::TablePattern,
    syntax::{ExprKind, Item, Name, Position, Select, Source},
    value::SqlValue,
    yaml::Node,
};

use super::{
    super::{
        Context, PRIORITY_DEFAULT,
        expression::{Dependencies, Leaf, RequestCall, Scope, lower},
        filter::{Slots, lower_filter},
        table::{QueryTable, lost_case},
    },
    dangerous::{is_dangerous_request, is_dangerous_table},
    item_name,
};

const PRIORITY_COLUMN: &str = "_priority";

/// Names of the bucket parameters a query gives, in their order.
///
/// What makes the names uncertain is a problem here; the definition's data queries cannot be checked then.
pub(super) fn output_names(select: &Select) -> Result<Vec<String>, Problem> {
    if let Some(Source::Function { name }) = &select.source
        && name.text != "json_each"
    {
        let message = format!("there is no table function {}()", name.text);
        return Err(Problem::new("unknown_table_function", message, name.position));
    }
    let mut names = Vec::new();
    for item in &select.items {
        let name = match item {
            Item::Column { expr, alias } => item_name(expr, alias.as_ref()).ok_or_else(|| {
                Problem::new("alias_required", "a bucket parameter needs a name", expr.position)
                    .help("write `expression AS name`")
            })?,
            Item::Star { position, .. } => {
                return Err(Problem::new("star_unsupported", "a parameter query names its columns", *position)
                    .help("list the columns that become bucket parameters"));
            }
        };
        if name.text != PRIORITY_COLUMN {
            names.push(name.text.clone());
        }
    }
    Ok(names)
}

/// A compiled column and where it was written.
type SelectedColumn = (Expression<Leaf>, Position);

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

impl ParameterQuerySource<'_> {
    pub(super) fn compile(&self, select: &Select, report: &mut Report<'_>) -> Result<ParameterQuery, Problem> {
        if let Some(problem) = &select.refused_clause {
            return Err(problem.clone());
        }
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
            Some(Source::Function { name }) => {
                let message = "parameter queries over json_each() are not available in this release yet";
                return Err(Problem::new("not_supported_yet", message, name.position));
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
            // `output_names` has refused everything else.
            let Item::Column { expr, alias } = item else { continue };
            let Some(name) = item_name(expr, alias.as_ref()) else { continue };
            if alias.is_some() && name.lost_case {
                report.lost_case(self.node, name);
            }
            if name.text != PRIORITY_COLUMN {
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
