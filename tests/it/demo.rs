//! `kairos-sync demo` as a user runs it: its verdict, and what it leaves behind.

use std::process::{Output, Stdio};

use kairos_sync::demo::cluster::PgCluster;
use kairos_tests::service::{connect, service_binary};
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

/// Reads the demo's output until it names the page.
async fn page_url(output: ChildStdout) -> String {
    let mut lines = BufReader::new(output).lines();
    while let Some(line) = lines.next_line().await.expect("text") {
        if let Some((_, rest)) = line.split_once("Live page: ") {
            return rest.split_whitespace().next().expect("an address").to_owned();
        }
    }
    panic!("the demo ended without a page");
}

#[tokio::test]
async fn the_live_page_shows_todays_habits_until_ctrl_c() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut command = Command::new(service_binary());
    command.arg("demo").env_remove("DATABASE_URL").stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    let mut demo = command.spawn().expect("the demo starts");
    let output = demo.stdout.take().expect("stdout is piped");
    let url = timeout(PATIENCE, page_url(output)).await.expect("the page comes");

    let page = reqwest::get(&url).await.expect("the page is served").text().await.expect("text");
    assert!(page.contains("<title>Kairos Sync"), "{page}");
    let mut events = reqwest::get(format!("{url}events")).await.expect("events are served");
    let mut received = String::new();
    // The first state may be the empty one from before the first query.
    while !received.contains("\"state\":\"Synced\"") {
        let chunk = timeout(PATIENCE, events.chunk()).await.expect("states come").expect("no error");
        received.push_str(&String::from_utf8_lossy(&chunk.expect("the stream goes on")));
    }
    assert!(received.contains("\"user\":\"anna\"") && received.contains("Drink water"), "{received}");

    let process = demo.id().expect("it runs").to_string();
    let interrupted = Command::new("kill").args(["-INT", &process]).status().await.expect("kill runs");
    assert!(interrupted.success());
    let ended = timeout(PATIENCE, demo.wait()).await.expect("Ctrl-C ends the demo").expect("it ends");
    assert_eq!(ended.code(), Some(0));
}
