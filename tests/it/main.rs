//! Integration tests.

mod migrations;
mod replica;
mod replication;
