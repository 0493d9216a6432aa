//! Rules that change under load and under downloads, while the service is killed now and then: in the end every device
//! holds what SQL says.

use std::{fs, path::Path, time::Duration};

use kairos_tests::service::{PATIENCE, TestService, eventually};
use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::{acknowledged::Watch, device::Devices, load::Load, number, seed, service_schema};
use crate::replica::RULES;

/// Between two transactions of a session.
const LOAD_PAUSE: Duration = Duration::from_millis(10);

/// Rules that give devices the same rows in other ways: other buckets, other lookups, other definitions.
pub(super) fn variants() -> [String; 4] {
    let items = RULES.replace("SELECT * FROM items", "SELECT id, title, body FROM items");
    let joined = RULES.replace("WHERE user_id = :user_id)", "WHERE user_id = :user_id AND id IS NOT NULL)");
    let renamed = items.replace("user_data:", "rows_of_user:");
    let variants = [RULES.to_owned(), items, joined, renamed];
    assert!(variants[1..].iter().all(|rules| rules != RULES), "each is another one");
    variants
}

/// Wants these rules of a service that reads them from its folder.
pub(crate) fn deploy(folder: &Path, rules: &str) {
    // As a mounted file is replaced: in one step.
    let new = folder.join("rules.new");
    fs::write(&new, rules).expect("writes");
    fs::rename(new, folder.join("rules.yaml")).expect("replaces");
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_that_change_under_load_lose_and_double_nothing() {
    let (seed, rounds) = (seed(), number("KAIROS_FAULT_ROUNDS", 6));
    let mut random = StdRng::seed_from_u64(seed);
    let mut service = TestService::start(&service_schema(), RULES).await;
    let rows = "INSERT INTO items SELECT md5(n::text), 'first', repeat('x', 100) FROM generate_series(1, 6000) n;
                INSERT INTO habits SELECT md5(n::text), (ARRAY['ada', 'bob', 'cyd', 'dan'])[1 + n % 4] FROM generate_series(1, 400) n;
                INSERT INTO completions SELECT md5(n::text), md5((n % 400 + 1)::text) FROM generate_series(1, 6000) n";
    service.run(rows).await;
    service.wait_until_ready().await;
    let watch = Watch::start(&service).await;
    let devices = Devices::open(&service, "device").await;
    let uri = service.cluster.uri("postgres", &service.database);
    let variants = variants();
    for round in 0..rounds {
        let variant = random.random_range(0..variants.len());
        let context = format!("seed {seed}, round {round}, rules {variant}");
        let load = Load::start(&uri, seed.wrapping_add(1_000 * round), 2, LOAD_PAUSE);
        deploy(service.folder.path(), &variants[variant]);
        tokio::time::sleep(Duration::from_millis(random.random_range(1_000..3_500))).await;
        let is_killed = random.random_bool(0.5);
        if is_killed {
            service.process.kill().expect("it runs");
            service.process.restart().await.unwrap_or_else(|error| panic!("{context}: {error}"));
        }
        println!("{context}: {} transactions, killed: {is_killed}", load.stop().await);
        let left = async || service.process.metric("kairos_rebuild_rows_left").await.ok();
        eventually(Some(0), left).await;
        devices.wait_until_equal(&service, PATIENCE, &context).await;
    }
    let fresh = Devices::open(&service, "fresh").await;
    fresh.wait_until_equal(&service, PATIENCE, "a new device").await;
    assert_eq!(service.process.metric("kairos_rules_refused").await.expect("metrics are served"), 0);
    watch.assert_held().await;
}
