//! Why a request is not accepted.

use super::fetch::FetchError;

/// Why a request is not accepted. The message is for the log; clients get the code only.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AuthError {
    /// There is no token, or the header has another form.
    #[error("no token: send `Authorization: Token <jwt>` or `Authorization: Bearer <jwt>`")]
    Missing,
    /// The token is not a signed token, or lacks what it must say.
    #[error("the token is not accepted: {0}")]
    Malformed(&'static str),
    /// Nobody may sign with this algorithm.
    #[error("the token's algorithm {alg:?} is not supported: use RS256, ES256, EdDSA or HS256 (or their larger forms)")]
    UnknownAlgorithm {
        /// Algorithm the token names.
        alg: String,
    },
    /// No key fits.
    #[error("no key fits the token ({}, alg {alg}): compare with client_auth.jwks and client_auth.jwks_uri", name(kid.as_ref()))]
    UnknownKey {
        /// Key id the token names.
        kid: Option<String>,
        /// Algorithm the token names.
        alg: String,
    },
    /// The key is for another algorithm.
    #[error("the key {kid:?} is not for {alg}, which the token names: sign with {expected}")]
    OtherAlgorithm {
        /// Key id the token names.
        kid: String,
        /// Algorithm the token names.
        alg: String,
        /// What the key is for.
        expected: String,
    },
    /// The signature is wrong.
    #[error("the token's signature does not fit the key ({})", name(kid.as_ref()))]
    Signature {
        /// Key id the token names.
        kid: Option<String>,
    },
    /// It was valid once.
    #[error("the token has expired")]
    Expired,
    /// It would be valid for too long.
    #[error("the token lives for {seconds} s, allowed are {seconds_max} s: issue shorter ones")]
    LifetimeTooLong {
        /// From `iat`, or from now if that is later, to `exp`.
        seconds: u64,
        /// The limit.
        seconds_max: u64,
    },
    /// It was made for somebody else.
    #[error("the token's audience is not among client_auth.audience")]
    Audience,
    /// It was made by somebody else.
    #[error("the token's issuer is not among client_auth.issuer")]
    Issuer,
    /// The keys could not be fetched.
    #[error("no keys from {uri}: {cause}")]
    KeysUnavailable {
        /// From where.
        uri: String,
        /// Why not.
        cause: FetchError,
    },
}

fn name(kid: Option<&String>) -> String {
    kid.map_or_else(|| "no kid".to_owned(), |kid| format!("kid {kid:?}"))
}

impl AuthError {
    /// Stable across releases; listed in `docs/errors.md`.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Missing => "PSYNC_S2106",
            // One code for all that is found before a signature is known to be right, and for an issuer who has none:
            // whoever guesses learns nothing.
            Self::Malformed(_)
            | Self::UnknownAlgorithm { .. }
            | Self::UnknownKey { .. }
            | Self::OtherAlgorithm { .. }
            | Self::Signature { .. }
            | Self::Issuer => "PSYNC_S2101",
            Self::Expired => "PSYNC_S2103",
            Self::LifetimeTooLong { .. } => "PSYNC_S2104",
            Self::Audience => "PSYNC_S2105",
            Self::KeysUnavailable { cause: FetchError::Ipv6(_), .. } => "PSYNC_S2202",
            Self::KeysUnavailable { cause: FetchError::Rejected(_), .. } => "PSYNC_S2203",
            Self::KeysUnavailable { .. } => "PSYNC_S2204",
        }
    }
}
