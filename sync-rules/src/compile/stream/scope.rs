//! Names in a stream's query: tables, sub-selects and functions in FROM, and those of outer queries.

use crate::{
    definition::{ElementPart, RequestInput, TablePart},
    diagnostic::Problem,
    expression::Expression,
    functions::json::JsonPath,
    syntax::{ExprKind, Name, Position},
    value::SqlValue,
};

use super::{
    super::{
        Context,
        expression::{Language, RequestCall, Scope, lower},
        table::check_column,
    },
    leaf::{Instances, Node, StreamExpression, StreamLeaf},
};

/// The names of one FROM.
#[derive(Debug, Default)]
pub(super) struct Frame<'p> {
    pub items: Vec<ScopeItem>,
    /// Of the outer query.
    pub parent: Option<&'p Frame<'p>>,
}

/// A name in FROM. Names resolve whatever their case.
#[derive(Debug)]
pub(super) struct ScopeItem {
    pub name: Name,
    pub kind: ItemKind,
}

/// What a name stands for.
#[derive(Debug)]
pub(super) enum ItemKind {
    Table(usize),
    Function(usize),
    /// A sub-select: its columns in place of their names.
    Columns(Vec<(String, StreamExpression)>),
    /// Something with a finding of its own; what refers to it gets none.
    Unknown,
}

impl Frame<'_> {
    /// The item of this name, in this query or an outer one.
    pub(super) fn find(&self, name: &Name) -> Option<&ScopeItem> {
        let is_named = |item: &&ScopeItem| item.name.text.to_lowercase() == name.text.to_lowercase();
        self.items.iter().find(is_named).or_else(|| self.parent?.find(name))
    }

    /// The item that columns without a table belong to.
    fn only_item(&self, column: &Name) -> Result<&ScopeItem, Problem> {
        match self.items.as_slice() {
            [item] => Ok(item),
            [] => match self.parent {
                Some(parent) => parent.only_item(column),
                None => Err(Problem::new(
                    "undefined_reference",
                    format!("there is no `{}` without FROM", column.text),
                    column.position,
                )),
            },
            _ => Err(Problem::new(
                "ambiguous_reference",
                format!("`{}` could belong to several tables", column.text),
                column.position,
            )
            .help(format!("write table.{}", column.text))),
        }
    }
}

/// Where an expression stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// A condition, or a column of a sub-select.
    Inner,
    /// An output column of the stream.
    Output,
}

/// The meaning of names in one place of a query.
pub(super) struct StreamScope<'a> {
    pub context: &'a Context<'a>,
    pub instances: &'a Instances,
    pub frame: &'a Frame<'a>,
    pub place: Place,
}

impl StreamScope<'_> {
    fn item_column(&self, item: &ScopeItem, name: &Name) -> Result<StreamExpression, Problem> {
        match &item.kind {
            ItemKind::Table(table) => {
                check_column(&self.instances.tables[*table].pattern, name, self.context);
                Ok(Expression::Input(StreamLeaf::Column { table: *table, name: name.text.clone() }))
            }
            ItemKind::Function(function) => {
                let part = match name.text.as_str() {
                    "key" => ElementPart::Key,
                    "value" => ElementPart::Value,
                    _ => {
                        let message = format!("json_each() has `key` and `value`, not `{}`", name.text);
                        return Err(Problem::new("undefined_reference", message, name.position));
                    }
                };
                Ok(Expression::Input(StreamLeaf::Element { function: *function, part }))
            }
            ItemKind::Unknown => Ok(Expression::Literal(SqlValue::Null)),
            ItemKind::Columns(columns) => {
                let found = columns.iter().find(|(column, _)| *column == name.text);
                found.map(|(_, value)| value.clone()).ok_or_else(|| {
                    let known: Vec<_> = columns.iter().map(|(column, _)| column.as_str()).collect();
                    let message = format!("the sub-select has no column `{}`", name.text);
                    Problem::new("subquery_column_not_found", message, name.position)
                        .help(format!("its columns are {}", known.join(", ")))
                })
            }
        }
    }
}

fn mixed(nodes: &[Node], at: Position) -> Problem {
    let has_request = nodes.contains(&Node::Request);
    let message = if has_request {
        "an expression reads either a table or the request, not both"
    } else {
        "an expression reads one table, not several"
    };
    Problem::new("mixed_dependencies", message, at)
        .help("compare the two sides by `=`, IN or &&, joined by AND and OR; such a comparison cannot be negated")
}

impl Scope for StreamScope<'_> {
    type Leaf = StreamLeaf;

    fn column(&self, _: Option<&Name>, table: Option<&Name>, name: &Name) -> Result<StreamExpression, Problem> {
        let item = match table {
            None => self.frame.only_item(name)?,
            Some(table) => self.frame.find(table).ok_or_else(|| {
                let message = format!("there is no table `{}` in this query", table.text);
                Problem::new("undefined_reference", message, table.position).help("add it to FROM, or correct the name")
            })?,
        };
        self.item_column(item, name)
    }

    fn request_call(&self, call: &RequestCall<'_>) -> Option<Result<StreamExpression, Problem>> {
        let document = match call.schema {
            "auth" => RequestInput::Token,
            "connection" => RequestInput::Parameters,
            "subscription" => RequestInput::Subscription,
            _ => return self.table_part(call),
        };
        let document = Expression::Input(StreamLeaf::Request(document));
        let fixed = self.context.fixed_json;
        let value = match (call.schema, call.name) {
            (_, "parameters") => Ok(document),
            ("auth", "user_id") => Ok(member(document, "$.sub", fixed)),
            (_, "parameter") => self.parameter(document, call),
            _ => return None,
        };
        if self.place == Place::Output {
            let problem = Problem::new("syncs_parameter", "an output column reads the table only", call.at);
            return Some(Err(problem.help("clients know their own token and parameters")));
        }
        Some(value)
    }

    fn subquery_problem(&self, at: Position) -> Problem {
        Problem::new("subquery_position", "a subquery stands to the right of IN or in FROM", at)
            .help("write `x IN (SELECT column FROM …)` in WHERE, joined by AND and OR")
    }

    fn membership_problem(&self, at: Position) -> Option<Problem> {
        (self.place == Place::Output).then(|| {
            Problem::new("result_table_invalid", "IN and && over arrays cannot be output columns", at)
                .help("write `x IN ARRAY['a', 'b']`, or move the condition to WHERE")
        })
    }

    fn finish(&self, expression: StreamExpression, at: Position) -> Result<StreamExpression, Problem> {
        let nodes = self.instances.nodes(&expression);
        if nodes.len() > 1 { Err(mixed(&nodes, at)) } else { Ok(expression) }
    }

    fn language(&self) -> Language {
        Language { fixed_json: self.context.fixed_json, is_edition_3: true, has_overlap: true }
    }
}

impl StreamScope<'_> {
    /// `t.schema()`, `t.table_name()`, `t.table_suffix()`
    fn table_part(&self, call: &RequestCall<'_>) -> Option<Result<StreamExpression, Problem>> {
        let part = match call.name {
            "schema" => TablePart::Schema,
            "table_name" => TablePart::Name,
            "table_suffix" => TablePart::Suffix,
            _ => return None,
        };
        let name = Name { text: call.schema.to_owned(), lost_case: false, position: call.at };
        let ItemKind::Table(table) = self.frame.find(&name)?.kind else { return None };
        if !call.arguments.is_empty() {
            let message = format!("{}.{}() takes no arguments", call.schema, call.name);
            return Some(Err(Problem::new("argument_count", message, call.at)));
        }
        if part == TablePart::Suffix && !self.instances.tables[table].pattern.is_wildcard() {
            let problem = Problem::new("table_suffix_empty", "the suffix of a single table is empty", call.at);
            self.context.warn(problem.help("it is what `%` stands for in FROM \"name_%\""));
        }
        Some(Ok(Expression::Input(StreamLeaf::Table { table, part })))
    }

    /// `auth.parameter(p)`: `auth.parameters() ->> p`
    fn parameter(&self, document: StreamExpression, call: &RequestCall<'_>) -> Result<StreamExpression, Problem> {
        let argument = call.argument()?;
        if let ExprKind::Literal(SqlValue::Text(path)) = &argument.kind {
            return Ok(member(document, path, self.context.fixed_json));
        }
        let path = lower(argument, self)?;
        let function = crate::functions::Function::JsonMember { fixed: self.context.fixed_json };
        self.finish(Expression::Call { function, arguments: vec![document, path] }, call.at)
    }
}

fn member(document: StreamExpression, path: &str, fixed: bool) -> StreamExpression {
    Expression::JsonMember { document: Box::new(document), path: JsonPath::new(path, fixed), as_value: true }
}
