//! A disk that is full for a while, and one that does not sync: the service waits for the one and ends with the other,
//! and devices get what SQL says afterwards.
//!
//! Between the service and the C library lies `fixtures/failing-disk.c`, which works everywhere; where the system lets
//! users mount file systems, a small one is filled as well.

use std::{
    fs::{self, Permissions},
    io::Write,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use kairos_sync::migrate::Migrations;
use kairos_tests::service::{TestService, eventually, service_binary};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::time::{Instant, sleep};

use super::{acknowledged::Watch, device::Devices, load::Load, number, seed, service_schema};
use crate::{replica::RULES, tidy::root};

const LOAD_PAUSE: Duration = Duration::from_millis(10);
const PATIENCE: Duration = Duration::from_mins(3);
const POLL: Duration = Duration::from_millis(20);
const MUCH_PAUSE: Duration = Duration::from_millis(500);
/// Rows that need space, until they are deleted again.
const MUCH: &str = "INSERT INTO items SELECT 'much' || gen_random_uuid(), 'large', string_agg(md5(random()::text), '')
                      FROM generate_series(1, 300) n, generate_series(1, 125) m GROUP BY n";
const LESS: &str = "DELETE FROM items WHERE starts_with(id, 'much')";
const SMALL_DISK: &str = "32m";

/// The library that makes a disk fail, compiled into a folder.
fn failing_disk(folder: &Path) -> PathBuf {
    let library = folder.join("failing-disk.so");
    let source = root().join("tests/it/fixtures/failing-disk.c");
    let compiled =
        Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).args([&library, &source]).arg("-ldl").status();
    assert!(compiled.expect("a C compiler").success(), "it compiles");
    library
}

/// Starts the service again with the library, and its store's folder as the disk.
async fn fail_on_demand(service: &mut TestService) {
    let library = failing_disk(service.folder.path());
    service.process.terminate().await.expect("it ends");
    let path = |path: &Path| path.to_str().expect("UTF-8").to_owned();
    let environment = [("LD_PRELOAD", &*path(&library)), ("FAILING_DISK", &*path(&service.data_dir))];
    service.process.restart_with(&environment).expect("it can be started");
    service.wait_until_ready().await;
}

/// What orders the library to fail in this way.
fn order(service: &TestService, how: &str) -> PathBuf {
    let mut order = service.data_dir.clone().into_os_string();
    order.push(".");
    order.push(how);
    order.into()
}

fn assert_store_is_whole(service: &TestService) {
    let verify = Command::new(service_binary()).args(["store", "verify", "--data-dir"]).arg(&service.data_dir).output();
    let verified = verify.expect("it runs");
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
}

/// Fills the disk and frees it again, several times at random moments.
async fn filled_and_freed(service: &mut TestService, fill: impl Fn(&TestService), free: impl Fn(&TestService)) {
    let (seed, rounds) = (seed(), number("KAIROS_FAULT_ROUNDS", 2));
    let mut random = StdRng::seed_from_u64(seed);
    let devices = Devices::open(service, "device").await;
    let uri = service.cluster.uri("postgres", &service.database);
    for round in 0..rounds {
        let context = format!("seed {seed}, round {round}");
        let load = Load::start(&uri, seed.wrapping_add(1_000 * round), 2, LOAD_PAUSE);
        sleep(Duration::from_millis(random.random_range(50..1_500))).await;
        let said = service.process.log().expect("readable").matches("STORE-0107").count();
        fill(service);
        let started = Instant::now();
        while service.process.is_ready().await.expect("it answers all the time") {
            assert!(started.elapsed() < PATIENCE, "{context}: ready on a full disk\n{}", service.process.log_tail());
            // What was free in the files is used first.
            service.run(MUCH).await;
            sleep(MUCH_PAUSE).await;
        }
        let told = service.process.get("/probes/readiness").await.expect("it answers");
        assert!(told.contains("STORE-0107") && told.contains("free some space"), "{context}: {told}");
        assert_eq!(service.process.metric("kairos_store_full").await.expect("metrics"), 1, "{context}");
        assert!(
            service.process.log().expect("readable").matches("STORE-0107").count() > said,
            "{context}: the log says so"
        );
        sleep(Duration::from_millis(random.random_range(0..15_000))).await;
        assert_eq!(service.process.ended().expect("the system tells"), None, "{context}: it goes on");
        free(service);
        service.run(LESS).await;
        println!("{context}: full for {:?}, {} transactions", started.elapsed(), load.stop().await);
        devices.wait_until_equal(service, PATIENCE, &context).await;
        eventually(Some(true), async || service.process.is_ready().await.ok()).await;
        assert_eq!(service.process.metric("kairos_store_full").await.expect("metrics"), 0, "{context}");
        assert_eq!(service.process.ended().expect("the system tells"), None, "{context}: nobody restarted it");
    }
    let fresh = Devices::open(service, "fresh").await;
    fresh.wait_until_equal(service, PATIENCE, "a new device").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_whose_disk_is_full_waits_for_space_and_goes_on() {
    let mut service = TestService::start(&service_schema(), RULES).await;
    fail_on_demand(&mut service).await;
    let watch = Watch::start(&service).await;
    let fill = |service: &TestService| fs::write(order(service, "full"), "").expect("writable");
    let free = |service: &TestService| fs::remove_file(order(service, "full")).expect("it was full");
    filled_and_freed(&mut service, fill, free).await;
    watch.assert_held().await;
    service.process.terminate().await.expect("it ends");
    assert_store_is_whole(&service);
}

/// A program that runs the service with its store on a small file system of its own, once `SMALL_DISK` says where.
fn with_small_disk(folder: &Path) -> PathBuf {
    let service = service_binary();
    let script = format!(
        "#!/bin/sh\n[ -n \"$SMALL_DISK\" ] || exec '{0}' \"$@\"\n\
         exec unshare --map-root-user --mount sh -c \
         'mount -t tmpfs -o size={SMALL_DISK} tmpfs \"$SMALL_DISK\" && exec \"$0\" \"$@\"' '{0}' \"$@\"\n",
        service.display()
    );
    let file = folder.join("service");
    fs::write(&file, script).expect("writable");
    fs::set_permissions(&file, Permissions::from_mode(0o755)).expect("ours");
    file
}

/// The file that fills the small disk, as its service sees it.
fn filling(service: &TestService) -> PathBuf {
    let seen = service.data_dir.strip_prefix("/").expect("an absolute path");
    Path::new("/proc").join(service.process.id().to_string()).join("root").join(seen).join("filling")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_on_a_small_disk_waits_for_space_and_goes_on() {
    let mount = ["--map-root-user", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"];
    if !Command::new("unshare").args(mount).output().is_ok_and(|mounted| mounted.status.success()) {
        println!("skipped: this system lets nobody mount a file system here");
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let schema = service_schema();
    let fill = async |sql: &mut tokio_postgres::Client| sql.batch_execute(&schema).await.expect("valid");
    let mut service =
        TestService::prepare_with(&with_small_disk(folder.path()), Migrations::Service, RULES, fill).await;
    service.wait_until_ready().await;
    service.process.terminate().await.expect("it ends");
    let data_dir = service.data_dir.to_str().expect("UTF-8").to_owned();
    service.process.restart_with(&[("SMALL_DISK", &data_dir)]).expect("it can be started");
    service.wait_until_ready().await;
    let fill = |service: &TestService| {
        let mut filling = fs::File::create(filling(service)).expect("its disk can be seen");
        while filling.write_all(&[0; 4096]).is_ok() {}
    };
    let free = |service: &TestService| fs::remove_file(filling(service)).expect("it was full");
    filled_and_freed(&mut service, fill, free).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_whose_disk_does_not_sync_ends_and_has_confirmed_nothing_of_it() {
    let (seed, rounds) = (seed(), number("KAIROS_FAULT_ROUNDS", 2));
    let mut random = StdRng::seed_from_u64(seed);
    let mut service = TestService::start(&service_schema(), RULES).await;
    service.wait_until_ready().await;
    let watch = Watch::start(&service).await;
    let devices = Devices::open(&service, "device").await;
    let uri = service.cluster.uri("postgres", &service.database);
    for round in 0..rounds {
        let context = format!("seed {seed}, round {round}");
        fail_on_demand(&mut service).await;
        let load = Load::start(&uri, seed.wrapping_add(1_000 * round), 2, LOAD_PAUSE);
        sleep(Duration::from_millis(random.random_range(50..1_500))).await;
        let said = service.process.log().expect("readable").matches("STORE-0108").count();
        fs::write(order(&service, "unsynced"), "").expect("writable");
        let started = Instant::now();
        let status = loop {
            if let Some(status) = service.process.ended().expect("the system tells") {
                break status;
            }
            assert!(started.elapsed() < PATIENCE, "{context}: it goes on\n{}", service.process.log_tail());
            sleep(POLL).await;
        };
        assert!(status.code().is_some_and(|code| code != 0), "{context}: {status}");
        assert!(
            service.process.log().expect("readable").matches("STORE-0108").count() > said,
            "{context}: the log says so"
        );
        fs::remove_file(order(&service, "unsynced")).expect("it was there");
        println!("{context}: ended after {:?}, {} transactions", started.elapsed(), load.committed());
        service.process.restart().await.unwrap_or_else(|error| panic!("{context}: {error}"));
        load.stop().await;
        devices.wait_until_equal(&service, PATIENCE, &context).await;
    }
    let fresh = Devices::open(&service, "fresh").await;
    fresh.wait_until_equal(&service, PATIENCE, "a new device").await;
    watch.assert_held().await;
    service.process.terminate().await.expect("it ends");
    assert_store_is_whole(&service);
}
