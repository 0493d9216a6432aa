//! `doctor` as a user runs it: a healthy source passes, each mistake shows, what it says to run mends it, and `--fix`
//! mends what is safe.

use std::{fs, process::Output};

use kairos_sync::demo::cluster::PgCluster;
use kairos_tests::service::{connect, service_binary};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
    process::Command,
    time::{Duration, timeout},
};
use tokio_postgres::Client;

const PATIENCE: Duration = Duration::from_mins(1);
/// With this nothing is left to warn of.
const SETTINGS: [(&str, &str); 1] = [("max_slot_wal_keep_size", "20GB")];

const RULES: &str = "
config: { edition: 3 }
streams:
  mine:
    queries:
      - SELECT * FROM items WHERE owner = auth.user_id()
      - SELECT * FROM notes.lines WHERE owner = auth.user_id()
write_rules:
  items: { allow: [put], check: 'row.owner = auth.user_id()' }
";

/// Two tables, nothing done about them yet.
const TABLES: &str = "
    CREATE TABLE items (id text PRIMARY KEY, owner text);
    CREATE SCHEMA notes;
    CREATE TABLE notes.lines (id text PRIMARY KEY, owner text);
    CREATE ROLE app LOGIN;
    CREATE ROLE writer NOLOGIN;
    CREATE SCHEMA kairos;
    CREATE TABLE kairos.write_ledger (id text);
    CREATE TABLE kairos.conflicts (id text);
    CREATE TABLE kairos.conflict_preferences (id text);";

/// What makes the source above healthy.
const CARE: &str = "
    ALTER ROLE app REPLICATION;
    GRANT writer TO app;
    GRANT USAGE ON SCHEMA kairos TO app;
    GRANT SELECT, INSERT, DELETE ON kairos.write_ledger TO app;
    GRANT SELECT, INSERT, UPDATE, DELETE ON kairos.conflicts, kairos.conflict_preferences TO app;
    GRANT USAGE ON SCHEMA notes TO app;
    GRANT SELECT ON items, notes.lines TO app;
    CREATE PUBLICATION kairos_sync FOR TABLE items, notes.lines;";

/// A configuration in a folder of its own.
fn config(uri: &str) -> TempDir {
    let folder = TempDir::new().expect("a folder");
    let text = format!(
        "replication: {{ connections: [{{ uri: '{uri}' }}] }}\nsync_config: {{ path: rules.yaml }}\n\
         write: {{ role: writer }}\nclient_auth: {{ audience: app }}\ndata_dir: data\n"
    );
    fs::write(folder.path().join("kairos.yaml"), text).expect("writes the configuration");
    fs::write(folder.path().join("rules.yaml"), RULES).expect("writes the rules");
    folder
}

async fn doctor(folder: &TempDir, arguments: &[&str]) -> Output {
    let mut command = Command::new(service_binary());
    command.arg("doctor").args(arguments).current_dir(folder.path());
    for name in ["KAIROS_DOCTOR_DATABASE", "KAIROS_DOCTOR_ADMIN", "POWERSYNC_CONFIG_PATH"] {
        command.env_remove(name);
    }
    timeout(PATIENCE, command.output()).await.expect("the doctor ends").expect("the doctor runs")
}

async fn report(folder: &TempDir, arguments: &[&str]) -> (Option<i32>, Value) {
    let output = doctor(folder, &[&["--json"], arguments].concat()).await;
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(!stdout.contains("trusted"), "the password is printed: {stdout}");
    (output.status.code(), serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {output:?}")))
}

/// Codes of all that is not well, sorted.
fn codes(report: &Value) -> Vec<&str> {
    let checks = report["checks"].as_array().expect("a list");
    let mut codes: Vec<_> = checks.iter().filter_map(|check| check["code"].as_str()).collect();
    codes.sort_unstable();
    codes
}

/// Runs all the SQL of a report, each statement by itself.
async fn obey(admin: &Client, report: &Value) {
    for check in report["checks"].as_array().expect("a list") {
        for sql in check["sql"].as_array().into_iter().flatten() {
            let sql = sql.as_str().expect("SQL");
            admin.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
        }
    }
}

async fn source(settings: &[(&str, &str)], schema: &str) -> (PgCluster, Client) {
    let cluster = PgCluster::start_with(None, settings).expect("a server");
    let admin = connect(&cluster.uri("postgres", "postgres")).await;
    admin.batch_execute(schema).await.expect("prepares");
    (cluster, admin)
}

#[tokio::test]
async fn a_healthy_source_passes_every_check() {
    let (cluster, _admin) = source(&SETTINGS, &[TABLES, CARE].concat()).await;
    let folder = config(&cluster.uri("app", "postgres"));
    let (exit, found) = report(&folder, &[]).await;
    assert_eq!((exit, codes(&found)), (Some(0), Vec::new()), "{found:#}");
    let mut topics: Vec<_> = found["checks"].as_array().expect("a list").iter().map(|check| &check["topic"]).collect();
    // Older servers have no such timeout.
    topics.retain(|topic| *topic != "idle_slot_timeout");
    let expected = [
        "tls",
        "replication_connection",
        "server_version",
        "wal_level",
        "wal_senders",
        "replication_slots",
        "slot_wal_keep_size",
        "wal_sender_timeout",
        "slots",
        "rules",
        "role",
        "publication",
        "tables",
        "replica_identity",
        "privileges",
        "row_security",
        "clock",
        "write_role",
        "write_ledger",
        "store",
    ];
    assert_eq!(topics, expected, "{found:#}");
    assert!(!folder.path().join("data").exists(), "nothing is made");

    let printed = doctor(&folder, &["--config", "kairos.yaml"]).await;
    let printed = String::from_utf8_lossy(&printed.stdout).into_owned();
    assert!(printed.ends_with(", 0 warned, 0 failed\n"), "{printed}");
}

#[tokio::test]
async fn each_mistake_shows_and_the_sql_beside_it_mends_it() {
    let mistakes = [
        ("ALTER ROLE app NOREPLICATION", "PG-0205"),
        ("ALTER PUBLICATION kairos_sync SET (publish = 'insert')", "PG-0207"),
        ("ALTER PUBLICATION kairos_sync DROP TABLE items", "PG-0208"),
        ("REVOKE SELECT ON items FROM app", "PG-0209"),
        ("REVOKE USAGE ON SCHEMA notes FROM app", "PG-0209"),
        ("ALTER TABLE items ENABLE ROW LEVEL SECURITY", "PG-0210"),
        ("ALTER TABLE items REPLICA IDENTITY NOTHING", "PG-0211"),
        ("ALTER PUBLICATION kairos_sync SET TABLE items WHERE (owner <> ''), notes.lines", "rows_not_published"),
        ("ALTER PUBLICATION kairos_sync SET TABLE items (id), notes.lines", "column_not_published"),
        ("ALTER TABLE items OWNER TO writer", "write_role_owns_tables"),
        ("ALTER ROLE writer BYPASSRLS", "write_role_above_rls"),
        ("REVOKE writer FROM app", "WRITE_ROLE"),
        ("DROP ROLE writer", "WRITE_ROLE"),
        ("REVOKE DELETE ON kairos.write_ledger FROM app", "WRITE_LEDGER"),
        ("REVOKE UPDATE ON kairos.conflicts FROM app", "WRITE_LEDGER"),
        ("SELECT pg_create_logical_replication_slot('kairos_left', 'pgoutput')", "slot_idle"),
        ("ALTER SYSTEM SET max_slot_wal_keep_size = '100MB'", "slot_wal_small"),
        ("ALTER SYSTEM SET max_slot_wal_keep_size = -1", "slot_wal_unlimited"),
        ("ALTER SYSTEM SET wal_sender_timeout = 0", "wal_sender_timeout_off"),
        ("ALTER SYSTEM SET wal_sender_timeout = '2s'", "wal_sender_timeout_small"),
    ];
    let (cluster, admin) = source(&SETTINGS, &[TABLES, CARE].concat()).await;
    let folder = config(&cluster.uri("app", "postgres"));
    for (mistake, code) in mistakes {
        admin.batch_execute("ALTER TABLE items OWNER TO postgres").await.expect("resets");
        if mistake.starts_with("DROP ROLE") {
            admin.batch_execute("DROP OWNED BY writer").await.expect("resets");
        }
        admin.batch_execute(mistake).await.unwrap_or_else(|error| panic!("{mistake}: {error}"));
        admin.batch_execute("SELECT pg_reload_conf()").await.expect("reloads");
        let (exit, found) = report(&folder, &[]).await;
        assert_eq!(codes(&found), [code], "{mistake}: {found:#}");
        assert_eq!(exit == Some(0), found["ok"] == Value::Bool(true), "{mistake}");
        obey(&admin, &found).await;
        let (exit, found) = report(&folder, &[]).await;
        assert_eq!((exit, codes(&found)), (Some(0), Vec::new()), "{mistake}: {found:#}");
    }
}

#[tokio::test]
async fn a_server_that_forbids_replication_is_told_in_full() {
    let settings = [("wal_level", "replica"), ("max_wal_senders", "0"), ("max_replication_slots", "1")];
    let (cluster, admin) = source(&settings, TABLES).await;
    admin.batch_execute("SELECT pg_create_physical_replication_slot('taken')").await.expect("takes the slot");
    let folder = config(&cluster.uri("postgres", "postgres"));
    let (exit, found) = report(&folder, &[]).await;
    assert_eq!(exit, Some(1));
    let expected = ["PG-0202", "PG-0203", "PG-0204", "PG-0206", "slot_wal_unlimited"];
    assert_eq!(codes(&found), expected, "{found:#}");
}

#[tokio::test]
async fn fixing_publishes_and_grants_and_touches_nothing_else() {
    let (cluster, admin) = source(&SETTINGS, TABLES).await;
    admin.batch_execute("SELECT pg_create_logical_replication_slot('kairos_left', 'pgoutput')").await.expect("leaves");
    let folder = config(&cluster.uri("app", "postgres"));
    // A table that is not there keeps none of the others from being published.
    let rules = RULES.replace("queries:\n", "queries:\n      - SELECT * FROM none WHERE owner = auth.user_id()\n");
    fs::write(folder.path().join("rules.yaml"), rules).expect("writes the rules");
    let (exit, found) = report(&folder, &["--fix"]).await;
    assert_eq!(exit, Some(1));
    let applied = found["applied"].as_array().expect("a list");
    let refused = applied.iter().filter(|done| done["refusal"].is_string());
    assert!(refused.count() > 3 && codes(&found).contains(&"PG-0206"), "the service's role may not: {found:#}");

    let admin_uri = cluster.uri("postgres", "postgres");
    let (exit, found) = report(&folder, &["--fix", "--admin", &admin_uri]).await;
    assert_eq!(codes(&found), ["PG-0205", "slot_idle", "table_not_found"], "role and slots are left alone: {found:#}");
    assert_eq!(exit, Some(1));
    assert!(found["applied"].as_array().expect("a list").iter().all(|done| done["refusal"].is_null()), "{found:#}");

    let slots = admin.query("SELECT FROM pg_replication_slots WHERE slot_name = 'kairos_left'", &[]).await;
    assert_eq!(slots.expect("asks").len(), 1);
    obey(&admin, &found).await;
    let (exit, found) = report(&folder, &["--fix", "--admin", &admin_uri]).await;
    assert_eq!((exit, codes(&found)), (Some(0), vec!["table_not_found"]), "{found:#}");
    assert_eq!(found["applied"], serde_json::json!([]), "nothing is left to do");

    admin.batch_execute("ALTER PUBLICATION kairos_sync DROP TABLE notes.lines").await.expect("spoils it");
    let (_, found) = report(&folder, &["--fix", "--admin", &admin_uri]).await;
    let add = r#"ALTER PUBLICATION "kairos_sync" ADD TABLE "notes"."lines";"#;
    assert_eq!(found["applied"], serde_json::json!([{ "sql": add }]));
    assert_eq!(codes(&found), ["table_not_found"], "{found:#}");
}

#[tokio::test]
async fn a_source_without_rules_is_checked_for_all_that_it_publishes() {
    let (cluster, admin) = source(&SETTINGS, &[TABLES, "ALTER ROLE app REPLICATION;"].concat()).await;
    let folder = TempDir::new().expect("a folder");
    let (app, postgres) = (cluster.uri("app", "postgres"), cluster.uri("postgres", "postgres"));
    let (exit, found) = report(&folder, &["--database", &app, "--fix", "--admin", &postgres]).await;
    assert_eq!((exit, codes(&found)), (Some(0), vec!["publication_empty"]), "only an empty one is made: {found:#}");

    admin.batch_execute("ALTER PUBLICATION kairos_sync ADD TABLE notes.lines").await.expect("publishes");
    let (exit, found) = report(&folder, &["--database", &app]).await;
    assert_eq!((exit, codes(&found)), (Some(1), vec!["PG-0209"]), "{found:#}");
}

/// Hands connections on, but refuses those in replication mode as old poolers do.
async fn pooler(server: u16) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let size = client.read_u32().await.expect("a length");
            let mut startup = vec![0; usize::try_from(size).expect("small") - 4];
            client.read_exact(&mut startup).await.expect("a startup message");
            if startup.windows(12).any(|part| part == b"replication\0") {
                let fields = b"SFATAL\0C08P01\0Munsupported startup parameter: replication\0\0";
                let length = u32::try_from(fields.len() + 4).expect("small");
                let answer = [&b"E"[..], &length.to_be_bytes(), fields].concat();
                client.write_all(&answer).await.expect("answers");
                continue;
            }
            let mut server = TcpStream::connect(("127.0.0.1", server)).await.expect("the server");
            server.write_u32(size).await.expect("hands on");
            server.write_all(&startup).await.expect("hands on");
            tokio::spawn(async move { copy_bidirectional(&mut client, &mut server).await });
        }
    });
    port
}

#[tokio::test]
async fn a_pooler_in_between_is_named() {
    let (cluster, _admin) = source(&SETTINGS, &[TABLES, CARE].concat()).await;
    let port = pooler(cluster.port()).await;
    let folder = config(&format!("postgresql://app:trusted@127.0.0.1:{port}/postgres"));
    let (exit, found) = report(&folder, &[]).await;
    assert_eq!((exit, codes(&found)), (Some(1), vec!["PG-0114", "pooler_in_between"]), "{found:#}");
}

#[tokio::test]
async fn what_cannot_be_found_out_is_no_verdict() {
    let folder = config("postgresql://app:s3cret@127.0.0.1:1/app");
    let admin = "postgresql://app:s3cret@127.0.0.1:1/app";
    for (arguments, code) in [
        (vec![], "PG-0102"),
        (vec!["--database", "mysql://app:s3cret@localhost/app"], "PG-0101"),
        (vec!["--config", "none.yaml"], "CONF-0101"),
        (vec!["--config", "kairos.yaml", "--database", admin], "cannot be used with"),
        (vec!["--admin", admin], "--fix"),
    ] {
        let output = doctor(&folder, &arguments).await;
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
        assert!(said.contains(code) && !said.contains("s3cret"), "{said}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
}
