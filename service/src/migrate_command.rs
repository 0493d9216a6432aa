//! `kairos-sync migrate`: prepares the source database, and gives the service's roles their passwords.

use std::path::PathBuf;

use crate::{
    config::{Config, ConfigError, ProcessEnvironment},
    migrate::{self, Applied, MigrateError, Migrations},
    postgres::{PgError, SourceConfig},
};

/// Roles that migrations make and the service logs in as.
const LOGIN_ROLES: [&str; 2] = ["kairos_replication", "kairos_service"];

/// What is to be prepared, and by whom.
#[derive(Debug, clap::Args)]
pub struct MigrateArguments {
    /// Configuration file; found as `serve` finds it otherwise.
    #[arg(short, long = "config-path", visible_alias = "config", value_name = "FILE", env = "POWERSYNC_CONFIG_PATH")]
    pub config: Option<PathBuf>,
    /// Prepare through this connection, of a role that may create roles; without it through the service's own. The roles
    /// `kairos_replication` and `kairos_service` get the passwords that the configuration has for them.
    #[arg(long, value_name = "URI", env = "KAIROS_MIGRATE_ADMIN", hide_env_values = true)]
    pub admin: Option<String>,
    /// Make the tables of the sample app as well, with their row-level security.
    #[arg(long)]
    pub sample: bool,
}

/// Why the source is not prepared.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MigrateCommandError {
    /// The configuration has a mistake.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The source cannot be reached.
    #[error(transparent)]
    Database(#[from] PgError),
    /// It refuses.
    #[error(transparent)]
    Migrate(#[from] MigrateError),
}

impl MigrateCommandError {
    /// Stable across releases; listed in `docs/errors.md`.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Config(error) => error.code(),
            Self::Database(error) => error.code(),
            Self::Migrate(error) => error.code(),
        }
    }
}

impl MigrateArguments {
    /// Prepares what is not yet prepared, and says what that was.
    ///
    /// # Errors
    /// [`MigrateCommandError`]; what was done before stays, and is not done again.
    pub async fn run(&self) -> Result<String, MigrateCommandError> {
        let config = Config::load(self.config.as_deref(), &ProcessEnvironment)?;
        for warning in &config.warnings {
            tracing::warn!("{warning}");
        }
        let admin = self.admin.as_deref().map(SourceConfig::from_uri).transpose()?;
        let admin = admin.map(|admin| admin.reached_like(&config.source));
        let mut client = admin.as_ref().unwrap_or(&config.source).connect().await?;
        let migrations = if self.sample { Migrations::ServiceAndSample } else { Migrations::Service };
        let mut said = match migrate::migrate(&mut client, migrations).await? {
            Applied { files } if files.is_empty() => "nothing to do: the database is prepared\n".to_owned(),
            Applied { files } => format!("applied: {}\n", files.join(", ")),
        };
        if admin.is_some() {
            for login in [&config.source, &config.write.source] {
                if let Some(password) = login.password.as_ref().filter(|_| LOGIN_ROLES.contains(&login.user.as_str())) {
                    migrate::set_password(&client, &login.user, password).await?;
                    said = said + &login.user + " has the password of the configuration\n";
                }
            }
        }
        Ok(said)
    }
}
