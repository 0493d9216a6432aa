//! The output: a result, printed canonically.
//!
//! The fields of every structure stand in the order of their names, because that is the order in which they print.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use crate::{Diagnostic, json::write_text};

/// Elements in canonical text and order.
pub(super) type Sorted = Vec<Box<RawValue>>;

/// The result of a case.
#[derive(Debug, Serialize)]
pub(super) struct CaseResult<'c> {
    pub id: &'c str,
    pub requests: Vec<RequestResult>,
    pub rows: Vec<RowResult>,
    pub rules: RulesResult,
}

#[derive(Debug, Serialize)]
pub(super) struct RulesResult {
    pub errors: Sorted,
    pub ok: bool,
    pub source_tables: Sorted,
}

/// What a source row becomes.
#[derive(Debug, Default, Serialize)]
pub(super) struct RowResult {
    pub data: Sorted,
    pub data_errors: usize,
    /// Only for tables that trigger events.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub events: Option<Sorted>,
    pub parameter_errors: usize,
    pub parameters: Sorted,
}

/// A row in a bucket.
#[derive(Debug, Serialize)]
pub(super) struct DataResult<'e> {
    pub bucket: &'e str,
    pub data: String,
    pub id: &'e str,
    pub table: &'e str,
}

/// What an event is told of a row, or that this failed.
#[derive(Debug, Serialize)]
pub(super) struct EventResult<'e> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<bool>,
    pub event: &'e str,
}

/// A lookup and its answers, both in the engine's internal text.
#[derive(Debug, Serialize)]
pub(super) struct LookupResult<'e> {
    pub lookup: &'e str,
    pub values: Sorted,
}

/// What a request resolves to.
#[derive(Debug, Default, Serialize)]
pub(super) struct RequestResult {
    pub buckets: Sorted,
    pub dynamic: bool,
    pub errors: usize,
}

#[derive(Debug, Serialize)]
pub(super) struct BucketResult<'e> {
    pub bucket: &'e str,
    pub definition: &'e str,
    pub priority: u8,
    pub reasons: Sorted,
}

/// Why a request has a bucket: `"default"` or `{"subscription":0}`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum ReasonResult {
    Default,
    Subscription(usize),
}

impl CaseResult<'_> {
    /// The line, without its end.
    pub(super) fn to_line(&self) -> String {
        serde_json::to_string(self).expect("a result is strings, numbers and lists, which serialise")
    }
}

/// The result of rules that cannot be deployed.
pub(super) fn refused<'c>(id: &'c str, diagnostics: &[Diagnostic]) -> CaseResult<'c> {
    let rules = RulesResult { errors: findings(diagnostics), ok: false, source_tables: Vec::new() };
    CaseResult { id, requests: Vec::new(), rows: Vec::new(), rules }
}

/// Codes and severities; texts and places are not part of the format.
pub(super) fn findings(diagnostics: &[Diagnostic]) -> Sorted {
    #[derive(Serialize)]
    struct Finding {
        code: &'static str,
        severity: crate::Severity,
    }
    sorted(diagnostics.iter().map(|diagnostic| Finding { code: diagnostic.code, severity: diagnostic.severity }))
}

/// Prints elements and sorts them by their text.
pub(super) fn sorted<T: Serialize>(elements: impl IntoIterator<Item = T>) -> Sorted {
    let print = |element| to_raw_value(&element).expect("an element is strings, numbers and lists, which serialise");
    let mut sorted: Sorted = elements.into_iter().map(print).collect();
    sorted.sort_by(|left, right| left.get().encode_utf16().cmp(right.get().encode_utf16()));
    sorted
}

/// A JSON object as the engine prints it, with its keys sorted. Numbers keep their spelling.
pub(super) fn sorted_object(object: &str) -> String {
    let members: BTreeMap<String, &RawValue> =
        serde_json::from_str(object).expect("the engine prints rows as JSON objects");
    let mut members: Vec<_> = members.into_iter().collect();
    members.sort_by(|(left, _), (right, _)| left.encode_utf16().cmp(right.encode_utf16()));
    let mut out = String::with_capacity(object.len());
    for (name, value) in &members {
        out.push(if out.is_empty() { '{' } else { ',' });
        write_text(name, &mut out);
        out.push(':');
        out.push_str(value.get());
    }
    if members.is_empty() {
        out.push('{');
    }
    out.push('}');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_sorted_by_utf16_unit_and_numbers_keep_their_spelling() {
        let object = r#"{"b":1e+21,"｡":1.0,"😀":null,"a":123456789012345678901234567890}"#;
        assert_eq!(sorted_object(object), r#"{"a":123456789012345678901234567890,"b":1e+21,"😀":null,"｡":1.0}"#);
        assert_eq!(sorted_object("{}"), "{}");
    }

    #[test]
    fn elements_are_sorted_by_their_text() {
        let texts: Vec<_> =
            sorted([ReasonResult::Subscription(10), ReasonResult::Default, ReasonResult::Subscription(2)])
                .iter()
                .map(|element| element.get().to_owned())
                .collect();
        assert_eq!(texts, [r#""default""#, r#"{"subscription":10}"#, r#"{"subscription":2}"#]);
    }
}
