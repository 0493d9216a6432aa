//! The `write_rules` section: checks and stamped columns.

use crate::{
    config::{Report, WriteRuleConfig},
    definition::{RequestInput, RowInput},
    diagnostic::{Problem, Severity},
    expression::Expression,
    functions::json::JsonPath,
    plan::TablePattern,
    schema::{Missing, SourceSchema},
    syntax::{Name, Position, parse_expression},
    value::SqlValue,
    write_policy::{CheckInput, Columns, UploadInput, WritePolicy},
    yaml::{Content, Node},
};

use super::{
    expression::{Language, Leaf, RequestCall, Scope, finish_static, lower},
    table::CONNECTION_DEFAULT,
};

/// Compiles what clients may write to a table; `None` if something is wrong with it.
pub(super) fn compile_rule(rule: &WriteRuleConfig<'_>, report: &mut Report<'_>) -> Option<WritePolicy> {
    let check = expression(rule.check, CheckScope { has_row: true }, report);
    let mut stamps = Vec::new();
    for (column, node) in &rule.columns.stamp {
        let value = expression(node, CheckScope { has_row: false }, report);
        stamps.push(value.map(|value| (column.clone(), value)));
    }
    let stamps = stamps.into_iter().collect::<Option<Vec<_>>>()?;
    let columns = match &rule.columns.allow {
        Some(names) => Columns::Only(names.clone()),
        None => Columns::AllBut(rule.columns.deny.clone()),
    };
    let check = check?;
    let mut reads_old = false;
    check.visit_inputs(&mut |input| reads_old |= matches!(input, CheckInput::Old(_)));
    Some(WritePolicy {
        table: rule.table.to_owned(),
        allow: rule.allow.clone(),
        columns,
        stamps,
        check,
        reads_old,
        conflict: rule.conflict.clone(),
        validators: rule.validators.clone(),
        soft_delete: rule.soft_delete.map(str::to_owned),
        limits: rule.limits,
    })
}

/// Warns of a table that the source does not have, and of columns that it does not have.
pub(super) fn compare_with_source(
    rule: &WriteRuleConfig<'_>,
    policy: &WritePolicy,
    source: &SourceSchema,
    default_schema: &str,
    report: &mut Report<'_>,
) {
    let (schema, name) = rule.table.split_once('.').unwrap_or((default_schema, rule.table));
    let table =
        TablePattern { connection: CONNECTION_DEFAULT.to_owned(), schema: schema.to_owned(), name: name.to_owned() };
    if let Some(Missing { message, similar }) = source.missing_table(&table) {
        let help = similar.unwrap_or_else(|| "create it, or correct the name".to_owned());
        return report.push("table_not_found", Severity::Warning, message, Some(help), rule.span);
    }
    for column in policy.named_columns() {
        if let Some(Missing { message, similar }) = source.missing_column(&table, column) {
            let help = similar.unwrap_or_else(|| "correct the name in the write rule".to_owned());
            report.push("column_not_found", Severity::Warning, message, Some(help), rule.span);
        }
    }
}

/// An expression in a scalar of its own. YAML's own `true`, numbers and null are literals.
fn expression(node: &Node, scope: CheckScope, report: &mut Report<'_>) -> Option<Expression<CheckInput>> {
    let text = match &node.content {
        Content::Bool(value) => return Some(Expression::Literal((*value).into())),
        Content::Integer(number) => return Some(Expression::Literal(SqlValue::Integer(*number))),
        Content::Number(number) => return Some(Expression::Literal(SqlValue::Real(*number))),
        Content::Null => return Some(Expression::Literal(SqlValue::Null)),
        Content::Text(text) => text,
        Content::Sequence(_) | Content::Map(_) => {
            report.fatal("yaml_structure", format!("an expression is text, not {}", node.kind()), node.span);
            return None;
        }
    };
    let compiled = parse_expression(text).and_then(|expr| {
        let at = expr.position;
        lower(&expr, &scope)?.try_map(&mut |leaf| check_input(leaf, at))
    });
    match compiled {
        Ok(compiled) => Some(compiled),
        Err(problem) => {
            let diagnostic = node.diagnose(report.file, problem, Severity::Fatal);
            report.diagnostics.push(diagnostic);
            None
        }
    }
}

fn check_input(leaf: &Leaf, at: Position) -> Result<CheckInput, Problem> {
    match leaf {
        Leaf::Row(RowInput::Column(column)) => Ok(CheckInput::Row(column.clone())),
        Leaf::Old(column) => Ok(CheckInput::Old(column.clone())),
        Leaf::Upload(input) => Ok(CheckInput::Upload(*input)),
        Leaf::Request(input) => Ok(CheckInput::Request(input.clone())),
        Leaf::Row(_) | Leaf::Bucket(_) | Leaf::Element(_) => {
            Err(Problem::new("undefined_reference", "a check knows rows, the upload and the token only", at))
        }
    }
}

fn upload(call: &RequestCall<'_>, input: UploadInput) -> Result<Expression<Leaf>, Problem> {
    if call.arguments.is_empty() {
        return Ok(Expression::Input(Leaf::Upload(input)));
    }
    Err(Problem::new("argument_count", format!("upload.{}() takes no arguments", call.name), call.at))
}

/// Names in a check, or in the expression of a stamped column.
#[derive(Clone, Copy)]
struct CheckScope {
    has_row: bool,
}

impl Scope for CheckScope {
    type Leaf = Leaf;

    fn column(&self, _: Option<&Name>, table: Option<&Name>, name: &Name) -> Result<Expression<Leaf>, Problem> {
        match table.map(|table| table.text.as_str()) {
            Some("row") if self.has_row => Ok(Expression::Input(Leaf::Row(RowInput::Column(name.text.clone())))),
            Some("old") if self.has_row => Ok(Expression::Input(Leaf::Old(name.text.clone()))),
            _ if self.has_row => {
                Err(Problem::new("undefined_reference", format!("`{}` stands alone", name.text), name.position)
                    .help("write row.column for the row as it would become, old.column for the stored one"))
            }
            _ => Err(Problem::new("undefined_reference", "a stamped column knows no row", name.position).help(
                "write auth.user_id(), auth.parameter('claim'), upload.received_at(), upload.client_id() or a literal",
            )),
        }
    }

    fn request_call(&self, call: &RequestCall<'_>) -> Option<Result<Expression<Leaf>, Problem>> {
        Some(match (call.schema, call.name) {
            // As a converted value: an integral number in `sub` is an integer.
            ("auth", "user_id") => call.without_arguments(RequestInput::TokenParameter("user_id".to_owned())),
            ("auth", "parameters") => call.without_arguments(RequestInput::Token),
            ("auth", "parameter") => call.text_argument().map(|path| Expression::JsonMember {
                document: Box::new(Expression::Input(Leaf::Request(RequestInput::Token))),
                path: JsonPath::new(path, true),
                as_value: true,
            }),
            ("upload", "received_at") => upload(call, UploadInput::ReceivedAt),
            ("upload", "client_id") => upload(call, UploadInput::ClientId),
            _ => return None,
        })
    }

    fn subquery_problem(&self, at: Position) -> Problem {
        Problem::new("unsupported_expression", "a check cannot ask other tables", at)
            .help("write a row-level security policy in Postgres: uploads are written under it")
    }

    /// Rows and requests may meet in one expression here.
    fn finish(&self, expression: Expression<Leaf>, at: Position) -> Result<Expression<Leaf>, Problem> {
        finish_static(expression, at)
    }

    fn language(&self) -> Language {
        Language::classic(true)
    }
}
