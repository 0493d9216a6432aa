//! Proofs of identity in, principals out.
//!
//! A request's `Authorization` header goes to [`Authenticator::authenticate`]. It takes the token out, finds the key
//! ([`jwks`]: given in the configuration; `remote`: fetched and cached), and lets [`jwt`] (pure) check the rest by the rules
//! of the source that the key is from ([`KeySource`]). A token that no key is for is shown to those who may know it
//! ([`introspection`]).
//!
//! **Invariants**
//!
//! - The algorithm comes from the key, never from the token: no `none`, no public key used as a shared secret.
//! - A refused client learns a code and nothing else; what exactly is wrong goes to the log, without the token.
//! - Keys come from where the configuration says, never from where a token says; `address` is about where that may be.
//! - Only a clear yes of a provider is one, and it holds for a short, configured time.
//! - A flood of unknown key ids causes at most one fetch per half minute; keys already known keep working meanwhile.
//!
//! Start reading at [`Authenticator`].

pub mod address;
mod api_tokens;
mod authenticator;
mod error;
mod fetch;
mod http;
pub mod introspection;
pub mod jwks;
pub mod jwt;
mod key_cache;
pub mod preset;
pub mod principal;
mod remote;
mod source;

#[cfg(test)]
pub(crate) mod test_keys;

pub use api_tokens::{ApiTokenError, ApiTokens};
pub use authenticator::{Authenticator, Examined};
pub use error::AuthError;
pub use http::FetchError;
pub use principal::Principal;
pub use source::{AuthConfig, KeyOrigin, KeySet, KeySource, LIFETIME_MAX, TokenRules};
