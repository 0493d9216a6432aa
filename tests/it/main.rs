//! Kairos Sync against the real thing. One binary, so that tests share one throw-away Postgres server.

mod copies;
mod demo;
mod doctor;
mod faults;
mod kill;
mod liveness;
mod migrations;
mod official_client;
mod pooler;
mod replica;
mod replication;
mod rules_check;
mod slots;
mod source_setup;
mod streams;
mod tidy;
mod transactions;
mod types;
mod wal_budget;
mod write;
