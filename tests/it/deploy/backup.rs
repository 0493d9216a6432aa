//! A backup as docs/deploy.md makes it, on another machine.

use std::{fs, process::Command};

use kairos_sync::demo::cluster::PgCluster;
use kairos_tests::service::{TestService, connect};

use super::programs::run;

const SCHEMA: &str = "
    CREATE TABLE notes (id text PRIMARY KEY, owner text NOT NULL, body text);
    ALTER TABLE notes ENABLE ROW LEVEL SECURITY;
    CREATE POLICY own ON notes USING (owner = kairos.current_user_id());
    SELECT kairos.publish_table('notes', 'INSERT, UPDATE, DELETE');
    INSERT INTO notes VALUES ('a', 'ann', 'a note');
";

const RULES: &str = "
bucket_definitions:
  notes:
    parameters: SELECT request.user_id() AS owner
    data: [SELECT * FROM notes WHERE owner = bucket.owner]
";

#[tokio::test]
async fn a_restored_backup_is_a_source_as_before() {
    let mut service = TestService::start_alone(SCHEMA, RULES).await;
    service.wait_until_ready().await;
    let file = service.folder.path().join("backup.sql");
    let mut dump = Command::new(service.cluster.program("pg_dumpall"));
    run(dump.args(["--dbname", &service.cluster.uri("postgres", "postgres"), "--file"]).arg(&file));

    // Another machine: its administrator and the database are there already, as the image makes them.
    let other = PgCluster::start(None).expect("a server");
    let root = connect(&other.uri("postgres", "postgres")).await;
    root.batch_execute(&format!("CREATE DATABASE {}", service.database)).await.expect("a fresh name");
    let mut restore = Command::new(other.program("psql"));
    restore.args(["--quiet", "--dbname", &other.uri("postgres", "postgres"), "--file"]).arg(&file);
    let complaints = run(&mut restore);
    let complaints: Vec<&str> = complaints.lines().filter(|line| line.contains("ERROR")).collect();
    let known =
        [r#"role "postgres" already exists"#.to_owned(), format!("database \"{}\" already exists", service.database)];
    let is_known = complaints.iter().zip(&known).all(|(line, known)| line.contains(known));
    assert!(complaints.len() == known.len() && is_known, "{complaints:?}");

    // The service is told of the new address and notices by itself that it is another server.
    service.process.terminate().await.expect("it ends");
    let config = fs::read_to_string(&service.config).expect("readable");
    let moved = config.replace(&format!(":{}/", service.cluster.port()), &format!(":{}/", other.port()));
    fs::write(&service.config, moved).expect("writable");
    let sql = connect(&other.uri("postgres", &service.database)).await;
    sql.batch_execute("UPDATE notes SET body = 'a restored note'").await.expect("it is there");
    service.process.restart().await.expect("it starts");
    service.wait_until_ready().await;
    let token = service.token("ann");
    let request = reqwest::Client::new().post(format!("{}/sync/stream", service.process.endpoint()));
    let mut stream = request.bearer_auth(token).json(&serde_json::json!({})).send().await.expect("answers");
    let mut text = String::new();
    while !text.contains("a restored note") {
        let chunk = stream.chunk().await.expect("lines").expect("the stream goes on");
        text.push_str(&String::from_utf8_lossy(&chunk));
    }
    let metrics = service.process.get("/metrics").await.expect("answers");
    assert!(metrics.contains("kairos_comparisons_total{code=\"REPL-0204\"} 1"), "{metrics}");
}
