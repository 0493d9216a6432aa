//! Every way to authenticate: who is let in, and how a refusal is named.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use kairos_sync::postgres::{SourceConfig, TlsMode};
use tokio::{
    net::TcpListener,
    time::{Instant, sleep},
};

use super::{DEADLINE, PASSWORD, Server, assert_refused, outcome};
use crate::replica::Replica;

/// A role for each way; all have the same password.
const ROLES: &str = "
    SET password_encryption = 'scram-sha-256';
    CREATE ROLE scram LOGIN REPLICATION PASSWORD 's3cret';
    CREATE ROLE clear LOGIN REPLICATION PASSWORD 's3cret';
    CREATE ROLE protected LOGIN REPLICATION PASSWORD 's3cret';
    CREATE ROLE open LOGIN REPLICATION;
    CREATE ROLE certified LOGIN REPLICATION;
    CREATE ROLE rejected LOGIN REPLICATION;
    SET password_encryption = 'md5';
    CREATE ROLE hashed LOGIN REPLICATION PASSWORD 's3cret'";

/// The first that fits counts.
const RULES: &str = "
    host    all scram     all scram-sha-256
    host    all hashed    all md5
    host    all clear     all password
    hostssl all protected all scram-sha-256
    host    all protected all reject
    hostssl all certified all cert
    host    all rejected  all reject
    host    all all       all trust";

async fn server() -> Server {
    let server = Server::start().await;
    server.client.batch_execute(ROLES).await.expect("creates the roles");
    server.write("pg_hba.conf", RULES).await;
    // To ask for a certificate, a server must know whose to accept.
    server.write("ca.crt", &server.authority.certificate()).await;
    server.set("ssl_ca_file", "ca.crt").await;
    server
}

#[tokio::test]
async fn every_way_to_authenticate_has_the_documented_outcome() {
    use TlsMode::{Disable, VerifyFull};
    let server = server().await;
    for (role, tls) in [
        ("scram", Disable),
        ("scram", VerifyFull),
        ("hashed", Disable),
        ("hashed", VerifyFull),
        ("clear", VerifyFull),
        ("protected", VerifyFull),
        ("open", Disable),
        ("open", VerifyFull),
    ] {
        let case = format!("{role}, {tls:?}");
        assert_eq!(outcome(&server.source(role, Some(PASSWORD), tls)).await, Ok(()), "{case}");
        let (wrong, none) = (server.source(role, Some("s3cret2"), tls), server.source(role, None, tls));
        if role == "open" {
            assert_eq!((outcome(&wrong).await, outcome(&none).await), (Ok(()), Ok(())), "{case}: nobody asks");
            continue;
        }
        assert_refused(outcome(&wrong).await, "PG-0106", "check role, password", &case);
        assert_refused(outcome(&none).await, "PG-0107", "none is configured", &case);
    }
    for (role, tls, code, says) in [
        ("clear", Disable, "PG-0107", "in the clear on a connection without TLS"),
        ("protected", Disable, "PG-0106", "no encryption"),
        ("rejected", Disable, "PG-0106", "pg_hba.conf"),
        ("certified", VerifyFull, "PG-0106", "client certificate"),
        ("nobody", Disable, "PG-0106", "\"nobody\""),
    ] {
        assert_refused(outcome(&server.source(role, Some(PASSWORD), tls)).await, code, says, role);
    }
}

#[tokio::test]
async fn a_database_that_is_not_there_is_named() {
    let server = server().await;
    let source = server.source("scram", Some(PASSWORD), TlsMode::Disable);
    let source = SourceConfig { database: "missing".to_owned(), ..source };
    assert_refused(outcome(&source).await, "PG-0108", "\"missing\"", "another database");
}

/// Ends every connection at once, and counts them.
async fn quitter() -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let (port, count) = (listener.local_addr().expect("an address").port(), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&count);
    tokio::spawn(async move {
        while listener.accept().await.is_ok() {
            counted.fetch_add(1, Ordering::Relaxed);
        }
    });
    (port, count)
}

#[tokio::test]
async fn a_refused_password_is_not_tried_again_soon() {
    /// Lost connections are: this often within seconds, while a refused password waits at least ten.
    const OTHER_ATTEMPTS: usize = 6;
    let server = server().await;
    let wrong = server.source("scram", Some("s3cret2"), TlsMode::Disable);
    let (port, attempts) = quitter().await;
    let refused = Replica::start_from(wrong.clone());
    assert_eq!(refused.outcome().await.map_err(|(code, _)| code), Err("PG-0106"));
    let lost = Replica::start_from(SourceConfig { port, ..wrong });
    let started = Instant::now();
    while attempts.load(Ordering::Relaxed) < OTHER_ATTEMPTS {
        assert!(started.elapsed() < DEADLINE, "a lost connection is not opened again");
        sleep(Duration::from_millis(5)).await;
    }
    let log = server.client.query_one("SELECT pg_read_file('../postgres.log')", &[]).await.expect("the log");
    let refusals = log.get::<_, String>(0).matches("password authentication failed for user \"scram\"").count();
    assert_eq!(refusals, 1, "while another connection was tried {OTHER_ATTEMPTS} times");
    refused.stop().await;
    lost.stop().await;
}
