//! Fetching keys over HTTP.

use std::time::Duration;

use reqwest::{Method, Url};

use super::{
    address::AddressRules,
    http::{CheckedClient, FetchError},
    jwks::JwkSet,
    source::KeySet,
};

/// How long a fetch may take.
const DEADLINE: Duration = Duration::from_secs(10);
/// More keys than any issuer has at once; a token without a key id is tried with each of them.
pub(super) const KEYS_MAX: usize = 100;

/// Fetches the keys of one address.
pub(super) struct Fetcher {
    uri: Url,
    client: CheckedClient,
}

impl Fetcher {
    /// Makes ready. Nothing is fetched yet.
    ///
    /// # Errors
    /// When `uri` is none, or no HTTP client can be made for lack of a TLS provider.
    pub(super) fn new(uri: &str, addresses: AddressRules) -> Result<Self, FetchError> {
        let uri: Url = uri.parse().map_err(|_| FetchError::Address)?;
        Ok(Self { uri, client: CheckedClient::new(addresses, DEADLINE)? })
    }

    /// Fetches.
    ///
    /// # Errors
    /// [`FetchError`].
    pub(super) async fn fetch(&self) -> Result<KeySet, FetchError> {
        let answer = self.client.send(self.client.request(Method::GET, self.uri.clone())?).await?;
        if !answer.status.is_success() {
            return Err(FetchError::Status(answer.status.as_u16()));
        }
        let set: JwkSet = serde_json::from_slice(&answer.body).map_err(|_| FetchError::NotKeys)?;
        if set.keys.len() > KEYS_MAX { Err(FetchError::TooManyKeys) } else { Ok(usable(&set)) }
    }
}

/// Keys of unknown kinds are left out: an issuer may publish more than we can use. Secrets are never accepted, and keys
/// for encryption are of no interest.
fn usable(set: &JwkSet) -> KeySet {
    let mut found = KeySet::default();
    for (position, jwk) in set.keys.iter().enumerate().filter(|(_, jwk)| jwk.is_for_verifying()) {
        match jwk.to_public_key(position) {
            Ok(key) => found.keys.push(key),
            Err(error) => found.left_out.push(error.to_string()),
        }
    }
    found
}
