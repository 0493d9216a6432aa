//! What the integration tests share: a service on a database of its own, clients, and a checker that speaks only SQL.
//!
//! Each test gets its own database and service process on one shared throw-away Postgres server, so tests run side by
//! side. The checker compares a client's SQLite file with SQL on Postgres and uses no code of the product.
//!
//! Start reading at [`service::TestService`].

pub mod browser;
pub mod driver;
pub mod official;
pub mod service;
pub mod web_client;
