//! A throw-away Postgres server, for the demo and for tests.

use std::{
    fs, io,
    net::TcpListener,
    os::unix::{fs::chown, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use tempfile::TempDir;

/// Where Debian and Ubuntu put server binaries, one folder per major version.
const DEBIAN_FOLDER: &str = "/usr/lib/postgresql";

/// Why no throw-away server could be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClusterError {
    /// No server binaries.
    #[error(
        "no PostgreSQL server found in PATH or {DEBIAN_FOLDER}: install it (`apt-get install postgresql`) or name its \
         folder with --postgres-bin"
    )]
    NotFound,
    /// `initdb` and `postgres` refuse root, and there is no other user to become.
    #[error(
        "PostgreSQL refuses to run as root, and neither the user `postgres` nor `nobody` exists: run as another user"
    )]
    NoUnprivilegedUser,
    /// A file operation failed.
    #[error("prepare the throw-away PostgreSQL server")]
    Io(#[from] io::Error),
    /// A server program failed.
    #[error("{program} failed: {message}")]
    Program {
        /// `initdb` or `pg_ctl`.
        program: &'static str,
        /// Its last words.
        message: String,
    },
}

impl ClusterError {
    /// Stable across releases; listed in `docs/errors.md`.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NotFound => "DEMO-0101",
            Self::NoUnprivilegedUser => "DEMO-0102",
            Self::Io(_) => "DEMO-0103",
            Self::Program { .. } => "DEMO-0104",
        }
    }
}

/// A running server on a port of its own, removed with its data when dropped. Superuser `postgres`, no password,
/// reachable from this machine only.
#[derive(Debug)]
pub struct PgCluster {
    bin: PathBuf,
    folder: TempDir,
    port: u16,
    account: Option<Account>,
}

/// Between the choice of a port and the server's start another program may take it.
const PORTS_TRIED: usize = 4;
/// Below what common systems give to outgoing connections (from 32,768 on Linux, 49,152 elsewhere).
const SERVER_PORTS: std::ops::Range<u16> = 15_000..32_000;
/// So many taken ones in a row would be strange.
const CANDIDATES: usize = 1_000;

/// The unprivileged user the server runs as when this process is root.
#[derive(Debug, Clone, Copy)]
struct Account {
    uid: u32,
    gid: u32,
}

impl PgCluster {
    /// Makes and starts a server with `wal_level=logical`. `bin` is the folder of its binaries, where it is known.
    ///
    /// # Errors
    /// [`ClusterError`].
    pub fn start(bin: Option<&Path>) -> Result<Self, ClusterError> {
        Self::start_with(bin, &[])
    }

    /// As [`Self::start`], with further settings such as `("wal_level", "replica")`.
    ///
    /// # Errors
    /// [`ClusterError`].
    pub fn start_with(bin: Option<&Path>, settings: &[(&str, &str)]) -> Result<Self, ClusterError> {
        let bin = find_binaries(bin).ok_or(ClusterError::NotFound)?;
        let account = unprivileged_account()?;
        let folder = tempfile::Builder::new().prefix("kairos-pg-").tempdir()?;
        if let Some(account) = account {
            chown(folder.path(), Some(account.uid), Some(account.gid))?;
        }
        let mut cluster = Self { bin, folder, port: 0, account };
        let data = cluster.data_folder();
        cluster.run(
            "initdb",
            &["-D", path_text(&data), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"],
        )?;
        cluster.configure(&settings_of(settings))?;
        for _ in 1..PORTS_TRIED {
            match cluster.start_on_free_port() {
                Err(ClusterError::Program { .. }) if cluster.port_was_taken() => {}
                started => return started.map(|()| cluster),
            }
        }
        cluster.start_on_free_port().map(|()| cluster)
    }

    /// Adds settings; of several for one thing the last counts.
    fn configure(&self, settings: &str) -> io::Result<()> {
        let mut file = fs::OpenOptions::new().append(true).open(self.data_folder().join("postgresql.conf"))?;
        io::Write::write_all(&mut file, settings.as_bytes())
    }

    fn start_on_free_port(&mut self) -> Result<(), ClusterError> {
        self.port = free_port()?;
        self.configure(&format!("port = {}\n", self.port))?;
        self.start_server()
    }

    /// Whether somebody else took the port before the server could.
    fn port_was_taken(&self) -> bool {
        fs::read_to_string(self.log_file()).is_ok_and(|log| log.contains("Address already in use"))
    }

    fn log_file(&self) -> PathBuf {
        self.folder.path().join("postgres.log")
    }

    /// Starts the server again after [`Self::stop`].
    ///
    /// # Errors
    /// [`ClusterError::Program`].
    pub fn start_server(&self) -> Result<(), ClusterError> {
        let log = self.log_file();
        self.run("pg_ctl", &["-D", path_text(&self.data_folder()), "-l", path_text(&log), "-w", "-s", "start"])
    }

    /// Stops the server: `fast` ends sessions politely, `immediate` as if it crashed.
    ///
    /// # Errors
    /// [`ClusterError::Program`].
    pub fn stop(&self, mode: &str) -> Result<(), ClusterError> {
        self.run("pg_ctl", &["-D", path_text(&self.data_folder()), "-w", "-s", "-m", mode, "stop"])
    }

    /// Ends the server's first process with SIGKILL; the others notice and end by themselves, and only then can it be
    /// started again.
    ///
    /// # Errors
    /// [`ClusterError::Io`] when it does not run, [`ClusterError::Program`].
    pub fn kill(&self) -> Result<(), ClusterError> {
        let file = fs::read_to_string(self.data_folder().join("postmaster.pid"))?;
        self.run("pg_ctl", &["kill", "KILL", file.lines().next().unwrap_or_default()])
    }

    /// Port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Connection URI for a role and database. Connections are trusted: any password will do.
    pub fn uri(&self, user: &str, database: &str) -> String {
        format!("postgresql://{user}:trusted@127.0.0.1:{}/{database}", self.port)
    }

    /// A client program such as `pg_recvlogical`: the one beside the server, else the one in PATH.
    pub fn program(&self, name: &str) -> PathBuf {
        Some(self.bin.join(name)).filter(|path| path.is_file()).unwrap_or_else(|| name.into())
    }

    fn data_folder(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn run(&self, program: &'static str, arguments: &[&str]) -> Result<(), ClusterError> {
        let mut command = Command::new(self.bin.join(program));
        // A locale or connection setting from the caller's environment must not reach the server.
        command.args(arguments).env_remove("PGDATA").env_remove("PGPORT").env("LC_ALL", "C").current_dir("/");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        if let Some(account) = self.account {
            command.uid(account.uid).gid(account.gid);
        }
        // The server must not die with the terminal's Ctrl-C: it is stopped in order when dropped.
        command.process_group(0);
        let Output { status, stderr, .. } = command.output()?;
        if status.success() {
            return Ok(());
        }
        let message = String::from_utf8_lossy(&stderr).trim().to_owned();
        Err(ClusterError::Program { program, message })
    }
}

impl Drop for PgCluster {
    fn drop(&mut self) {
        // Nothing is left to do about a failure here; the data folder goes either way.
        let _ = self.stop("immediate");
    }
}

fn settings_of(further: &[(&str, &str)]) -> String {
    let fixed = "\nlisten_addresses = '127.0.0.1'\nunix_socket_directories = ''\nwal_level = logical\n\
                 max_wal_senders = 20\nmax_replication_slots = 200\nmax_connections = 200\nshared_buffers = 64MB\n\
                 fsync = on\nlog_min_messages = warning\n";
    further.iter().fold(fixed.to_owned(), |text, (name, value)| text + name + " = '" + value + "'\n")
}

fn path_text(path: &Path) -> &str {
    path.to_str().expect("temporary folders have plain names")
}

/// A port that was free a moment ago, and that no outgoing connection is given: whoever ends and starts again there
/// finds it free again.
///
/// # Errors
/// When the machine has none.
pub fn free_port() -> io::Result<u16> {
    let is_free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    let mut candidates = std::iter::repeat_with(|| rand::random_range(SERVER_PORTS)).take(CANDIDATES);
    candidates.find(is_free).ok_or_else(|| io::ErrorKind::AddrInUse.into())
}

fn find_binaries(named: Option<&Path>) -> Option<PathBuf> {
    let has_server = |folder: &PathBuf| folder.join("initdb").is_file() && folder.join("postgres").is_file();
    if let Some(folder) = named {
        return Some(folder.to_path_buf()).filter(has_server);
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).find(has_server).or_else(|| {
        let mut versions: Vec<_> = fs::read_dir(DEBIAN_FOLDER).ok()?.filter_map(Result::ok).collect();
        versions.sort_by_key(|entry| entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()));
        versions.iter().rev().map(|entry| entry.path().join("bin")).find(has_server)
    })
}

fn unprivileged_account() -> Result<Option<Account>, ClusterError> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let is_root =
        status.lines().any(|line| line.strip_prefix("Uid:").and_then(|ids| ids.split_whitespace().nth(1)) == Some("0"));
    if !is_root {
        return Ok(None);
    }
    let accounts = fs::read_to_string("/etc/passwd")?;
    ["postgres", "nobody"]
        .iter()
        .find_map(|wanted| {
            accounts.lines().find_map(|line| {
                let mut fields = line.split(':');
                let name = fields.next()?;
                let (uid, gid) = (fields.nth(1)?, fields.next()?);
                (name == *wanted).then(|| Some(Account { uid: uid.parse().ok()?, gid: gid.parse().ok()? }))?
            })
        })
        .map(Some)
        .ok_or(ClusterError::NoUnprivilegedUser)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_starts_answers_and_is_removed() {
        let cluster = PgCluster::start(None).expect("a server");
        let folder = cluster.folder.path().to_path_buf();
        assert!(std::net::TcpStream::connect(("127.0.0.1", cluster.port())).is_ok());
        drop(cluster);
        assert!(!folder.exists());
    }

    #[test]
    fn a_port_that_was_taken_meanwhile_is_noticed_and_another_one_chosen() {
        let mut cluster = PgCluster::start(None).expect("a server");
        cluster.stop("immediate").expect("stops");
        let taken = TcpListener::bind(("127.0.0.1", cluster.port())).expect("it is free again");
        assert!(cluster.start_server().is_err() && cluster.port_was_taken());
        cluster.start_on_free_port().expect("starts on another");
        assert_ne!(Some(cluster.port()), taken.local_addr().ok().map(|address| address.port()));
        assert!(std::net::TcpStream::connect(("127.0.0.1", cluster.port())).is_ok());
    }

    #[test]
    fn a_folder_without_a_server_is_refused() {
        let error = PgCluster::start(Some(Path::new("/"))).expect_err("no server there");
        assert_eq!(error.code(), "DEMO-0101");
    }
}
