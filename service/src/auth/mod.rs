//! Proofs of identity in, principals out.

pub mod principal;

pub use principal::Principal;
