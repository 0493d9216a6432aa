//! Findings for people and for programs.

use std::fmt::Write;

use kairos_sync_rules::Severity;
use serde_json::json;

use super::Checked;

/// Each finding with the line it is about, then the verdict.
pub(super) fn text(checked: &Checked, file_name: &str, text: &str) -> String {
    let mut out = String::new();
    for diagnostic in &checked.diagnostics {
        // What is no matter of a line is one of the database, where there is one.
        let origin = checked.database.as_deref().filter(|_| diagnostic.span.is_none()).unwrap_or(file_name);
        out += &diagnostic.render(origin, text);
        out.push('\n');
    }
    if let Some(database) = &checked.database {
        let _ = writeln!(out, "checked with {database}");
    }
    let verdict = if checked.is_ok() { "can be deployed" } else { "cannot be deployed" };
    let counts = [
        count(checked.count(Severity::Fatal), "error"),
        count(checked.count(Severity::Warning), "warning"),
        count(checked.definitions.len(), "definition"),
        format!("{} read", count(checked.tables.len(), "table")),
    ];
    out + &format!("{file_name}: {verdict}; {}\n", counts.join(", "))
}

/// One JSON object.
pub(super) fn json(checked: &Checked) -> String {
    let object = json!({
        "ok": checked.is_ok(),
        "diagnostics": checked.diagnostics,
        "definitions": checked.definitions,
        "tables": checked.tables,
    });
    format!("{object}\n")
}

fn count(number: usize, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}
