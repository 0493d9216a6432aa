//! What clients get: checkpoints, the operations that lead to them, and write checkpoints.
//!
//! A commit of the store reaches [`hub::Hub::publish`], which tells the connections that hold something of it how it
//! grew. Each [`session::Session`] then knows its new state, or reads it from one consistent view where it must resolve
//! again; lets [`checkpoint_state`] (pure) decide which line says what changed; and sends `data` lines, which are read,
//! encoded and compressed once for all who need them, while the socket takes them.
//!
//! **Invariants**
//!
//! - A session registers in the hub before it reads its first state, so that no commit falls between the two.
//! - A checkpoint is announced only from one consistent view, with every bucket the connection holds as of that view.
//! - A write checkpoint is announced only with a state at or beyond the source position it was asked for at.
//! - Nothing queues up: what changed is a set of flags per connection, bounded by the buckets it holds.
//! - Neither the source database nor HTTP is known here.
//!
//! Start reading at [`session`].

pub mod checkpoint_state;
pub mod compression;
pub mod connections;
mod error;
mod holders;
pub mod hub;
pub mod line;
mod observe;
mod ranges;
mod revocation;
pub mod session;
#[cfg(test)]
mod simulation;
#[cfg(test)]
pub(crate) mod test_lookups;
mod token_clock;
pub mod write_checkpoint;
mod zstd_blocks;

pub use compression::Compression;
pub use connections::{Carrier, Connections, DeviceInfo};
pub use error::SyncError;
pub use hub::Hub;
pub use line::LineForm;
pub use ranges::{Line, Packaging};
pub use session::{ClientRequest, Session, Step, SyncContext, SyncLimits};
pub use write_checkpoint::{HeadUnavailable, SourceHead, WriteCheckpoints};
