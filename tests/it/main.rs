//! Integration tests.

mod migrations;
mod replica;
mod replication;
mod source_setup;
