//! Findings so far.

use crate::{
    diagnostic::{Diagnostic, Severity, Span},
    places::Places,
};

/// Findings so far.
#[derive(Debug)]
pub(crate) struct Report<'a> {
    /// The text of the file.
    pub file: &'a str,
    pub diagnostics: Vec<Diagnostic>,
    /// Where the file speaks of what.
    pub places: Places,
}

impl Report<'_> {
    pub(crate) fn fatal(&mut self, code: &'static str, message: impl Into<String>, span: Span) {
        self.push(code, Severity::Fatal, message.into(), None, span);
    }

    pub(crate) fn fatal_with_help(
        &mut self,
        code: &'static str,
        message: impl Into<String>,
        help: impl Into<String>,
        span: Span,
    ) {
        self.push(code, Severity::Fatal, message.into(), Some(help.into()), span);
    }

    pub(crate) fn push(
        &mut self,
        code: &'static str,
        severity: Severity,
        message: String,
        help: Option<String>,
        span: Span,
    ) {
        self.diagnostics.push(Diagnostic { code, severity, message, help, span: Some(span) });
    }

    pub(crate) fn has_fatal(&self) -> bool {
        self.diagnostics.iter().any(|diagnostic| diagnostic.severity == Severity::Fatal)
    }
}
