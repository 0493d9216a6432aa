//! What is wrong with a rules file, where, and what to write instead.

use std::fmt::Write;

use serde::Serialize;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The file can be deployed, but probably does not do what its author wants.
    Warning,
    /// The file cannot be deployed.
    Fatal,
}

/// A place in the rules file. Lines and columns count from 1, columns in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Span {
    /// First line.
    pub line: usize,
    /// First column.
    pub column: usize,
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// Stable code, as listed in `docs/errors.md`.
    pub code: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong.
    pub message: String,
    /// What to write instead, where that is known.
    pub help: Option<String>,
    /// Where, as precisely as known.
    pub span: Option<Span>,
}

impl Diagnostic {
    /// The finding for people: where, what, the line with a mark below it, and what to write instead.
    pub fn render(&self, file: &str, text: &str) -> String {
        let kind = match self.severity {
            Severity::Warning => "warning",
            Severity::Fatal => "error",
        };
        // Writing to a string does not fail.
        let mut out = format!("{kind}[{}]: {}\n", self.code, self.message);
        if let Some(Span { line, column }) = self.span {
            let _ = writeln!(out, "  --> {file}:{line}:{column}");
            if let Some(source) = text.lines().nth(line.saturating_sub(1)) {
                let gutter = " ".repeat(line.to_string().len());
                let mark = " ".repeat(column.saturating_sub(1));
                let _ = writeln!(out, "{gutter} |\n{line} | {source}\n{gutter} | {mark}^");
            }
        }
        if let Some(help) = &self.help {
            let _ = writeln!(out, "  help: {help}");
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_shows_its_line_and_what_to_do() {
        let diagnostic = Diagnostic {
            code: "schema_violation",
            severity: Severity::Fatal,
            message: "`dat` is not known".to_owned(),
            help: Some("known are: data".to_owned()),
            span: Some(Span { line: 2, column: 3 }),
        };
        let text = diagnostic.render("rules.yaml", "a:\n  dat: []\n");
        assert_eq!(
            text,
            "error[schema_violation]: `dat` is not known\n  --> rules.yaml:2:3\n  |\n2 |   dat: []\n  |   ^\n  help: known are: data\n"
        );
    }
}
