//! A service process on a database of its own.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, Weak},
    time::{Duration, Instant},
};

use kairos_sync::{
    demo::{
        cluster::{PgCluster, free_port},
        process::ServiceProcess,
        setup::ServiceSetup,
        token::TokenMint,
    },
    migrate::{Migrations, migrate},
};
use serde_json::Value;
use tempfile::TempDir;
use tokio_postgres::{Client, NoTls};

/// How long anything may take until a test gives up on it.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The token that tests administrate with.
pub const ADMIN_TOKEN: &str = "token-of-an-operator";

/// How long the tokens of tests are good.
const TOKEN_LIFE: Duration = Duration::from_hours(1);

/// The server that tests running side by side share. It goes when the last of them ends.
static SHARED: Mutex<Weak<PgCluster>> = Mutex::new(Weak::new());

/// A server for tests to share.
///
/// # Panics
/// When no PostgreSQL is installed.
pub fn shared_cluster() -> Arc<PgCluster> {
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    shared.upgrade().unwrap_or_else(|| {
        let cluster = Arc::new(PgCluster::start(None).expect("PostgreSQL is installed: run `./kairos test`"));
        *shared = Arc::downgrade(&cluster);
        cluster
    })
}

/// Connects to a server.
///
/// # Panics
/// When it does not answer.
pub async fn connect(uri: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(uri, NoTls).await.expect("Postgres answers");
    tokio::spawn(connection);
    client
}

/// The service's binary, which `cargo build` puts beside the folder of this test's.
///
/// # Panics
/// When it was not built.
pub fn service_binary() -> PathBuf {
    binary("kairos-sync")
}

/// A program of the project, which cargo puts beside the folder of this test's.
pub(crate) fn binary(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its own path");
    let binary = test.parent().and_then(Path::parent).expect("tests lie in target/<profile>/deps").join(name);
    assert!(binary.is_file(), "build it first: `cargo build --bin {name}`, as `./kairos test` does");
    binary
}

/// A service process, and the database it reads.
pub struct TestService {
    /// The running service.
    pub process: ServiceProcess,
    /// Its configuration file.
    pub config: PathBuf,
    /// The source as a superuser.
    pub sql: Client,
    /// Makes tokens the service accepts.
    pub mint: TokenMint,
    /// Scratch space, for client databases.
    pub folder: TempDir,
    /// The server, kept alive.
    pub cluster: Arc<PgCluster>,
    /// Name of the database.
    pub database: String,
    /// Where the service keeps its store.
    pub data_dir: PathBuf,
}

impl TestService {
    /// Makes a database with `schema` (SQL that ends with publishing its tables) and starts a service with `rules`.
    ///
    /// # Panics
    /// When anything fails.
    pub async fn start(schema: &str, rules: &str) -> Self {
        let service = Self::prepare(Migrations::Service, rules, async |sql| {
            sql.batch_execute(schema).await.expect("the test's schema is valid");
        });
        service.await
    }

    /// Makes a database, fills it with `fill` and starts a service with `rules`.
    ///
    /// # Panics
    /// When anything fails.
    pub async fn prepare(migrations: Migrations, rules: &str, fill: impl AsyncFnOnce(&mut Client)) -> Self {
        Self::prepare_with(&service_binary(), migrations, rules, fill).await
    }

    /// As [`Self::prepare`], with this binary of the service.
    ///
    /// # Panics
    /// When anything fails.
    pub async fn prepare_with(
        binary: &Path,
        migrations: Migrations,
        rules: &str,
        fill: impl AsyncFnOnce(&mut Client),
    ) -> Self {
        Self::prepare_on(shared_cluster(), binary, migrations, rules, fill).await
    }

    /// As [`Self::start`], on a server of its own that may be ended.
    ///
    /// # Panics
    /// When anything fails.
    pub async fn start_alone(schema: &str, rules: &str) -> Self {
        let cluster = Arc::new(PgCluster::start(None).expect("PostgreSQL is installed: run `./kairos test`"));
        let fill = async |sql: &mut Client| sql.batch_execute(schema).await.expect("the test's schema is valid");
        Self::prepare_on(cluster, &service_binary(), Migrations::Service, rules, fill).await
    }

    async fn prepare_on(
        cluster: Arc<PgCluster>,
        binary: &Path,
        migrations: Migrations,
        rules: &str,
        fill: impl AsyncFnOnce(&mut Client),
    ) -> Self {
        // A second call would find the provider installed, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = tempfile::tempdir().expect("a temporary folder");
        let name = folder.path().file_name().and_then(|name| name.to_str()).expect("a plain name");
        let name: String = name.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_lowercase();
        let database = format!("test_{name}");
        let admin = connect(&cluster.uri("postgres", "postgres")).await;
        admin.batch_execute(&format!("CREATE DATABASE {database}")).await.expect("a fresh name");
        let mut sql = connect(&cluster.uri("postgres", &database)).await;
        migrate(&mut sql, migrations).await.expect("migrations apply");
        fill(&mut sql).await;
        let rules_file = folder.path().join("rules.yaml");
        fs::write(&rules_file, rules).expect("writable");
        let mint = TokenMint::new();
        let setup = ServiceSetup {
            folder: folder.path().to_path_buf(),
            name,
            source_uri: cluster.uri("kairos_replication", &database),
            write_uri: Some(cluster.uri("kairos_service", &database)),
            write_role: Some("kairos_write".to_owned()),
            rules: rules_file,
            port: free_port().expect("a free port"),
            mint: mint.clone(),
        };
        let config = setup.write().expect("writable");
        append(&config, &format!("api: {{ tokens: [{ADMIN_TOKEN}] }}\n"));
        let process = ServiceProcess::start(binary, &config, setup.port).await.expect("the service starts");
        Self { process, config, sql, mint, folder, cluster, database, data_dir: setup.data_dir() }
    }

    /// Connects to the database again, after the server was away.
    ///
    /// # Panics
    /// When it does not answer.
    pub async fn reconnect(&mut self) {
        self.sql = connect(&self.cluster.uri("postgres", &self.database)).await;
    }

    /// Runs SQL that must succeed on the source.
    ///
    /// # Panics
    /// When it fails.
    pub async fn run(&self, sql: &str) {
        self.sql.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }

    /// Ends the service and starts it again with further settings.
    ///
    /// # Panics
    /// When it does not end, or does not start.
    pub async fn reconfigure(&mut self, settings: &str) {
        append(&self.config, settings);
        self.process.terminate().await.expect("it ends");
        self.process.restart().await.expect("it starts again");
    }

    /// What an operator is answered: the status, and the body.
    ///
    /// # Panics
    /// When there is no answer in JSON.
    pub async fn ask(&self, path: &str, body: &Value) -> (u16, Value) {
        self.ask_as(ADMIN_TOKEN, path, body).await
    }

    /// What whoever has the token is answered: the status, and the body.
    ///
    /// # Panics
    /// When there is no answer in JSON.
    pub async fn ask_as(&self, token: &str, path: &str, body: &Value) -> (u16, Value) {
        let request = reqwest::Client::new().post(format!("{}{path}", self.process.endpoint())).json(body);
        let response = request.bearer_auth(token).timeout(PATIENCE).send().await.expect("an answer");
        let status = response.status().as_u16();
        (status, response.json().await.expect("JSON"))
    }

    /// A token for a user.
    pub fn token(&self, user_id: &str) -> String {
        self.mint.mint(user_id, TOKEN_LIFE)
    }

    /// Waits until clients can sync.
    ///
    /// # Panics
    /// When that takes too long.
    pub async fn wait_until_ready(&self) {
        let deadline = Instant::now() + PATIENCE;
        while !self.process.is_ready().await.is_ok_and(|ready| ready) {
            assert!(Instant::now() < deadline, "not ready:\n{}", self.process.log_tail());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn append(file: &Path, text: &str) {
    let mut content = fs::read_to_string(file).expect("readable");
    content.push_str(text);
    fs::write(file, content).expect("writable");
}

/// Asks again and again until the answer is what is expected, and fails with the last answer otherwise.
///
/// # Panics
/// When that takes longer than [`PATIENCE`].
pub async fn eventually<T, F>(expected: T, mut ask: impl FnMut() -> F)
where
    T: PartialEq + std::fmt::Debug,
    F: Future<Output = T>,
{
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = ask().await;
        if answer == expected {
            return;
        }
        assert!(Instant::now() < deadline, "expected {expected:?}, still {answer:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
