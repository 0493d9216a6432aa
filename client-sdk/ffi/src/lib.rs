//! The client for Kotlin, Swift and Python, by way of uniffi: the calls of `kairos-client`, with values as JSON.
//!
//! Calls that reach for the disk are asynchronous in the language, too; they run on threads of the library's own. What the
//! app implements ([`connector::TokenProvider`], listeners) is called on those threads and may block.
//!
//! **Invariants**
//!
//! - No call panics; whatever fails is a [`error::KairosError`] with the code of `docs/errors.md`.
//! - Dropping a [`client::KairosClient`], a watch or a subscription ends what it began.
//!
//! Start reading at [`client`].

pub mod client;
pub mod connector;
pub mod error;
mod runtime;
pub mod schema;
pub mod status;
pub mod subscription;
mod values;
pub mod watch;
pub mod writes;

uniffi::setup_scaffolding!("kairos");
