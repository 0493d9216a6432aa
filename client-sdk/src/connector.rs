//! What the app tells the client about its server.

use std::fmt;

use async_trait::async_trait;
use kairos_sync_protocol::upload::{UploadBatch, UploadResponse};

use crate::transport::{Transport, TransportError};

/// Where the service is, and the proof of who the user is.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// Address of the service, for example `https://kairos.home.local`.
    pub endpoint: String,
    /// A token the service accepts.
    pub token: String,
}

impl Credentials {
    /// This token at this address.
    pub fn new(endpoint: impl Into<String>, token: impl Into<String>) -> Self {
        Self { endpoint: endpoint.into(), token: token.into() }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

/// Why the client asks for credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CredentialsReason {
    /// It has none yet.
    First,
    /// Those it has are about to end, or the service does not accept them any more: a cached token will not do.
    Expired,
}

/// The app's side of the sync. Calls never overlap; each has a minute.
#[async_trait]
pub trait Connector: Send + Sync + 'static {
    /// The credentials to use from now on. `None` while there is no server or nobody is signed in.
    ///
    /// # Errors
    /// [`TransportError::Unauthorized`] when the user has to sign in again; [`TransportError::Unreachable`] when whoever
    /// gives out tokens cannot be reached. The client tries again in either case.
    async fn credentials(&self, reason: CredentialsReason) -> Result<Option<Credentials>, TransportError>;

    /// Uploads local writes; by default to the write API of the service. An app with a backend of its own sends them
    /// there. Every write must have a final answer when this returns; an upload that failed is repeated as it was.
    ///
    /// # Errors
    /// Those of the transport. The writes stay in the queue.
    async fn upload(
        &self,
        service: &dyn Transport,
        credentials: &Credentials,
        batch: &UploadBatch,
    ) -> Result<UploadResponse, TransportError> {
        service.upload(credentials, batch).await
    }
}

/// A connector for a token that never changes.
#[derive(Debug, Clone)]
pub struct StaticConnector(Option<Credentials>);

impl StaticConnector {
    /// This token at this address.
    pub fn new(endpoint: impl Into<String>, token: impl Into<String>) -> Self {
        Self(Some(Credentials::new(endpoint, token)))
    }

    /// No server: the app works on this device alone.
    pub const fn not_configured() -> Self {
        Self(None)
    }
}

#[async_trait]
impl Connector for StaticConnector {
    async fn credentials(&self, _: CredentialsReason) -> Result<Option<Credentials>, TransportError> {
        Ok(self.0.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_not_printed() {
        assert!(!format!("{:?}", StaticConnector::new("http://localhost", "secret")).contains("secret"));
    }
}
