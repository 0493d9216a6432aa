//! Findings about rules and source in the shape of the reference service. Pure.

use kairos_sync_rules::{Diagnostic, Places, Severity, SourceTable, Span, SyncPlan, TablePattern};

use super::shape::{Finding, Level, Location, TableReport};
use crate::{
    postgres::{catalog::Table, preflight::source_table},
    rules_check::SourceReport,
};

/// What was found, by the table it is about.
pub(super) struct Sorted {
    pub(super) tables: Vec<TableReport>,
    /// What is about no table.
    pub(super) others: Vec<Finding>,
}

/// Sorts what `rules check` finds of rules and source.
pub(super) fn sorted(report: &SourceReport, text: &str) -> Sorted {
    let SourceReport { compiled, patterns, found, inspection, .. } = report;
    let mut tables = Vec::new();
    let mut is_told = vec![false; found.len()];
    for pattern in patterns {
        let mut errors = Vec::new();
        for (diagnostic, is_told) in found.iter().zip(&mut is_told) {
            if is_about(&compiled.places, pattern, diagnostic.span) && !*is_told {
                *is_told = true;
                errors.push(finding(diagnostic, text));
            }
        }
        let matching: Vec<_> = inspection
            .tables
            .iter()
            .filter(|table| pattern.matches(&source_table(&table.schema, &table.name)))
            .collect();
        if matching.is_empty() {
            tables.push(missing(pattern, compiled.plan.as_ref(), errors));
            continue;
        }
        for table in matching {
            tables.push(published(pattern, table, compiled.plan.as_ref(), std::mem::take(&mut errors)));
        }
    }
    let rest = found.iter().zip(is_told).filter(|(_, is_told)| !is_told).map(|(diagnostic, _)| diagnostic);
    let others = compiled.diagnostics.iter().chain(rest).map(|diagnostic| finding(diagnostic, text)).collect();
    Sorted { tables, others }
}

fn is_about(places: &Places, pattern: &TablePattern, span: Option<Span>) -> bool {
    let Some((place, span)) = places.tables.get(pattern).zip(span) else { return false };
    place.span == span || place.columns.values().any(|column| *column == span)
}

/// A table that is not published, or does not exist.
fn missing(pattern: &TablePattern, plan: Option<&SyncPlan>, errors: Vec<Finding>) -> TableReport {
    let TablePattern { connection, schema, name } = pattern.clone();
    let reads = plan.map(|plan| plan.reads_of(&SourceTable { connection, schema, name })).unwrap_or_default();
    TableReport {
        schema: pattern.schema.clone(),
        name: pattern.name.clone(),
        pattern: named_pattern(pattern),
        replication_id: Vec::new(),
        data_queries: reads.is_synced,
        parameter_queries: reads.is_asked,
        errors,
    }
}

fn published(pattern: &TablePattern, table: &Table, plan: Option<&SyncPlan>, errors: Vec<Finding>) -> TableReport {
    let reads = plan.map(|plan| plan.reads_of(&source_table(&table.schema, &table.name))).unwrap_or_default();
    let identity = table.identity_columns();
    TableReport {
        schema: table.schema.clone(),
        name: table.name.clone(),
        pattern: named_pattern(pattern),
        replication_id: identity.into_iter().map(|position| table.columns[position].name.clone()).collect(),
        data_queries: reads.is_synced,
        parameter_queries: reads.is_asked,
        errors,
    }
}

fn named_pattern(pattern: &TablePattern) -> Option<String> {
    pattern.is_wildcard().then(|| pattern.name.clone())
}

/// A finding with its place in the text.
pub(super) fn finding(diagnostic: &Diagnostic, text: &str) -> Finding {
    let level = if diagnostic.severity == Severity::Fatal { Level::Fatal } else { Level::Warning };
    let help = diagnostic.help.as_ref().map_or_else(String::new, |help| format!(": {help}"));
    Finding {
        level,
        message: format!("[{}] {}{help}", diagnostic.code, diagnostic.message),
        location: diagnostic.span.and_then(|span| location(span, text)),
        ts: None,
    }
}

/// The word at a place, in bytes.
fn location(Span { line, column }: Span, text: &str) -> Option<Location> {
    let before: usize = text.split_inclusive('\n').take(line.checked_sub(1)?).map(str::len).sum();
    let rest = text.get(before..)?.lines().next()?;
    let (offset, _) = rest.char_indices().nth(column.checked_sub(1)?)?;
    let is_word = |char: char| char.is_alphanumeric() || char == '_';
    let length = rest[offset..].find(|char| !is_word(char)).unwrap_or(rest.len() - offset).max(1);
    let start_offset = before + offset;
    Some(Location { start_offset, end_offset: (start_offset + length).min(text.len()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_counted_in_bytes() {
        let text = "a:\r\n  é: word, more\n";
        let word = |line, column| {
            location(Span { line, column }, text).map(|found| &text[found.start_offset..found.end_offset])
        };
        assert_eq!(word(2, 6), Some("word"));
        assert_eq!(word(1, 1), Some("a"));
        assert_eq!((word(2, 40), word(9, 1), word(0, 1)), (None, None, None));
    }
}
