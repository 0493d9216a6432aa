//! What is wrong with a rules file, where, and what to write instead.

use std::{borrow::Cow, fmt::Write};

use serde::Serialize;

use crate::syntax::Position;

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
    /// The finding for a person, with the line of the file it is about.
    ///
    /// ```text
    /// error[unknown_function]: there is no function `foo`
    ///   --> rules.yaml:4:16
    ///    |
    ///  4 |       - SELECT foo(id) FROM todos
    ///    |                ^^^
    ///    = help: …
    /// ```
    pub fn render(&self, file_name: &str, text: &str) -> String {
        let word = match self.severity {
            Severity::Warning => "warning",
            Severity::Fatal => "error",
        };
        let mut out = format!("{word}[{}]: {}\n", self.code, self.message);
        match self.span {
            None => {
                let _ = writeln!(out, "  --> {file_name}");
            }
            Some(Span { line, column }) => {
                let _ = writeln!(out, "  --> {file_name}:{line}:{column}");
                if let Some(source) = text.lines().nth(line.saturating_sub(1)) {
                    let margin = " ".repeat(line.to_string().len());
                    let (source, column) = excerpt(source, column);
                    // Tabs stay tabs, so that the caret stands below its character.
                    let indent: String = source
                        .chars()
                        .chain(std::iter::repeat(' '))
                        .take(column.saturating_sub(1))
                        .map(|ch| if ch == '\t' { '\t' } else { ' ' })
                        .collect();
                    let carets = "^".repeat(word_length(&source, column));
                    let _ = write!(out, " {margin} |\n {line} | {source}\n {margin} | {indent}{carets}\n");
                }
            }
        }
        if let Some(help) = &self.help {
            let _ = writeln!(out, "   = help: {help}");
        }
        out
    }
}

/// The part of a long line around a column, and the column in it.
fn excerpt(line: &str, column: usize) -> (Cow<'_, str>, usize) {
    const WIDTH: usize = 160;
    const BEFORE: usize = 80;
    if line.chars().take(WIDTH + 1).count() <= WIDTH {
        return (Cow::Borrowed(line), column);
    }
    let skipped = column.saturating_sub(BEFORE);
    let mut part = String::from(if skipped > 0 { "…" } else { "" });
    part.extend(line.chars().skip(skipped).take(WIDTH));
    if line.chars().nth(skipped + WIDTH).is_some() {
        part.push('…');
    }
    (Cow::Owned(part), column - skipped + usize::from(skipped > 0))
}

/// How many characters the word at a column has; 1 if none stands there.
fn word_length(line: &str, column: usize) -> usize {
    let is_part = |ch: &char| ch.is_alphanumeric() || *ch == '_';
    line.chars().skip(column.saturating_sub(1)).take_while(is_part).count().max(1)
}

/// A fatal finding in SQL text, before its place in the file is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) code: &'static str,
    pub(crate) message: String,
    pub(crate) help: Option<String>,
    pub(crate) position: Position,
    /// The text the position is in, if it is not that of the query but one of `with`.
    pub(crate) scalar: Option<ScalarId>,
}

/// A text beside the query being compiled; see [`crate::compile`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ScalarId(pub(crate) usize);

impl Problem {
    pub(crate) fn new(code: &'static str, message: impl Into<String>, position: Position) -> Self {
        Self { code, message: message.into(), help: None, position, scalar: None }
    }

    #[must_use]
    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_caret_stands_below_the_place() {
        let diagnostic = Diagnostic {
            code: "unknown_function",
            severity: Severity::Fatal,
            message: "there is no function `foo`".to_owned(),
            help: Some("remove it".to_owned()),
            span: Some(Span { line: 2, column: 10 }),
        };
        assert_eq!(
            diagnostic.render("rules.yaml", "data:\n- SELECT foo(id)\n"),
            "error[unknown_function]: there is no function `foo`\n  --> rules.yaml:2:10\n   |\n 2 | - SELECT foo(id)\n   \
             |          ^^^\n   = help: remove it\n"
        );
    }

    #[test]
    fn of_a_long_line_the_part_around_the_place_is_shown() {
        let line = format!("{}foo(x){}", "a".repeat(300), "b".repeat(300));
        let (part, column) = excerpt(&line, 301);
        assert!(part.chars().count() <= 162 && part.starts_with('…') && part.ends_with('…'));
        assert_eq!(part.chars().skip(column - 1).take(6).collect::<String>(), "foo(x)");
        assert_eq!(excerpt("short", 3), (Cow::Borrowed("short"), 3));
    }
}
