//! Tokens that only their issuer can check: the service shows them to it, and believes its answer for a short while.
//!
//! ```text
//! token ─► cache (pure) ─► one question at a time per token ─► provider ─► answer (pure) ─► identity
//! ```
//!
//! **Invariants**
//!
//! - Anything but a clear yes is no. An issuer that is not reached is neither: [`AuthError::NotAsked`].
//! - Of an answer nothing becomes a claim that the configuration does not name.
//! - A token is kept by its hash, and shown to nobody but the issuers that are configured.
//! - Questions under way, questions that wait and answers that are kept are bounded.
//!
//! Start reading at [`provider::Provider::ask`].

mod answer;
mod cache;
mod confirmation;
pub(super) mod provider;
mod template;
#[cfg(test)]
pub(super) mod test_issuer;

use std::time::Duration;

use reqwest::Method;

pub use self::{answer::AnswerRules, confirmation::Confirmation, template::Template};
#[cfg(doc)]
use super::AuthError;

/// For how long a yes is believed where nothing is configured.
pub const CACHE_DEFAULT: Duration = Duration::from_secs(30);
/// How long a question may take where nothing is configured.
pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);

/// How to ask one issuer about a token.
#[derive(Clone)]
pub struct Introspection {
    /// The address, `http` or `https`. A token in it is percent-encoded.
    pub url: Template,
    /// How it is asked.
    pub method: Method,
    /// A header's name and its value.
    pub header: Option<(String, Template)>,
    /// A body in the form of HTML forms. A token in it is percent-encoded.
    pub body: Option<Template>,
    /// What the answer must say.
    pub answer: AnswerRules,
    /// For how long a yes is believed: the time within which a revoked token is found out.
    pub keep_for: Duration,
    /// How long a question may take, the wait for its turn included.
    pub timeout: Duration,
}
