//! A source that is not ready is refused by name, and what the refusal says to do mends it.

use kairos_sync::{
    demo::cluster::PgCluster,
    postgres::{
        SourceConfig, TlsMode,
        preflight::{SetupProblem, inspect},
    },
};
use tokio_postgres::Client;

use crate::replica::{RULES, Replica, connect};

const CA: &str = include_str!("fixtures/ca.pem");
const SERVER_CERTIFICATE: &str = include_str!("fixtures/server.pem");
/// Belongs to the certificate above, and protects nothing.
const SERVER_KEY: &str = include_str!("fixtures/server.key");

#[tokio::test]
async fn the_sql_a_refusal_names_mends_it() {
    let cluster = PgCluster::start(None).expect("a server");
    let client = connect(&cluster).await;
    client
        .batch_execute(
            "CREATE ROLE app LOGIN;
             CREATE TABLE items (id text, title text, body text);
             CREATE TABLE habits (id text PRIMARY KEY, user_id text NOT NULL);
             CREATE TABLE completions (id text PRIMARY KEY, habit_id text NOT NULL);
             ALTER TABLE completions REPLICA IDENTITY NOTHING;
             ALTER TABLE habits ENABLE ROW LEVEL SECURITY;
             INSERT INTO items VALUES ('a', 'b', 'c'); INSERT INTO habits VALUES ('h', 'ann');",
        )
        .await
        .expect("prepares");
    let mut codes = Vec::new();
    loop {
        let replica = Replica::start_as(&cluster, "app");
        let outcome = replica.outcome().await;
        if let Err((code, message)) = outcome {
            replica.stop().await;
            let mends = message.split_once("run `").and_then(|(_, rest)| rest.split_once('`')).expect("the SQL").0;
            client.batch_execute(mends).await.unwrap_or_else(|error| panic!("{mends}: {error}"));
            codes.push(code);
            assert!(codes.len() < 20, "{codes:?}");
            if code == "PG-0206" {
                let partial = "ALTER PUBLICATION kairos_sync SET (publish = 'insert')";
                client.batch_execute(partial).await.expect("spoils it");
            }
            continue;
        }
        replica.catch_up(&client).await;
        replica.assert_items_equal_sql(&client).await;
        assert_eq!(replica.contents("ann").len(), 1, "the row that row-level security hid");
        replica.stop().await;
        break;
    }
    let expected = [
        "PG-0205", "PG-0206", "PG-0207", // role, publication, what it publishes
        "PG-0209", "PG-0209", "PG-0210", "PG-0209", // completions; habits, with row-level security; items
    ];
    let (mut found, mut wanted) = (codes.clone(), expected.to_vec());
    wanted.extend(["PG-0211", "PG-0211"]);
    found.sort_unstable();
    wanted.sort_unstable();
    assert_eq!(found, wanted, "{codes:?}");
}

#[tokio::test]
async fn settings_that_forbid_replication_are_named() {
    let settings = [("wal_level", "replica"), ("max_wal_senders", "0"), ("max_replication_slots", "1")];
    let cluster = PgCluster::start_with(None, &settings).expect("a server");
    let client = connect(&cluster).await;
    client.batch_execute("SELECT pg_create_physical_replication_slot('taken')").await.expect("takes the slot");
    let source = SourceConfig::from_uri(&cluster.uri("postgres", "postgres")).expect("a usable URI");
    let plan = kairos_sync_rules::compile(RULES, "public").plan.expect("valid rules");
    let found = inspect(&client, &source, &plan.source_tables(), None).await.expect("answers");
    let codes: Vec<_> = found.problems.iter().map(SetupProblem::code).collect();
    assert_eq!(codes, ["PG-0202", "PG-0203", "PG-0204", "PG-0206"]);
}

#[tokio::test]
async fn a_table_that_is_not_published_is_left_out_with_a_warning() {
    let cluster = PgCluster::start(None).expect("a server");
    let client = connect(&cluster).await;
    client
        .batch_execute(
            "CREATE TABLE items (id text PRIMARY KEY, title text, body text);
             CREATE PUBLICATION powersync FOR TABLE items; INSERT INTO items VALUES ('a')",
        )
        .await
        .expect("prepares");
    let replica = Replica::start(&cluster);
    replica.catch_up(&client).await;
    replica.assert_items_equal_sql(&client).await;
    replica.stop().await;
}

/// Lets the server ask for passwords, and offer TLS.
async fn protect(client: &Client) {
    client
        .batch_execute(&format!(
            "CREATE ROLE app LOGIN SUPERUSER PASSWORD 'päss:w@rd';
             CREATE TABLE lines (line text);
             INSERT INTO lines SELECT unnest(string_to_array('{}', E'\\n'));
             COPY lines TO PROGRAM 'umask 077; cat > server.key'; TRUNCATE lines;
             INSERT INTO lines SELECT unnest(string_to_array('{}', E'\\n'));
             COPY lines TO PROGRAM 'cat > server.crt'; TRUNCATE lines;
             INSERT INTO lines VALUES ('host all postgres all trust'), ('host replication postgres all trust'),
               ('host all all all scram-sha-256'), ('host replication all all scram-sha-256');
             COPY lines TO PROGRAM 'cat > pg_hba.conf';
             CREATE TABLE items (id text PRIMARY KEY, title text, body text);
             CREATE PUBLICATION kairos_sync FOR TABLE items;",
            SERVER_KEY.trim(),
            SERVER_CERTIFICATE.trim()
        ))
        .await
        .expect("prepares");
    client.batch_execute("ALTER SYSTEM SET ssl = on").await.expect("switches TLS on");
    client.batch_execute("SELECT pg_reload_conf()").await.expect("reloads");
}

async fn outcome(source: SourceConfig) -> Result<(), &'static str> {
    let replica = Replica::start_from(source);
    let outcome = replica.outcome().await.map_err(|(code, message)| {
        assert!(!message.contains("päss"), "{message}");
        code
    });
    replica.stop().await;
    outcome
}

#[tokio::test]
async fn connections_are_protected_as_configured() {
    let cluster = PgCluster::start(None).expect("a server");
    let client = connect(&cluster).await;
    let uri =
        |credentials: &str, database: &str| format!("postgres://{credentials}@127.0.0.1:{}/{database}", cluster.port());
    let good = SourceConfig::from_uri(&uri("app:p%C3%A4ss%3Aw%40rd", "postgres")).expect("a usable URI");
    let with_tls = |tls, name: Option<&str>, ca: Option<&str>| SourceConfig {
        tls,
        tls_server_name: name.map(str::to_owned),
        ca_certificate: ca.map(str::to_owned),
        ..good.clone()
    };
    assert_eq!(outcome(with_tls(TlsMode::VerifyCa, None, Some(CA))).await, Err("PG-0103"), "no TLS yet");
    protect(&client).await;

    assert_eq!(outcome(good.clone()).await, Ok(()), "SCRAM without TLS");
    for (source, expected) in [
        (with_tls(TlsMode::VerifyFull, Some("postgres.test"), Some(CA)), Ok(())),
        (with_tls(TlsMode::VerifyFull, Some("other.test"), Some(CA)), Err("PG-0104")),
        (with_tls(TlsMode::VerifyFull, None, Some(CA)), Err("PG-0104")),
        (with_tls(TlsMode::VerifyCa, Some("other.test"), Some(CA)), Ok(())),
        (with_tls(TlsMode::VerifyCa, None, Some(SERVER_CERTIFICATE)), Err("PG-0104")),
        (with_tls(TlsMode::VerifyCa, None, Some("no certificate")), Err("PG-0105")),
    ] {
        let case = format!("{:?} {:?}", source.tls, source.tls_server_name);
        assert_eq!(outcome(source).await, expected, "{case}");
    }
    for (credentials, database, expected) in [
        ("app:wrong", "postgres", "PG-0106"),
        ("nobody:x", "postgres", "PG-0106"),
        ("app:p%C3%A4ss%3Aw%40rd", "missing", "PG-0108"),
    ] {
        let source = SourceConfig::from_uri(&uri(credentials, database)).expect("a usable URI");
        assert_eq!(outcome(source).await, Err(expected), "{credentials} {database}");
    }
    drop(cluster);
    assert_eq!(outcome(good).await, Err("PG-0102"), "nobody there");
}
