//! Checking a token. Pure: keys and the time come from the caller.

use std::{
    fmt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, crypto};
use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, Visitor},
};
use serde_json::{Map, Value};

use super::{AuthError, Principal, jwks::Key};

/// Longer tokens are refused unread.
const TOKEN_BYTES_MAX: usize = 16 * 1024;
/// How far clocks may differ.
const CLOCK_TOLERANCE_SECONDS: f64 = 60.0;

/// What tokens must say.
#[derive(Debug, Clone)]
pub struct TokenRules {
    /// One of these must be in `aud`.
    pub audience: Vec<String>,
    /// The longest time from `iat` to `exp`.
    pub lifetime_max: Duration,
}

/// A token taken apart, nothing verified yet.
#[derive(Debug)]
pub struct UnverifiedToken<'a> {
    /// What the signature is over.
    message: &'a str,
    signature: &'a str,
    claims: &'a str,
    /// Key id it names.
    pub kid: Option<String>,
    /// Algorithm it names.
    alg: String,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    crit: Option<de::IgnoredAny>,
}

/// The token of an `Authorization` header: `Token` or `Bearer`, one space, no other whitespace.
///
/// # Errors
/// [`AuthError::Missing`] for any other form.
pub fn extract(header: Option<&str>) -> Result<&str, AuthError> {
    let header = header.ok_or(AuthError::Missing)?;
    let token = header.strip_prefix("Token ").or_else(|| header.strip_prefix("Bearer ")).ok_or(AuthError::Missing)?;
    if token.is_empty() || token.contains(char::is_whitespace) { Err(AuthError::Missing) } else { Ok(token) }
}

impl<'a> UnverifiedToken<'a> {
    /// Takes a token apart.
    ///
    /// # Errors
    /// When it does not have the form of a signed token.
    pub fn parse(token: &'a str) -> Result<Self, AuthError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(AuthError::Malformed("it is larger than 16 KiB"));
        }
        let malformed = || AuthError::Malformed("it does not have three parts of base64url");
        let (message, signature) = token.rsplit_once('.').ok_or_else(malformed)?;
        let (header, claims) = message.split_once('.').ok_or_else(malformed)?;
        if claims.contains('.') {
            return Err(malformed());
        }
        let header: Header = decode(header)?;
        if header.crit.is_some() {
            return Err(AuthError::Malformed("it has critical header extensions"));
        }
        Ok(Self { message, signature, claims, kid: header.kid, alg: header.alg })
    }

    /// Who the token speaks for, if one of the keys signed it and it says what it must.
    ///
    /// # Errors
    /// Otherwise.
    pub fn verify(&self, keys: &[Key], rules: &TokenRules, now: SystemTime) -> Result<Principal, AuthError> {
        self.verify_signature(keys)?;
        let Claims(claims) = decode(self.claims)?;
        let expires_at = check_times(&claims, rules, now)?;
        check_audience(&claims, &rules.audience)?;
        if claims.get("parameters").is_some_and(|parameters| !parameters.is_object()) {
            return Err(AuthError::Malformed("`parameters` is not an object"));
        }
        Ok(Principal { user_id: user_id(&claims)?, claims, expires_at })
    }

    /// Whether a key with the id the token names is among `keys`; a token without one can do with any.
    pub fn names_one_of(&self, keys: &[Key]) -> bool {
        self.kid.as_ref().is_none_or(|kid| keys.iter().any(|key| key.kid.as_ref() == Some(kid)))
    }

    /// The key with the id the token names; where there is none, one of the keys without an id.
    fn verify_signature(&self, keys: &[Key]) -> Result<(), AuthError> {
        let unknown = || AuthError::UnknownKey { kid: self.kid.clone(), alg: self.alg.clone() };
        let algorithm: Algorithm = self.alg.parse().map_err(|_| unknown())?;
        let named = self.kid.as_ref().and_then(|kid| keys.iter().find(|key| key.kid.as_ref() == Some(kid)));
        let candidates = match named {
            Some(key) => vec![key],
            None => keys.iter().filter(|key| key.kid.is_none()).collect(),
        };
        let mut fitting = candidates.into_iter().filter(|key| key.algorithms.contains(&algorithm)).peekable();
        if fitting.peek().is_none() {
            return Err(unknown());
        }
        let signed = |key: &Key| {
            crypto::verify(self.signature, self.message.as_bytes(), &key.decoding, algorithm).unwrap_or(false)
        };
        if fitting.any(signed) { Ok(()) } else { Err(AuthError::Signature { kid: self.kid.clone() }) }
    }
}

fn decode<T: for<'de> Deserialize<'de>>(part: &str) -> Result<T, AuthError> {
    let malformed = AuthError::Malformed("a part is not base64url of a JSON object without repeated members");
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(part).map_err(|_| malformed.clone())?;
    serde_json::from_slice(&bytes).map_err(|_| malformed)
}

fn check_times(claims: &Map<String, Value>, rules: &TokenRules, now: SystemTime) -> Result<SystemTime, AuthError> {
    let number = |name: &str| claims.get(name).map(|value| value.as_f64().ok_or(AuthError::Malformed(NOT_A_TIME)));
    let expires = number("exp").ok_or(AuthError::Malformed("`exp` is missing"))??;
    let issued = number("iat").ok_or(AuthError::Malformed("`iat` is missing"))??;
    let now = now.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs_f64();
    if expires + CLOCK_TOLERANCE_SECONDS <= now {
        return Err(AuthError::Expired);
    }
    if number("nbf").transpose()?.is_some_and(|not_before| not_before > now + CLOCK_TOLERANCE_SECONDS) {
        return Err(AuthError::Malformed("it is not valid yet (`nbf`)"));
    }
    let lifetime = Duration::try_from_secs_f64((expires - issued).max(0.0)).unwrap_or(Duration::MAX);
    if lifetime > rules.lifetime_max {
        let (seconds, seconds_max) = (lifetime.as_secs(), rules.lifetime_max.as_secs());
        return Err(AuthError::LifetimeTooLong { seconds, seconds_max });
    }
    let since_epoch = Duration::try_from_secs_f64(expires).map_err(|_| AuthError::Malformed(NOT_A_TIME))?;
    UNIX_EPOCH.checked_add(since_epoch).ok_or(AuthError::Malformed(NOT_A_TIME))
}

const NOT_A_TIME: &str = "`exp`, `iat` or `nbf` is not a number of seconds";

fn check_audience(claims: &Map<String, Value>, allowed: &[String]) -> Result<(), AuthError> {
    let is_allowed = |value: &Value| value.as_str().is_some_and(|name| allowed.iter().any(|allowed| allowed == name));
    let accepted = match claims.get("aud") {
        Some(Value::Array(names)) => names.iter().any(is_allowed),
        Some(name) => is_allowed(name),
        None => false,
    };
    if accepted { Ok(()) } else { Err(AuthError::Audience) }
}

/// `sub` as the text that keys write checkpoints and row-level security.
fn user_id(claims: &Map<String, Value>) -> Result<String, AuthError> {
    match claims.get("sub") {
        Some(Value::String(text)) if !text.is_empty() => Ok(text.clone()),
        Some(Value::Number(number)) => Ok(number.to_string()),
        _ => Err(AuthError::Malformed("`sub` is missing, empty, or neither text nor a number")),
    }
}

/// Claims in which no member occurs twice: which of them counts would depend on the reader.
struct Claims(Map<String, Value>);

impl<'de> Deserialize<'de> for Claims {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Claims;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Claims, A::Error> {
                let mut claims = Map::new();
                while let Some((name, value)) = members.next_entry::<String, Value>()? {
                    if claims.insert(name, value).is_some() {
                        return Err(de::Error::custom("a member occurs twice"));
                    }
                }
                Ok(Claims(claims))
            }
        }
        deserializer.deserialize_map(Members)
    }
}

#[cfg(test)]
#[path = "jwt_tests.rs"]
mod tests;
