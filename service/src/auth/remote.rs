//! Keys fetched from a `jwks_uri`.
//!
//! Keys are fetched when first needed, refreshed in the background while they are used, and kept while the endpoint
//! is down. One fetch at a time; failures and unknown keys do not make more of them.

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use tokio::{
    sync::Mutex,
    time::{Instant, timeout},
};

use super::{
    AuthError,
    address::AddressRules,
    fetch::Fetcher,
    http::FetchError,
    key_cache::{KeyCache, Wanted},
    source::KeySet,
};

/// How long a request waits for keys.
const WAIT_MAX: Duration = Duration::from_secs(3);

/// The keys of one address.
pub(super) struct RemoteKeys {
    uri: String,
    fetcher: Fetcher,
    // Read by every request; written after a fetch.
    cache: RwLock<KeyCache>,
    // Held during a fetch, so that there is one at a time.
    fetching: Mutex<()>,
}

impl RemoteKeys {
    /// Keys from this address. Nothing is fetched yet.
    ///
    /// # Errors
    /// When no HTTP client can be made, for lack of a TLS provider.
    pub(super) fn new(uri: String, addresses: AddressRules) -> Result<Self, AuthError> {
        match Fetcher::new(&uri, addresses) {
            Ok(fetcher) => Ok(Self { uri, fetcher, cache: RwLock::default(), fetching: Mutex::new(()) }),
            Err(cause) => Err(AuthError::KeysUnavailable { uri, cause }),
        }
    }

    /// The current keys.
    ///
    /// # Errors
    /// When none could be fetched, or not for so long that the last ones are not trusted any more.
    pub(super) async fn keys(self: &Arc<Self>) -> Result<Arc<KeySet>, AuthError> {
        if let Some(keys) = self.cached() {
            if self.is_due(Wanted::Fresh) {
                tokio::spawn(Arc::clone(self).fetch_if_due(Wanted::Fresh));
            }
            return Ok(keys);
        }
        let is_pending = self.wait_for_fetch(Wanted::Any).await;
        self.cached().ok_or_else(|| AuthError::KeysUnavailable {
            uri: self.uri.clone(),
            cause: if is_pending { FetchError::Pending } else { self.failure().unwrap_or(FetchError::Pending) },
        })
    }

    /// A token names a key that is not known: perhaps there are new ones. `None` where it is too early to look again, or
    /// where there were none a moment ago.
    pub(super) async fn look_again(self: &Arc<Self>) -> Option<Arc<KeySet>> {
        if self.cached().is_none() || !self.is_due(Wanted::Unknown) {
            return None;
        }
        self.wait_for_fetch(Wanted::Unknown).await;
        self.cached()
    }

    /// Waits for a fetch, as long as a request may wait. Whether it still goes on then.
    async fn wait_for_fetch(self: &Arc<Self>, wanted: Wanted) -> bool {
        // In a task of its own: the fetch serves others too, also when this request gives up.
        let fetch = tokio::spawn(Arc::clone(self).fetch_if_due(wanted));
        timeout(WAIT_MAX, fetch).await.is_err()
    }

    async fn fetch_if_due(self: Arc<Self>, wanted: Wanted) {
        let _one_at_a_time = self.fetching.lock().await;
        if !self.is_due(wanted) {
            return; // while waiting for the turn somebody else did it
        }
        let fetched = self.fetcher.fetch().await;
        match &fetched {
            // Said once, not with every refresh.
            Ok(keys) if self.cached().is_none_or(|old| old.left_out != keys.left_out) => {
                for reason in &keys.left_out {
                    tracing::warn!(uri = self.uri, reason, "a key is left out");
                }
            }
            Ok(_) => {}
            Err(failure) => tracing::warn!(uri = self.uri, %failure, "keys could not be fetched"),
        }
        let mut cache = self.cache.write().unwrap_or_else(PoisonError::into_inner);
        cache.record(fetched.map(Arc::new), Instant::now());
    }

    fn cached(&self) -> Option<Arc<KeySet>> {
        self.read(|cache| cache.keys(Instant::now()))
    }

    fn is_due(&self, wanted: Wanted) -> bool {
        self.read(|cache| cache.is_due(wanted, Instant::now()))
    }

    fn failure(&self) -> Option<FetchError> {
        self.read(|cache| cache.failure().cloned())
    }

    /// A poisoned lock is harmless: what is recorded is recorded whole.
    fn read<T>(&self, ask: impl FnOnce(&KeyCache) -> T) -> T {
        ask(&self.cache.read().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
#[path = "remote_tests.rs"]
mod tests;
