//! How the client reaches a service.
//!
//! A [`Transport`] opens streams of lines, uploads writes and asks for write checkpoints. [`HttpTransport`] is the one
//! for services; tests and other carriers bring their own.
//!
//! **Invariants**
//!
//! - Every call ends: connecting, waiting for an answer and silence on a stream have deadlines.
//! - A line, and an answer, has a largest length; the length of a stream has none.
//! - Errors carry no token and no row value.

pub mod backoff;
mod documents;
mod frames;
mod http;
mod lines;

use std::{fmt, time::Duration};

use async_trait::async_trait;
use kairos_sync_protocol::{
    WriteCheckpointId,
    line::SyncLine,
    request::SyncRequest,
    upload::{UploadBatch, UploadResponse},
};

pub use self::http::{Compression, HttpOptions, HttpTransport, LineFormat};
use crate::{connector::Credentials, core::line::LineError};

/// Longer answers are shown in part.
const REFUSAL_CHARS_MAX: usize = 500;

/// A service that asks for more would keep devices away long after it is well again.
const RETRY_AFTER_MAX: Duration = Duration::from_mins(10);

/// Carries requests to a service.
#[async_trait]
pub trait Transport: Send + Sync + 'static {
    /// Opens a stream.
    async fn open(
        &self,
        credentials: &Credentials,
        request: &SyncRequest,
    ) -> Result<Box<dyn LineStream>, TransportError>;

    /// Sends local writes to the service's write API.
    async fn upload(&self, credentials: &Credentials, batch: &UploadBatch) -> Result<UploadResponse, TransportError>;

    /// Asks for a write checkpoint: it lies after everything that was written before the call.
    async fn write_checkpoint(
        &self,
        credentials: &Credentials,
        client_id: &str,
    ) -> Result<WriteCheckpointId, TransportError>;
}

/// The lines of one stream.
#[async_trait]
pub trait LineStream: Send {
    /// The next line and its length in bytes. `None` when the service ended the stream.
    async fn next(&mut self) -> Result<Option<(SyncLine, usize)>, TransportError>;
}

/// The service could not be asked, or did not answer as expected.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransportError {
    /// No connection, or it broke, or nothing came in time.
    #[error("the server cannot be reached")]
    Unreachable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Somebody answers, but it is not certain who.
    #[error("no secure connection to the server; check its certificate, the address and the clocks")]
    Tls(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The token was refused.
    #[error("the server does not accept the token{0}; sign in again")]
    Unauthorized(Refusal),
    /// Not an address, or no sync service there.
    #[error("there is no sync service at `{endpoint}`; check the address")]
    NotFound {
        /// The address.
        endpoint: String,
    },
    /// The service answered with an error.
    #[error("the server refused the request with status {status}{refusal}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// What it said.
        refusal: Refusal,
    },
    /// A line or an answer that is damaged.
    #[error(transparent)]
    Line(#[from] LineError),
    /// A line or an answer above the limit.
    #[error("the server sent a line of more than {bytes_max} bytes")]
    LineTooLong {
        /// The limit.
        bytes_max: usize,
    },
}

/// What a service said about a request it did not serve. Empty where somebody else answered, such as a proxy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Refusal {
    /// Code of the service, such as `PSYNC_S2302`.
    pub code: String,
    /// What is wrong, for people. At most 500 characters, none of them for control.
    pub description: String,
    /// How long it wants to be left alone (`Retry-After`), at most ten minutes.
    pub retry_after: Option<Duration>,
}

impl Refusal {
    /// What a service answered with.
    pub fn new(code: &str, description: &str) -> Self {
        let plain = |text: &str| text.chars().filter(|char| !char.is_control()).take(REFUSAL_CHARS_MAX).collect();
        Self { code: plain(code), description: plain(description), retry_after: None }
    }

    /// The same, with what it says of the next attempt.
    #[must_use]
    pub fn after(self, wait: Option<Duration>) -> Self {
        Self { retry_after: wait.map(|wait| wait.min(RETRY_AFTER_MAX)), ..self }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.code.as_str(), self.description.as_str()) {
            ("", _) => Ok(()),
            (code, "") => write!(f, " ({code})"),
            (code, description) => write!(f, " ({code}: {description})"),
        }
    }
}

impl TransportError {
    /// How long the service wants to be left alone.
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { refusal, .. } => refusal.retry_after,
            _ => None,
        }
    }

    /// Stable across releases; listed in `docs/errors.md`.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "CLIENT-0201",
            Self::Unauthorized(_) => "CLIENT-0202",
            Self::NotFound { .. } => "CLIENT-0203",
            Self::Refused { .. } => "CLIENT-0204",
            Self::Line(_) => "CLIENT-0205",
            Self::LineTooLong { .. } => "CLIENT-0206",
            Self::Tls(_) => "CLIENT-0207",
        }
    }
}
