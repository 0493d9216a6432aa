//! A real pooler between the service and Postgres is named, with what to do.

use std::{
    fs,
    process::{Child, Command, Stdio},
    time::Duration,
};

use kairos_sync::{demo::cluster::free_port, postgres::SourceConfig};
use tempfile::TempDir;
use tokio::{net::TcpStream, time::sleep};

use crate::replica::{Replica, source};

/// A running `PgBouncer`, ended when dropped.
struct PgBouncer {
    process: Child,
    port: u16,
    _folder: TempDir,
}

impl PgBouncer {
    /// `None` where it is not installed.
    async fn start(server: u16, pool_mode: &str) -> Option<Self> {
        let program = std::env::var("KAIROS_TEST_PGBOUNCER").unwrap_or_else(|_| "pgbouncer".to_owned());
        let version = Command::new(&program).arg("--version").output().ok()?;
        let version = String::from_utf8_lossy(&version.stdout).lines().next().unwrap_or_default().to_owned();
        println!("{version}, pooling by {pool_mode}");
        let (folder, port) = (tempfile::tempdir().expect("a folder"), free_port().expect("a port"));
        let config = folder.path().join("pgbouncer.ini");
        let text = format!(
            "[databases]\npostgres = host=127.0.0.1 port={server} user=postgres\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
             listen_port = {port}\nunix_socket_dir =\nauth_type = any\npool_mode = {pool_mode}\n"
        );
        fs::write(&config, text).expect("writes the configuration");
        let mut command = Command::new(program);
        let identity = Command::new("id").arg("-u").output().expect("`id` runs");
        if identity.stdout == b"0\n" {
            // It refuses to run as root, and reads the file before it becomes another user.
            command.args(["-u", "nobody"]);
        }
        let process = command.arg("-q").arg(&config).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("runs");
        let pooler = Self { process, port, _folder: folder };
        for _ in 0..500 {
            if TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
                return Some(pooler);
            }
            sleep(Duration::from_millis(20)).await;
        }
        panic!("PgBouncer does not listen");
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        // It may be gone already; nothing is left to do then.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[tokio::test]
async fn replication_through_a_pooler_says_to_connect_directly() {
    let (cluster, client) = source().await;
    let direct = SourceConfig::from_uri(&cluster.uri("postgres", "postgres")).expect("a usable URI");
    for pool_mode in ["session", "transaction"] {
        let Some(pooler) = PgBouncer::start(cluster.port(), pool_mode).await else {
            println!("skipped: PgBouncer is not installed");
            return;
        };
        let replica = Replica::start_from(SourceConfig { port: pooler.port, ..direct.clone() });
        match replica.outcome().await {
            Err((code, message)) => {
                assert_eq!(code, "PG-0114", "{pool_mode}: {message}");
                assert!(message.contains(&pooler.port.to_string()) && message.contains("Postgres itself"), "{message}");
            }
            // From 1.23 on it lets replication through.
            Ok(()) => replica.catch_up(&client).await,
        }
        replica.stop().await;
    }
}
