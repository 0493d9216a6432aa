//! A row that many others joined changes hands: all of them follow in one checkpoint, in bounded memory, and a kill on the
//! way loses nothing of it.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use kairos_sync::{
    migrate::Migrations,
    storage::{BucketStore, SqliteOptions, SqliteStore},
};
use kairos_sync_protocol::BucketName;
use kairos_tests::service::{PATIENCE, TestService};
use tokio::time::sleep;
use tokio_postgres::Client;

use crate::replica::{RULES, Replica, TABLES, run, source};

/// Rows that follow one. What they become fills several parts of a commit.
const CHILDREN: usize = 60_000;
/// What the service may hold for the parts it is storing, beyond what it held before. All at once they take some
/// 70 MiB.
const MEMORY_MAX: u64 = 50 << 20;
/// How much longer the service is left to itself after each kill, so that it gets on, however slow the machine is.
const KILL_LATER: Duration = Duration::from_millis(250);

fn give_to(user: &str) -> String {
    format!("UPDATE habits SET user_id = '{user}' WHERE id = 'h'")
}

fn rows(count: usize) -> String {
    format!(
        "INSERT INTO habits VALUES ('h', 'ann');
         INSERT INTO completions SELECT 'c' || n, 'h' FROM generate_series(1, {count}) n"
    )
}

/// How many operations two users have; `None` while nothing is visible.
fn operations(store: &dyn BucketStore, users: [&str; 2]) -> Option<[u64; 2]> {
    let view = store.view().expect("a view");
    view.checkpoint()?;
    Some(users.map(|user| {
        let bucket = BucketName::new(format!("{}user_data[\"{user}\"]", view.bucket_prefix()));
        view.bucket(&bucket).expect("totals").count
    }))
}

/// Ids of the completions a user is to have.
async fn completions_of(client: &Client, user: &str) -> BTreeSet<String> {
    let sql = "SELECT c.id FROM completions c JOIN habits h ON h.id = c.habit_id WHERE h.user_id = $1";
    client.query(sql, &[&user]).await.expect("answers").iter().map(|row| row.get(0)).collect()
}

/// Ids of the completions a user has.
fn ids(replica: &Replica, user: &str) -> BTreeSet<String> {
    let contents = replica.contents(&format!("user_data[\"{user}\"]"));
    contents.into_keys().filter(|(table, _)| table == "completions").map(|(_, id)| id).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn children_follow_their_parent_in_one_checkpoint() {
    let (cluster, client) = source().await;
    run(&client, &rows(CHILDREN)).await;
    let folder = tempfile::tempdir().expect("a folder");
    let store: Arc<dyn BucketStore> =
        Arc::new(SqliteStore::open(folder.path(), SqliteOptions::default()).expect("a store"));
    let replica = Replica::start_on(&cluster, Arc::clone(&store));
    replica.catch_up(&client).await;
    let all = CHILDREN as u64 + 1;
    assert_eq!(operations(store.as_ref(), ["ann", "ben"]), Some([all, 0]));

    run(&client, &give_to("ben")).await;
    let mut seen = BTreeSet::new();
    let started = Instant::now();
    while !seen.contains(&Some([2 * all, all])) {
        assert!(started.elapsed() < PATIENCE, "{seen:?}");
        seen.insert(operations(store.as_ref(), ["ann", "ben"]));
        sleep(Duration::from_millis(2)).await;
    }
    assert!(seen.remove(&None), "it was stored in parts: {seen:?}");
    let (before, after) = (Some([all, 0]), Some([2 * all, all]));
    assert!(seen.iter().all(|counts| [before, after].contains(counts)), "a part was seen: {seen:?}");
    replica.catch_up(&client).await;
    assert_eq!(ids(&replica, "ben"), completions_of(&client, "ben").await);
    assert_eq!(ids(&replica, "ann"), BTreeSet::new());
    replica.stop().await;
}

/// Gives the parent to a user, and waits until all is stored. Gives the most memory the service held meanwhile.
async fn watch_move(service: &TestService, user: &str) -> u64 {
    let metric = async || service.process.metric("powersync_transactions_replicated_total").await.expect("a number");
    let (mut peak, before, started) = (0, metric().await, Instant::now());
    run(&service.sql, &give_to(user)).await;
    while metric().await == before {
        assert!(started.elapsed() < PATIENCE, "{}", service.process.log_tail());
        peak = peak.max(service.process.resident_bytes().unwrap_or(0));
        sleep(Duration::from_millis(5)).await;
    }
    peak
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_bound_the_memory_and_a_kill_between_them_loses_nothing() {
    let fill = async |sql: &mut Client| {
        run(sql, TABLES).await;
        run(sql, &rows(CHILDREN)).await;
        run(sql, "ALTER PUBLICATION kairos_sync ADD TABLE items, habits, completions").await;
    };
    let mut service = TestService::prepare(Migrations::Service, RULES, fill).await;
    service.wait_until_ready().await;
    let before = service.process.resident_bytes().expect("a size");
    let peak = watch_move(&service, "ben").await;
    println!("{} MiB before, at most {} MiB", before >> 20, peak >> 20);
    assert!(peak < before + MEMORY_MAX, "{before} bytes before, {peak} meanwhile");

    let all = CHILDREN as u64 + 1;
    run(&service.sql, &give_to("cid")).await;
    let (mut parts, mut kills) = (0, 0);
    loop {
        sleep(kills * KILL_LATER).await;
        service.process.kill().expect("it runs");
        kills += 1;
        let store = SqliteStore::open(&service.data_dir, SqliteOptions::default()).expect("the store opens");
        match operations(&store, ["ben", "cid"]) {
            None => parts += 1,
            Some([ben, 0]) if ben == all => {}
            Some(counts) => {
                assert_eq!(counts, [2 * all, all], "a part is visible, or a row was moved twice");
                break;
            }
        }
        drop(store);
        assert!(kills < 100, "it does not get on");
        service.process.restart().await.expect("it starts again");
    }
    println!("{kills} kills, {parts} of them between parts");
    assert!(parts > 0, "no kill met the service between two parts");
}
