//! Keys fetched from a `jwks_uri`.
//!
//! Keys are fetched when first needed, refreshed in the background while they are used, and kept while the endpoint
//! is down. One fetch at a time; failures and unknown keys do not make more of them.

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use reqwest::{Client, Response, header, redirect};
use tokio::{sync::Mutex, time::Instant};

use super::{
    AuthError,
    jwks::{JwkSet, Key},
};

/// Keys this old are fetched again in the background.
const REFRESH_AFTER: Duration = Duration::from_mins(5);
/// Keys this old are no longer trusted.
const KEEP_FOR: Duration = Duration::from_hours(1);
/// How often an unknown key id may cause a fetch.
const UNKNOWN_KEY_INTERVAL: Duration = Duration::from_secs(30);
/// How often a fetch is tried while there are no keys at all.
const RETRY_INTERVAL: Duration = Duration::from_secs(2);
/// How long a request waits for the first keys.
const WAIT_MAX: Duration = Duration::from_secs(3);
/// How long a fetch may take.
const FETCH_DEADLINE: Duration = Duration::from_secs(10);
/// The largest answer that is read.
const BODY_BYTES_MAX: usize = 1024 * 1024;

/// The keys of one address.
pub struct RemoteKeys {
    uri: String,
    client: Client,
    // Read by every request; written after a fetch.
    cached: RwLock<Cached>,
    // Held during a fetch, so that there is one at a time.
    fetching: Mutex<()>,
}

#[derive(Default, Clone)]
struct Cached {
    keys: Option<(Arc<[Key]>, Instant)>,
    attempted: Option<Instant>,
    failure: Option<String>,
}

impl RemoteKeys {
    /// Keys from this address. Nothing is fetched yet.
    ///
    /// # Errors
    /// When no HTTP client can be made, for lack of a TLS provider.
    pub fn new(uri: String) -> Result<Self, AuthError> {
        // No redirects: the address was checked by whoever wrote the configuration, another one was not.
        let client = Client::builder().redirect(redirect::Policy::none()).timeout(FETCH_DEADLINE).build();
        match client {
            Ok(client) => Ok(Self { uri, client, cached: RwLock::default(), fetching: Mutex::new(()) }),
            Err(error) => Err(AuthError::KeysUnavailable { uri, cause: error.to_string() }),
        }
    }

    /// The current keys.
    ///
    /// # Errors
    /// When none could be fetched, or not for so long that the last ones are not trusted any more.
    pub async fn keys(self: &Arc<Self>) -> Result<Arc<[Key]>, AuthError> {
        if let Some(keys) = self.usable() {
            self.refresh_if_older_than(REFRESH_AFTER);
            return Ok(keys);
        }
        // In a task of its own: the fetch serves others too, also when this request gives up.
        let fetch = tokio::spawn(Arc::clone(self).fetch_unless_tried_within(RETRY_INTERVAL));
        let waited = tokio::time::timeout(WAIT_MAX, fetch).await;
        let failure = || if waited.is_err() { None } else { self.snapshot().failure };
        self.usable().ok_or_else(|| AuthError::KeysUnavailable {
            uri: self.uri.clone(),
            cause: failure().unwrap_or_else(|| "no answer yet".to_owned()),
        })
    }

    /// A token named a key that is not known: perhaps the keys were changed. Helps later requests, not this one.
    pub fn refresh_for_unknown_key(self: &Arc<Self>) {
        self.refresh_if_older_than(UNKNOWN_KEY_INTERVAL);
    }

    fn refresh_if_older_than(self: &Arc<Self>, age: Duration) {
        if self.snapshot().attempted.is_none_or(|attempted| attempted.elapsed() >= age) {
            tokio::spawn(Arc::clone(self).fetch_unless_tried_within(age));
        }
    }

    /// A poisoned lock is harmless: the content is replaced whole.
    fn snapshot(&self) -> Cached {
        self.cached.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn usable(&self) -> Option<Arc<[Key]>> {
        self.snapshot().keys.filter(|(_, fetched)| fetched.elapsed() < KEEP_FOR).map(|(keys, _)| keys)
    }

    async fn fetch_unless_tried_within(self: Arc<Self>, age: Duration) {
        let _one_at_a_time = self.fetching.lock().await;
        if self.snapshot().attempted.is_some_and(|attempted| attempted.elapsed() < age) {
            return; // while waiting for the turn somebody else did it
        }
        let result = self.fetch().await;
        let mut cached = self.cached.write().unwrap_or_else(PoisonError::into_inner);
        cached.attempted = Some(Instant::now());
        match result {
            Ok(keys) => *cached = Cached { keys: Some((keys.into(), Instant::now())), failure: None, ..cached.clone() },
            Err(failure) => {
                tracing::warn!(uri = self.uri, failure, "keys could not be fetched");
                cached.failure = Some(failure);
            }
        }
    }

    async fn fetch(&self) -> Result<Vec<Key>, String> {
        let request = self.client.get(&self.uri).header(header::ACCEPT, "application/json");
        let response = request.send().await.map_err(|error| error.without_url().to_string())?;
        if !response.status().is_success() {
            return Err(format!("status {}", response.status().as_u16()));
        }
        let body = read_bounded(response).await?;
        let set: JwkSet =
            serde_json::from_slice(&body).map_err(|_| "the answer is not a JSON Web Key Set".to_owned())?;
        Ok(self.usable_keys(&set))
    }

    /// Keys of unknown kinds are left out: an issuer may publish more than we can use. Secrets are never accepted.
    fn usable_keys(&self, set: &JwkSet) -> Vec<Key> {
        let meant_for_us = |(_, jwk): &(usize, &super::jwks::Jwk)| !jwk.is_secret() && jwk.is_for_verifying();
        let keys = set.keys.iter().enumerate().filter(meant_for_us).filter_map(|(position, jwk)| {
            jwk.to_key(position).inspect_err(|error| tracing::warn!(uri = self.uri, %error, "a key is left out")).ok()
        });
        keys.collect()
    }
}

async fn read_bounded(mut response: Response) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| error.without_url().to_string())? {
        if body.len() + chunk.len() > BODY_BYTES_MAX {
            return Err("the answer is larger than 1 MiB".to_owned());
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

#[cfg(test)]
#[path = "remote_tests.rs"]
mod tests;
