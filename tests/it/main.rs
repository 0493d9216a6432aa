//! Kairos Sync against the real thing. One binary, so that tests share one throw-away Postgres server.

mod connections;
mod copies;
mod demo;
mod doctor;
mod faults;
mod feedback;
mod identity;
mod kill;
mod liveness;
mod migrations;
mod partitions;
mod pooler;
mod publications;
mod replica;
mod replication;
mod rules_check;
mod sdk;
mod slots;
mod source_setup;
mod statements;
mod status;
mod tidy;
mod transactions;
mod types;
mod wal_budget;
mod write;
