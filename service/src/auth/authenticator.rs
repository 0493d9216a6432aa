//! From an `Authorization` header to a principal.

use std::{sync::Arc, time::SystemTime};

use super::{
    AuthError, Principal,
    jwks::Key,
    jwt::{TokenRules, UnverifiedToken, extract},
    remote::RemoteKeys,
};

/// Whose tokens are accepted.
#[derive(Clone)]
pub struct AuthConfig {
    /// What tokens must say.
    pub rules: TokenRules,
    /// Keys given in the configuration.
    pub keys: Vec<Key>,
    /// Where further keys are fetched from.
    pub jwks_uris: Vec<String>,
}

/// Turns proofs into principals.
pub struct Authenticator {
    rules: TokenRules,
    keys: Vec<Key>,
    remotes: Vec<Arc<RemoteKeys>>,
}

impl Authenticator {
    /// Accepts what `config` says. Nothing is fetched yet.
    ///
    /// # Errors
    /// When no HTTP client can be made, for lack of a TLS provider.
    pub fn new(config: AuthConfig) -> Result<Self, AuthError> {
        let remotes = config.jwks_uris.into_iter().map(|uri| RemoteKeys::new(uri).map(Arc::new));
        Ok(Self { rules: config.rules, keys: config.keys, remotes: remotes.collect::<Result<_, _>>()? })
    }

    /// Who sent a request with this `Authorization` header.
    ///
    /// # Errors
    /// Why it is not accepted; the message is for the log only.
    pub async fn authenticate(&self, header: Option<&str>) -> Result<Principal, AuthError> {
        let token = UnverifiedToken::parse(extract(header)?)?;
        let mut keys = self.keys.clone();
        let mut failure = None;
        if !(token.kid.is_some() && token.names_one_of(&keys)) {
            for remote in &self.remotes {
                match remote.keys().await {
                    Ok(fetched) => keys.extend(fetched.iter().cloned()),
                    Err(error) => failure = Some(error),
                }
            }
        }
        match token.verify(&keys, &self.rules, SystemTime::now()) {
            Err(unknown @ AuthError::UnknownKey { .. }) => {
                self.remotes.iter().for_each(RemoteKeys::refresh_for_unknown_key);
                Err(failure.unwrap_or(unknown))
            }
            result => result,
        }
    }
}
