//! The demo: a household in a throw-away Postgres, synced to devices.

pub mod checks;
pub mod cluster;
pub mod household;
pub mod oracle;
pub mod page;
pub mod process;
pub mod screen;
pub mod setup;
pub mod token;
