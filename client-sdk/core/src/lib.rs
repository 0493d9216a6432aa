//! The sync protocol as a state machine: events in, instructions out.
//!
//! A host (`download.rs` of the crate `kairos-client`) owns the socket, the database and the clock. It tells the
//! [`SyncMachine`] what happened as [`Event`]s, and performs the [`Instruction`]s it gets back, in order. Lines of a
//! stream become [`StoreStep`]s; what became of a [`StoreStep::Complete`] is reported back as an event.
//!
//! **Invariants**
//!
//! - No sockets, clock, database or randomness: a whole sync is a list of events in a test, also in a browser.
//! - A checkpoint is completed only after all lines that belong to it were handed to the store, in order.
//! - A checkpoint that local writes hold back is offered to the store again when the uploads are through, but only
//!   while no newer checkpoint line arrived: data of the newer one would spoil the checksums of the older.
//! - A line that breaks the protocol closes the stream; nothing of it reaches the store.
//!
//! Start reading at [`machine`].

pub mod event;
pub mod line;
pub mod machine;
pub mod progress;

pub use event::{BucketState, CloseReason, Completion, Event, Instruction, ProtocolError, Scope, StoreStep, Target};
pub use machine::SyncMachine;
pub use progress::{Download, Progress, StreamProgress};
