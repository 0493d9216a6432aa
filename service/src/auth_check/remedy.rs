//! Which setting mends a refused token, or what its issuer must do. Pure.

use serde::Serialize;
use serde_json::Value;

use super::Report;
use crate::{
    auth::{AuthError, FetchError},
    config::{Config, Setting},
};

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Remedy {
    /// In words.
    pub(super) help: String,
    /// The setting that mends it; none where only the issuer can.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) setting: Option<String>,
    /// Where it stands, or should stand.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) place: Option<String>,
    /// What to write there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) write: Option<String>,
}

impl Remedy {
    fn of_issuer(help: impl Into<String>) -> Self {
        Self { help: help.into(), setting: None, place: None, write: None }
    }

    fn of(setting: &Setting, help: impl Into<String>, write: Option<String>) -> Self {
        let Setting { key, place } = setting;
        Self { help: help.into(), setting: Some(key.clone()), place: Some(place.to_string()), write }
    }
}

/// What mends it; `None` where nothing is broken.
pub(super) fn remedy(report: &Report, config: &Config) -> Option<Remedy> {
    let error = report.result.as_ref().err()?;
    let whole = &config.auth_settings.whole;
    let settings = report.signer.map(|source| &config.auth_settings.sources[source]);
    let rules = report.signer.map(|source| &config.auth.sources[source].rules);
    Some(match error {
        AuthError::Missing => Remedy::of_issuer("give a token"),
        AuthError::Malformed(_) => {
            Remedy::of_issuer("let the issuer make a signed token (JWS) with `sub`, `aud`, `iat` and `exp`")
        }
        AuthError::UnknownAlgorithm { .. } => {
            Remedy::of_issuer("let the issuer sign with an asymmetric key (RS256, ES256, EdDSA) or with HS256")
        }
        AuthError::OtherAlgorithm { .. } => {
            Remedy::of(whole, "let the issuer sign with what the key is for, or correct `alg` of the key", None)
        }
        AuthError::UnknownKey { kid, .. } => unknown_key(kid.as_deref(), report, whole),
        AuthError::Signature { .. } => Remedy::of(
            whole,
            "the token was signed with another key, or changed on its way: compare the issuer's key with the one here",
            None,
        ),
        AuthError::Expired => Remedy::of_issuer("get a new token, or compare the clocks of issuer and service"),
        AuthError::LifetimeTooLong { seconds_max, .. } => Remedy::of_issuer(format!(
            "let the issuer set `exp` at most {seconds_max} seconds after `iat`; 5 to 60 minutes are best"
        )),
        AuthError::Audience => {
            let allowed = rules.map(|rules| rules.audience.clone()).unwrap_or_default();
            claim(report, "aud", "audience", settings.map_or(whole, |settings| &settings.audience), allowed)
        }
        AuthError::Issuer => {
            let allowed = rules.map(|rules| rules.issuer.clone()).unwrap_or_default();
            claim(report, "iss", "issuer", settings.map_or(whole, |settings| &settings.issuer), allowed)
        }
        AuthError::NotConfirmed { url, answer } if answer == "status 404" => {
            Remedy::of(asked(url, report, whole), "correct the address, or the collection: there is nothing", None)
        }
        AuthError::NotConfirmed { url, .. } => Remedy::of(
            asked(url, report, whole),
            "get a new token by signing in again; if it is fresh, is it of this issuer, and of this kind of users?",
            None,
        ),
        AuthError::UselessAnswer { url, .. } => Remedy::of(
            asked(url, report, whole),
            "let `subject` and `claims` point to what the answer has: `curl` the address with the token",
            None,
        ),
        AuthError::NotAsked { url, cause } => Remedy::of(asked(url, report, whole), not_reached(cause), None),
        AuthError::KeysUnavailable { uri, cause } => unavailable(uri, cause, report, whole),
    })
}

fn unknown_key(kid: Option<&str>, report: &Report, whole: &Setting) -> Remedy {
    if report.sources.is_empty() {
        let help =
            "there are no keys: add `jwks_uri`, `jwks` or `preset` (`kairos-sync auth keygen` makes a shared secret)";
        return Remedy::of(whole, help, None);
    }
    let help = match kid {
        Some(_) => {
            "no source has the key that the token names: is this the issuer's address, and is the token its own?"
        }
        None => "the token names no key, and there is none without `kid` for its algorithm: let the issuer set `kid`",
    };
    Remedy::of(&report.sources[0].setting, help, None)
}

/// A claim that is none of what is allowed: written there, it would be.
fn claim(report: &Report, name: &str, key: &str, setting: &Setting, mut allowed: Vec<String>) -> Remedy {
    let has: Vec<String> = match report.claims.as_ref().and_then(|claims| claims.get(name)) {
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        Some(Value::String(text)) => vec![text.clone()],
        _ => Vec::new(),
    };
    if has.is_empty() {
        return Remedy::of_issuer(format!(
            "let the issuer put `{name}` into the token, one of: {}",
            allowed.join(", ")
        ));
    }
    let help = format!("the token has `{name}` {has:?}; allow it, if tokens like this are meant for this service");
    allowed.extend(has);
    let list = serde_json::to_string(&allowed).unwrap_or_default();
    // A preset that knows the claim itself has no such setting.
    let is_own = setting.key.ends_with(&format!(".{key}"));
    let help = if is_own { help } else { format!("{help}, or correct the preset: it asks for {}", allowed[0]) };
    Remedy::of(setting, help, is_own.then(|| format!("{key}: {list}")))
}

fn asked<'a>(url: &str, report: &'a Report, whole: &'a Setting) -> &'a Setting {
    report.issuers.iter().find(|issuer| issuer.url == url).map_or(whole, |issuer| &issuer.setting)
}

fn unavailable(uri: &str, cause: &FetchError, report: &Report, whole: &Setting) -> Remedy {
    let source = report.sources.iter().find(|source| source.uri.as_deref() == Some(uri));
    let setting = source.map_or(whole, |source| &source.setting);
    let help = match cause {
        FetchError::Address | FetchError::NotKeys => "correct the address: it must answer with a JSON Web Key Set",
        FetchError::Status(404) => "correct the address: there is nothing",
        FetchError::TooLarge | FetchError::TooManyKeys => {
            "let the issuer publish the keys it signs with, and nothing more"
        }
        _ => not_reached(cause),
    };
    Remedy::of(setting, help, None)
}

fn not_reached(cause: &FetchError) -> &'static str {
    match cause {
        FetchError::Rejected(_) | FetchError::Ipv6(_) => "correct the address, or the ranges that are rejected",
        FetchError::Status(300..=399) => "write the address it leads to",
        _ => "see that the address answers from this host: `curl` it; then check firewall, DNS and certificates",
    }
}
