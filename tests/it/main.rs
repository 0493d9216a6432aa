//! Kairos Sync against the real thing. One binary, so that tests share one throw-away Postgres server.

mod copies;
mod demo;
mod doctor;
mod feedback;
mod identity;
mod kill;
mod migrations;
mod official_client;
mod partitions;
mod publications;
mod replica;
mod replication;
mod rules_check;
mod source_setup;
mod statements;
mod streams;
mod tidy;
mod types;
mod write;
