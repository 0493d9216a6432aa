//! The Kairos dialect: named parameters, tables with filters, subqueries as write-time joins.

use crate::{
    config::{DefinitionConfig, FilteredTable, NamedParameter, Report},
    definition::{
        Bucket, BucketQuery, Claim, ClaimKind, Definition, DefinitionKind, Filter, IndexPart, Nulls, OutputItem,
        OutputStyle, Parameter, RowInput, RowQuery, RowSource, ValueSource,
    },
    diagnostic::Problem,
    expression::Expression,
    plan::TablePattern,
    syntax::{Item, Name, Position, START, Select, parse_expression},
};

use super::{
    Context, PRIORITY_DEFAULT, PlanBuilder,
    expression::{Language, Leaf, RequestCall, Scope, finish_classic, lower},
    filter::{AskedForm, Slots, lower_filter, row_expression},
    table::{QueryTable, check_column, refused_clause, single_table},
};

/// Subqueries nested deeper are refused: each level is one more round of re-evaluation when a row changes.
const JOIN_DEPTH_MAX: usize = 8;

/// Compiles a definition. Findings go to the report; tables that have one are left out.
pub(super) fn compile_definition(
    config: &DefinitionConfig<'_>,
    parameters: &[NamedParameter<'_>],
    data: &[FilteredTable<'_>],
    context: &Context<'_>,
    builder: &mut PlanBuilder,
    report: &mut Report<'_>,
) -> Definition {
    let claims: Vec<_> = parameters.iter().filter_map(|parameter| claim(parameter, report)).collect();
    let names: Vec<_> = claims.iter().map(|claim| claim.name.clone()).collect();
    for (index, name) in names.iter().enumerate() {
        if names[..index].contains(name) {
            report.fatal("schema_violation", format!("the parameter `{name}` is there twice"), config.span);
        }
    }
    let mut rows = Vec::new();
    for table in data {
        let node = table.filter.unwrap_or(table.table);
        match row_query(config, table, &names, builder, context, report) {
            Ok(query) => rows.extend(query.map(|query| builder.add_rows(query))),
            Err(problem) => report.problem(node, problem),
        }
        report.noted(node, context);
    }
    let query = BucketQuery {
        bucket: config.name.clone(),
        priority: config.priority.unwrap_or(PRIORITY_DEFAULT),
        conditions: Vec::new(),
        steps: Vec::new(),
        parameters: claims.into_iter().map(|claim| Parameter(vec![ValueSource::Claim(claim)])).collect(),
        nulls: Nulls::Keep,
    };
    Definition {
        name: config.name.clone(),
        kind: DefinitionKind::Buckets,
        buckets: vec![Bucket { name: config.name.clone(), rows }],
        queries: vec![query],
    }
}

fn claim(parameter: &NamedParameter<'_>, report: &mut Report<'_>) -> Option<Claim> {
    let kind = match parameter.kind.text() {
        Some("string" | "text") => ClaimKind::String,
        Some("integer") => ClaimKind::Integer,
        Some("number" | "real") => ClaimKind::Number,
        Some("boolean") => ClaimKind::Boolean,
        _ => {
            let span = parameter.kind.span;
            report.fatal("schema_violation", "`type` is string, integer, number or boolean", span);
            return None;
        }
    };
    Some(Claim { name: parameter.name.to_owned(), kind })
}

/// The query of an entry; `None` if a column list has a finding of its own.
fn row_query(
    config: &DefinitionConfig<'_>,
    entry: &FilteredTable<'_>,
    names: &[String],
    builder: &mut PlanBuilder,
    context: &Context<'_>,
    report: &mut Report<'_>,
) -> Result<Option<RowQuery>, Problem> {
    let table = named_table(entry.table.text().unwrap_or_default(), context)?;
    report.noted(entry.table, context);
    let filter = entry.filter.map(|filter| parse_expression(filter.text().unwrap_or_default())).transpose()?;
    let chain = vec![table.pattern.clone()];
    let mut scope = TableScope { context, table, names, definition: &config.name, builder, chain };
    let filter = lower_filter(filter.as_ref(), &mut scope)?;
    let bound = filter.slots();
    if let Some((_, name)) = names.iter().enumerate().find(|(slot, _)| !bound.contains(slot)) {
        return Err(Problem::new("bucket_parameters_not_covered", format!("the filter does not use `:{name}`"), START)
            .help(format!("every table of the definition needs a condition such as `{name} = :{name}`")));
    }
    let QueryTable { pattern: table, object_type, .. } = scope.table;
    report.noted(entry.filter.unwrap_or(entry.table), context);
    let Some(columns) = columns(entry, &table, context, report) else { return Ok(None) };
    let source = RowSource { table, expansions: Vec::new(), conditions: Vec::new(), filter, slot_count: names.len() };
    Ok(Some(RowQuery { source, object_type, columns, style: OutputStyle::Classic }))
}

/// `table` or `schema.table`, as they are: nothing folds in YAML.
fn named_table(text: &str, context: &Context<'_>) -> Result<QueryTable, Problem> {
    match text.rsplit_once('.') {
        None => QueryTable::new(None, &plain_name(text), None, context),
        Some((schema, table)) => QueryTable::new(Some(&plain_name(schema)), &plain_name(table), None, context),
    }
}

/// A name that is a scalar of its own.
fn plain_name(text: &str) -> Name {
    Name { text: text.to_owned(), lost_case: false, position: START }
}

fn columns(
    entry: &FilteredTable<'_>,
    table: &TablePattern,
    context: &Context<'_>,
    report: &mut Report<'_>,
) -> Option<Vec<OutputItem>> {
    let Some(nodes) = &entry.columns else { return Some(vec![OutputItem::Star]) };
    let mut columns = Vec::new();
    for node in nodes {
        let Some(name) = node.text() else {
            report.fatal("yaml_structure", format!("a column name is text, not {}", node.kind()), node.span);
            return None;
        };
        check_column(table, &plain_name(name), context);
        report.noted(node, context);
        columns.push(OutputItem::Column {
            name: name.to_owned(),
            value: Expression::Input(RowInput::Column(name.to_owned())),
        });
    }
    if !nodes.iter().any(|node| node.text() == Some("id")) {
        let help = "clients know rows by their `id`: add it to `columns`";
        report.fatal_with_help("id_column_missing", "`columns` has no `id`", help, entry.table.span);
        return None;
    }
    Some(columns)
}

/// Names in a filter, at any depth of subqueries.
struct TableScope<'a> {
    context: &'a Context<'a>,
    table: QueryTable,
    /// The definition's parameters.
    names: &'a [String],
    definition: &'a str,
    /// Takes the indexes of subqueries.
    builder: &'a mut PlanBuilder,
    /// The tables from the outermost to this one.
    chain: Vec<TablePattern>,
}

impl Scope for TableScope<'_> {
    type Leaf = Leaf;

    fn column(&self, schema: Option<&Name>, table: Option<&Name>, name: &Name) -> Result<Expression<Leaf>, Problem> {
        self.table.column(schema, table, name, self.context).map(Leaf::Row).map(Expression::Input)
    }

    fn placeholder(&self, name: &str, at: Position) -> Result<Expression<Leaf>, Problem> {
        let slot = self.names.iter().position(|known| known.to_lowercase() == name);
        slot.map(|slot| Expression::Input(Leaf::Bucket(slot))).ok_or_else(|| {
            Problem::new("bucket_parameters_not_covered", format!("the definition has no parameter `{name}`"), at)
                .help("list it below `parameters` with a name and a type")
        })
    }

    fn request_call(&self, call: &RequestCall<'_>) -> Option<Result<Expression<Leaf>, Problem>> {
        let message = format!("{}.{}() cannot be used in a filter", call.schema, call.name);
        let help = "name a parameter below `parameters` and write `:name`";
        Some(Err(Problem::new("request_function_in_data_query", message, call.at).help(help)))
    }

    fn subquery_problem(&self, at: Position) -> Problem {
        Problem::new("subquery_filter_unsupported", "this subquery cannot be kept as a join", at)
            .help("write `column IN (SELECT column FROM table WHERE …)`, joined to other conditions by AND; NOT IN is refused")
    }

    fn finish(&self, expression: Expression<Leaf>, at: Position) -> Result<Expression<Leaf>, Problem> {
        finish_classic(expression, at)
    }

    fn language(&self) -> Language {
        Language::classic(self.context.fixed_json)
    }
}

impl Slots for TableScope<'_> {
    fn slot(&mut self, value: &Expression<Leaf>, form: AskedForm, at: Position) -> Result<usize, Problem> {
        match (value, form) {
            (Expression::Input(Leaf::Bucket(slot)), AskedForm::Value) => Ok(*slot),
            _ => Err(Problem::new("bucket_parameter_in_expression", "a parameter stands alone in a comparison", at)
                .help("write `column = :name` or `:name IN column`, where the column holds a JSON array")),
        }
    }

    fn join(
        &mut self,
        value: Expression<RowInput>,
        select: &Select,
        at: Position,
    ) -> Result<Filter<RowInput>, Problem> {
        let table = single_table(select, self.context).map_err(|_| self.subquery_problem(at))?;
        let pattern = table.pattern.clone();
        self.check_chain(&pattern, select.position)?;
        refused_clause(select)?;
        let [Item::Column { expr, .. }] = select.items.as_slice() else {
            return Err(Problem::new("subquery_columns", "a subquery selects one column", select.position)
                .help("write IN (SELECT column FROM …)"));
        };
        let mut chain = self.chain.clone();
        chain.push(pattern.clone());
        let Self { context, names, definition, .. } = *self;
        let mut scope = TableScope { context, table, names, definition, builder: &mut *self.builder, chain };
        let key = row_expression(&lower(expr, &scope)?, expr.position)?;
        let filter = lower_filter(select.filter.as_ref(), &mut scope)?;
        let slots = filter.slots();
        let slot_count = names.len();
        let source = RowSource { table: pattern, expansions: Vec::new(), conditions: Vec::new(), filter, slot_count };
        let answers = slots.iter().map(|slot| IndexPart::Slot(*slot)).collect();
        let label = format!("{definition}, subquery on {}", source.table.name);
        let index = self.builder.index(&label, source, vec![IndexPart::Row(key)], answers);
        Ok(Filter::Joined { index, values: vec![value], slots })
    }

    fn allow_or(&self, at: Position) -> Result<(), Problem> {
        Err(Problem::new("or_parameters_differ", "OR cannot stand between conditions on parameters", at)
            .help("write the table twice below `data`, once for each side of OR"))
    }
}

impl TableScope<'_> {
    /// Which rows a subquery reads must be known when it is compiled.
    fn check_chain(&self, pattern: &TablePattern, at: Position) -> Result<(), Problem> {
        if self.chain.len() > JOIN_DEPTH_MAX {
            let message = format!("subqueries are nested deeper than {JOIN_DEPTH_MAX}");
            return Err(Problem::new("subquery_filter_unsupported", message, at));
        }
        if pattern.is_wildcard() || self.chain.iter().any(TablePattern::is_wildcard) {
            return Err(Problem::new("subquery_filter_unsupported", "a subquery cannot read tables by `%`", at)
                .help("name one table"));
        }
        Ok(())
    }
}
