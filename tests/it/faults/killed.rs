//! SIGKILL of the service at random moments while it follows the stream.

use std::time::{Duration, Instant};

use kairos_tests::service::{PATIENCE, TestService};
use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::{acknowledged::Watch, device::Devices, load::Load, number, seed, service_schema};
use crate::replica::RULES;

/// Between two transactions of a session.
const LOAD_PAUSE: Duration = Duration::from_millis(4);
/// How often the service is asked whether it has replicated something.
const POLL: Duration = Duration::from_millis(5);

/// Waits for the first transaction that the process made durable.
async fn first_operation(service: &TestService, context: &str) {
    let deadline = Instant::now() + PATIENCE;
    while !service.process.metric("powersync_transactions_replicated_total").await.is_ok_and(|count| count > 0) {
        assert!(Instant::now() < deadline, "{context}: nothing new\n{}", service.process.log_tail());
        tokio::time::sleep(POLL).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_while_it_follows_the_stream_the_service_goes_on_where_it_was() {
    let (seed, rounds) = (seed(), number("KAIROS_FAULT_ROUNDS", 8));
    let mut random = StdRng::seed_from_u64(seed);
    let mut service = TestService::start(&service_schema(), RULES).await;
    service.wait_until_ready().await;
    let watch = Watch::start(&service).await;
    let devices = Devices::open(&service, "device").await;
    let uri = service.cluster.uri("postgres", &service.database);
    let (mut slowest, mut committed) = (Duration::ZERO, 0);
    for round in 0..rounds {
        let context = format!("seed {seed}, round {round}");
        let load = Load::start(&uri, seed.wrapping_add(1_000 * round), 4, LOAD_PAUSE);
        tokio::time::sleep(Duration::from_millis(random.random_range(50..1_000))).await;
        service.process.kill().expect("it runs");
        tokio::time::sleep(Duration::from_millis(random.random_range(0..300))).await;
        let started = Instant::now();
        service.process.restart().await.unwrap_or_else(|error| panic!("{context}: {error}"));
        first_operation(&service, &context).await;
        slowest = slowest.max(started.elapsed());
        println!("{context}: {:?} from start to the first new transaction", started.elapsed());
        committed += load.stop().await;
        devices.wait_until_equal(&service, PATIENCE, &context).await;
    }
    // Nothing of what a new device gets may differ either: it downloads what the kills left in the store.
    let fresh = Devices::open(&service, "fresh").await;
    fresh.wait_until_equal(&service, PATIENCE, "a new device").await;
    println!("{rounds} kills, {committed} transactions; the slowest start took {slowest:?}");
    watch.assert_held().await;
}
