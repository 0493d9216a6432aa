//! Where keys come from, and what tokens signed with them must say.

use std::{sync::Arc, time::Duration};

use super::{address::AddressRules, introspection::Introspection, jwks::Key};

/// Tokens that live longer are refused, as clients expect of the PowerSync service.
pub const LIFETIME_MAX: Duration = Duration::from_hours(24);

/// What tokens must say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRules {
    /// One of these must be in `aud`; with none here, no token is accepted.
    pub audience: Vec<String>,
    /// One of these must be `iss`; with none here, `iss` is not looked at.
    pub issuer: Vec<String>,
    /// The longest time from `iat` to `exp`.
    pub lifetime_max: Duration,
}

impl Default for TokenRules {
    fn default() -> Self {
        Self { audience: Vec::new(), issuer: Vec::new(), lifetime_max: LIFETIME_MAX }
    }
}

/// Keys from one place. Each place has rules of its own: one issuer's key proves nothing about another's users.
#[derive(Clone)]
pub struct KeySource {
    /// Where the keys are.
    pub keys: KeyOrigin,
    /// What tokens signed with them must say.
    pub rules: TokenRules,
}

/// Where keys are.
#[derive(Clone)]
pub enum KeyOrigin {
    /// In the configuration.
    Given(Vec<Key>),
    /// At this address, `http` or `https`.
    Fetched(String),
}

/// Whose tokens are accepted.
#[derive(Clone, Default)]
pub struct AuthConfig {
    /// Where keys come from. The first key with the id that a token names counts, so the order matters.
    pub sources: Vec<KeySource>,
    /// Who is asked about tokens that no key is for, in this order.
    pub introspections: Vec<Introspection>,
    /// Where keys may be fetched from, and who may be asked.
    pub addresses: AddressRules,
}

/// Keys that are at hand.
#[derive(Clone, Default)]
pub struct KeySet {
    /// Keys that verify tokens.
    pub keys: Vec<Key>,
    /// Why others that were found are not used, each with its name.
    pub left_out: Vec<String>,
}

/// The keys of a source, by its position in [`AuthConfig::sources`].
pub(super) type SourceKeys = (usize, Arc<KeySet>);
