//! From an `Authorization` header to a principal.

use std::{sync::Arc, time::SystemTime};

use futures_util::future::join_all;

use super::{
    AuthConfig, AuthError, LIFETIME_MAX, Principal,
    introspection::{Confirmation, provider::Provider},
    jwt::{UnverifiedToken, extract, find_signer},
    remote::RemoteKeys,
    source::{KeyOrigin, KeySet, SourceKeys, TokenRules},
};
use crate::metrics::Metrics;

/// Turns proofs into principals.
pub struct Authenticator {
    sources: Vec<Source>,
    /// Asked about tokens that no key is for.
    providers: Vec<Arc<Provider>>,
}

/// What was found out about a token.
pub struct Examined {
    /// The source whose key signed it, by its position in [`AuthConfig::sources`].
    pub signer: Option<usize>,
    /// Who it speaks for, or why it is not accepted.
    pub result: Result<Principal, AuthError>,
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
    /// Accepts what `config` says, and counts questions about tokens. Nothing is fetched yet.
    ///
    /// # Errors
    /// When no HTTP client can be made, for lack of a TLS provider.
    pub fn new(config: AuthConfig, metrics: &Metrics) -> Result<Self, AuthError> {
        let AuthConfig { sources, introspections, addresses } = config;
        let source = |source: super::KeySource| {
            let keys = match source.keys {
                KeyOrigin::Given(keys) => Keys::Given(Arc::new(KeySet { keys, left_out: Vec::new() })),
                KeyOrigin::Fetched(uri) => Keys::Remote(Arc::new(RemoteKeys::new(uri, addresses.clone())?)),
            };
            Ok(Source { rules: source.rules, keys })
        };
        let provider = |introspection| {
            Provider::new(introspection, addresses.clone(), metrics.introspections.clone()).map(Arc::new)
        };
        let providers = introspections.into_iter().map(provider).collect::<Result<_, _>>()?;
        Ok(Self { providers, sources: sources.into_iter().map(source).collect::<Result<_, _>>()? })
    }

    /// Who sent a request with this `Authorization` header.
    ///
    /// # Errors
    /// Why it is not accepted; the message is for the log only.
    pub async fn authenticate(&self, header: Option<&str>) -> Result<Principal, AuthError> {
        self.examine(extract(header)?).await.result
    }

    /// What is to be known of a token. A key that signed it decides, and one that it names and that did not; about all
    /// others those are asked who may know them.
    pub async fn examine(&self, text: &str) -> Examined {
        let now = SystemTime::now();
        let undecided = match UnverifiedToken::parse(text) {
            Err(malformed) => malformed,
            Ok(token) => match self.signer(&token).await {
                Ok(source) => {
                    return Examined {
                        signer: Some(source),
                        result: token.principal(&self.sources[source].rules, now),
                    };
                }
                Err(error) => error,
            },
        };
        let is_decided = self.providers.is_empty() || !undecided.is_undecided();
        let result = if is_decided { Err(undecided) } else { self.introspect(text, now, undecided).await };
        Examined { signer: None, result }
    }

    /// Asks one after the other. `unsigned` is why keys do not help.
    async fn introspect(&self, text: &str, now: SystemTime, unsigned: AuthError) -> Result<Principal, AuthError> {
        let stated_end = UnverifiedToken::parse(text).map_or(Ok(None), |token| token.stated_end(now))?;
        // A stream that stays open for days would never see another configuration.
        let end_max = now + LIFETIME_MAX;
        let expires_at = stated_end.unwrap_or(end_max).min(end_max);
        let mut failure = unsigned;
        for provider in &self.providers {
            match Confirmation::of(provider, text).await {
                Ok(confirmation) => {
                    return Ok(Principal {
                        user_id: confirmation.user_id().to_owned(),
                        claims: confirmation.claims().clone(),
                        expires_at,
                        confirmation: Some(confirmation),
                    });
                }
                // One that says no does not speak for one that says nothing.
                Err(error) if error.is_temporary() || !failure.is_unknown() => failure = error,
                Err(_) => {}
            }
        }
        Err(failure)
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

#[cfg(test)]
#[path = "authenticator_tests.rs"]
mod tests;
