//! Postgres is restarted in order, at once, or killed, while transactions run. Some of them are acknowledged before they
//! are flushed, and such a transaction may be lost: then nothing of it may be in the store.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use kairos_sync::{
    demo::cluster::PgCluster,
    storage::{SqliteOptions, SqliteStore},
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::{sync::watch, task::JoinHandle, time::sleep};
use tokio_postgres::Client;

use super::{acknowledged::slot_origin, checks::assert_equal, load::Load, number, seed, source};
use crate::replica::{Replica, connect};

/// Between two transactions of a session.
const LOAD_PAUSE: Duration = Duration::from_millis(10);
/// How long the processes of a killed server may take to end.
const RESTART_DEADLINE: Duration = Duration::from_secs(30);
const RESTART_POLL: Duration = Duration::from_millis(50);

/// The ways a server ends.
const ENDINGS: [&str; 3] = ["fast", "immediate", "SIGKILL"];

fn end(cluster: &PgCluster, ending: &str) {
    let ended = if ending == "SIGKILL" { cluster.kill() } else { cluster.stop(ending) };
    ended.unwrap_or_else(|error| panic!("{ending}: {error}"));
}

async fn start_again(cluster: &PgCluster) -> Client {
    let started = Instant::now();
    while let Err(error) = cluster.start_server() {
        assert!(started.elapsed() < RESTART_DEADLINE, "{error}");
        sleep(RESTART_POLL).await;
    }
    connect(cluster).await
}

/// A session that inserts a row per transaction and does not wait until it is flushed.
struct Careless {
    stop: watch::Sender<bool>,
    inserted: JoinHandle<u64>,
}

impl Careless {
    /// Its rows' ids begin with `prefix`, and nobody else touches them.
    async fn start(cluster: &PgCluster, prefix: String) -> Self {
        let client = connect(cluster).await;
        client.batch_execute("SET synchronous_commit = off").await.expect("a setting");
        let (stop, stopped) = watch::channel(false);
        let inserted = tokio::spawn(async move {
            let mut inserted = 0;
            while !*stopped.borrow() {
                let sql = format!("INSERT INTO items VALUES ('{prefix}{inserted}', 'careless')");
                if client.batch_execute(&sql).await.is_err() {
                    break;
                }
                inserted += 1;
                sleep(LOAD_PAUSE / 5).await;
            }
            inserted
        });
        Self { stop, inserted }
    }

    /// How many rows it was told to be there.
    async fn stop(self) -> u64 {
        self.stop.send_replace(true);
        self.inserted.await.expect("no panic")
    }
}

/// How many of the rows are there.
async fn count(client: &Client, prefix: &str) -> u64 {
    let sql = "SELECT count(*) FROM items WHERE starts_with(id, $1)";
    let count: i64 = client.query_one(sql, &[&prefix]).await.expect("a count").get(0);
    u64::try_from(count).expect("not negative")
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_ends_and_nothing_is_stored_that_it_did_not_keep() {
    let (seed, rounds) = (seed(), number("KAIROS_FAULT_ROUNDS", 6));
    let mut random = StdRng::seed_from_u64(seed);
    // Whoever does not wait is flushed late, unless another session flushes.
    let (cluster, mut client) = source(&[("wal_writer_delay", "5s"), ("bgwriter_lru_maxpages", "0")]).await;
    let folder = tempfile::tempdir().expect("a folder");
    let store = SqliteStore::open(folder.path(), SqliteOptions::default()).expect("a store");
    let replica = Replica::start_on(&cluster, Arc::new(store));
    replica.catch_up(&client).await;
    let origin = slot_origin(replica.store.as_ref());
    let (mut lost, mut slowest) = (0, Duration::ZERO);
    for (round, ending) in (0..rounds).zip(ENDINGS.into_iter().cycle()) {
        let context = format!("seed {seed}, round {round}, {ending}");
        let mut load =
            Some(Load::start(&cluster.uri("postgres", "postgres"), seed.wrapping_add(1_000 * round), 3, LOAD_PAUSE));
        // No hexadecimal digit, so that the load does not meet these rows.
        let prefix = format!("!{round}-");
        let careless = Careless::start(&cluster, prefix.clone()).await;
        sleep(Duration::from_millis(random.random_range(100..600))).await;
        if round % 2 == 0 {
            // Nobody flushes from here on.
            load.take().expect("it runs").stop().await;
            sleep(Duration::from_millis(random.random_range(20..200))).await;
        }
        end(&cluster, ending);
        let inserted = careless.stop().await;
        sleep(Duration::from_millis(random.random_range(0..400))).await;
        client = start_again(&cluster).await;
        let started = Instant::now();
        replica.catch_up(&client).await;
        slowest = slowest.max(started.elapsed());
        if let Some(load) = load {
            load.stop().await;
            replica.catch_up(&client).await;
        }
        let kept = count(&client, &prefix).await;
        lost += inserted.saturating_sub(kept);
        println!("{context}: {inserted} rows acknowledged, {kept} kept; caught up in {:?}", started.elapsed());
        assert_equal(&replica, &client, &context).await;
        assert_eq!(slot_origin(replica.store.as_ref()), origin, "{context}: the slot is still the same");
    }
    println!("{rounds} ends of the server, {lost} acknowledged rows lost by it; caught up in {slowest:?} at most");
    assert!(lost > 0 || rounds < 3, "a server that loses nothing proves nothing");
    replica.stop().await;
}
