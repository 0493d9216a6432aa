//! `kairos-sync demo` as a user runs it: its verdict, and what it leaves behind.

use std::process::Output;

use kairos_sync::demo::cluster::PgCluster;
use kairos_tests::service::{connect, service_binary};
use tokio::{process::Command, time::Duration, time::timeout};

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
