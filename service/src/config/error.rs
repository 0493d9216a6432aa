//! What is wrong with a configuration, and where.

use std::{fmt, sync::Arc};

use crate::{auth::jwks::InvalidKey, postgres::PgError};

/// A place in a configuration file. Lines and columns count from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file, or the environment.
    pub file: Arc<str>,
    /// Line.
    pub line: u64,
    /// Column.
    pub column: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line == 0 {
            write!(f, "{}", self.file)
        } else {
            write!(f, "{}:{}:{}", self.file, self.line, self.column)
        }
    }
}

/// What is wrong, and where.
#[derive(Debug, thiserror::Error)]
#[error("{place}: {problem}")]
pub struct ConfigError {
    /// Where.
    pub place: Place,
    /// What.
    pub problem: Problem,
}

/// What is wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// The file cannot be read.
    #[error("the file cannot be read: {0}")]
    Unreadable(String),
    /// It is not YAML.
    #[error("not valid YAML: {0}")]
    Yaml(String),
    /// A key nobody knows; most often a typing error.
    #[error("`{key}` is not a setting{}", suggestion(*.nearest))]
    UnknownKey {
        /// The key with the path to it.
        key: String,
        /// A key that is known here and looks like it.
        nearest: Option<&'static str>,
    },
    /// An environment variable that is asked for is not set.
    #[error("environment variable `{0}` is not set: set it, or write the value instead of !env")]
    MissingVariable(String),
    /// A value of another kind is needed.
    #[error("`{key}` {expected}")]
    InvalidValue {
        /// The key with the path to it.
        key: String,
        /// What is needed.
        expected: String,
    },
    /// A setting without which nothing works.
    #[error("`{key}` is missing: {remedy}")]
    Missing {
        /// The key with the path to it.
        key: &'static str,
        /// What to write.
        remedy: &'static str,
    },
    /// A key for verifying tokens is not usable.
    #[error("`{key}`: {error}")]
    Key {
        /// The key of the setting with the path to it.
        key: String,
        /// What is wrong with it.
        error: InvalidKey,
    },
    /// The connection URI is not usable.
    #[error("{0}")]
    Source(#[from] PgError),
}

fn suggestion(nearest: Option<&'static str>) -> String {
    nearest.map_or_else(|| ": remove it".to_owned(), |nearest| format!(": did you mean `{nearest}`?"))
}

impl ConfigError {
    /// Stable across releases; listed in `docs/errors.md`.
    pub const fn code(&self) -> &'static str {
        match &self.problem {
            Problem::Unreadable(_) => "CONF-0101",
            Problem::Yaml(_) => "CONF-0102",
            Problem::UnknownKey { .. } => "CONF-0103",
            Problem::MissingVariable(_) => "CONF-0104",
            Problem::InvalidValue { .. } => "CONF-0105",
            Problem::Missing { .. } => "CONF-0106",
            Problem::Key { .. } => "CONF-0107",
            Problem::Source(_) => "CONF-0108",
        }
    }
}
