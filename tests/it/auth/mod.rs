//! Signing in at a running service: which tokens it takes, where it gets keys from, and what attacks on its door do.

mod bodies;
mod check;
mod connections;
mod forged;
mod isolation;
mod issuer;
mod key_endpoint;
pub(crate) mod pocketbase;
mod rotation;
mod service;
