//! Connections to a server that asks who is there: both kinds, SQL and replication, have the same answers.
//!
//! [`passwords`] has the ways to authenticate, [`tls`] the certificates, [`authority`] makes them.

mod authority;
mod passwords;
mod tls;

use std::time::Duration;

use kairos_sync::{
    demo::cluster::PgCluster,
    postgres::{PgError, SourceConfig, TlsMode, walsender::WalSender},
};
use tokio::time::{Instant, sleep};
use tokio_postgres::Client;

use self::authority::Authority;
use crate::replica::connect;

const DEADLINE: Duration = Duration::from_secs(30);
/// What certificates of the server are for.
const HOST: &str = "postgres.test";

/// Must be in no message.
const PASSWORD: &str = "s3cret";

/// Code and message of a refusal.
type Refusal = (&'static str, String);

/// What becomes of both kinds of connections, which must be the same.
async fn outcome(source: &SourceConfig) -> Result<(), Refusal> {
    let refusal = |error: PgError| (error.code(), error.to_string());
    let sql = match source.connect().await {
        Ok(client) => client.simple_query("SELECT 1").await.map(drop).map_err(|error| refusal(error.into())),
        Err(error) => Err(refusal(error)),
    };
    let replication = match WalSender::connect(source).await {
        Ok(mut walsender) => walsender.identify_system().await.map(drop).map_err(refusal),
        Err(error) => Err(refusal(error)),
    };
    assert_eq!(sql, replication, "SQL and replication");
    sql
}

/// Asserts a refusal of this code, the message of which says this.
fn assert_refused(outcome: Result<(), Refusal>, code: &str, says: &str, case: &str) {
    match outcome {
        Err((found, message)) => {
            assert_eq!(found, code, "{case}: {message}");
            assert!(message.contains(says), "{case}: {message}");
            assert!(!message.contains(PASSWORD), "{case}: {message}");
        }
        Ok(()) => panic!("{case}: it is let in"),
    }
}

/// A server that offers TLS.
struct Server {
    cluster: PgCluster,
    client: Client,
    authority: Authority,
}

impl Server {
    async fn start() -> Self {
        let cluster = PgCluster::start(None).expect("a server");
        let (client, authority) = (connect(&cluster).await, Authority::new());
        let server = Self { cluster, client, authority };
        let (certificate, key) = server.authority.certify(&[HOST], |_| {});
        server.install("good", &certificate, &key).await;
        server
    }

    fn source(&self, role: &str, password: Option<&str>, tls: TlsMode) -> SourceConfig {
        let password = password.map(|text| format!(":{text}")).unwrap_or_default();
        let uri = format!("postgresql://{role}{password}@127.0.0.1:{}/postgres", self.cluster.port());
        SourceConfig {
            tls,
            tls_server_name: Some(HOST.to_owned()),
            ca_certificate: Some(self.authority.certificate()),
            ..SourceConfig::from_uri(&uri).expect("a usable URI")
        }
    }

    /// Lets the server use this certificate from now on.
    async fn install(&self, name: &str, certificate: &str, key: &str) {
        for (file, text) in [("crt", certificate), ("key", key)] {
            self.write(&format!("{name}.{file}"), text).await;
        }
        let sql = format!("ALTER SYSTEM SET ssl_key_file = '{name}.key'");
        self.client.batch_execute(&sql).await.expect("takes the setting");
        self.set("ssl_cert_file", &format!("{name}.crt")).await;
        self.set("ssl", "on").await;
    }

    /// Writes a file into the server's data folder.
    async fn write(&self, name: &str, text: &str) {
        let sql = format!(
            "COPY (SELECT unnest(string_to_array('{}', E'\\n'))) TO PROGRAM 'umask 077; cat > {name}'",
            text.trim()
        );
        self.client.batch_execute(&sql).await.expect("writes the file");
    }

    /// Changes a setting, and waits until new connections have it, and everything else that was changed before.
    async fn set(&self, name: &str, value: &str) {
        for sql in [&format!("ALTER SYSTEM SET {name} = '{value}'"), "SELECT pg_reload_conf()"] {
            self.client.batch_execute(sql).await.expect(sql);
        }
        let started = Instant::now();
        loop {
            let row = connect(&self.cluster).await.query_one(&format!("SHOW {name}"), &[]).await.expect("a setting");
            if row.get::<_, String>(0) == value {
                return;
            }
            assert!(started.elapsed() < DEADLINE, "the server does not take {name} = {value}");
            sleep(Duration::from_millis(5)).await;
        }
    }
}
