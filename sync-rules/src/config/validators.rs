//! `validators` of a write rule: one or several for each column.

use serde_json::Value;

use crate::{
    keys,
    suggest::help_for,
    validator::{DocumentSchema, Pattern, Validator},
    yaml::{Content, Node},
};

use super::{
    Report,
    nodes::{entries, json, key_text, scalar_text, sequence},
};

pub(super) fn validators(node: &Node, report: &mut Report<'_>) -> Vec<(String, Vec<Validator>)> {
    let mut columns = Vec::new();
    for (column, demands) in entries(node, "`validators`", report) {
        let Some(column) = key_text(column, report) else { continue };
        let demands = match &demands.content {
            Content::Sequence(demands) => demands.iter().collect(),
            _ => vec![demands],
        };
        let validators = demands.into_iter().flat_map(|demand| of_one(demand, report)).collect();
        columns.push((column, validators));
    }
    columns
}

/// A name, or a map of names and values.
fn of_one(node: &Node, report: &mut Report<'_>) -> Vec<Validator> {
    match &node.content {
        Content::Text(name) if keys::PLAIN_VALIDATORS.contains(&name.as_str()) => vec![Validator::Secrets],
        Content::Map(entries) => entries.iter().filter_map(|(name, value)| with_value(name, value, report)).collect(),
        Content::Text(name) => {
            unknown(name, node, report);
            Vec::new()
        }
        _ => {
            let message = format!("a validator is a name or a map, not {}", node.kind());
            report.fatal("yaml_structure", message, node.span);
            Vec::new()
        }
    }
}

fn with_value(name: &Node, value: &Node, report: &mut Report<'_>) -> Option<Validator> {
    let key = key_text(name, report)?;
    match key.as_str() {
        "min_length" => count(value, report).map(Validator::MinLength),
        "max_length" => count(value, report).map(Validator::MaxLength),
        "min" => number(value, report).map(Validator::Min),
        "max" => number(value, report).map(Validator::Max),
        "pattern" => match Pattern::new(scalar_text(value, "a pattern", report)?) {
            Ok(pattern) => Some(Validator::Pattern(pattern)),
            Err(problem) => {
                report.fatal("pattern_invalid", format!("the pattern cannot be used: {problem}"), value.span);
                None
            }
        },
        "json_schema" => match DocumentSchema::new(json(value, report)?) {
            Ok(schema) => Some(Validator::JsonSchema(schema)),
            Err(problem) => {
                report.fatal("json_schema_invalid", format!("the schema cannot be used: {problem}"), value.span);
                None
            }
        },
        "one_of" => {
            let values = sequence(value, "`one_of`", report)?;
            Some(Validator::OneOf(values.into_iter().filter_map(|value| scalar(value, report)).collect()))
        }
        _ => {
            unknown(&key, name, report);
            None
        }
    }
}

fn unknown(name: &str, node: &Node, report: &mut Report<'_>) {
    let known = keys::PLAIN_VALIDATORS.iter().chain(keys::VALIDATORS).copied();
    let help = help_for(name, "validators", known);
    report.fatal_with_help("schema_violation", format!("no validator `{name}` of this form"), help, node.span);
}

fn count(node: &Node, report: &mut Report<'_>) -> Option<usize> {
    let count = node.integer().and_then(|count| usize::try_from(count).ok());
    if count.is_none() {
        report.fatal("schema_violation", "a length is a whole number, 0 or more", node.span);
    }
    count
}

fn number(node: &Node, report: &mut Report<'_>) -> Option<f64> {
    #[expect(clippy::cast_precision_loss, reason = "bounds beyond 2^53 need not be exact")]
    let number = match node.content {
        Content::Integer(number) => Some(number as f64),
        Content::Number(number) => Some(number),
        _ => None,
    };
    if number.is_none() {
        report.fatal("schema_violation", "a bound is a number", node.span);
    }
    number
}

fn scalar(node: &Node, report: &mut Report<'_>) -> Option<Value> {
    match &node.content {
        Content::Null | Content::Sequence(_) | Content::Map(_) => {
            report.fatal("yaml_structure", format!("`one_of` lists values, not {}", node.kind()), node.span);
            None
        }
        _ => json(node, report),
    }
}
