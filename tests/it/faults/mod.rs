//! Replication under faults: whatever is killed, cut, torn or silenced, in the end everything equals SQL, and the source
//! was never told that something is durable which was not.
//!
//! Each test prints its seed at the start and names the round in which it failed. `KAIROS_FAULT_SEED=n` replays the
//! moments and the transactions of a run, as far as two processes and a server can be replayed; `KAIROS_FAULT_ROUNDS=n`
//! and `KAIROS_FAULT_ROWS=n` make the tests longer than they are in a run of all tests.

mod acknowledged;
mod checks;
mod damage;
mod deployments;
mod device;
mod disk;
mod killed;
mod load;
mod points;
mod postgres;
mod proxy;
mod snapshot;
mod stream;
mod uploads;

pub(crate) use self::{damage::damage, deployments::deploy};
use kairos_sync::demo::cluster::PgCluster;
use tokio_postgres::Client;

use crate::replica::{TABLES, source_with};

/// What moments and transactions are drawn from.
fn seed() -> u64 {
    let seed = number("KAIROS_FAULT_SEED", u64::from(std::process::id()));
    println!("KAIROS_FAULT_SEED={seed}");
    seed
}

pub(crate) fn number(variable: &str, default: u64) -> u64 {
    let text = std::env::var(variable).unwrap_or_default();
    if text.is_empty() { default } else { text.parse().unwrap_or_else(|_| panic!("{variable} is a number: {text}")) }
}

/// A server of the test's own, with its tables. Large transactions are sent in parts soon, where they are at all.
async fn source(settings: &[(&str, &str)]) -> (PgCluster, Client) {
    source_with(&[&[("logical_decoding_work_mem", "64kB")], settings].concat()).await
}

/// The same tables for a service with a database of its own.
fn service_schema() -> String {
    let publish = ["items", "habits", "completions"].map(|table| format!("SELECT kairos.publish_table('{table}');"));
    TABLES.to_owned() + &publish.concat()
}
