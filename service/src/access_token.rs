//! Access tokens that are signed with a shared secret, for those who have no sign-in at hand.

use std::time::Duration;

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::Serialize;

/// What a token says.
pub(crate) struct AccessToken<'a> {
    /// Whose it is.
    pub(crate) user_id: &'a str,
    /// Whom it is for.
    pub(crate) audience: &'a str,
    /// Which key signs it.
    pub(crate) key_id: Option<&'a str>,
    /// Seconds since 1970.
    pub(crate) issued_at: u64,
    /// How long it is good.
    pub(crate) lifetime: Duration,
}

#[derive(Serialize)]
struct Claims<'a> {
    sub: &'a str,
    aud: &'a str,
    iat: u64,
    exp: u64,
}

impl AccessToken<'_> {
    /// The token, with HS256.
    ///
    /// # Panics
    /// Never with a key made of a secret: claims are plain.
    pub(crate) fn sign(&self, key: &EncodingKey) -> String {
        let exp = self.issued_at + self.lifetime.as_secs();
        let claims = Claims { sub: self.user_id, aud: self.audience, iat: self.issued_at, exp };
        let header = Header { kid: self.key_id.map(str::to_owned), ..Header::new(Algorithm::HS256) };
        jsonwebtoken::encode(&header, &claims, key).expect("plain claims and an HMAC key always encode")
    }
}
