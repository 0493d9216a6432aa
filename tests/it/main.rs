//! Kairos Sync against the real thing. One binary, so that tests share one throw-away Postgres server.

mod migrations;
mod official_client;
mod tidy;
mod write;
