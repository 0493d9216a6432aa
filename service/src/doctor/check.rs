//! One thing that was checked.

use serde::Serialize;

/// How a check came out, from good to bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Status {
    Pass,
    Warn,
    Fail,
}

/// One line of the report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Check {
    /// What was looked at.
    pub(super) topic: &'static str,
    pub(super) status: Status,
    /// Stable, and listed in `docs/errors.md`; none where all is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) code: Option<&'static str>,
    pub(super) message: String,
    /// What to do, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) help: Option<String>,
    /// What to run, each statement by itself and in this order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) sql: Vec<String>,
    /// Whether `--fix` runs it: it takes nothing away, and undoing it is as simple.
    #[serde(skip)]
    pub(super) is_safe: bool,
}

impl Check {
    fn new(topic: &'static str, status: Status, code: Option<&'static str>, message: impl Into<String>) -> Self {
        Self { topic, status, code, message: message.into(), help: None, sql: Vec::new(), is_safe: false }
    }

    /// All is well.
    pub(super) fn pass(topic: &'static str, message: impl Into<String>) -> Self {
        Self::new(topic, Status::Pass, None, message)
    }

    /// It may hurt later.
    pub(super) fn warn(topic: &'static str, code: &'static str, message: impl Into<String>) -> Self {
        Self::new(topic, Status::Warn, Some(code), message)
    }

    /// The service cannot do its work.
    pub(super) fn fail(topic: &'static str, code: &'static str, message: impl Into<String>) -> Self {
        Self::new(topic, Status::Fail, Some(code), message)
    }

    /// Says what to do.
    pub(super) fn help(self, help: impl Into<String>) -> Self {
        Self { help: Some(help.into()), ..self }
    }

    /// Gives the SQL that mends it.
    pub(super) fn run(self, sql: impl IntoIterator<Item = String>) -> Self {
        Self { sql: sql.into_iter().collect(), ..self }
    }

    /// Sets a setting of the server; every one used here is taken over without a restart.
    pub(super) fn set(self, name: &str, value: &str) -> Self {
        self.run([format!("ALTER SYSTEM SET {name} = '{value}';"), "SELECT pg_reload_conf();".to_owned()])
    }

    /// Lets `--fix` run the SQL.
    pub(super) fn safe(self) -> Self {
        Self { is_safe: true, ..self }
    }
}
