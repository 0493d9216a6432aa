//! The text of rules and what it means.

use std::fmt;

use kairos_sync_rules::{Severity, SyncPlan};

/// Rules that were compiled without a fatal finding.
#[derive(Clone, PartialEq)]
pub struct Rules {
    /// The file's content.
    pub text: String,
    /// What it means.
    pub plan: SyncPlan,
}

// The plan is long, and says nothing that the text does not.
impl fmt::Debug for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rules").field("text", &self.text).finish_non_exhaustive()
    }
}

/// Rules that cannot be deployed.
#[derive(Debug, thiserror::Error)]
#[error("the rules in {file} cannot be deployed:\n{findings}")]
pub struct UnusableRules {
    /// Which file.
    pub file: String,
    /// What is wrong, where, and what to write instead.
    pub findings: String,
}

impl UnusableRules {
    /// Stable across releases; listed in `docs/errors.md`.
    pub const fn code(&self) -> &'static str {
        "CONF-0201"
    }
}

impl Rules {
    /// Compiles a text; `file` names it in findings. Warnings go to the log.
    ///
    /// # Errors
    /// When there is a fatal finding.
    pub fn compile(file: &str, text: &str) -> Result<Self, UnusableRules> {
        let compiled = kairos_sync_rules::compile(text, "public");
        let render = |severity: Severity| {
            let found = compiled.diagnostics.iter().filter(move |found| found.severity == severity);
            found.map(|found| found.render(file, text)).collect::<String>()
        };
        let warnings = render(Severity::Warning);
        if !warnings.is_empty() {
            tracing::warn!("rules:\n{warnings}");
        }
        let findings = render(Severity::Fatal);
        let plan = compiled.plan.ok_or_else(|| UnusableRules { file: file.to_owned(), findings })?;
        Ok(Self { text: text.to_owned(), plan })
    }
}
