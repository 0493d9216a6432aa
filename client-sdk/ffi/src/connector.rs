//! What the app tells the client about its server.

use std::sync::Arc;

use async_trait::async_trait;
use kairos_client::{Connector, Credentials, CredentialsReason, Refusal, TransportError};

/// Where the service is, and the proof of who the user is.
#[derive(Clone, uniffi::Record)]
pub struct KairosCredentials {
    /// Address of the service, for example `https://kairos.home.local`.
    pub endpoint: String,
    /// A token the service accepts.
    pub token: String,
}

/// Why there are no credentials now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, uniffi::Error)]
pub enum TokenError {
    /// The user has to sign in again.
    SignInAgain,
    /// Whoever gives out tokens cannot be reached. It is tried again.
    Unreachable,
}

impl std::fmt::Display for TokenError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::SignInAgain => "the user has to sign in again",
            Self::Unreachable => "whoever gives out tokens cannot be reached",
        })
    }
}

impl std::error::Error for TokenError {}

/// Implemented by the app. Calls never overlap; each has a minute, and may block.
#[uniffi::export(with_foreign)]
pub trait TokenProvider: Send + Sync {
    /// The credentials to use from now on. Nothing while there is no server or nobody is signed in. With `expired`, a
    /// token that was handed out before will not do.
    fn credentials(&self, expired: bool) -> Result<Option<KairosCredentials>, TokenError>;
}

/// Asks the app.
pub(crate) struct AppConnector(pub(crate) Arc<dyn TokenProvider>);

#[async_trait]
impl Connector for AppConnector {
    async fn credentials(&self, reason: CredentialsReason) -> Result<Option<Credentials>, TransportError> {
        let (provider, expired) = (Arc::clone(&self.0), reason == CredentialsReason::Expired);
        let asked = tokio::task::spawn_blocking(move || provider.credentials(expired)).await;
        match asked.map_err(|error| TransportError::Unreachable(error.into()))? {
            Ok(credentials) => Ok(credentials.map(|given| Credentials::new(given.endpoint, given.token))),
            Err(TokenError::SignInAgain) => Err(TransportError::Unauthorized(Refusal::default())),
            Err(error @ TokenError::Unreachable) => Err(TransportError::Unreachable(error.into())),
        }
    }
}
