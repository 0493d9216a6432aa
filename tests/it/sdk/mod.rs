//! The official SDKs and ours against the service, on a real Postgres. What a device holds in the end is compared with SQL.

mod attention;
pub(crate) mod basics;
mod compaction;
mod conflicts;
mod deployments;
mod encodings;
mod gate;
mod interruptions;
mod isolation;
mod joiner;
mod priorities;
mod rates;
mod streams;
pub(crate) mod subscriptions;
mod tokens;
mod types;
mod volume;
mod web;
mod writers;
