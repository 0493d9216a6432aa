//! The demo: a household in a throw-away Postgres, synced to devices.
//!
//! ```text
//! source (Postgres, schema, household) ─► process (two services, one per rules file) ─► devices (four SQLite files)
//!   ─► stories (offline, multi-device) ─► oracle (every device against SQL) ─► summary ─► the mirror in a browser, until Ctrl-C
//! ```
//!
//! **Invariants**
//!
//! - Everything is real: server, service processes, sockets, database files.
//! - The oracle asks Postgres and SQLite only; it uses nothing of what it checks.
//! - Whatever was made is removed at the end, also after Ctrl-C or a failure.
//!
//! Start reading at [`run`].

pub mod checks;
pub mod cluster;
pub mod devices;
pub mod household;
pub mod oracle;
pub mod process;
pub mod screen;
pub mod setup;
pub mod source;
pub mod stories;
pub mod summary;
pub mod token;

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use kairos_client::ClientError;
use rand::RngExt;
use tempfile::TempDir;

use self::{
    cluster::{ClusterError, free_port},
    devices::{Device, Devices, TOKEN_LIFE},
    household::{Household, Seeded},
    oracle::OracleError,
    process::ServiceProcess,
    screen::Screen,
    setup::ServiceSetup,
    source::DemoSource,
    summary::Summary,
    token::TokenMint,
};
use crate::{commands::wait_for_end_signal, migrate::MigrateError};

/// The rules of the Kairos app, in its own dialect.
pub const KAIROS_RULES: &str = include_str!("../../../deploy/rules/kairos.yaml");
/// The same rows in classic bucket definitions.
const CLASSIC_RULES: &str = include_str!("../../../deploy/rules/powersync-style.yaml");
/// How long the snapshot may take.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_mins(2);

/// What the demo is told.
#[derive(Debug, Clone, Default)]
pub struct DemoOptions {
    /// End after the checks.
    pub once: bool,
    /// Folder of the server's programs.
    pub postgres_bin: Option<PathBuf>,
    /// A server to use instead of a throw-away one.
    pub database_url: Option<String>,
    /// Port of the service with the mirror.
    pub page_port: Option<u16>,
    /// Open the mirror in the browser.
    pub opens_browser: bool,
}

/// Why the demo cannot go on. A device that differs from Postgres is no error but the demo's verdict.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DemoError {
    /// No throw-away server.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The given server does not answer.
    #[error("connect to the demo's database server: check DATABASE_URL")]
    Connect(#[source] tokio_postgres::Error),
    /// The server refuses to prepare the demo.
    #[error("prepare or remove the demo's database")]
    Prepare(#[source] tokio_postgres::Error),
    /// The given server is prepared for a real service.
    #[error("the server has roles of a real Kairos Sync, which the demo must not touch: use another server")]
    RolesExist,
    /// A migration failed.
    #[error(transparent)]
    Migrate(#[from] MigrateError),
    /// A service process does not run.
    #[error("run the service: {0}")]
    Service(String),
    /// A device's database failed.
    #[error("a device")]
    Device(#[from] ClientError),
    /// A story takes too long.
    #[error("{0} did not happen within {1:?}")]
    Late(&'static str, Duration),
    /// A comparison failed.
    #[error(transparent)]
    Oracle(#[from] OracleError),
    /// A file or socket.
    #[error("the demo's files or ports")]
    Io(#[from] io::Error),
}

impl DemoError {
    /// Stable across releases; listed in `docs/errors.md`.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Cluster(error) => error.code(),
            Self::Migrate(error) => error.code(),
            Self::Connect(_) => "DEMO-0201",
            Self::Prepare(_) => "DEMO-0202",
            Self::RolesExist => "DEMO-0203",
            Self::Service(_) => "DEMO-0204",
            Self::Device(error) => error.code(),
            Self::Late(..) => "DEMO-0205",
            Self::Oracle(_) => "DEMO-0206",
            Self::Io(_) => "DEMO-0207",
        }
    }
}

/// Plays the demo. `true` if every device was what SQL on Postgres says.
///
/// # Errors
/// [`DemoError`] when it cannot be played to the end.
pub async fn run(options: DemoOptions) -> Result<bool, DemoError> {
    let screen = Screen::new();
    let started = Instant::now();
    let mut source = DemoSource::prepare(options.postgres_bin.as_deref(), options.database_url.as_deref()).await?;
    let server =
        if source.is_throw_away() { "throw-away Postgres started" } else { "database made on the given server" };
    screen.done(&format!("{server}, schema, roles, row-level security and publication applied"), started);
    // Whatever ends the play, the source is removed after it.
    let verdict = tokio::select! {
        verdict = play(&screen, &mut source, &options) => verdict,
        () = wait_for_end_signal() => {
            screen.line("  interrupted: removing everything");
            Ok(!options.once)
        }
    };
    let removed = source.remove().await;
    let verdict = verdict?;
    removed?;
    Ok(verdict)
}

async fn play(screen: &Screen, source: &mut DemoSource, options: &DemoOptions) -> Result<bool, DemoError> {
    let started = Instant::now();
    let seeded = source.seed(&Household::default()).await?;
    screen.done(
        &format!(
            "household seeded: {} users, {} habits, {} completions over a year, {} routines, {} recovery sessions",
            seeded.users, seeded.habits, seeded.completions, seeded.routines, seeded.recovery_sessions
        ),
        started,
    );
    let folder = tempfile::Builder::new().prefix("kairos-demo-").tempdir()?;
    let mint = TokenMint::new();
    let (services, snapshot) = start_services(screen, source, &folder, &mint, seeded, options.page_port).await?;

    let devices = Devices::open(folder.path(), &mint, &services).await?;
    let initial = devices.sync_first(screen).await?;
    let mut summary = Summary::new(seeded, snapshot, initial);
    let mut equal = summary.check(screen, source, &devices, "initial sync").await?;
    stories::offline(screen, source, &devices).await?;
    equal &= summary.check(screen, source, &devices, "UC-2, offline usage").await?;
    stories::multi_device(screen, source, &devices).await?;
    equal &= summary.check(screen, source, &devices, "UC-3, multi-device").await?;
    summary.latency = stories::latency(source, &devices).await?;
    equal &= summary.check(screen, source, &devices, "the end").await?;
    summary.print(screen, &services, &devices);
    if options.once {
        return Ok(equal);
    }
    stories::live(screen, source, &Links::new(&services, &mint), options.opens_browser).await?;
    Ok(equal)
}

/// The service with the app's own rules, and one with classic rules beside it.
pub struct Services {
    /// Rules in the Kairos dialect.
    pub kairos: ServiceProcess,
    /// Classic bucket definitions.
    pub classic: ServiceProcess,
    /// Who has it may ask the first one about everything.
    admin_token: String,
}

/// Pages to look at, with the tokens they ask for behind the `#`, which no server sees.
pub struct Links {
    /// Anna's habits.
    pub mirror: String,
    /// How the service is.
    pub status: String,
}

impl Links {
    fn new(services: &Services, mint: &TokenMint) -> Self {
        let endpoint = services.kairos.endpoint();
        let token = mint.mint("anna", TOKEN_LIFE);
        Self {
            mirror: format!("{endpoint}/mirror/#token={token}"),
            status: format!("{endpoint}/admin/#token={}", services.admin_token),
        }
    }
}

/// Starts both services and waits until their snapshots are visible. Gives how long the first one took.
async fn start_services(
    screen: &Screen,
    source: &DemoSource,
    folder: &TempDir,
    mint: &TokenMint,
    seeded: Seeded,
    page_port: Option<u16>,
) -> Result<(Services, Duration), DemoError> {
    let binary = std::env::current_exe()?;
    let admin_token = format!("{:032x}", rand::rng().random::<u128>());
    let environment = [("KAIROS_ADMIN_TOKEN", admin_token.as_str())];
    let start = async |name: &str, rules: &str, port: Option<u16>| -> Result<ServiceProcess, DemoError> {
        let setup = ServiceSetup {
            folder: folder.path().to_path_buf(),
            name: name.to_owned(),
            source_uri: source.uri("kairos_replication"),
            write_uri: Some(source.uri("kairos_service")),
            write_role: Some("kairos_write".to_owned()),
            rules: write_rules(folder.path(), name, rules)?,
            port: port.map_or_else(free_port, Ok)?,
            mint: mint.clone(),
        };
        let config = setup.write()?;
        let started = ServiceProcess::start_with(&binary, &config, setup.port, &environment).await;
        started.map_err(|error| DemoError::Service(error.to_string()))
    };
    let started = Instant::now();
    let kairos = start("kairos", KAIROS_RULES, page_port).await?;
    wait_until_ready(screen, &kairos, "snapshot", rows_of(seeded)).await?;
    let snapshot = started.elapsed();
    screen.done("service started with the Kairos rules, snapshot taken", started);
    let started = Instant::now();
    let classic = start("classic", CLASSIC_RULES, None).await?;
    wait_until_ready(screen, &classic, "snapshot", rows_of(seeded)).await?;
    screen.done("second service started with PowerSync-style rules, snapshot taken", started);
    Ok((Services { kairos, classic, admin_token }, snapshot))
}

fn write_rules(folder: &Path, name: &str, rules: &str) -> io::Result<PathBuf> {
    let path = folder.join(format!("{name}-rules.yaml"));
    fs::write(&path, rules)?;
    Ok(path)
}

/// Rows both rules files read. Users and households are in the classic ones only, and few.
fn rows_of(seeded: Seeded) -> u64 {
    let Seeded { habits, completions, routines, routine_habits, recovery_sessions, .. } = seeded;
    (habits + completions + routines + routine_habits + recovery_sessions) as u64
}

async fn wait_until_ready(
    screen: &Screen,
    service: &ServiceProcess,
    label: &str,
    row_count: u64,
) -> Result<(), DemoError> {
    let unreachable = |error: reqwest::Error| DemoError::Service(format!("{error}\n{}", service.log_tail()));
    let bar = screen.bar(label, row_count);
    let deadline = Instant::now() + SNAPSHOT_TIMEOUT;
    while !service.is_ready().await.map_err(unreachable)? {
        if Instant::now() > deadline {
            return Err(DemoError::Service(format!(
                "no checkpoint within {SNAPSHOT_TIMEOUT:?}\n{}",
                service.log_tail()
            )));
        }
        bar.set_position(service.rows_replicated().await.map_err(unreachable)?.min(row_count));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    bar.finish_and_clear();
    Ok(())
}

/// A device and whose it is.
pub(crate) fn named(devices: &Devices) -> [(&'static str, &Device); 4] {
    [
        ("anna's phone", &devices.phone),
        ("anna's watch", &devices.watch),
        ("ben's phone", &devices.other),
        ("anna's mirror (classic rules)", &devices.mirror),
    ]
}
