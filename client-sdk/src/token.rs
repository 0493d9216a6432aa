//! What a token says of itself. Only the service can check it; the client reads when to ask for the next one, and for
//! whom it is.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use serde::Deserialize;

/// A token is replaced when so much of its life is over.
const REPLACE_AT: f64 = 0.75;

/// Claims of a token, as far as they are there. A token that is no JWT has none.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub(crate) struct TokenClaims {
    /// The user.
    #[serde(default)]
    pub(crate) sub: Option<String>,
    #[serde(default)]
    iat: Option<f64>,
    #[serde(default)]
    exp: Option<f64>,
}

impl TokenClaims {
    pub(crate) fn read(token: &str) -> Self {
        let claims = || {
            let payload = BASE64_URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
            serde_json::from_slice(&payload).ok()
        };
        claims().unwrap_or_default()
    }

    /// How long until a new token should be at hand; nothing where the token does not say, or it is late already: then
    /// the service tells when the token ends.
    pub(crate) fn replace_in(&self, now: SystemTime) -> Option<Duration> {
        let now = now.duration_since(UNIX_EPOCH).ok()?.as_secs_f64();
        let (exp, iat) = (self.exp?, self.iat.unwrap_or(now));
        let wait = iat + (exp - iat) * REPLACE_AT - now;
        (wait > 0.0).then(|| Duration::try_from_secs_f64(wait).ok()).flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(payload: &str) -> String {
        format!("e30.{}.signature", BASE64_URL_SAFE_NO_PAD.encode(payload))
    }

    fn wait(payload: &str, now: u64) -> Option<u64> {
        let now = UNIX_EPOCH + Duration::from_secs(now);
        TokenClaims::read(&token(payload)).replace_in(now).map(|wait| wait.as_secs())
    }

    #[test]
    fn a_token_is_replaced_at_three_quarters_of_its_life() {
        assert_eq!(wait(r#"{"iat":1000,"exp":1400}"#, 1000), Some(300));
        assert_eq!(wait(r#"{"iat":1000,"exp":1400}"#, 1200), Some(100));
        assert_eq!(wait(r#"{"exp":1400}"#, 1000), Some(300), "of what is left of it");
        assert_eq!(wait(r#"{"iat":1000,"exp":1400}"#, 1300), None, "late already");
        for odd in ["{}", r#"{"exp":"soon"}"#, r#"{"exp":-1e300,"iat":1e300}"#, r#"{"exp":1e300}"#, "null"] {
            assert_eq!(wait(odd, 1000), None, "{odd}");
        }
    }

    #[test]
    fn what_is_no_jwt_says_nothing() {
        for token in ["", "opaque", "a.b.c", "a.!!.c"] {
            assert_eq!(TokenClaims::read(token), TokenClaims::default(), "{token}");
        }
        assert_eq!(TokenClaims::read(&token(r#"{"sub":"ann"}"#)).sub.as_deref(), Some("ann"));
    }
}
