//! Self-hosted sync from Postgres to SQLite on devices, and back.
//!
//! The path of one changed row:
//!
//! ```text
//! Postgres WAL ─► postgres (bytes to changes) ─► replication (changes to operations, through the rules)
//!   ─► storage (durable) ─► sync::hub (who cares) ─► sync (one client's stream) ─► api (HTTP) ─► client
//! client write ─► api ─► write (policy, one Postgres transaction) ─► answer with write checkpoint
//! ```
//!
//! **Invariants**
//!
//! - Nothing is confirmed to Postgres or to a client before it is durable.
//! - Every queue has a bound; every external call has a deadline; no input panics.
//! - No row value and no secret in logs, errors or metric labels.
//! - Dependencies point one way: api → sync → storage; replication → storage, postgres; nothing back.
//!
//! Start reading at [`server`], where the parts are put together.

mod access_token;
pub mod admin;
pub mod admin_client;
pub mod api;
pub mod auth;
pub mod auth_check;
pub mod byte_size;
pub mod client_command;
pub mod commands;
pub mod config;
pub mod config_command;
pub mod copy_bars;
pub mod demo;
pub mod deployment;
pub mod doctor;
pub mod examples;
pub mod explain;
mod fault_point;
#[cfg(test)]
mod fuzz;
mod iso8601;
pub mod lsn;
pub mod metrics;
pub mod migrate;
pub mod migrate_command;
pub mod postgres;
pub mod rate_limit;
pub mod recent_events;
pub mod replication;
pub mod rules_check;
pub mod rules_explain;
pub mod rules_plan;
pub mod secret;
pub mod server;
pub mod service_status;
pub mod storage;
pub mod store_command;
pub mod sync;
pub mod teardown;
pub mod traces;
mod unambiguous_json;
pub mod write;
