//! SIGKILL of the service at random moments of the first copy, while rows change: in the end everything is there, and
//! little was read twice.

use std::time::{Duration, Instant};

use kairos_sync::migrate::Migrations;
use kairos_tests::service::{TestService, eventually};
use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::{acknowledged::Watch, device::Devices, load::Load, number, seed, service_schema};
use crate::replica::RULES;

/// How long a million rows may take to be copied and downloaded by a service without optimisation.
const PATIENCE: Duration = Duration::from_mins(20);
/// How often the service is asked how far it is.
const POLL: Duration = Duration::from_millis(5);
/// Sessions that read at once, unless configured.
const SESSIONS: i64 = 2;
/// Slow enough for the copy to be most of the work.
const LOAD_PAUSE: Duration = Duration::from_millis(50);
/// Postgres counts what a session read when the session ends, or within this time.
const COUNTING_PAUSE: Duration = Duration::from_millis(1_200);

/// So many rows make enough chunks, if pages are filled to a tenth.
const ROWS_OF_MANY_CHUNKS: u64 = 200_000;

/// A service with this many rows to copy. Pages are mostly empty, so that there are many chunks: a kill costs the chunks
/// being read.
async fn start(row_count: u64) -> TestService {
    let one_of = (ROWS_OF_MANY_CHUNKS / row_count).max(1);
    let thin_out = |table| format!("DELETE FROM {table} WHERE (ctid::text::point)[1]::int % {one_of} <> 0;");
    let row_count = row_count * one_of;
    let rows = |table: &str, share: u64, values: &str| {
        let count = row_count * share / 10;
        format!("INSERT INTO {table} SELECT {values} FROM generate_series(1, {count}) n;")
    };
    let habit_count = row_count * 2 / 10;
    let fill = [
        service_schema(),
        ["items", "habits", "completions"].map(|table| format!("ALTER TABLE {table} SET (fillfactor = 10);")).concat(),
        rows("items", 4, "md5('i' || n), 'title ' || n, repeat('x', 60)"),
        rows("habits", 2, "md5('h' || n), (ARRAY['ada', 'bob', 'cyd', 'dan'])[1 + n % 4]"),
        rows("completions", 4, &format!("md5('c' || n), md5('h' || 1 + n % {habit_count})")),
        ["items", "habits", "completions"].map(thin_out).concat(),
        "VACUUM ANALYZE;".to_owned(),
        // What this session did itself would otherwise be counted later, at a moment of its own choice.
        "SELECT pg_stat_force_next_flush();".to_owned(),
        "SELECT pg_stat_reset();".to_owned(),
    ];
    TestService::prepare(Migrations::Service, RULES, async |sql| {
        for statements in fill {
            sql.batch_execute(&statements).await.expect("fills");
        }
    })
    .await
}

async fn wait_until_copied(service: &TestService, context: &str) {
    let deadline = Instant::now() + PATIENCE;
    while !service.process.is_ready().await.is_ok_and(|is_ready| is_ready) {
        assert!(Instant::now() < deadline, "{context}: not ready\n{}", service.process.log_tail());
        tokio::time::sleep(POLL).await;
    }
}

/// Rows that were read in sequence, as copies do and nothing else here.
async fn rows_read(service: &TestService) -> i64 {
    count(service, "seq_tup_read").await
}

/// What the server has counted of all tables. A session's work is in it for certain once the session is gone, which on a
/// busy machine takes a while after the service was killed and the load stopped.
async fn count(service: &TestService, what: &str) -> i64 {
    let sessions = "SELECT count(*) FROM pg_stat_activity
                    WHERE datname = current_database()
                    AND (application_name LIKE 'kairos-sync/%' OR application_name = 'load')";
    let sessions_left = || async { service.sql.query_one(sessions, &[]).await.expect("a count").get::<_, i64>(0) };
    eventually(0, sessions_left).await;
    let sql = format!("SELECT coalesce(sum({what}), 0)::bigint FROM pg_stat_user_tables WHERE schemaname = 'public'");
    let mut before = -1;
    loop {
        let now = service.sql.query_one(&sql, &[]).await.expect("a count").get(0);
        if now == before {
            return now;
        }
        before = now;
        tokio::time::sleep(COUNTING_PAUSE).await;
    }
}

/// Rows in the fullest chunk. Not what the tables have on average: new rows go where there is room, and several times as
/// many as elsewhere end up in the first chunk.
async fn rows_of_chunk(service: &TestService) -> i64 {
    let chunks =
        |table| format!("SELECT count(*) AS row_count FROM {table} GROUP BY (ctid::text::point)[0]::int / 256");
    let chunks = ["items", "habits", "completions"].map(chunks).join(" UNION ALL ");
    let sql = format!("SELECT max(row_count) FROM ({chunks}) AS chunks");
    service.sql.query_one(&sql, &[]).await.expect("a count").get(0)
}

/// Rows that one run reads which nobody disturbs.
async fn rows_of_clean_run(row_count: u64) -> i64 {
    let mut service = start(row_count).await;
    let started = Instant::now();
    wait_until_copied(&service, "a clean run").await;
    let copied_in = started.elapsed();
    service.process.kill().expect("it runs");
    let read = rows_read(&service).await;
    println!("{read} rows were copied in {copied_in:?} without a kill");
    read
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_while_it_copies_the_service_goes_on_with_what_is_left() {
    let seed = seed();
    let kills = u32::try_from(number("KAIROS_FAULT_ROUNDS", 6)).expect("a sensible number of kills");
    let row_count = number("KAIROS_FAULT_ROWS", 40_000);
    let mut random = StdRng::seed_from_u64(seed);
    let clean = rows_of_clean_run(row_count).await;
    let mut service = start(row_count).await;
    let watch = Watch::start(&service).await;
    let load = Load::start(&service.cluster.uri("postgres", &service.database), seed, 2, LOAD_PAUSE);

    // All over the work, not over the time: a start takes time as well.
    let moments: Vec<f64> =
        (0..kills).map(|kill| (f64::from(kill) + random.random_range(0.1..0.9)) / f64::from(kills)).collect();
    let mut earlier_runs = 0;
    for (round, moment) in moments.into_iter().enumerate() {
        let context = format!("seed {seed}, round {round}");
        let (deadline, mut this_run) = (Instant::now() + PATIENCE, 0);
        #[expect(clippy::cast_precision_loss, reason = "a share of some millions")]
        while ((earlier_runs + this_run) as f64) < moment * clean as f64 {
            assert!(Instant::now() < deadline, "{context}: no progress\n{}", service.process.log_tail());
            tokio::time::sleep(POLL).await;
            this_run = service.process.rows_replicated().await.unwrap_or(this_run);
        }
        earlier_runs += this_run;
        service.process.kill().expect("it runs");
        println!("{context}: killed after {this_run} more rows, {:.0} % of the work", 100.0 * moment);
        service.process.restart().await.unwrap_or_else(|error| panic!("{context}: {error}"));
    }
    let context = format!("seed {seed}, after {kills} kills");
    // A copy waits for the stream, and a service without optimisation may not keep up with both.
    load.stop().await;
    wait_until_copied(&service, &context).await;
    service.process.kill().expect("it runs");
    let read = rows_read(&service).await;
    let written = count(&service, "n_tup_ins + n_tup_upd").await;
    // After the others: it reads the tables.
    let chunk = rows_of_chunk(&service).await;
    println!(
        "{context}: {read} rows were read, {clean} by a clean run, {written} written meanwhile, {chunk} to a chunk"
    );
    assert!(2 * read <= 3 * (clean + written), "{context}: {read} rows were read, more than 1.5 times a clean run");
    let most = clean + written + chunk * SESSIONS * i64::from(kills);
    assert!(read <= most, "{context}: {read} rows were read: a kill costs more than the chunks being read, {most}");
    service.process.restart().await.unwrap_or_else(|error| panic!("{context}: {error}"));
    let devices = Devices::open(&service, "device").await;
    devices.wait_until_equal(&service, PATIENCE, &context).await;
    watch.assert_held().await;
}
