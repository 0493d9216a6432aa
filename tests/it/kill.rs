//! SIGKILL at several points of the demo's stories: after a restart every device equals Postgres.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use kairos_client::{Client, ClientOptions, StaticConnector};
use kairos_sync::{
    demo::{
        KAIROS_RULES,
        checks::USER_TABLES,
        devices::app_schema,
        household::{Household, seed},
        oracle::compare,
    },
    migrate::Migrations,
};
use kairos_tests::service::{PATIENCE, TestService};

/// Moments after a start at which the service is killed while it copies tables and devices wait for their first sync.
const KILLS_AT_FIRST: [Duration; 4] =
    [Duration::from_millis(5), Duration::from_millis(60), Duration::from_millis(150), Duration::from_millis(300)];

/// Moments after a restart at which it is killed amid changes, downloads and uploads.
const KILLS_LATER: [Duration; 5] = [
    Duration::from_millis(20),
    Duration::from_millis(500),
    Duration::from_millis(90),
    Duration::from_millis(700),
    Duration::from_millis(250),
];

struct Device {
    client: Client,
    file: PathBuf,
    user: &'static str,
}

async fn device(service: &TestService, name: &str, user: &'static str) -> Device {
    let file = service.folder.path().join(format!("{name}.db"));
    let connector = StaticConnector::new(service.process.endpoint(), service.token(user));
    let options = ClientOptions {
        retry_base: Duration::from_millis(20),
        retry_cap: Duration::from_millis(200),
        ..ClientOptions::default()
    };
    let client = Client::open_with(&file, app_schema(), connector, options).await.expect("opens");
    client.connect();
    Device { client, file, user }
}

/// One round of life: the app writes on its device, others write in Postgres, a habit changes hands. Gives how many
/// writes the devices took.
async fn live(service: &TestService, devices: &[Device], round: usize) -> usize {
    let mut write_count = 0;
    for (index, device) in devices.iter().enumerate() {
        let habits =
            device.client.query("SELECT id FROM habits ORDER BY id LIMIT 3", [], |row| row.get::<_, String>(0));
        for habit in habits.await.expect("reads") {
            let sql = "INSERT INTO completions (id, habit_id, completed_on, amount, note) \
                       VALUES (uuid(), ?1, date('now'), '1.00', ?2)";
            let note = format!("round {round} on device {index}");
            device.client.execute(sql, [habit, note]).await.expect("a local write needs no service");
            write_count += 1;
        }
    }
    let statements = format!(
        "UPDATE habits SET name = name || '.', position = {round} WHERE id IN (SELECT id FROM habits ORDER BY random() LIMIT 5);
         DELETE FROM completions WHERE id IN 
             (SELECT id FROM completions WHERE coalesce(note, '') NOT LIKE 'round %' ORDER BY random() LIMIT 20);
         UPDATE habits SET user_id = CASE user_id WHEN 'anna' THEN 'ben' ELSE 'anna' END
         WHERE id = (SELECT id FROM habits WHERE user_id IN ('anna', 'ben') ORDER BY random() LIMIT 1);"
    );
    service.sql.batch_execute(&statements).await.expect("valid SQL");
    write_count
}

async fn differences(service: &TestService, devices: &[Device]) -> Vec<String> {
    let mut all = Vec::new();
    for device in devices {
        let compared = compare(&service.sql, &device.file, device.user, &USER_TABLES).await;
        // Before its first sync a device has no rows, but it has its tables.
        all.extend(compared.expect("both can be read").1);
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_any_moment_the_service_comes_back_and_devices_equal_postgres() {
    let household = Household { habits: 40, completions: 4_000, ..Household::default() };
    let mut service = TestService::prepare(Migrations::ServiceAndSample, KAIROS_RULES, async |sql| {
        seed(sql, &household).await.expect("seeds");
    })
    .await;
    let devices = [
        device(&service, "phone", "anna").await,
        device(&service, "watch", "anna").await,
        device(&service, "other", "ben").await,
    ];

    for moment in KILLS_AT_FIRST {
        tokio::time::sleep(moment).await;
        service.process.kill().expect("it runs");
        service.process.restart().await.expect("it starts again");
    }
    for device in &devices {
        tokio::time::timeout(PATIENCE, device.client.wait_for_first_sync()).await.expect("the first sync ends");
    }
    let mut write_count = 0;
    for (round, moment) in KILLS_LATER.into_iter().enumerate() {
        let kill_at = Instant::now() + moment;
        while Instant::now() < kill_at {
            write_count += live(&service, &devices, round).await;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        service.process.kill().expect("it runs");
        // While the service is away, devices and Postgres go on.
        write_count += live(&service, &devices, 100 + round).await;
        service.process.restart().await.expect("it starts again");
    }

    service.wait_until_ready().await;
    let deadline = Instant::now() + PATIENCE;
    for device in &devices {
        tokio::time::timeout(PATIENCE, device.client.wait_until_synced()).await.expect("every device syncs in the end");
    }
    loop {
        let differences = differences(&service, &devices).await;
        if differences.is_empty() {
            break;
        }
        assert!(Instant::now() < deadline, "{differences:#?}\n{}", service.process.log_tail());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    every_local_write_arrived_once(&service, &devices, write_count).await;
}

/// Nothing else writes or deletes completions with such a note, so each write is in Postgres once, or was refused.
async fn every_local_write_arrived_once(service: &TestService, devices: &[Device], write_count: usize) {
    let mut refused_count = 0;
    for device in devices {
        let refused = device.client.rejected_writes().await.expect("reads");
        refused_count += refused.len();
        for write in &refused {
            // The habit was given away before the write arrived.
            assert!(["WRITE_RLS", "WRITE_CHECK"].contains(&write.code.as_deref().unwrap_or_default()), "{write:?}");
        }
    }
    let sql = "SELECT count(*) FROM completions WHERE note LIKE 'round %'";
    let arrived: i64 = service.sql.query_one(sql, &[]).await.expect("valid SQL").get(0);
    assert!(write_count > 0, "devices wrote something");
    assert_eq!(
        usize::try_from(arrived),
        Ok(write_count - refused_count),
        "{write_count} writes, {refused_count} refused"
    );
}
