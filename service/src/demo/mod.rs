//! The demo: a household in a throw-away Postgres, synced to devices.

pub mod cluster;
pub mod household;
pub mod process;
pub mod setup;
pub mod token;
