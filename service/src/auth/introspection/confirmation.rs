//! A yes that must be renewed.

use std::{fmt, sync::Arc};

use tokio::time::{Instant, sleep_until};

use super::{answer::Identity, cache::Answered, provider::Provider};
use crate::auth::AuthError;

/// An issuer's yes to a token. It is believed for a while, and asked for again then.
#[derive(Clone)]
pub struct Confirmation {
    provider: Arc<Provider>,
    token: Arc<str>,
    pub(in crate::auth::introspection) identity: Arc<Identity>,
    until: Instant,
}

impl Confirmation {
    /// Asks an issuer.
    ///
    /// # Errors
    /// When it does not say yes.
    pub(in crate::auth) async fn of(provider: &Arc<Provider>, token: &str) -> Result<Self, AuthError> {
        let Answered { result, until } = provider.ask(token).await;
        Ok(Self { provider: Arc::clone(provider), token: token.into(), identity: result?, until })
    }

    /// The user it names.
    pub(in crate::auth) fn user_id(&self) -> &str {
        &self.identity.user_id
    }

    /// The claims of that user.
    pub(in crate::auth) fn claims(&self) -> &serde_json::Map<String, serde_json::Value> {
        &self.identity.claims
    }

    /// Whether the issuer still says the same, as far as is known at this moment.
    pub(in crate::auth) async fn holds(&mut self) -> bool {
        if Instant::now() < self.until {
            return true;
        }
        let Answered { result, until } = self.provider.ask(&self.token).await;
        self.until = until;
        // Who has other claims may see other rows: the client must come again.
        result.is_ok_and(|identity| identity == self.identity)
    }

    /// Asks again whenever the answer is too old, until it is another one or none.
    pub(in crate::auth) async fn ended(mut self) {
        while self.holds().await {
            sleep_until(self.until).await;
        }
    }
}

impl fmt::Debug for Confirmation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Confirmation").field("user_id", &self.identity.user_id).finish_non_exhaustive()
    }
}
