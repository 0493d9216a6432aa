//! From an `Authorization` header to a principal.

use std::{sync::Arc, time::SystemTime};

use futures_util::future::join_all;

use super::{
    AuthConfig, AuthError, Principal,
    jwt::{UnverifiedToken, extract, find_signer},
    remote::RemoteKeys,
    source::{KeyOrigin, KeySet, SourceKeys, TokenRules},
};

/// Turns proofs into principals.
pub struct Authenticator {
    sources: Vec<Source>,
}

struct Source {
    rules: TokenRules,
    keys: Keys,
}

enum Keys {
    Given(Arc<KeySet>),
    Remote(Arc<RemoteKeys>),
}

impl Authenticator {
    /// Accepts what `config` says. Nothing is fetched yet.
    ///
    /// # Errors
    /// When no HTTP client can be made, for lack of a TLS provider.
    pub fn new(config: AuthConfig) -> Result<Self, AuthError> {
        let AuthConfig { sources, addresses } = config;
        let source = |source: super::KeySource| {
            let keys = match source.keys {
                KeyOrigin::Given(keys) => Keys::Given(Arc::new(KeySet { keys, left_out: Vec::new() })),
                KeyOrigin::Fetched(uri) => Keys::Remote(Arc::new(RemoteKeys::new(uri, addresses.clone())?)),
            };
            Ok(Source { rules: source.rules, keys })
        };
        Ok(Self { sources: sources.into_iter().map(source).collect::<Result<_, _>>()? })
    }

    /// Who sent a request with this `Authorization` header.
    ///
    /// # Errors
    /// Why it is not accepted; the message is for the log only.
    pub async fn authenticate(&self, header: Option<&str>) -> Result<Principal, AuthError> {
        let token = UnverifiedToken::parse(extract(header)?)?;
        let source = self.signer(&token).await?;
        token.principal(&self.sources[source].rules, SystemTime::now())
    }

    /// The source whose key signed a token, by its position in [`AuthConfig::sources`].
    ///
    /// # Errors
    /// When none did, or its keys could not be fetched.
    pub async fn signer(&self, token: &UnverifiedToken<'_>) -> Result<usize, AuthError> {
        let given = self.given();
        // A key that is at hand needs no network, also when another source is down.
        if token.is_named_in(&given) {
            return find_signer(token, &given);
        }
        if token.kid.is_none()
            && let Ok(source) = find_signer(token, &given)
        {
            return Ok(source);
        }
        let (fetched, failure) = self.fetched().await;
        let known = in_order(given.clone(), fetched);
        let found = find_signer(token, &known);
        if found.is_ok() || token.is_named_in(&known) {
            return found;
        }
        // Perhaps the keys were changed a moment ago.
        match self.look_again().await {
            newer if newer.is_empty() => found.map_err(|unknown| failure.unwrap_or(unknown)),
            newer => find_signer(token, &in_order(given, newer)),
        }
    }

    /// The keys of a source, as far as they are to be had.
    ///
    /// # Errors
    /// When they could not be fetched.
    ///
    /// # Panics
    /// When there is no source at this position.
    pub async fn keys(&self, source: usize) -> Result<Arc<KeySet>, AuthError> {
        match &self.sources[source].keys {
            Keys::Given(keys) => Ok(Arc::clone(keys)),
            Keys::Remote(remote) => remote.keys().await,
        }
    }

    fn given(&self) -> Vec<SourceKeys> {
        let keys = self.sources.iter().enumerate().filter_map(|(source, Source { keys, .. })| match keys {
            Keys::Given(keys) => Some((source, Arc::clone(keys))),
            Keys::Remote(_) => None,
        });
        keys.collect()
    }

    fn remotes(&self) -> impl Iterator<Item = (usize, &Arc<RemoteKeys>)> {
        self.sources.iter().enumerate().filter_map(|(source, Source { keys, .. })| match keys {
            Keys::Remote(remote) => Some((source, remote)),
            Keys::Given(_) => None,
        })
    }

    /// All fetched keys, and why some are not there.
    async fn fetched(&self) -> (Vec<SourceKeys>, Option<AuthError>) {
        let (mut found, mut failure) = (Vec::new(), None);
        for (source, keys) in join_all(self.remotes().map(async |(source, remote)| (source, remote.keys().await))).await
        {
            match keys {
                Ok(keys) => found.push((source, keys)),
                Err(error) => failure = Some(error),
            }
        }
        (found, failure)
    }

    /// All fetched keys, if those of a source are newer than before; nothing otherwise.
    async fn look_again(&self) -> Vec<SourceKeys> {
        let looks = join_all(self.remotes().map(async |(_, remote)| remote.look_again().await)).await;
        if looks.iter().all(Option::is_none) { Vec::new() } else { self.fetched().await.0 }
    }
}

/// Sources in the order of the configuration.
fn in_order(mut left: Vec<SourceKeys>, right: Vec<SourceKeys>) -> Vec<SourceKeys> {
    left.extend(right);
    left.sort_by_key(|(source, _)| *source);
    left
}
