//! Postgres, as far as replication needs it: connections, the replication protocol, catalog, types.
//!
//! ```text
//! source (where) ─► dial (bytes, TLS) ─► startup (who) ┬► connect (SQL sessions) ─► preflight, catalog, type_catalog, copy
//!                                                      └► walsender (commands) ─► wal_stream (task) ─► pgoutput (messages)
//! text of a value, from snapshot or stream ─► value ─► SqlValue
//! ```
//!
//! **Invariants**
//!
//! - Knows no buckets, no rules, no store.
//! - Every session prints values in the same form, whatever the defaults of role and database are.
//! - Errors carry the server's message, never its detail; values appear in none of them.
//!
//! Start reading at [`source`], then [`walsender`].

pub mod blocker;
pub mod catalog;
mod channel_binding;
pub mod connect;
pub mod copy;
pub mod dial;
pub mod error;
mod frame;
mod handover;
pub mod membership;
pub mod pgoutput;
pub mod preflight;
pub mod slot;
pub mod source;
mod startup;
mod tls;
pub mod type_catalog;
mod uri;
pub mod value;
pub mod wal_stream;
pub mod walsender;

pub use error::{PgError, ServerError};
pub use source::{Failover, SnapshotOptions, SourceConfig, TlsMode};
