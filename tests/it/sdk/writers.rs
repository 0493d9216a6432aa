//! Many devices that write at once: every write arrives once, nobody sees half a transaction, and nobody's own write
//! goes back to an older value while others write.

use futures_util::future::join_all;
use kairos_tests::{
    official::{OfficialClient, Sdk, texts},
    service::{TestService, eventually},
};
use serde_json::{Value, json};
use tokio::{sync::watch, time::Duration};

const SCHEMA: &str = "
    CREATE TABLE marks (id text PRIMARY KEY, value int NOT NULL);
    CREATE TABLE debits (id text PRIMARY KEY, amount int NOT NULL);
    CREATE TABLE credits (id text PRIMARY KEY, amount int NOT NULL);
    SELECT kairos.publish_table('marks', 'INSERT, UPDATE, DELETE');
    SELECT kairos.publish_table('debits', 'INSERT, UPDATE, DELETE');
    SELECT kairos.publish_table('credits', 'INSERT, UPDATE, DELETE');
    INSERT INTO marks SELECT 'mark-' || n, 0 FROM generate_series(0, 9) n;
    INSERT INTO debits SELECT 'debit-' || n, 0 FROM generate_series(1, 300) n;
    INSERT INTO credits SELECT 'credit-' || n, 0 FROM generate_series(1, 300) n;
";

/// Debits and credits are in buckets of their own.
const RULES: &str = r"
bucket_definitions:
  marks: {data: [SELECT * FROM marks]}
  debits: {data: [SELECT * FROM debits]}
  credits: {data: [SELECT * FROM credits]}
write_rules:
  marks: {allow: [put, patch, delete], check: true}
  debits: {allow: [put, patch, delete], check: true}
  credits: {allow: [put, patch, delete], check: true}
";

const ALL: &str = "
    SELECT id || ' ' || value FROM marks UNION ALL SELECT id || ' ' || amount FROM debits
    UNION ALL SELECT id || ' ' || amount FROM credits";

fn tables() -> Value {
    json!({"marks": {"value": "integer"}, "debits": {"amount": "integer"}, "credits": {"amount": "integer"}})
}

async fn start() -> TestService {
    let service = TestService::start(SCHEMA, RULES).await;
    service.wait_until_ready().await;
    service
}

/// Devices in one process, synced.
async fn devices(service: &TestService, sdk: Sdk, count: usize, options: &Value) -> Vec<OfficialClient> {
    let first = OfficialClient::open(sdk, service.folder.path(), "device-0", &tables()).await;
    let mut devices = vec![first];
    for n in 1..count {
        devices.push(devices[0].open_beside(service.folder.path(), &format!("device-{n}"), &tables()).await);
    }
    join_all(devices.iter().map(async |device| {
        let token = service.token("ann");
        device.connect_with(service.process.endpoint(), &[&token], options.clone()).await;
        device.call(json!({"do": "synced", "seconds": 30})).await;
    }))
    .await;
    devices
}

#[tokio::test]
async fn every_write_of_fifty_devices_arrives_once() {
    const DEVICES: usize = 50;
    const WRITES: usize = 2;
    let service = start().await;
    let devices = devices(&service, Sdk::HTTP, DEVICES, &json!({})).await;
    join_all(devices.iter().enumerate().map(async |(n, device)| {
        for write in 0..WRITES {
            let mark = json!([format!("mark-of-{n}-{write}"), write]);
            let statements = json!([
                ["INSERT INTO marks (id, value) VALUES (?, ?)", mark],
                ["UPDATE marks SET value = value + 100 WHERE id = ?", [mark[0]]],
            ]);
            device.call(json!({"do": "transaction", "statements": statements})).await;
        }
    }))
    .await;
    let expected =
        (0..DEVICES).flat_map(|n| (0..WRITES).map(move |write| format!("mark-of-{n}-{write} {}", write + 100)));
    let arrived =
        async || texts(&service.sql, "SELECT id || ' ' || value FROM marks WHERE id LIKE 'mark-of-%'", &[]).await;
    eventually(expected.collect(), arrived).await;
    for device in &devices {
        device.converges(&service, ALL, &[], ALL).await;
        let uploads = device.call(json!({"do": "uploads"})).await;
        let outcomes: Vec<_> = uploads.as_array().expect("a list").iter().map(|each| &each["outcome"]).collect();
        assert_eq!(outcomes, vec![&json!("applied"); 2 * WRITES]);
    }
}

/// Transactions move amounts between two tables until told to stop.
async fn move_amounts(service: &TestService, mut stopped: watch::Receiver<bool>) {
    while !*stopped.borrow_and_update() {
        service
            .run(
                "BEGIN;
                 WITH moved AS (SELECT (random() * 299)::int + 1 AS n, (random() * 100)::int AS amount),
                     taken AS (UPDATE debits SET amount = debits.amount - moved.amount FROM moved WHERE id = 'debit-' || n)
                 UPDATE credits SET amount = credits.amount + moved.amount FROM moved WHERE id = 'credit-' || n;
                 UPDATE debits SET amount = amount - 1; UPDATE credits SET amount = amount + 1;
                 COMMIT",
            )
            .await;
        // Each changes six hundred rows: faster than that, a service that is not optimised falls behind for minutes.
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn nobody_sees_half_a_transaction(sdk: Sdk) {
    const TRANSACTIONS_SEEN: usize = 20;
    let service = start().await;
    let device = &devices(&service, sdk, 1, &json!({})).await[0];
    let (stop, stopped) = watch::channel(false);
    let look = async {
        let mut seen = std::collections::BTreeSet::new();
        while seen.len() < TRANSACTIONS_SEEN {
            let sql = "SELECT sum(amount) AS spent, (SELECT sum(amount) FROM credits) AS got FROM debits";
            let sums = device.query(sql).await[0].clone();
            let (spent, got) = (sums["spent"].as_i64().expect("a sum"), sums["got"].as_i64().expect("a sum"));
            assert_eq!(spent + got, 0, "half a transaction");
            seen.insert(got);
        }
        stop.send_replace(true);
    };
    let everything = futures_util::future::join(move_amounts(&service, stopped), look);
    tokio::time::timeout(2 * kairos_tests::service::PATIENCE, everything).await.expect("states come");
    device.converges(&service, ALL, &[], ALL).await;
}

#[tokio::test]
async fn over_http_nobody_sees_half_a_transaction() {
    nobody_sees_half_a_transaction(Sdk::HTTP).await;
}

#[tokio::test]
async fn over_a_web_socket_nobody_sees_half_a_transaction() {
    nobody_sees_half_a_transaction(Sdk::WEB_SOCKET).await;
}

/// Each device raises its own mark again and again, with others writing into the same bucket all the time. A trigger of
/// SQLite notes each value that a mark ever has on its device.
async fn ones_own_write_never_goes_back(sdk: Sdk, options: Value) {
    const DEVICES: usize = 4;
    const WRITES: usize = 25;
    let service = start().await;
    let devices = devices(&service, sdk, DEVICES, &options).await;
    for (n, device) in devices.iter().enumerate() {
        device.execute("CREATE TABLE noted (n INTEGER PRIMARY KEY, value INTEGER)").await;
        let note = format!(
            "CREATE TRIGGER note AFTER INSERT ON ps_data__marks WHEN new.id = 'mark-{n}'
             BEGIN INSERT INTO noted (value) VALUES (json_extract(new.data, '$.value')); END"
        );
        device.execute(&note).await;
        device.execute(&note.replace("note AFTER INSERT", "note_update AFTER UPDATE")).await;
    }
    let (stop, mut stopped) = watch::channel(false);
    let others = async {
        while !*stopped.borrow_and_update() {
            service.run("UPDATE marks SET value = value + 1 WHERE id = 'mark-9'").await;
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let write = async {
        join_all(devices.iter().enumerate().map(async |(n, device)| {
            for value in 1..=WRITES {
                device.execute(&format!("UPDATE marks SET value = {value} WHERE id = 'mark-{n}'")).await;
                // Now and then the upload comes back first, else writes meet it under way.
                if value % 5 == 0 {
                    let waiting = async || device.query("SELECT count(*) AS n FROM ps_crud").await[0]["n"].clone();
                    eventually(json!(0), waiting).await;
                }
            }
        }))
        .await;
        stop.send_replace(true);
    };
    futures_util::future::join(others, write).await;
    for device in &devices {
        device.converges(&service, ALL, &[], ALL).await;
    }
    // The last values have come back, so what was noted is complete.
    for device in &devices {
        let noted = device.query("SELECT value FROM noted ORDER BY n").await;
        let values: Vec<_> = noted.iter().map(|row| row["value"].as_u64().expect("a value")).collect();
        assert!(values.is_sorted(), "{}: a write went back: {values:?}", sdk.name);
        assert!(values.len() > WRITES, "{}: nothing came back: {values:?}", sdk.name);
    }
}

#[tokio::test]
async fn over_http_ones_own_write_never_goes_back() {
    ones_own_write_never_goes_back(Sdk::HTTP, json!({})).await;
}

#[tokio::test]
async fn over_a_web_socket_ones_own_write_never_goes_back() {
    ones_own_write_never_goes_back(Sdk::WEB_SOCKET, json!({})).await;
}

#[tokio::test]
async fn with_requested_checkpoints_ones_own_write_never_goes_back() {
    ones_own_write_never_goes_back(Sdk::HTTP, json!({"checkpointMode": "requests"})).await;
}

#[tokio::test]
async fn with_the_javascript_sync_client_ones_own_write_never_goes_back() {
    ones_own_write_never_goes_back(Sdk::JAVASCRIPT, json!({})).await;
}
