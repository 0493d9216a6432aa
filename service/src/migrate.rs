//! Prepares the source database: what the service needs there, and on request the sample app.
//!
//! Files under `migrations/` are part of the binary. Each runs once, in a transaction of its own, and is recorded in
//! `kairos.migration` with its checksum; an advisory lock makes two nodes that start together take turns.
//!
//! **Invariants**
//!
//! - A file that was applied is never applied again, and never changes: a changed one is an error, not a guess.
//! - No file holds a password. Whoever deploys gives the login roles theirs: [`set_password`].
//! - Every file may also be run by hand (`psql -f`), in order, any number of times.

use std::fmt::Write as _;

use postgres_protocol::password::scram_sha_256;
use sha2::{Digest, Sha256};
use tokio_postgres::{Client, Transaction};

use crate::secret::Secret;

/// Arbitrary, and ours: the letters of "kairos" in ASCII.
const LOCK: i64 = 0x6b61_6972_6f73;

/// What to apply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Migrations {
    /// What the service needs in any database: write ledger, roles, publication, conflicts.
    Service,
    /// As well the tables of the sample app, with their row-level security.
    ServiceAndSample,
}

struct File {
    name: &'static str,
    sql: &'static str,
}

macro_rules! files {
    ($($path:literal),* $(,)?) => {
        &[$(File { name: $path, sql: include_str!(concat!("../../migrations/", $path, ".sql")) }),*]
    };
}

const SERVICE: &[File] =
    files!["source/0001_write_ledger", "source/0002_roles", "source/0003_publication", "source/0004_conflicts"];
const SAMPLE: &[File] = files!["sample/0001_habits", "sample/0002_row_level_security", "sample/0003_access"];

/// What [`migrate`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// Files applied now, in order; empty when all was in place.
    pub files: Vec<&'static str>,
}

/// Why the source could not be prepared.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MigrateError {
    /// Postgres refused, or the connection failed.
    #[error(
        "migration `{file}` failed; nothing of it was applied. It needs a role that may create roles and publications \
         (a superuser before Postgres 16)"
    )]
    Sql {
        /// The file.
        file: &'static str,
        /// What Postgres says.
        #[source]
        source: tokio_postgres::Error,
    },
    /// An applied file is not what it was.
    #[error(
        "migration `{file}` was applied in another form: this database was prepared by another build of kairos-sync. \
         Use that build, or revert with the `.down.sql` files and migrate again"
    )]
    Changed {
        /// The file.
        file: &'static str,
    },
    /// The role's password could not be set.
    #[error("set the password of role `{role}`")]
    Password {
        /// The role.
        role: String,
        /// What Postgres says.
        #[source]
        source: tokio_postgres::Error,
    },
}

impl MigrateError {
    /// Stable across releases; listed in `docs/errors.md`.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Sql { .. } => "PG-0801",
            Self::Changed { .. } => "PG-0802",
            Self::Password { .. } => "PG-0803",
        }
    }
}

/// Applies what is missing. Safe to repeat, and to run from several places at once.
///
/// # Errors
/// [`MigrateError`]; files before the failed one stay applied.
pub async fn migrate(client: &mut Client, migrations: Migrations) -> Result<Applied, MigrateError> {
    let sample = match migrations {
        Migrations::Service => &[],
        Migrations::ServiceAndSample => SAMPLE,
    };
    let mut applied = Applied { files: Vec::new() };
    for file in SERVICE.iter().chain(sample) {
        if apply(client, file).await? {
            applied.files.push(file.name);
        }
    }
    Ok(applied)
}

/// Whether the file was applied now.
async fn apply(client: &mut Client, file: &File) -> Result<bool, MigrateError> {
    let failed = |source| MigrateError::Sql { file: file.name, source };
    let tx = client.transaction().await.map_err(failed)?;
    prepare(&tx).await.map_err(failed)?;
    let checksum = checksum(file.sql);
    let recorded = tx
        .query_opt("SELECT checksum FROM kairos.migration WHERE name = $1", &[&file.name])
        .await
        .map_err(failed)?
        .map(|row| row.get::<_, String>(0));
    match recorded {
        Some(recorded) if recorded == checksum => return Ok(false),
        Some(_) => return Err(MigrateError::Changed { file: file.name }),
        None => {}
    }
    tx.batch_execute(file.sql).await.map_err(failed)?;
    tx.execute("INSERT INTO kairos.migration (name, checksum) VALUES ($1, $2)", &[&file.name, &checksum])
        .await
        .map_err(failed)?;
    tx.commit().await.map_err(failed)?;
    Ok(true)
}

/// Takes the lock until the end of the transaction and makes the record.
async fn prepare(tx: &Transaction<'_>) -> Result<(), tokio_postgres::Error> {
    // Before anything is looked up: `IF NOT EXISTS` does not protect against another session doing the same.
    tx.execute("SELECT pg_advisory_xact_lock($1)", &[&LOCK]).await?;
    tx.batch_execute(
        "SET LOCAL search_path = public;
         SET LOCAL client_min_messages = warning;
         CREATE SCHEMA IF NOT EXISTS kairos;
         CREATE TABLE IF NOT EXISTS kairos.migration (
             name text PRIMARY KEY,
             checksum text NOT NULL,
             applied_at timestamptz NOT NULL DEFAULT now()
         );",
    )
    .await
}

fn checksum(sql: &str) -> String {
    Sha256::digest(sql).iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes all");
        text
    })
}

/// Gives a login role its password. Only a SCRAM verifier leaves this process, so no log of the server can show it.
///
/// # Errors
/// [`MigrateError::Password`].
pub async fn set_password(client: &Client, role: &str, password: &Secret) -> Result<(), MigrateError> {
    let failed = |source| MigrateError::Password { role: role.to_owned(), source };
    let verifier = scram_sha_256(password.reveal().as_bytes());
    // ALTER ROLE takes no parameters, so Postgres itself quotes both.
    let statement: String = client
        .query_one("SELECT format('ALTER ROLE %I PASSWORD %L', $1::text, $2::text)", &[&role, &verifier])
        .await
        .map_err(failed)?
        .get(0);
    client.batch_execute(&statement).await.map_err(failed)
}
