//! `doctor`: whether source and host have all that the service needs, and the SQL that mends what they lack.
//!
//! ```text
//! configuration or URI ─► target ─► gather (asks) ─► facts ─► checks (judges) ─► output
//!                                                               └─► fix (what is safe), then once more
//! ```
//!
//! **Invariants**
//!
//! - Without `--fix` nothing is changed. With it: publication, its tables, grants. Never a setting, never a slot.
//! - Judging is pure: [`checks`] knows nothing but [`facts`].
//! - Every question has a deadline, and no password is printed.
//! - What keeps the service from replicating fails; what may hurt it later warns.
//!
//! Start reading at [`run`].

mod check;
mod checks;
mod facts;
mod fix;
mod gather;
mod host;
mod output;
mod remedy;

use std::{io, path::PathBuf, time::Duration};

use tokio::time::timeout;

use self::{
    check::{Check, Status},
    fix::Applied,
};
use crate::{
    config::{Config, ConfigError, ProcessEnvironment},
    postgres::{PgError, SourceConfig},
};

/// For all questions together.
const DEADLINE: Duration = Duration::from_mins(2);
/// What is mended may bring more to light: a table's faults show once it is published.
const ROUNDS_MAX: usize = 3;

/// What to check, and what to do about it.
#[derive(Debug, Clone, Default)]
pub struct DoctorOptions {
    /// The configuration file; `None`: as the service finds it.
    pub config: Option<PathBuf>,
    /// Connection URI of a source to check alone, without configuration.
    pub database: Option<String>,
    /// Print JSON.
    pub json: bool,
    /// Mend what is safe to mend.
    pub fix: bool,
    /// Connection URI to mend through; `None`: that of the service.
    pub admin: Option<String>,
}

/// Why nothing can be said.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DoctorError {
    /// The configuration has a mistake.
    #[error("the configuration cannot be used")]
    Config(#[source] ConfigError),
    /// The database cannot be asked.
    #[error("the database cannot be checked")]
    Database(#[source] PgError),
}

impl DoctorError {
    /// Stable across releases; listed in `docs/errors.md`.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Config(error) => error.code(),
            Self::Database(error) => error.code(),
        }
    }
}

/// What is checked: a source, and with a configuration also what belongs to it.
struct Target {
    source: SourceConfig,
    config: Option<Config>,
}

/// What was found, and what was done.
struct Report {
    /// Where: database and address.
    place: String,
    checks: Vec<Check>,
    applied: Vec<Applied>,
}

impl Report {
    fn count(&self, status: Status) -> usize {
        self.checks.iter().filter(|check| check.status == status).count()
    }

    /// Whether the service can run.
    fn is_ok(&self) -> bool {
        self.count(Status::Fail) == 0
    }
}

/// Checks, mends if asked to, and prints. Tells whether the service can run.
///
/// # Errors
/// [`DoctorError`] when that could not be found out.
pub async fn run(options: &DoctorOptions) -> Result<bool, DoctorError> {
    let target = target(options)?;
    let checks = examine(&target).await?;
    let place = format!("database {} at {}", target.source.database, target.source.address());
    let mut report = Report { place, checks, applied: Vec::new() };
    if options.fix {
        mend(options, &target, &mut report).await?;
    }
    let printed = if options.json { output::json(&report, options.fix) } else { output::text(&report) };
    // A reader that went away does not change the verdict.
    let _ = io::Write::write_all(&mut io::stdout().lock(), printed.as_bytes());
    Ok(report.is_ok())
}

fn target(options: &DoctorOptions) -> Result<Target, DoctorError> {
    if let Some(uri) = &options.database {
        return Ok(Target { source: SourceConfig::from_uri(uri).map_err(DoctorError::Database)?, config: None });
    }
    let config = Config::load(options.config.as_deref(), &ProcessEnvironment).map_err(DoctorError::Config)?;
    Ok(Target { source: config.source.clone(), config: Some(config) })
}

async fn examine(target: &Target) -> Result<Vec<Check>, DoctorError> {
    let gathered = timeout(DEADLINE, gather::facts(target)).await;
    let late = |_| PgError::Timeout { doing: "being examined", after: DEADLINE };
    let facts = gathered.map_err(late).flatten().map_err(DoctorError::Database)?;
    Ok(checks::all(&facts))
}

/// Mends and looks again, until there is nothing new to mend.
async fn mend(options: &DoctorOptions, target: &Target, report: &mut Report) -> Result<(), DoctorError> {
    let admin = options.admin.as_deref().map(SourceConfig::from_uri).transpose().map_err(DoctorError::Database)?;
    let client = admin.as_ref().unwrap_or(&target.source).connect().await.map_err(DoctorError::Database)?;
    for _ in 0..ROUNDS_MAX {
        if !fix::apply(&client, &report.checks, &mut report.applied).await {
            break;
        }
        report.checks = examine(target).await?;
    }
    Ok(())
}
