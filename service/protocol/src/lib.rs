//! Wire types of the sync protocol, shared by the service and its clients.
//!
//! A client posts a [`request::SyncRequest`]; the service answers with a stream of [`line::SyncLine`]s, one JSON object
//! per line. Operations carry ids from one sequence ([`ids::OpId`]) and checksums that add up ([`checksum::Checksum`]).
//! Local writes go the other way as an [`upload::UploadBatch`].
//!
//! **Invariants**
//!
//! - Ids travel as decimal strings and fit a signed 64-bit integer, since clients parse them as one.
//! - Every line is an object with exactly one key; unknown fields inside are ignored by readers.
//! - Nothing here knows sockets, clocks, files or randomness.
//!
//! Start reading at [`line`].

pub mod bson;
pub mod checksum;
pub mod conflict;
pub mod ids;
pub mod line;
pub mod operation;
pub mod request;
pub mod stored_json;
pub mod upload;

pub use checksum::Checksum;
pub use ids::{BucketName, OpId, WriteCheckpointId};
