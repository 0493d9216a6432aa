//! The `write_rules` section: checks and stamped columns.

use crate::{
    config::{Report, WriteRuleConfig},
    definition::{RequestInput, RowInput},
    diagnostic::{Problem, Severity},
    expression::Expression,
    functions::json::JsonPath,
    schema::SourceSchema,
    suggest::nearest,
    syntax::{Name, Position, parse_expression},
    value::SqlValue,
    write_policy::{CheckInput, Columns, WritePolicy},
    yaml::{Content, Node},
};

use super::expression::{Language, Leaf, RequestCall, Scope, finish_static, lower};

/// Compiles what clients may write to a table; `None` if something is wrong with it.
pub(super) fn compile_rule(rule: &WriteRuleConfig<'_>, report: &mut Report<'_>) -> Option<WritePolicy> {
    let check = expression(rule.check, CheckScope { has_row: true }, report);
    let mut stamps = Vec::new();
    for (column, node) in &rule.stamp {
        let value = expression(node, CheckScope { has_row: false }, report)?;
        stamps.push((column.clone(), value));
    }
    let columns = match &rule.columns_allow {
        Some(names) => Columns::Only(names.clone()),
        None => Columns::AllBut(rule.columns_deny.clone()),
    };
    let (conflict, validators) = (rule.conflict.clone(), rule.validators.clone());
    Some(WritePolicy::new(rule.table, rule.allow.clone(), columns, stamps, check?, conflict, validators))
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
    let mut warn = |code, message, help| report.push(code, Severity::Warning, message, Some(help), rule.span);
    let Some(table) = source.tables.iter().find(|table| table.schema == schema && table.name == name) else {
        let tables = source.tables.iter().filter(|table| table.schema == schema).map(|table| table.name.as_str());
        let help = match nearest(name, tables) {
            Some(similar) => format!("there is a table {schema}.{similar}"),
            None => "create it, or correct the name".to_owned(),
        };
        return warn("table_not_found", format!("the database has no table {schema}.{name}"), help);
    };
    for column in policy.named_columns().into_iter().filter(|named| !table.columns.iter().any(|column| column == named))
    {
        let help = match nearest(column, table.columns.iter().map(String::as_str)) {
            Some(similar) => format!("there is a column {similar}"),
            None => "correct the name in the write rule".to_owned(),
        };
        warn("column_not_found", format!("the table {schema}.{name} has no column {column}"), help);
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
        Leaf::Request(input) => Ok(CheckInput::Request(input.clone())),
        Leaf::Row(_) | Leaf::Bucket(_) | Leaf::Element(_) => {
            Err(Problem::new("undefined_reference", "a check knows rows and the token only", at))
        }
    }
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
            _ => Err(Problem::new("undefined_reference", "a stamped column knows no row", name.position)
                .help("write auth.user_id(), auth.parameter('claim') or a literal")),
        }
    }

    fn request_call(&self, call: &RequestCall<'_>) -> Option<Result<Expression<Leaf>, Problem>> {
        if call.schema != "auth" {
            return None;
        }
        Some(match call.name {
            // As a converted value: an integral number in `sub` is an integer.
            "user_id" => call.without_arguments(RequestInput::TokenParameter("user_id".to_owned())),
            "parameters" => call.without_arguments(RequestInput::Token),
            "parameter" => call.text_argument().map(|path| Expression::JsonMember {
                document: Box::new(Expression::Input(Leaf::Request(RequestInput::Token))),
                path: JsonPath::new(path, true),
                as_value: true,
            }),
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
