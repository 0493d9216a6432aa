//! Replication: from Postgres to operations in the bucket store.
//!
//! ```text
//! copy or stream ─► relations (which table, which columns) ─► apply (rules, row store, lookups) ─► one store commit
//!                                                                                     └─► durable position ─► slot
//! ```
//!
//! [`Replicator`] connects, decides between a fresh copy and resuming, copies tables (`snapshot`), then follows the
//! stream (`stream`), and begins again when something fails. `apply` turns one row change into operations; it is pure
//! over a store to read from.
//!
//! **Invariants**
//!
//! - The source is told to forget only what the store has made durable; the slot is never ahead of our own state.
//! - A store commit holds whole source transactions, several if they come quickly; it becomes visible only once the
//!   stream has passed the position at which the last table was copied.
//! - Transactions are recognised by their commit position: what comes twice is applied once.
//! - Whatever cannot be proven to continue correctly (slot, server, tables, rules changed) is copied afresh.
//! - Knows no clients and no HTTP, and not which store it writes to.
//!
//! Start reading at [`replicator`].

mod apply;
mod error;
mod image;
mod lookups;
mod pending;
mod prepare;
mod relations;
pub mod replicator;
mod snapshot;
mod state;
pub mod status;
mod stream;
mod types;

pub use error::ReplicationError;
pub use replicator::Replicator;
pub use status::{Phase, ReplicationStatus, StatusSnapshot};
