//! Integration tests.

mod migrations;
mod write;
