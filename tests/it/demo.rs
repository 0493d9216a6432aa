//! `kairos-sync demo` as a user runs it: its verdict, and what it leaves behind.

use std::process::{Output, Stdio};

use kairos_sync::demo::cluster::PgCluster;
use kairos_tests::{
    browser::Tab,
    service::{connect, eventually, service_binary},
};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{ChildStdout, Command},
    time::{Duration, timeout},
};

const PATIENCE: Duration = Duration::from_mins(2);

async fn demo(arguments: &[&str]) -> Output {
    let mut command = Command::new(service_binary());
    command.args(["demo", "--once"]).args(arguments).env_remove("DATABASE_URL").kill_on_drop(true);
    timeout(PATIENCE, command.output()).await.expect("the demo ends").expect("the demo runs")
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[tokio::test]
async fn on_a_throw_away_server_every_device_equals_postgres() {
    let output = demo(&[]).await;
    let text = text(&output);
    assert!(output.status.success(), "{text}");
    for expected in
        ["after initial sync: all devices equal", "UC-2", "UC-3", "after the end: all devices equal", "Summary"]
    {
        assert!(text.contains(expected), "no `{expected}` in\n{text}");
    }
    assert!(!text.contains('✗'), "{text}");
}

#[tokio::test]
async fn on_a_given_server_nothing_is_left_behind() {
    let cluster = PgCluster::start(None).expect("a server");
    let uri = cluster.uri("postgres", "postgres");
    let output = demo(&["--database-url", &uri]).await;
    assert!(output.status.success(), "{}", text(&output));
    let sql = connect(&uri).await;
    let left: i64 = sql
        .query_one(
            "SELECT (SELECT count(*) FROM pg_database WHERE datname LIKE 'kairos%') \
             + (SELECT count(*) FROM pg_roles WHERE rolname LIKE 'kairos%') \
             + (SELECT count(*) FROM pg_replication_slots)",
            &[],
        )
        .await
        .expect("valid SQL")
        .get(0);
    assert_eq!(left, 0, "databases, roles and slots");

    // Roles of a real service have passwords that the demo would overwrite.
    sql.batch_execute("CREATE ROLE kairos_service LOGIN").await.expect("creates");
    let refused = demo(&["--database-url", &uri]).await;
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused).contains("DEMO-0203"), "{}", text(&refused));
}

/// Reads the demo's output until it has named both pages.
async fn links(output: ChildStdout) -> [String; 2] {
    let mut lines = BufReader::new(output).lines();
    let mut found = [const { String::new() }; 2];
    while let Some(line) = lines.next_line().await.expect("text") {
        for (link, name) in found.iter_mut().zip(["Mirror: ", "Status: "]) {
            if let Some((_, rest)) = line.split_once(name) {
                rest.trim().clone_into(link);
            }
        }
        if found.iter().all(|link| !link.is_empty()) {
            return found;
        }
    }
    panic!("the demo ended without its pages");
}

#[tokio::test]
async fn the_mirror_and_the_status_page_open_by_their_links_until_ctrl_c() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut command = Command::new(service_binary());
    command.arg("demo").env_remove("DATABASE_URL").stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    let mut demo = command.spawn().expect("the demo starts");
    let output = demo.stdout.take().expect("stdout is piped");
    let [mirror, status] = timeout(PATIENCE, links(output)).await.expect("they come");

    let folder = tempfile::tempdir().expect("a folder");
    let tab = Tab::open(folder.path()).await;
    tab.go(&mirror).await;
    tab.shows("#indicator", "Synced").await;
    tab.shows("#members", "Water the plants").await;
    // Somebody in the household does something every few seconds.
    let count = async || tab.texts(".member .count").await;
    let before = count().await;
    eventually(true, async || count().await != before).await;
    tab.go(&status).await;
    tab.shows("#state", "Streaming, ready").await;
    tab.end().await;

    let process = demo.id().expect("it runs").to_string();
    let interrupted = Command::new("kill").args(["-INT", &process]).status().await.expect("kill runs");
    assert!(interrupted.success());
    let ended = timeout(PATIENCE, demo.wait()).await.expect("Ctrl-C ends the demo").expect("it ends");
    assert_eq!(ended.code(), Some(0));
}
