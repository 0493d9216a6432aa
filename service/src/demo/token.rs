//! Access tokens for people who have no sign-in yet: the demo and tests.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::EncodingKey;
use rand::Rng;

use crate::access_token::AccessToken;

/// Key id in the tokens and in the service's configuration.
pub const KEY_ID: &str = "demo";

/// Audience in the tokens and in the service's configuration.
pub const AUDIENCE: &str = "kairos-demo";

/// A shared secret, made new for each run, and the tokens signed with it.
#[derive(Clone)]
pub struct TokenMint {
    secret: [u8; 32],
}

impl TokenMint {
    /// A mint with a fresh secret.
    pub fn new() -> Self {
        let mut secret = [0; 32];
        rand::rng().fill_bytes(&mut secret);
        Self { secret }
    }

    /// The `client_auth` section of a configuration that accepts these tokens.
    pub fn client_auth_yaml(&self) -> String {
        let key = self.key();
        format!(
            "client_auth:\n  audience: [{AUDIENCE}]\n  jwks:\n    keys:\n      - {{ kty: oct, alg: HS256, kid: {KEY_ID}, \
             k: \"{key}\" }}\n"
        )
    }

    /// The secret, as `k` of a key in a configuration has it.
    pub fn key(&self) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(self.secret)
    }

    /// A token for a user, good from now for `lifetime`.
    ///
    /// # Panics
    /// When the system clock stands before 1970.
    pub fn mint(&self, user_id: &str, lifetime: Duration) -> String {
        self.mint_at(SystemTime::now(), user_id, lifetime)
    }

    /// A token for a user, issued at this time.
    ///
    /// # Panics
    /// When the time is before 1970.
    pub fn mint_at(&self, issued_at: SystemTime, user_id: &str, lifetime: Duration) -> String {
        let issued_at = issued_at.duration_since(UNIX_EPOCH).expect("the clock stands after 1970").as_secs();
        AccessToken { user_id, audience: AUDIENCE, key_id: Some(KEY_ID), issued_at, lifetime }
            .sign(&EncodingKey::from_secret(&self.secret))
    }
}

impl Default for TokenMint {
    fn default() -> Self {
        Self::new()
    }
}
