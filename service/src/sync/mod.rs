//! What clients get: checkpoints, the operations that lead to them, and write checkpoints.
//!
//! A commit of the store reaches [`hub::Hub::publish`], which wakes the connections that hold something of it. Each
//! [`session::Session`] then reads one consistent view, lets [`checkpoint_state`] (pure) decide which line says what
//! changed, and copies operations from the store into `data` lines while the socket takes them.
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
mod error;
pub mod hub;
pub mod lines;
mod observe;
pub mod session;
mod token_clock;
pub mod write_checkpoint;

pub use error::SyncError;
pub use hub::Hub;
pub use session::{ClientRequest, Session, SyncContext, SyncLimits};
pub use write_checkpoint::{HeadUnavailable, SourceHead, WriteCheckpoints, write_checkpoint_key};
