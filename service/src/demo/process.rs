//! The service as a process of its own, as an operator runs it.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

/// How long a service may take until it answers at all.
const START_TIMEOUT: Duration = Duration::from_secs(20);

/// How long it may take to end in order.
const STOP_TIMEOUT: Duration = Duration::from_mins(1);

/// How long an answer of its small endpoints may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// A running `kairos-sync serve`, ended when dropped.
#[derive(Debug)]
pub struct ServiceProcess {
    binary: PathBuf,
    config: PathBuf,
    log: PathBuf,
    endpoint: String,
    http: reqwest::Client,
    child: Child,
}

impl ServiceProcess {
    /// Starts `binary serve -c config` and waits until it answers on `port`. Its log goes to a file beside the config.
    ///
    /// # Errors
    /// When it cannot be started or ends at once; the message holds the end of its log.
    pub async fn start(binary: &Path, config: &Path, port: u16) -> io::Result<Self> {
        Self::start_with(binary, config, port, &[]).await
    }

    /// As [`Self::start`] with further variables in its environment.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_with(binary: &Path, config: &Path, port: u16, environment: &[(&str, &str)]) -> io::Result<Self> {
        let log = config.with_extension("log");
        // First what may fail, so that no process is left behind.
        let http = reqwest::Client::builder()
            .timeout(ANSWER_TIMEOUT)
            // The service closes a connection after ten seconds, perhaps while a request is on its way to it.
            .pool_idle_timeout(ANSWER_TIMEOUT)
            .build()
            .map_err(io::Error::other)?;
        let child = spawn(binary, config, &log, environment)?;
        let mut process = Self {
            binary: binary.to_path_buf(),
            config: config.to_path_buf(),
            log,
            endpoint: format!("http://127.0.0.1:{port}"),
            http,
            child,
        };
        process.wait_until_alive().await?;
        Ok(process)
    }

    /// Base URL, without a slash at the end.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Its number in the system.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Ends the process at once, as a power cut would.
    ///
    /// # Errors
    /// When it was gone already.
    pub fn kill(&mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(drop)
    }

    /// Ends the process as an operator would, and waits until it has ended.
    ///
    /// # Errors
    /// When it was gone already, or does not end.
    pub async fn terminate(&mut self) -> io::Result<()> {
        let status = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status()?;
        if !status.success() {
            return Err(io::Error::other("the service was gone already"));
        }
        let deadline = Instant::now() + STOP_TIMEOUT;
        while self.child.try_wait()?.is_none() {
            if Instant::now() > deadline {
                return Err(io::Error::other(format!("the service does not end:\n{}", self.log_tail())));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Starts it again after [`Self::kill`] or [`Self::terminate`], with the same configuration and data.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn restart(&mut self) -> io::Result<()> {
        self.restart_with(&[])?;
        self.wait_until_alive().await
    }

    /// As [`Self::restart`] with further variables in its environment, without waiting until it answers.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn restart_with(&mut self, environment: &[(&str, &str)]) -> io::Result<()> {
        self.child = spawn(&self.binary, &self.config, &self.log, environment)?;
        Ok(())
    }

    /// How it has ended, if it has by itself.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// Memory the process holds, in bytes.
    pub fn resident_bytes(&self) -> Option<u64> {
        resident_bytes(self.child.id())
    }

    /// All that was logged, by processes before this one too.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn log(&self) -> io::Result<String> {
        fs::read_to_string(&self.log)
    }

    /// What was logged last.
    pub fn log_tail(&self) -> String {
        let text = self.log().unwrap_or_default();
        let lines: Vec<&str> = text.lines().rev().take(20).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    /// The text of a GET, such as `/metrics`.
    ///
    /// # Errors
    /// When the service does not answer.
    pub async fn get(&self, path: &str) -> Result<String, reqwest::Error> {
        self.request(path).await?.text().await
    }

    /// Whether clients can sync.
    ///
    /// # Errors
    /// When the service does not answer.
    pub async fn is_ready(&self) -> Result<bool, reqwest::Error> {
        Ok(self.request("/probes/readiness").await?.status().is_success())
    }

    /// Rows it has read from the source.
    ///
    /// # Errors
    /// When the service does not answer.
    pub async fn rows_replicated(&self) -> Result<u64, reqwest::Error> {
        self.metric("powersync_rows_replicated_total").await
    }

    /// The value of a counter or gauge without labels; 0 while it is absent.
    ///
    /// # Errors
    /// When the service does not answer.
    pub async fn metric(&self, name: &str) -> Result<u64, reqwest::Error> {
        let text = self.get("/metrics").await?;
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
        Ok(value.unwrap_or(0))
    }

    async fn request(&self, path: &str) -> Result<reqwest::Response, reqwest::Error> {
        self.http.get(format!("{}{path}", self.endpoint)).send().await
    }

    async fn wait_until_alive(&mut self) -> io::Result<()> {
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Err(io::Error::other(format!("the service ended ({status}):\n{}", self.log_tail())));
            }
            if self.get("/probes/liveness").await.is_ok() {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(io::Error::other(format!("the service does not answer:\n{}", self.log_tail())));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for ServiceProcess {
    fn drop(&mut self) {
        // It may be gone already; nothing is left to do then.
        let _ = self.kill();
    }
}

fn spawn(binary: &Path, config: &Path, log: &Path, environment: &[(&str, &str)]) -> io::Result<Child> {
    let log = fs::OpenOptions::new().create(true).append(true).open(log)?;
    Command::new(binary)
        .args(["serve", "-c"])
        .arg(config)
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
}

/// Memory a process holds, in bytes, where the system tells.
pub fn resident_bytes(process: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok().map(|kibibytes| kibibytes * 1024)
}
