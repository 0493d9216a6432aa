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
mod http;
mod lines;

use async_trait::async_trait;
use kairos_sync_protocol::{
    WriteCheckpointId,
    line::SyncLine,
    request::SyncRequest,
    upload::{UploadBatch, UploadResponse},
};

pub use self::http::{HttpOptions, HttpTransport};
use crate::{connector::Credentials, core::line::LineError};

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
    /// The token was refused.
    #[error("the server does not accept the token; sign in again")]
    Unauthorized,
    /// Not an address, or no sync service there.
    #[error("there is no sync service at `{endpoint}`; check the address")]
    NotFound {
        /// The address.
        endpoint: String,
    },
    /// The service answered with an error.
    #[error("the server refused the request with status {status} ({code})")]
    Refused {
        /// HTTP status.
        status: u16,
        /// Code of the service, such as `PSYNC_S2302`.
        code: String,
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

impl TransportError {
    /// Stable across releases; listed in `docs/errors.md`.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "CLIENT-0201",
            Self::Unauthorized => "CLIENT-0202",
            Self::NotFound { .. } => "CLIENT-0203",
            Self::Refused { .. } => "CLIENT-0204",
            Self::Line(_) => "CLIENT-0205",
            Self::LineTooLong { .. } => "CLIENT-0206",
        }
    }
}
