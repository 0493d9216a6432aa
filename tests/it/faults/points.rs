//! The service ends at each of its fault points, several times. Needs a binary of its own, so only with
//! `KAIROS_FAULT_POINTS=1`, or `KAIROS_FAULT_POINTS=store.,upload.` for those whose names begin so.

use std::{
    fs,
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use kairos_sync::migrate::Migrations;
use kairos_tests::service::{TestService, connect};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::{task::JoinHandle, time::sleep};

use super::{
    acknowledged::Watch,
    damage::{damage, damage_rows},
    deployments::{deploy, variants},
    device::Devices,
    load::Load,
    number, seed, service_schema,
    uploads::{EFFECTS, Uploads, writable},
};
use crate::{
    replica::RULES,
    tidy::{root, rust_files},
};

/// Between two transactions of a session.
const LOAD_PAUSE: Duration = Duration::from_millis(20);
/// Between two pairs of large transactions: the service must keep up, or its copies wait for ever.
const MUCH_PAUSE: Duration = Duration::from_secs(6);
/// Between two deployments.
const RULES_PAUSE: Duration = Duration::from_secs(30);
/// How long it may take until the point is passed, and until everything is equal afterwards.
const PATIENCE: Duration = Duration::from_mins(5);
const POLL: Duration = Duration::from_millis(20);

/// A binary that has the points, in a folder of its own so that the usual one stays as it is. With optimisation: it must
/// keep up with the load, whatever else the machine does.
fn build() -> PathBuf {
    let folder = root().join("target/fault-points");
    let mut command = Command::new(env!("CARGO"));
    command.args(["build", "--release", "--locked", "--package", "kairos-sync", "--bin", "kairos-sync"]);
    command.args(["--features", "fault-points", "--target-dir"]).arg(&folder).current_dir(root());
    assert!(command.status().expect("cargo runs").success(), "the service with fault points does not build");
    folder.join("release/kairos-sync")
}

/// All points in the source.
fn points() -> Vec<String> {
    let mut points = Vec::new();
    for file in rust_files(&root().join("service/src")) {
        let text = fs::read_to_string(&file).expect("readable");
        let calls = text.split("fault_point(\"").skip(1);
        points.extend(calls.filter_map(|rest| rest.split('"').next()).map(str::to_owned));
    }
    points.sort_unstable();
    points
}

/// How often a point may be passed before the process ends there.
fn passes_max(point: &str) -> usize {
    match point.split('.').next() {
        Some("reader") if point.ends_with("part") => 2,
        Some("reader") => 50,
        Some("copy") => 3,
        // Once when the store is opened, and not again for long.
        Some("store") if ["store.at-open", "store.scrubbing"].contains(&point) => 1,
        Some("store") if point.contains("before-sync") || point.contains("before-publishing") => 50,
        Some("store") => 2,
        Some("upload") => 20,
        Some("session") => 5,
        _ => 1,
    }
}

/// Children of one habit: more than are moved in one part.
const MUCH_CHILDREN: u32 = 25_000;

/// Large transactions, one after the other: they come in parts, and are stored in parts; and they fill what is folded. And
/// a habit with very many children, which changes hands.
fn write_much(uri: String) -> JoinHandle<()> {
    tokio::spawn(async move {
        let client = connect(&uri).await;
        let children = format!(
            "INSERT INTO habits VALUES ('much', 'nobody');
             INSERT INTO completions SELECT 'm' || n, 'much' FROM generate_series(1, {MUCH_CHILDREN}) n"
        );
        client.batch_execute(&children).await.expect("inserts");
        for round in 0.. {
            let insert = format!(
                "INSERT INTO items SELECT '{round}-' || n, 'large', repeat('x', 300) FROM generate_series(1, 14000) n"
            );
            client.batch_execute(&insert).await.expect("inserts");
            let delete = format!("DELETE FROM items WHERE starts_with(id, '{round}-')");
            client.batch_execute(&delete).await.expect("deletes");
            let give_away = format!("UPDATE habits SET user_id = 'nobody {round}' WHERE id = 'much'");
            client.batch_execute(&give_away).await.expect("moves");
            sleep(MUCH_PAUSE).await;
        }
    })
}

/// Ends the service, and takes its store and slot away: it begins anew.
async fn forget(service: &mut TestService) {
    service.process.kill().expect("it runs");
    fs::remove_dir_all(&service.data_dir).expect("removable");
    let drop_slots =
        "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE database = current_database();
                      SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots
                       WHERE database = current_database()";
    let deadline = Instant::now() + PATIENCE;
    while let Err(error) = service.sql.batch_execute(drop_slots).await {
        assert!(Instant::now() < deadline, "{error}");
        sleep(POLL).await;
    }
    service.sql.batch_execute("TRUNCATE items, habits, completions, effects").await.expect("empties the tables");
    let rows = "INSERT INTO items SELECT 'i' || n, 'first', repeat('x', 100) FROM generate_series(1, 5000) n;
                INSERT INTO habits SELECT 'h' || n, 'ada' FROM generate_series(1, 100) n;
                INSERT INTO completions SELECT 'c' || n, 'h' || n % 100 FROM generate_series(1, 1000) n";
    service.sql.batch_execute(rows).await.expect("fills");
}

/// Damages a bucket, or rows, of a store that has all in chunks and runs, so that it is mended once the service runs again.
async fn damage_store(service: &mut TestService, devices: &Devices, random: &mut StdRng, has_lost_rows: bool) {
    if has_lost_rows {
        // Enough of them for a run.
        let rows = "INSERT INTO items SELECT 'l' || n, 'lost', string_agg(md5((n * 100 + m)::text), '')
                      FROM generate_series(1, 4000) n, generate_series(1, 30) m GROUP BY n";
        service.sql.batch_execute(rows).await.expect("inserts");
    }
    service.process.restart().await.expect("it starts");
    devices.wait_until_equal(service, PATIENCE, "before the damage").await;
    service.process.terminate().await.expect("it ends");
    if has_lost_rows {
        damage_rows(service, 3, random);
    } else {
        damage(service, "%everything[]", 3, random);
    }
}

/// Other rules for the same rows, one after the other. What is retired is forgotten before the next ones come.
fn change_rules(folder: PathBuf) -> JoinHandle<()> {
    tokio::spawn(async move {
        for rules in variants().iter().cycle() {
            deploy(&folder, &writable(rules));
            sleep(RULES_PAUSE).await;
        }
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn ended_at_any_of_its_fault_points_the_service_goes_on_where_it_was() {
    let wanted = std::env::var("KAIROS_FAULT_POINTS").unwrap_or_default();
    if matches!(&*wanted, "" | "0") {
        println!("skipped: KAIROS_FAULT_POINTS is not set");
        return;
    }
    let is_wanted = |point: &String| wanted == "1" || wanted.split(',').any(|beginning| point.starts_with(beginning));
    let (seed, rounds) = (seed(), number("KAIROS_FAULT_ROUNDS", 2));
    let mut random = StdRng::seed_from_u64(seed);
    let mut service = TestService::prepare_with(&build(), Migrations::Service, &writable(RULES), async |sql| {
        sql.batch_execute(&(service_schema() + EFFECTS)).await.expect("the test's schema is valid");
        let streams = "ALTER ROLE kairos_replication SET logical_decoding_work_mem = '64kB'";
        sql.batch_execute(streams).await.expect("a setting");
    })
    .await;
    let devices = Devices::open(&service, "device").await;
    let uri = service.cluster.uri("postgres", &service.database);
    for point in points().into_iter().filter(is_wanted) {
        for round in 0..rounds {
            let passes = random.random_range(1..=passes_max(&point));
            let context = format!("seed {seed}, {point}, round {round}, pass {passes}");
            forget(&mut service).await;
            let loses_rows = point.starts_with("lost-rows.");
            if loses_rows || point.starts_with("mending.") {
                damage_store(&mut service, &devices, &mut random, loses_rows).await;
            }
            let watch = Watch::start(&service).await;
            let order = format!("{point}:{passes}");
            service.process.restart_with(&[("KAIROS_FAULT_POINT", &order)]).expect("it can be started");
            let load = Load::start(&uri, seed.wrapping_add(1_000 * round), 2, LOAD_PAUSE);
            let much = write_much(uri.clone());
            let uploads = Uploads::start(&service, &context);
            let rules = change_rules(service.folder.path().to_path_buf());
            let started = Instant::now();
            while service.process.ended().expect("the system tells").is_none() {
                assert!(started.elapsed() < PATIENCE, "{context}: never passed\n{}", service.process.log_tail());
                sleep(POLL).await;
            }
            println!("{context}: ended after {:?}", started.elapsed());
            service.process.restart().await.unwrap_or_else(|error| panic!("{context}: {error}"));
            much.abort();
            rules.abort();
            load.stop().await;
            let uploaded = uploads.stop().await;
            devices.wait_until_equal(&service, PATIENCE, &context).await;
            uploaded.assert_once(&service.sql, &context).await;
            watch.assert_held().await;
        }
    }
}
