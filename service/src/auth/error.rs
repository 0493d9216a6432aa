//! Why a request is not accepted.

use super::http::FetchError;

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
        /// The key with the id the token names; `None`: it was tried with keys that have none.
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
    /// Who was asked about the token did not say yes.
    #[error("{url} does not confirm the token: {answer}")]
    NotConfirmed {
        /// Who.
        url: String,
        /// What it said.
        answer: String,
    },
    /// It is not known what the answer about the token means.
    #[error("the answer of {url} does not say who the token is of: {problem}")]
    UselessAnswer {
        /// Whose.
        url: String,
        /// What it lacks.
        problem: String,
    },
    /// Who is to be asked about the token did not answer.
    #[error("{url} could not be asked about the token: {cause}")]
    NotAsked {
        /// Who.
        url: String,
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
            | Self::NotConfirmed { .. }
            | Self::Issuer => "PSYNC_S2101",
            Self::Expired => "PSYNC_S2103",
            Self::LifetimeTooLong { .. } => "PSYNC_S2104",
            Self::Audience => "PSYNC_S2105",
            Self::KeysUnavailable { cause: FetchError::Ipv6(_), .. } => "PSYNC_S2202",
            Self::KeysUnavailable { cause: FetchError::Rejected(_), .. } => "PSYNC_S2203",
            Self::KeysUnavailable { .. } => "PSYNC_S2204",
            Self::NotAsked { .. } => "AUTH-0101",
            Self::UselessAnswer { .. } => "AUTH-0102",
        }
    }

    /// Whether the same token may be accepted a moment later. Where keys are missing, clients of the PowerSync service
    /// know the answer as a refusal.
    pub const fn is_temporary(&self) -> bool {
        matches!(self, Self::NotAsked { .. })
    }

    /// Whether nothing was found out about the token, good or bad.
    pub const fn is_unknown(&self) -> bool {
        matches!(self, Self::NotAsked { .. } | Self::KeysUnavailable { .. })
    }

    /// Whether the token may be one that keys say nothing about.
    pub(super) const fn is_undecided(&self) -> bool {
        matches!(
            self,
            Self::Malformed(_)
                | Self::UnknownAlgorithm { .. }
                | Self::UnknownKey { .. }
                | Self::Signature { kid: None }
                | Self::KeysUnavailable { .. }
        )
    }
}
