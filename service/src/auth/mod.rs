//! Proofs of identity in, principals out.
//!
//! A request's `Authorization` header goes to [`Authenticator::authenticate`]. It takes the token out, finds the key
//! ([`jwks`]: given in the configuration; [`remote`]: fetched and cached), and lets [`jwt`] (pure) check the rest.
//!
//! **Invariants**
//!
//! - The algorithm comes from the key, never from the token: no `none`, no public key used as a shared secret.
//! - A refused client learns a code and nothing else; what exactly is wrong goes to the log, without the token.
//! - A flood of unknown key ids causes at most one fetch per half minute; keys already known keep working meanwhile.
//!
//! Start reading at [`Authenticator`].

mod authenticator;
mod error;
pub mod jwks;
pub mod jwt;
pub mod principal;
pub mod remote;

#[cfg(test)]
pub(crate) mod test_keys;

pub use authenticator::{AuthConfig, Authenticator};
pub use error::AuthError;
pub use principal::Principal;
