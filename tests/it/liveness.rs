//! Connections and processes that stand still without an end are noticed, and replication comes back by itself.

use std::{fs, process::Command, time::Duration};

use kairos_sync::{
    demo::{
        cluster::{PgCluster, free_port},
        process::ServiceProcess,
    },
    postgres::SourceConfig,
};
use kairos_tests::service::{eventually, service_binary};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
    time::{Instant, sleep},
};
use tokio_postgres::Client;

use crate::replica::{RULES, Replica, source_with};

/// Nothing here takes so long, unless it hangs.
const DEADLINE: Duration = Duration::from_mins(2);

async fn source(settings: &[(&str, &str)]) -> (PgCluster, Client) {
    let (cluster, client) = source_with(settings).await;
    client.batch_execute("INSERT INTO items VALUES ('a', 'one')").await.expect("inserts");
    (cluster, client)
}

/// The service as a process of its own, with a heartbeat.
async fn service(cluster: &PgCluster) -> (ServiceProcess, TempDir) {
    // A second call would find the provider installed, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let folder = tempfile::tempdir().expect("a folder");
    let port = free_port().expect("a port");
    let text = format!(
        "replication: {{connections: [{{uri: '{}', heartbeat_interval_seconds: 5}}]}}\nsync_config: {{path: rules.yaml}}\n\
         port: {port}\ndata_dir: data\n",
        cluster.uri("postgres", "postgres")
    );
    let config = folder.path().join("kairos.yaml");
    fs::write(&config, text).expect("writes the configuration");
    fs::write(folder.path().join("rules.yaml"), RULES).expect("writes the rules");
    let process = ServiceProcess::start(&service_binary(), &config, port).await.expect("the service starts");
    (process, folder)
}

/// A process that was told to stand still, and goes on when this is dropped.
pub(crate) struct Frozen(String);

impl Frozen {
    pub(crate) fn new(process: &str) -> Self {
        signal("-STOP", process);
        Self(process.to_owned())
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        signal("-CONT", &self.0);
    }
}

pub(crate) fn signal(name: &str, process: &str) {
    let status = Command::new("kill").args([name, process]).status().expect("`kill` runs");
    assert!(status.success(), "kill {name} {process}");
}

pub(crate) async fn walsenders(client: &Client) -> Vec<i32> {
    let sql = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'walsender' ORDER BY 1";
    client.query(sql, &[]).await.expect("answers").iter().map(|row| row.get(0)).collect()
}

async fn probe(process: &ServiceProcess) -> Value {
    let text = process.get("/probes/readiness").await.expect("answers");
    serde_json::from_str(&text).expect("a JSON object")
}

async fn wait_until_ready(process: &ServiceProcess, is_wanted: bool) {
    let started = Instant::now();
    while process.is_ready().await.expect("answers") != is_wanted {
        assert!(started.elapsed() < DEADLINE, "ready is not {is_wanted}:\n{}", process.log_tail());
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_stream_that_stands_still_fails_the_readiness_probe() {
    let (cluster, client) = source(&[]).await;
    let (process, _folder) = service(&cluster).await;
    wait_until_ready(&process, true).await;
    eventually("streaming".to_owned(), async || {
        probe(&process).await["replication"]["phase"].as_str().expect("a name").to_owned()
    })
    .await;
    for metric in ["kairos_replication_last_message_timestamp_seconds", "kairos_checkpoint_timestamp_seconds"] {
        assert!(process.metric(metric).await.expect("answers") > 1_700_000_000, "{metric}");
    }
    let [walsender] = walsenders(&client).await[..] else { panic!("one stream") };
    {
        let _frozen = Frozen::new(&walsender.to_string());
        wait_until_ready(&process, false).await;
        let probe = probe(&process).await;
        assert_eq!(probe["replication"]["phase"], "streaming", "{probe}");
        assert!(probe["reason"].as_str().expect("a reason").contains("the newest checkpoint is"), "{probe}");
    }
    wait_until_ready(&process, true).await;
}

#[tokio::test]
async fn a_service_that_was_frozen_goes_on_by_itself() {
    let (cluster, client) = source(&[("wal_sender_timeout", "1s")]).await;
    let (process, _folder) = service(&cluster).await;
    wait_until_ready(&process, true).await;
    let before = walsenders(&client).await;
    {
        let _frozen = Frozen::new(&process.id().to_string());
        client.batch_execute("INSERT INTO items VALUES ('b', 'two')").await.expect("inserts");
        // The server gives the connection up.
        eventually(Vec::<i32>::new(), async || walsenders(&client).await).await;
    }
    eventually(Some(true), async || {
        let readers = walsenders(&client).await;
        (readers.len() == 1).then(|| readers != before)
    })
    .await;
    let passed = "SELECT bool_and(confirmed_flush_lsn >= $1::text::pg_lsn) FROM pg_replication_slots";
    let head: String = client.query_one("SELECT pg_current_wal_lsn()::text", &[]).await.expect("answers").get(0);
    eventually(Some(true), async || client.query_one(passed, &[&head]).await.expect("answers").get(0)).await;
    assert_eq!(walsenders(&client).await.len(), 1, "one reader");
    // The row of the copy, and the one that came meanwhile; the source may have sent that again.
    assert!(process.rows_replicated().await.expect("answers") >= 2, "{}", process.log_tail());
    wait_until_ready(&process, true).await;
}

/// Forwards connections to a server, until it is told to keep them open and forward nothing more. Connections made
/// after that are forwarded.
async fn proxy(server: u16) -> (u16, watch::Sender<u32>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let (freeze, frozen) = watch::channel(0);
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut frozen = frozen.clone();
            frozen.mark_unchanged();
            tokio::spawn(async move {
                let mut server = TcpStream::connect(("127.0.0.1", server)).await.expect("the server listens");
                tokio::select! {
                    _ = copy_bidirectional(&mut client, &mut server) => {}
                    // Both sockets stay open.
                    changed = frozen.changed() => if changed.is_ok() { std::future::pending().await },
                }
            });
        }
    });
    (port, freeze)
}

#[tokio::test]
async fn connections_that_are_only_half_open_are_noticed_and_replaced() {
    let (cluster, client) = source(&[("wal_sender_timeout", "2s")]).await;
    let (port, freeze) = proxy(cluster.port()).await;
    let direct = SourceConfig::from_uri(&cluster.uri("postgres", "postgres")).expect("a usable URI");
    let replica = Replica::start_from(SourceConfig { port, ..direct });
    replica.catch_up(&client).await;
    let (before, readers) = (replica.operation_count(), walsenders(&client).await);
    for round in 1..=2_u64 {
        freeze.send_modify(|count| *count += 1);
        client.batch_execute(&format!("INSERT INTO items VALUES ('while deaf {round}')")).await.expect("inserts");
        replica.catch_up(&client).await;
        replica.assert_items_equal_sql(&client).await;
        assert_eq!(replica.operation_count() - before, round, "one operation per change");
        let now = walsenders(&client).await;
        assert!(now.len() == 1 && now != readers, "one new reader: {now:?} after {readers:?}");
    }
    replica.stop().await;
}
