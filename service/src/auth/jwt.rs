//! Checking a token. Pure: keys and the time come from the caller.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, crypto};
use serde_json::{Map, Value};

use super::{
    AuthError, Principal,
    jwks::Key,
    source::{SourceKeys, TokenRules},
};
use crate::unambiguous_json;

/// Longer tokens are refused unread.
pub(super) const TOKEN_BYTES_MAX: usize = 16 * 1024;
/// Key ids and algorithms go to the log, so they must not be long.
const NAME_BYTES_MAX: usize = 256;
/// How far clocks may differ.
const CLOCK_TOLERANCE_SECONDS: f64 = 60.0;

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
    pub alg: Algorithm,
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
        // Other members, such as `jku`, `jwk` and `x5u`, are not looked at: a token does not say where its key is.
        let header: Map<String, Value> = decode(header)?;
        if header.contains_key("crit") {
            return Err(AuthError::Malformed("it has critical header extensions"));
        }
        let alg = text(&header, "alg")?.ok_or(AuthError::Malformed("its header has no `alg`"))?;
        let kid = text(&header, "kid")?;
        if kid.iter().chain([&alg]).any(|name| name.len() > NAME_BYTES_MAX) {
            return Err(AuthError::Malformed("its `kid` or `alg` is longer than 256 bytes"));
        }
        let alg = alg.parse().map_err(|_| AuthError::UnknownAlgorithm { alg })?;
        Ok(Self { message, signature, claims, kid, alg })
    }

    /// Whether a key with the id the token names is among these.
    pub(super) fn is_named_in(&self, sources: &[SourceKeys]) -> bool {
        self.named_in(sources).is_some()
    }

    /// The first key with the id the token names, and its source.
    fn named_in<'k>(&self, sources: &'k [SourceKeys]) -> Option<(usize, &'k Key)> {
        let kid = self.kid.as_ref()?;
        every_key(sources).find(|(_, key)| key.kid.as_ref() == Some(kid))
    }

    /// What it says of itself. Proves nothing.
    ///
    /// # Errors
    /// When that is not an object, or a member occurs twice.
    pub fn claims(&self) -> Result<Map<String, Value>, AuthError> {
        decode(self.claims)
    }

    /// Who a token speaks for whose signer is known, if it says what it must.
    ///
    /// # Errors
    /// Otherwise.
    pub fn principal(&self, rules: &TokenRules, now: SystemTime) -> Result<Principal, AuthError> {
        let claims = self.claims()?;
        let expires_at = check_times(&claims, rules, now)?;
        check_audience(&claims, &rules.audience)?;
        check_issuer(&claims, &rules.issuer)?;
        if claims.get("parameters").is_some_and(|parameters| !parameters.is_object()) {
            return Err(AuthError::Malformed("`parameters` is not an object"));
        }
        let user_id = claims
            .get("sub")
            .and_then(user_id)
            .ok_or(AuthError::Malformed("`sub` is missing, empty, or neither text nor a number"))?;
        Ok(Principal { user_id, claims, expires_at, confirmation: None })
    }

    /// When it says that it ends, if it does. Proves nothing.
    ///
    /// # Errors
    /// When that is over.
    pub(super) fn stated_end(&self, now: SystemTime) -> Result<Option<SystemTime>, AuthError> {
        let claims = self.claims().unwrap_or_default();
        let Some(expires) = claims.get("exp").and_then(Value::as_f64) else { return Ok(None) };
        if is_over(expires, now) {
            return Err(AuthError::Expired);
        }
        let since_epoch = Duration::try_from_secs_f64(expires).ok();
        Ok(since_epoch.and_then(|since_epoch| UNIX_EPOCH.checked_add(since_epoch)))
    }

    fn is_signed_with(&self, key: &Key) -> bool {
        crypto::verify(self.signature, self.message.as_bytes(), &key.decoding, self.alg).unwrap_or(false)
    }
}

/// The source whose key signed a token: the key with the id it names; where there is none, one of the keys without an id.
///
/// # Errors
/// When no key did.
pub(super) fn find_signer(token: &UnverifiedToken<'_>, sources: &[SourceKeys]) -> Result<usize, AuthError> {
    let (kid, alg) = (token.kid.clone(), format!("{:?}", token.alg));
    if let Some((source, key)) = token.named_in(sources) {
        if !key.algorithms.contains(&token.alg) {
            let expected = key.algorithm_names().join(" or ");
            return Err(AuthError::OtherAlgorithm { kid: kid.unwrap_or_default(), alg, expected });
        }
        return if token.is_signed_with(key) { Ok(source) } else { Err(AuthError::Signature { kid }) };
    }
    let fits = |(_, key): &(usize, &Key)| key.kid.is_none() && key.algorithms.contains(&token.alg);
    let mut fitting = every_key(sources).filter(fits).peekable();
    if fitting.peek().is_none() {
        return Err(AuthError::UnknownKey { kid, alg });
    }
    let signed = fitting.find(|(_, key)| token.is_signed_with(key));
    signed.map(|(source, _)| source).ok_or(AuthError::Signature { kid: None })
}

fn every_key(sources: &[SourceKeys]) -> impl Iterator<Item = (usize, &Key)> {
    sources.iter().flat_map(|(source, set)| set.keys.iter().map(move |key| (*source, key)))
}

fn text(header: &Map<String, Value>, name: &str) -> Result<Option<String>, AuthError> {
    match header.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(AuthError::Malformed("its `kid` or `alg` is not text")),
    }
}

fn decode(part: &str) -> Result<Map<String, Value>, AuthError> {
    let malformed = AuthError::Malformed("a part is not base64url of a JSON object without repeated members");
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(part).map_err(|_| malformed.clone())?;
    unambiguous_json::from_slice(&bytes).map_err(|_| malformed)
}

fn seconds(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs_f64()
}

fn is_over(expires: f64, now: SystemTime) -> bool {
    expires + CLOCK_TOLERANCE_SECONDS <= seconds(now)
}

fn check_times(claims: &Map<String, Value>, rules: &TokenRules, now: SystemTime) -> Result<SystemTime, AuthError> {
    let number = |name: &str| claims.get(name).map(|value| value.as_f64().ok_or(AuthError::Malformed(NOT_A_TIME)));
    let expires = number("exp").ok_or(AuthError::Malformed("`exp` is missing"))??;
    let issued = number("iat").ok_or(AuthError::Malformed("`iat` is missing"))??;
    if is_over(expires, now) {
        return Err(AuthError::Expired);
    }
    let now = seconds(now);
    if number("nbf").transpose()?.is_some_and(|not_before| not_before > now + CLOCK_TOLERANCE_SECONDS) {
        return Err(AuthError::Malformed("it is not valid yet (`nbf`)"));
    }
    // An `iat` in the future does not make a long life a short one.
    let lifetime = (expires - issued).max(expires - now - CLOCK_TOLERANCE_SECONDS).max(0.0);
    let lifetime = Duration::try_from_secs_f64(lifetime).unwrap_or(Duration::MAX);
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

fn check_issuer(claims: &Map<String, Value>, allowed: &[String]) -> Result<(), AuthError> {
    let issuer = claims.get("iss").and_then(Value::as_str);
    let is_allowed = allowed.is_empty() || issuer.is_some_and(|issuer| allowed.iter().any(|allowed| allowed == issuer));
    if is_allowed { Ok(()) } else { Err(AuthError::Issuer) }
}

/// A subject as the text that keys write checkpoints and row-level security.
pub(super) fn user_id(subject: &Value) -> Option<String> {
    match subject {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

#[cfg(test)]
#[path = "jwt_tests.rs"]
mod tests;
