//! Parts of a plan and values in words.

use crate::{
    definition::{Claim, ElementInput, ElementPart, Parameter, RequestInput, RowInput, TablePart, ValueSource},
    elements::Element,
    expression::Expression,
    plan::TablePattern,
    sql_text::{Namer, write_literal, write_sql},
    value::SqlValue,
};

/// Longer values are cut: they are shown to be recognised.
const VALUE_CHARS_MAX: usize = 200;

pub(super) fn table_name(TablePattern { connection, schema, name }: &TablePattern) -> String {
    if connection == "default" { format!("{schema}.{name}") } else { format!("{connection}.{schema}.{name}") }
}

pub(super) fn parameter_names(count: usize) -> String {
    (1..=count).map(|number| format!("p{number}")).collect::<Vec<_>>().join(", ")
}

pub(super) fn parameter_text(Parameter(sources): &Parameter) -> String {
    let source = |source: &ValueSource| match source {
        ValueSource::Request(value) => request_text(value),
        ValueSource::Claim(Claim { name, .. }) => format!("the token's {name}"),
        ValueSource::Found { step, output } => format!("value {} of step {}", output + 1, step + 1),
    };
    sources.iter().map(source).collect::<Vec<_>>().join(" and also ")
}

pub(super) fn row_text(expression: &Expression<RowInput>) -> String {
    text(expression, &row_input)
}

pub(super) fn request_text(expression: &Expression<RequestInput>) -> String {
    text(expression, &request_input)
}

pub(super) fn element_text(expression: &Expression<ElementInput>) -> String {
    text(expression, &|input| match input {
        ElementInput::Element(part) => part_name(*part).to_owned(),
        ElementInput::Request(input) => request_input(input),
    })
}

pub(super) fn text<I>(expression: &Expression<I>, input: &dyn Fn(&I) -> String) -> String {
    let mut out = String::new();
    write_sql(expression, &Namer { input, is_hashed: false }, &mut out);
    out
}

pub(super) const fn part_name(part: ElementPart) -> &'static str {
    match part {
        ElementPart::Key => "key",
        ElementPart::Value => "value",
    }
}

pub(super) fn row_input(input: &RowInput) -> String {
    match input {
        RowInput::Column(name) => name.clone(),
        RowInput::Table(TablePart::Schema) => "schema()".to_owned(),
        RowInput::Table(TablePart::Name) => "table_name()".to_owned(),
        RowInput::Table(TablePart::Suffix) => "table_suffix()".to_owned(),
        RowInput::Element { expansion, part } => format!("element{}.{}", expansion + 1, part_name(*part)),
    }
}

pub(super) fn request_input(input: &RequestInput) -> String {
    match input {
        RequestInput::UserId => "user_id()".to_owned(),
        RequestInput::Token => "token".to_owned(),
        RequestInput::Parameters | RequestInput::ParameterColumns => "client parameters".to_owned(),
        RequestInput::Subscription | RequestInput::SubscriptionOrEmpty => "subscription parameters".to_owned(),
        RequestInput::TokenParameter(name) => format!("token_parameters.{name}"),
        RequestInput::UserParameter(name) => format!("user_parameters.{name}"),
    }
}

/// A value as SQL writes it, cut where it is long. Bytes are counted only.
pub(super) fn value_text(value: &SqlValue) -> String {
    if let SqlValue::Blob(bytes) = value {
        return format!("{} bytes", bytes.len());
    }
    let mut text = String::new();
    write_literal(value, &mut text);
    shorten(text)
}

/// The text, cut where it is long.
pub(super) fn shorten(mut text: String) -> String {
    if let Some((end, _)) = text.char_indices().nth(VALUE_CHARS_MAX) {
        text.truncate(end);
        text.push('…');
    }
    text
}

/// An element of an array, by its value.
pub(super) fn element_text_of(element: &Element) -> String {
    value_text(element.part(ElementPart::Value))
}
