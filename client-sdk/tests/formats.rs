//! One sync in every format and compression, over connections that are lost anywhere: the database is the same.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod service;

use std::{sync::Arc, time::Duration};

use kairos_client::{
    BucketVerification, Client, ClientOptions, Compression, HttpOptions, HttpTransport, LineFormat, LocalDatabase,
    Schema, StaticConnector, SyncEvent, Table,
};
use proptest::prelude::*;
use serde_json::json;
use service::{FakeService, HOME, wire::Weather};

const FORMATS: [LineFormat; 2] = [LineFormat::Bson, LineFormat::Ndjson];
const COMPRESSIONS: [Compression; 3] = [Compression::Zstd, Compression::Gzip, Compression::None];

/// A client that asks in this way, its database, and the folder.
async fn device(service: &FakeService, options: HttpOptions) -> (Client, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let options = ClientOptions {
        retry_base: Duration::from_millis(2),
        retry_cap: Duration::from_millis(5),
        transport: Some(Arc::new(HttpTransport::new(options).unwrap())),
        ..ClientOptions::default()
    };
    let connector = StaticConnector::new(&service.endpoint, "token");
    let schema = Schema::new([Table::new("habits").text("name")]);
    (Client::open_with(folder.path().join("client.db"), schema, connector, options).await.unwrap(), folder)
}

async fn synced(client: &Client) {
    tokio::time::timeout(Duration::from_mins(1), client.wait_until_synced()).await.expect("it syncs");
}

/// Everything the device holds: rows, and operations as they were sent.
fn content(folder: &tempfile::TempDir) -> Vec<String> {
    let database = LocalDatabase::open(folder.path().join("client.db")).unwrap();
    let verification = database.verify().unwrap();
    assert!(verification.buckets.iter().all(BucketVerification::is_ok), "{verification:?}");
    let sql = "SELECT 'row ' || id || ' ' || quote(name) FROM habits
        UNION ALL SELECT 'op ' || op_id || ' ' || row_id || ' ' || quote(data) || checksum FROM kairos_oplog ORDER BY 1";
    let mut statement = database.connection().prepare(sql).unwrap();
    statement.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
}

fn fill(service: &FakeService, names: &[String]) {
    service.change(|state| {
        for (number, name) in names.iter().enumerate() {
            let bucket = if number % 3 == 0 { "other" } else { HOME };
            state.put(bucket, "habits", &format!("h{}", number % 7), &json!({ "name": name, "n": number }));
        }
    });
}

async fn every_way_gives_the_same(names: &[String], chunk_bytes: usize, cuts: &[usize]) {
    let service = FakeService::start().await;
    fill(&service, names);
    let mut expected = None;
    for line_format in FORMATS {
        for compression in COMPRESSIONS {
            service.change(|state| {
                state.formats.clear();
                state.weather = cuts.iter().map(|&cut| Weather { chunk_bytes, cut }).collect();
            });
            let options = HttpOptions { line_format, compression, ..HttpOptions::default() };
            let (client, folder) = device(&service, options).await;
            client.connect();
            synced(&client).await;
            client.disconnect().await;
            let encoding = match compression {
                Compression::Zstd => Some("zstd"),
                Compression::Gzip => Some("gzip"),
                Compression::None => None,
            };
            let asked = (line_format == LineFormat::Bson, encoding);
            assert!(service.change(|state| state.formats.iter().all(|format| *format == asked)));
            let held = content(&folder);
            assert_eq!(*expected.get_or_insert_with(|| held.clone()), held, "{line_format:?} {compression:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, max_shrink_iters: 20, ..ProptestConfig::default() })]
    #[test]
    fn a_stream_torn_anywhere_ends_in_the_same_database(
        names in proptest::collection::vec(any::<String>(), 1..20),
        chunk_bytes in 1_usize..40,
        cuts in proptest::collection::vec(0_usize..1500, 0..10),
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(every_way_gives_the_same(&names, chunk_bytes, &cuts));
    }
}

/// What was sent before a damaged line is kept, the line is not, and the app is told.
#[tokio::test]
async fn nothing_of_a_damaged_line_reaches_the_store() {
    for line_format in FORMATS {
        let service = FakeService::start().await;
        fill(&service, &["never sent".to_owned(), "kept".to_owned(), "damaged".to_owned()]);
        // The checkpoint, then a line for each operation of `home`, which come first.
        service.change(|state| state.damaged_line = Some(2));
        let (client, folder) = device(&service, HttpOptions { line_format, ..HttpOptions::default() }).await;
        let mut events = client.events();
        client.connect();
        let code = loop {
            if let SyncEvent::SyncError { code, .. } = events.recv().await.unwrap() {
                client.disconnect().await;
                break code;
            }
        };
        assert_eq!(code, "CLIENT-0205", "{line_format:?}");
        let held = content(&folder);
        assert!(held.len() == 1 && held[0].contains("kept"), "the first of `home`: {held:?}");
        client.connect();
        synced(&client).await;
        assert_eq!(content(&folder).len(), 6);
    }
}

#[tokio::test]
async fn a_line_above_the_limit_is_refused() {
    for line_format in FORMATS {
        let service = FakeService::start().await;
        fill(&service, &["x".repeat(5000)]);
        let options = HttpOptions { line_format, line_bytes_max: 4000, ..HttpOptions::default() };
        let (client, folder) = device(&service, options).await;
        let mut events = client.events();
        client.connect();
        let code = loop {
            if let SyncEvent::SyncError { code, .. } = events.recv().await.unwrap() {
                break code;
            }
        };
        client.disconnect().await;
        assert_eq!(code, "CLIENT-0206");
        assert!(content(&folder).is_empty());
    }
}
