//! Replication: from Postgres to operations in the bucket store.
//!
//! ```text
//! copy or stream ─► relations (which table, which columns) ─► apply (rules, row store, lookups) ─► one store commit
//!                                                                                     └─► durable position ─► slot
//! ```
//!
//! [`Replicator`] connects, settles what to go on from (`prepare`), then follows the stream (`stream`) while tables that
//! need it are copied (`copy`), and begins again when something fails. Large transactions come in parts while they run and
//! are put together first (`streamed`). `apply` turns one row change into operations; it
//! is pure over a store to read from.
//!
//! **Invariants**
//!
//! - The source is told to forget only what the store has made durable; the slot is never ahead of our own state.
//! - What becomes visible is whole source transactions, several if they come quickly; a very large one is stored in
//!   several commits, of which only the last is visible, and so is what a change means for very many joined rows
//!   (`unsettled`). At first nothing is visible before all tables are copied.
//! - Transactions are recognised by their commit position: what comes twice is applied once.
//! - What cannot be proven to continue correctly (slot, server, table changed) is copied again and compared with what is
//!   stored, so that clients get the differences.
//! - When the rules change, what is new is built from stored rows (`rebuild`) beside what is served, a page of them read
//!   while the one before is committed (`page`), and takes its place in one commit (`rollout`). Buckets that the disk has damaged are built from them, too (`mending`).
//! - Knows no clients and no HTTP, and not which store it writes to.
//!
//! Start reading at [`replicator`].

mod apply;
mod copy;
pub mod copy_status;
pub mod custom_write_checkpoints;
mod discontinuity;
mod error;
mod evaluated;
mod heartbeat;
mod image;
mod lookups;
mod mending;
mod page;
mod pending;
mod plans;
mod prepare;
mod rebuild;
mod relations;
pub mod replicator;
mod rollout;
mod row_store;
mod rows_dropped;
mod slot_creation;
mod state;
pub mod status;
mod stream;
mod streamed;
mod types;
mod unsettled;
mod verdict;
mod wal_budget;
mod work;

pub use copy_status::{CopyStage, CopyStatus};
pub use discontinuity::Discontinuity;
pub use error::ReplicationError;
pub use replicator::Replicator;
pub use row_store::{FoundRow, RowStore, StoredTable};
pub use status::{Phase, RebuildStatus, ReplicationStatus, StatusSnapshot};
pub use wal_budget::{Budget, SlotWal};
