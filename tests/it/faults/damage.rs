//! Bits that the disk did not keep, in the files of a real service: devices get what SQL says all the same.

use std::{
    fs::{self, OpenOptions},
    os::unix::fs::FileExt,
    path::PathBuf,
    process::Command,
    time::Duration,
};

use kairos_tests::service::{TestService, eventually, service_binary};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use rusqlite::{Connection, OpenFlags, Params};
use serde_json::Value;

use super::{device::Devices, load::Load, seed, service_schema};
use crate::replica::RULES;

const LOAD_PAUSE: Duration = Duration::from_millis(20);
/// Devices without optimisation download all more than once.
const PATIENCE: Duration = Duration::from_mins(5);
/// More than a reader of the store keeps in memory.
const ROWS: &str = "
    INSERT INTO items SELECT 'i' || n, 'first', string_agg(md5((n * 100 + m)::text), '')
      FROM generate_series(1, 3000) n, generate_series(1, 30) m GROUP BY n;
    INSERT INTO habits SELECT 'h' || n, (ARRAY['ada', 'bob', 'cyd', 'dan'])[1 + n % 4] FROM generate_series(1, 400) n;
    INSERT INTO completions SELECT 'c' || n, 'h' || 1 + n % 400 FROM generate_series(1, 4000) n;";

fn file(service: &TestService) -> PathBuf {
    service.data_dir.join("buckets.sqlite3")
}

/// Flips a bit in some chunks of the buckets with such names, where the file has their content. How many.
pub(crate) fn damage(service: &TestService, names: &str, chunk_count: u32, random: &mut StdRng) -> usize {
    let sql =
        "SELECT block FROM chunk JOIN bucket ON bucket.id = bucket_id WHERE name LIKE ?1 ORDER BY random() LIMIT ?2";
    flip(service, sql, (names, chunk_count), random)
}

/// Flips a bit in what a query gives. How many that were.
fn flip(service: &TestService, sql: &str, parameters: impl Params, random: &mut StdRng) -> usize {
    let conn = Connection::open_with_flags(file(service), OpenFlags::SQLITE_OPEN_READ_ONLY).expect("it is SQLite");
    let mut statement = conn.prepare(sql).expect("SQL");
    let blocks = statement.query_map(parameters, |row| row.get(0)).expect("blocks");
    let blocks: Vec<Vec<u8>> = blocks.map(|block| block.expect("a block")).collect();
    let bytes = fs::read(file(service)).expect("readable");
    // Pages that are free may have it, too.
    let has = |block: &&Vec<u8>, at: usize| bytes[at..].starts_with(&block[..64]);
    let places = |block| (0..bytes.len() - 64).filter(move |at| has(&block, *at));
    let places: Vec<_> = blocks.iter().flat_map(places).collect();
    let opened = OpenOptions::new().read(true).write(true).open(file(service)).expect("writable");
    let mut flipped = 0;
    for place in places {
        let mut now = [0; 64];
        opened.read_exact_at(&mut now, place as u64).expect("readable");
        // A service that runs may have written something else there since.
        if now == bytes[place..place + 64] {
            let (at, bit) = (random.random_range(8..64), 1 << random.random_range(0..8));
            opened.write_all_at(&[now[at] ^ bit], (place + at) as u64).expect("written");
            flipped += 1;
        }
    }
    assert!(flipped > 0, "they are in the file");
    blocks.len()
}

/// Flips a bit in some blocks of rows, where the file has their content.
pub(crate) fn damage_rows(service: &TestService, block_count: u32, random: &mut StdRng) {
    flip(
        service,
        "SELECT block FROM row_block WHERE length(block) > 64 ORDER BY random() LIMIT ?1",
        [block_count],
        random,
    );
}

async fn metric(service: &TestService, name: &str) -> u64 {
    service.process.metric(name).await.unwrap_or_default()
}

/// What a command of `kairos-sync store` says of the store: its exit code and its text.
fn store(service: &TestService, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(service_binary());
    let command = command.arg("store").args(arguments).arg("--data-dir").arg(&service.data_dir);
    let output = command.output().expect("it runs");
    (output.status.code(), String::from_utf8(output.stdout).expect("text"))
}

/// Ends the service, whose store has nothing that is damaged.
async fn ends_whole(service: &mut TestService) {
    service.process.terminate().await.expect("it ends");
    let (code, said) = store(service, &["verify"]);
    assert_eq!(code, Some(0), "{said}");
}

/// A service with rows, of which all is in the file itself, and devices that have them.
async fn service() -> (TestService, Devices) {
    let mut service = TestService::start(&(service_schema() + ROWS), RULES).await;
    service.wait_until_ready().await;
    let devices = Devices::open(&service, "device").await;
    devices.wait_until_equal(&service, PATIENCE, "at first").await;
    service.process.terminate().await.expect("it ends");
    (service, devices)
}

#[tokio::test(flavor = "multi_thread")]
async fn buckets_that_were_damaged_while_the_service_was_stopped_are_built_again() {
    let mut random = StdRng::seed_from_u64(seed());
    let (mut service, devices) = service().await;
    damage(&service, "%everything[]", 3, &mut random);
    damage(&service, "%user_data[\"ada\"]", 1, &mut random);
    let (code, said) = store(&service, &["verify"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("in a bucket of everything\n") && said.contains("in a bucket of user_data\n"), "{said}");
    assert!(said.contains("2 damages") && said.contains("builds these buckets again"), "{said}");
    service.process.restart().await.expect("it starts");
    let load = Load::start(&service.cluster.uri("postgres", &service.database), 1, 2, LOAD_PAUSE);
    // They need every bucket, and so find what is damaged.
    let fresh = Devices::open(&service, "fresh").await;
    eventually(2, || metric(&service, "kairos_store_mended_buckets_total")).await;
    load.stop().await;
    fresh.wait_until_equal(&service, PATIENCE, "new devices").await;
    devices.wait_until_equal(&service, PATIENCE, "devices of before").await;
    assert_eq!(metric(&service, "kairos_store_damaged_buckets").await, 0);
    let log = service.process.log_tail();
    assert!(!log.contains("\"ada") && !log.contains("\"bob"), "names of buckets hold values: {log}");
    ends_whole(&mut service).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_is_damaged_while_the_service_runs_is_built_again_also_after_a_kill() {
    let mut random = StdRng::seed_from_u64(seed());
    let (mut service, devices) = service().await;
    service.process.restart().await.expect("it starts");
    service.wait_until_ready().await;
    damage(&service, "%everything[]", 1_000, &mut random);
    let fresh = Devices::open(&service, "fresh").await;
    // In the middle of it, perhaps.
    eventually(true, async || {
        metric(&service, "kairos_store_damaged_buckets").await > 0
            || metric(&service, "kairos_store_mended_buckets_total").await > 0
    })
    .await;
    service.process.kill().expect("it runs");
    service.process.restart().await.expect("it starts");
    fresh.wait_until_equal(&service, PATIENCE, "new devices").await;
    devices.wait_until_equal(&service, PATIENCE, "devices of before").await;
    eventually(0, || metric(&service, "kairos_store_damaged_buckets")).await;
}

/// The definitions that `/status` names, with how many buckets of each.
async fn damaged(service: &TestService) -> Vec<(String, u64)> {
    let status = service.process.get("/status").await.expect("an answer");
    let status: Value = serde_json::from_str(&status).expect("JSON");
    let definitions = status["damages"]["definitions"].as_array().cloned().unwrap_or_default();
    let told = |one: &Value| (one["definition"].as_str().expect("text").to_owned(), one["bucket_count"].as_u64());
    definitions.iter().map(told).map(|(name, count)| (name, count.expect("a number"))).collect()
}

/// While the source is away nothing is built again, so that there is time to look.
#[tokio::test(flavor = "multi_thread")]
async fn damaged_buckets_are_told_to_operators_by_definition_until_they_are_whole() {
    let mut random = StdRng::seed_from_u64(seed());
    let mut service = TestService::start_alone(&(service_schema() + ROWS), RULES).await;
    service.wait_until_ready().await;
    eventually(0, || metric(&service, "kairos_copy_bytes_left")).await;
    service.process.terminate().await.expect("it ends");
    service.cluster.stop("fast").expect("it stops");
    damage(&service, "%everything[]", 3, &mut random);
    damage(&service, "%user_data[\"ada\"]", 1, &mut random);
    damage(&service, "%user_data[\"bob\"]", 1, &mut random);
    service.process.restart().await.expect("it starts");
    let expected = vec![("everything".to_owned(), 1), ("user_data".to_owned(), 2)];
    eventually(expected, || damaged(&service)).await;
    let mut command = Command::new(service_binary());
    let status = command.args(["status", "--url", service.process.endpoint()]).output().expect("it runs");
    let said = String::from_utf8(status.stdout).expect("text");
    for told in ["everything: 1, of which 0 are being built again", "user_data: 2, of which 0 are being built again"] {
        assert!(said.contains(&format!("  damaged buckets of {told}\n")), "{said}");
    }
    let all = service.process.get("/status").await.expect("an answer") + &said;
    assert!(!all.contains("ada") && !all.contains("bob"), "names of buckets hold values: {all}");
    service.cluster.start_server().expect("it starts");
    eventually(Vec::new(), || damaged(&service)).await;
    eventually(3, || metric(&service, "kairos_store_mended_buckets_total")).await;
}

/// Of rows that are lost, some are changed and some deleted before anything is known of them again.
#[tokio::test(flavor = "multi_thread")]
async fn rows_that_were_damaged_while_the_service_was_stopped_are_copied_again() {
    let mut random = StdRng::seed_from_u64(seed());
    let (mut service, devices) = service().await;
    damage_rows(&service, 1, &mut random);
    let (code, said) = store(&service, &["verify"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("a block of rows cannot be read") && said.contains("copies the tables of these rows"),
        "{said}"
    );
    let changes = "UPDATE items SET title = 'changed' WHERE hashtext(id) % 3 = 0;
                   DELETE FROM items WHERE hashtext(id) % 3 = 1; DELETE FROM habits WHERE hashtext(id) % 3 = 1;
                   UPDATE habits SET user_id = 'dan' WHERE hashtext(id) % 7 = 0;
                   DELETE FROM completions WHERE hashtext(id) % 3 = 1";
    service.sql.batch_execute(changes).await.expect("changes");
    service.process.restart().await.expect("it starts");
    let load = Load::start(&service.cluster.uri("postgres", &service.database), 1, 2, LOAD_PAUSE);
    eventually(1, || metric(&service, "kairos_store_dropped_row_blocks_total")).await;
    eventually(1, || metric(&service, "kairos_rules_deployment")).await;
    load.stop().await;
    devices.wait_until_equal(&service, PATIENCE, "devices of before").await;
    let fresh = Devices::open(&service, "fresh").await;
    fresh.wait_until_equal(&service, PATIENCE, "new devices").await;
    assert_eq!(metric(&service, "kairos_store_damaged_rows").await, 0);
    ends_whole(&mut service).await;
}

/// A disk that goes on changing what it has must not keep the source busy.
#[tokio::test(flavor = "multi_thread")]
async fn rows_that_are_damaged_again_soon_wait_and_operators_are_told() {
    let mut random = StdRng::seed_from_u64(seed());
    let (mut service, devices) = service().await;
    damage_rows(&service, 1, &mut random);
    service.process.restart().await.expect("it starts");
    let load = Load::start(&service.cluster.uri("postgres", &service.database), 1, 2, LOAD_PAUSE);
    eventually(1, || metric(&service, "kairos_store_dropped_row_blocks_total")).await;
    eventually(1, || metric(&service, "kairos_rules_deployment")).await;
    load.stop().await;
    // Enough of them for a run: what was built anew is in memory still.
    let rows = "INSERT INTO items SELECT 'm' || n, 'more', string_agg(md5((n * 100 + m)::text), '')
                  FROM generate_series(1, 4000) n, generate_series(1, 30) m GROUP BY n";
    service.sql.batch_execute(rows).await.expect("inserts");
    devices.wait_until_equal(&service, PATIENCE, "with more rows").await;
    // By SQLite, so that nobody has pages of before in memory.
    let conn = Connection::open(file(&service)).expect("it is SQLite");
    conn.busy_timeout(PATIENCE).expect("a setting");
    conn.execute("UPDATE row_block SET block = zeroblob(length(block))", []).expect("SQL");
    drop(conn);
    let error = async || {
        let status = service.process.get("/status").await.expect("an answer");
        let status: Value = serde_json::from_str(&status).expect("JSON");
        status["replication"]["error"].as_str().unwrap_or_default().to_owned()
    };
    service.sql.batch_execute("UPDATE items SET title = 'changed again'").await.expect("changes");
    eventually("REPL-0110".to_owned(), error).await;
    assert_eq!(metric(&service, "kairos_store_damaged_rows").await, 1);
    assert_eq!(metric(&service, "kairos_store_dropped_row_blocks_total").await, 1, "nothing else was dropped");
    let mut command = Command::new(service_binary());
    let status = command.args(["status", "--url", service.process.endpoint()]).output().expect("it runs");
    let said = String::from_utf8(status.stdout).expect("text");
    assert!(said.contains("REPL-0110") && said.contains("stored rows are damaged (STORE-0109)"), "{said}");
    let log = service.process.log_tail();
    assert!(log.contains("REPL-0110") && log.contains("check the disk; their tables are copied again in "), "{log}");
}

/// The scrub of the start may be past them already; who needs such a row finds it.
#[tokio::test(flavor = "multi_thread")]
async fn rows_that_are_damaged_while_the_service_runs_are_copied_again_also_after_a_kill() {
    let mut random = StdRng::seed_from_u64(seed());
    let (mut service, devices) = service().await;
    service.process.restart().await.expect("it starts");
    service.wait_until_ready().await;
    damage_rows(&service, 8, &mut random);
    let load = Load::start(&service.cluster.uri("postgres", &service.database), 1, 2, LOAD_PAUSE);
    // In the middle of it, perhaps.
    eventually(true, async || {
        metric(&service, "kairos_store_damaged_rows").await > 0
            || metric(&service, "kairos_store_dropped_row_blocks_total").await > 0
    })
    .await;
    service.process.kill().expect("it runs");
    service.process.restart().await.expect("it starts");
    eventually(true, async || metric(&service, "kairos_rules_deployment").await > 0).await;
    load.stop().await;
    devices.wait_until_equal(&service, PATIENCE, "devices of before").await;
    let fresh = Devices::open(&service, "fresh").await;
    fresh.wait_until_equal(&service, PATIENCE, "new devices").await;
    ends_whole(&mut service).await;
}

/// A statement that changes one record of a store that nobody has open.
fn change(service: &TestService, sql: &str) {
    let conn = Connection::open(file(service)).expect("it is SQLite");
    assert_eq!(conn.execute(sql, []).expect("SQL"), 1);
}

/// Where it is not known which rows there are all of them are copied again. Filters cost nobody anything.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_list_of_rows_or_a_filter_is_mended() {
    let (mut service, devices) = service().await;
    change(
        &service,
        "UPDATE row_filter SET words = zeroblob(length(words)) WHERE run_id = (SELECT max(id) FROM row_run)",
    );
    let (code, said) = store(&service, &["verify"]);
    assert!(code == Some(1) && said.contains("[STORE-0110]") && said.contains("makes these filters again"), "{said}");
    service.process.restart().await.expect("it starts");
    devices.wait_until_equal(&service, PATIENCE, "with a damaged filter").await;
    assert_eq!(metric(&service, "kairos_store_damaged_rows").await, 0);
    service.process.terminate().await.expect("it ends");
    change(&service, "UPDATE row_run SET sum = sum + 1 WHERE id = (SELECT max(id) FROM row_run)");
    let (code, said) = store(&service, &["verify"]);
    assert!(code == Some(1) && said.contains("a run of rows contradicts its sum"), "{said}");
    assert!(said.contains("copies the tables of these rows"), "{said}");
    let changes = "UPDATE items SET title = 'changed' WHERE hashtext(id) % 3 = 0;
                   DELETE FROM items WHERE hashtext(id) % 3 = 1; DELETE FROM habits WHERE hashtext(id) % 3 = 1;
                   UPDATE habits SET user_id = 'dan' WHERE hashtext(id) % 7 = 0";
    service.sql.batch_execute(changes).await.expect("changes");
    service.process.restart().await.expect("it starts");
    let load = Load::start(&service.cluster.uri("postgres", &service.database), 1, 2, LOAD_PAUSE);
    eventually(1, || metric(&service, "kairos_rules_deployment")).await;
    load.stop().await;
    assert!(metric(&service, "kairos_store_dropped_row_blocks_total").await > 1, "all blocks are dropped");
    devices.wait_until_equal(&service, PATIENCE, "devices of before").await;
    let fresh = Devices::open(&service, "fresh").await;
    fresh.wait_until_equal(&service, PATIENCE, "new devices").await;
    assert_eq!(metric(&service, "kairos_store_damaged_rows").await, 0);
    ends_whole(&mut service).await;
}

/// What is damaged beside buckets and rows cannot be mended alone: it has a name, and so has what mends it.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_list_of_buckets_is_named_and_a_deleted_store_is_built_again() {
    let (mut service, devices) = service().await;
    change(&service, "UPDATE bucket SET sum = sum + 1 WHERE id = (SELECT max(id) FROM bucket)");
    let (code, said) = store(&service, &["verify"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("a bucket contradicts its sum") && said.contains("`kairos-sync store delete --yes`"),
        "{said}"
    );
    let (code, said) = store(&service, &["delete"]);
    assert!(code == Some(0) && said.contains("would be deleted") && file(&service).exists(), "{said}");
    let (code, said) = store(&service, &["delete", "--yes"]);
    assert!(code == Some(0) && said.contains("is deleted") && !file(&service).exists(), "{said}");
    service.process.restart().await.expect("it starts");
    devices.wait_until_equal(&service, PATIENCE, "devices of before").await;
}
