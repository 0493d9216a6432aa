//! Tokens for administration: opaque texts from the configuration.

use sha2::{Digest, Sha256};

use super::jwt::extract;
use crate::secret::Secret;

/// The tokens of operators. Only hashes are kept: what is compared says nothing about a token, and neither does how long
/// the comparison takes.
#[derive(Debug, Clone, Default)]
pub struct ApiTokens {
    hashes: Vec<[u8; 32]>,
}

/// Why a request may not administrate. The message is for the log; clients get the code only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ApiTokenError {
    /// Nobody may.
    #[error("no token for administration is configured: set `api.tokens`, or KAIROS_ADMIN_TOKEN")]
    NoneConfigured,
    /// No token, or another one.
    #[error("the header shows no token of `api.tokens`: send `Authorization: Token <token>`")]
    Unknown,
}

impl ApiTokenError {
    /// Stable across releases; listed in `docs/errors.md`. One for all: whoever guesses learns nothing.
    pub const fn code(self) -> &'static str {
        "PSYNC_S2101"
    }
}

impl ApiTokens {
    /// Accepts these, and nobody where there are none.
    pub fn new(tokens: &[Secret]) -> Self {
        Self { hashes: tokens.iter().map(|token| hash(token.reveal())).collect() }
    }

    /// Whether the `Authorization` header shows one of them.
    ///
    /// # Errors
    /// Why not; the message is for the log only.
    pub fn check(&self, header: Option<&str>) -> Result<(), ApiTokenError> {
        if self.hashes.is_empty() {
            return Err(ApiTokenError::NoneConfigured);
        }
        let shown = hash(extract(header).map_err(|_| ApiTokenError::Unknown)?);
        // All are compared, and each to its end.
        let is_known = self.hashes.iter().fold(false, |found, known| found | is_same(known, &shown));
        if is_known { Ok(()) } else { Err(ApiTokenError::Unknown) }
    }
}

fn hash(token: &str) -> [u8; 32] {
    Sha256::digest(token).into()
}

fn is_same(one: &[u8; 32], other: &[u8; 32]) -> bool {
    one.iter().zip(other).fold(0, |difference, (one, other)| difference | (one ^ other)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_configured_token_is_accepted_in_both_forms_of_the_header() {
        let tokens = ApiTokens::new(&["first", "second"].map(Secret::new));
        for header in ["Token first", "Bearer first", "Token second"] {
            assert_eq!(tokens.check(Some(header)), Ok(()), "{header}");
        }
        for header in
            [None, Some("first"), Some("Token "), Some("Token firs"), Some("Token firsts"), Some("Basic first")]
        {
            assert_eq!(tokens.check(header), Err(ApiTokenError::Unknown), "{header:?}");
        }
    }

    #[test]
    fn without_a_configured_token_nobody_is_accepted() {
        assert_eq!(ApiTokens::new(&[]).check(Some("Token ")), Err(ApiTokenError::NoneConfigured));
        assert_eq!(ApiTokens::new(&[]).check(Some("Token x")), Err(ApiTokenError::NoneConfigured));
    }

    #[test]
    fn no_token_is_printed() {
        assert!(!format!("{:?}", ApiTokens::new(&[Secret::new("let-me-in")])).contains("let-me-in"));
    }
}
