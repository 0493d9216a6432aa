//! What fails.

use std::{error::Error, fmt};

use kairos_client::ClientError;

/// Why a call failed. Failures of the sync are in the status: the app works on without it.
#[derive(Debug, Clone, PartialEq, Eq, uniffi::Error)]
pub enum KairosError {
    /// As `docs/errors.md` has it.
    Failed {
        /// Stable across releases.
        code: String,
        /// For people, with its causes.
        reason: String,
    },
}

impl KairosError {
    pub(crate) fn new(code: &str, reason: &str) -> Self {
        Self::Failed { code: code.to_owned(), reason: reason.to_owned() }
    }
}

impl fmt::Display for KairosError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Failed { code, reason } = self;
        write!(f, "{code}: {reason}")
    }
}

impl Error for KairosError {}

impl From<ClientError> for KairosError {
    fn from(error: ClientError) -> Self {
        let mut reason = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            reason = format!("{reason}: {error}");
            cause = error.source();
        }
        Self::new(error.code(), &reason)
    }
}
