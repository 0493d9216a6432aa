//! The stack of `compose.yaml` on this host: each container's program, with its command, its environment and its files.
//! What differs is what containers change as well: names of hosts, ports, and where data lies.

use std::{path::Path, process::Command, sync::Arc};

use kairos_sync::demo::cluster::{PgCluster, free_port};
use kairos_tests::service::{connect, eventually, service_binary};
use tempfile::TempDir;
use tokio_postgres::Client;

use super::{
    compose::Compose,
    programs::{Running, kit, libraries, program, run, search_path},
};

/// Ports that stand for hosts of the network of containers.
#[derive(Clone, Copy)]
pub(super) struct Ports {
    pub(super) postgres: u16,
    pub(super) pocketbase: u16,
    pub(super) sync: u16,
    pub(super) caddy: u16,
}

impl Ports {
    /// For a program that asks none of them.
    pub(super) fn unused() -> Self {
        Self { postgres: 1, pocketbase: 1, sync: 1, caddy: 1 }
    }

    /// Text in which hosts of the network are ports of this host.
    pub(super) fn here(self, text: &str) -> String {
        text.replace("postgres:5432", &format!("127.0.0.1:{}", self.postgres))
            .replace("pocketbase:8090", &format!("127.0.0.1:{}", self.pocketbase))
            .replace("kairos-sync:8080", &format!("127.0.0.1:{}", self.sync))
    }
}

/// All that runs without a profile.
pub(super) struct Stack {
    pub(super) ports: Ports,
    /// The database as its administrator.
    pub(super) sql: Client,
    pub(super) http: reqwest::Client,
    pub(super) compose: Compose,
    // Dropped in this order.
    _caddy: Running,
    _sync: Running,
    _pocketbase: Running,
    _postgres: Arc<PgCluster>,
    pub(super) folder: TempDir,
}

impl Stack {
    /// Starts everything, in the order of the file.
    pub(super) async fn start() -> Self {
        // A second call would find the provider installed, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let compose = Compose::read();
        let (postgres, sql) = start_postgres(&compose).await;
        let port = || free_port().expect("a port");
        let ports = Ports { postgres: postgres.port(), pocketbase: port(), sync: port(), caddy: port() };
        let folder = TempDir::new().expect("a folder");
        let host = Host { compose: &compose, ports, folder: folder.path() };
        let migrate = compose.words("migrate", "command");
        let said = run(&mut host.kairos_sync("migrate", &migrate));
        assert!(said.contains("sample/0003_access") && said.contains("kairos_service has the password"), "{said}");
        let again = run(&mut host.kairos_sync("migrate", &migrate));
        assert!(again.starts_with("nothing to do"), "{again}");
        let pocketbase = host.start_pocketbase();
        let http = reqwest::Client::new();
        let answers = async |url: String| http.get(url).send().await.is_ok_and(|answer| answer.status().is_success());
        eventually(true, || answers(format!("http://127.0.0.1:{}/api/health", ports.pocketbase))).await;
        let serve = host.kairos_sync("kairos-sync", &compose.words("kairos-sync", "command"));
        let mut sync = Running::start(serve, folder.path(), "sync");
        // As the image's HEALTHCHECK.
        let is_healthy = || {
            sync.expect_alive();
            let mut check = host.kairos_sync("kairos-sync", &["status".to_owned(), "--ready".to_owned()]);
            let check = tokio::task::spawn_blocking(move || check.output().expect("it runs").status.code());
            async { check.await.expect("it runs") }
        };
        eventually(Some(0), is_healthy).await;
        let mut doctor = host.kairos_sync("kairos-sync", &["doctor".to_owned()]);
        let findings = tokio::task::spawn_blocking(move || run(&mut doctor)).await.expect("it runs");
        assert!(findings.contains("0 warned, 0 failed"), "{findings}");
        let caddy = host.start_caddy();
        eventually(true, || answers(format!("http://127.0.0.1:{}/api/health", ports.caddy))).await;
        Self {
            ports,
            sql,
            http,
            compose,
            _caddy: caddy,
            _sync: sync,
            _pocketbase: pocketbase,
            _postgres: postgres,
            folder,
        }
    }

    /// What a user enters in the app.
    pub(super) fn site(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports.caddy)
    }
}

/// The server as its container makes it: an administrator, a database, passwords for all.
async fn start_postgres(compose: &Compose) -> (Arc<PgCluster>, Client) {
    let command = compose.words("postgres", "command");
    let settings: Vec<(&str, &str)> = command.iter().filter_map(|word| word.split_once('=')).collect();
    assert!(settings.contains(&("wal_level", "logical")), "{settings:?}");
    let cluster =
        Arc::new(PgCluster::start_with(None, &settings).expect("PostgreSQL is installed: run `./kairos test`"));
    let variable = |name| compose.variable("postgres", name);
    let (user, database) = (variable("POSTGRES_USER"), variable("POSTGRES_DB"));
    let root = connect(&cluster.uri("postgres", "postgres")).await;
    let password = variable("POSTGRES_PASSWORD");
    root.batch_execute(&format!("CREATE ROLE {user} SUPERUSER LOGIN PASSWORD '{password}'")).await.expect("a role");
    root.batch_execute(&format!("CREATE DATABASE {database} OWNER {user}")).await.expect("a database");
    let hba: String = root.query_one("SHOW hba_file", &[]).await.expect("answers").get(0);
    let lines = ["all", "replication"].map(|what| format!("('host {what} all 127.0.0.1/32 scram-sha-256')"));
    root.batch_execute(&format!("COPY (VALUES {}) TO '{hba}'", lines.join(", "))).await.expect("writes");
    root.batch_execute("SELECT pg_reload_conf()").await.expect("reloads");
    let uri = |password: &str| format!("postgresql://{user}:{password}@127.0.0.1:{}/{database}", cluster.port());
    let is_open = async || tokio_postgres::connect(&uri("wrong"), tokio_postgres::NoTls).await.is_ok();
    eventually(false, is_open).await;
    let sql = connect(&uri(&password)).await;
    (cluster, sql)
}

/// What stands for the machine that the containers run on.
pub(super) struct Host<'a> {
    pub(super) compose: &'a Compose,
    pub(super) ports: Ports,
    pub(super) folder: &'a Path,
}

impl Host<'_> {
    /// A command with nothing in its environment but what the container has.
    fn confine(&self, mut command: Command, service: &str) -> Command {
        command.env_clear().env("PATH", search_path()).env("LD_LIBRARY_PATH", libraries());
        let environment = self.compose.environment(service).into_iter();
        command.envs(environment.map(|(name, value)| (name, self.ports.here(&value))));
        command
    }

    /// The service's binary in the folder that stands for `/etc/kairos-sync`.
    fn kairos_sync(&self, service: &str, arguments: &[String]) -> Command {
        let mut command = self.confine(Command::new(service_binary()), service);
        command.current_dir(kit()).args(arguments);
        command.env("KAIROS_DATA_DIR", self.folder.join("store")).env("PS_PORT", self.ports.sync.to_string());
        // Where Caddy comes from.
        command.env("KAIROS_PROXY_NETWORK", "127.0.0.1");
        command
    }

    /// A script, which is what stands below `entrypoint: [/bin/sh, -euc]`.
    pub(super) fn script(&self, service: &str, here: impl Fn(&str) -> String) -> Command {
        assert_eq!(self.compose.words(service, "entrypoint"), ["/bin/sh", "-euc"]);
        let mut command = self.confine(Command::new("/bin/sh"), service);
        command.arg("-euc").arg(here(&self.compose.words(service, "command")[0]));
        command
    }

    fn start_pocketbase(&self) -> Running {
        let (data, address) = (self.folder.join("pb_data"), format!("127.0.0.1:{}", self.ports.pocketbase));
        let here =
            |script: &str| script.replace("/pb_data", &data.display().to_string()).replace("0.0.0.0:8090", &address);
        Running::start(self.script("pocketbase", here), self.folder, "pocketbase")
    }

    fn start_caddy(&self) -> Running {
        let mut command = self.confine(program("caddy"), "caddy");
        command.args(["run", "--config"]).arg(kit().join("proxy/Caddyfile"));
        command.env("KAIROS_SITE", format!(":{}", self.ports.caddy));
        // Its volumes.
        let data = self.folder.join("caddy-data");
        command.env("XDG_DATA_HOME", &data).env("XDG_CONFIG_HOME", &data).env("HOME", self.folder);
        Running::start(command, self.folder, "caddy")
    }
}
