//! `kairos-sync client`: syncs what a user gets into a SQLite file, and looks at it.
//!
//! The client SDK syncs, into tables it learns from what arrives; here are only the proof of who asks ([`identity`]),
//! the lines that are printed ([`report`]) and the SQL that is asked afterwards ([`query`]).

mod arguments;
mod error;
mod identity;
mod lock;
mod query;
mod report;
mod session;

use std::{
    io::{self, BufWriter},
    path::Path,
    time::Duration,
};

use kairos_client::{LocalDatabase, LocalTable};
use tokio::task::spawn_blocking;

pub(crate) use self::arguments::SigningArguments;
pub(crate) use self::arguments::{object, subscription};
use self::report::Report;
pub use self::{arguments::ClientArguments, error::ClientCommandError};
use crate::{commands::wait_for_end_signal, server::chain};

/// What to do about a file that does not add up.
const ADVICE: &str = "what differs is downloaded again with --repair, or with another file";

/// Syncs and looks, or only looks. `true` if there is nothing to complain about.
///
/// # Errors
/// [`ClientCommandError`].
pub async fn run(arguments: &ClientArguments) -> Result<bool, ClientCommandError> {
    let mut report = Report::new(arguments.look.json, !arguments.look.sql.is_empty());
    let result = if arguments.offline {
        look_offline(arguments, &report).await
    } else {
        session::run(arguments, &mut report).await
    };
    if let Err(error) = &result {
        report.error(error.code(), &chain(error));
    }
    result
}

async fn look_offline(arguments: &ClientArguments, report: &Report) -> Result<bool, ClientCommandError> {
    if !arguments.db.is_file() {
        return Err(ClientCommandError::NoDatabase { file: arguments.db.clone() });
    }
    if !arguments.look.verify && arguments.look.sql.is_empty() {
        let content = |database: &LocalDatabase| Ok((database.buckets()?.len(), database.tables()?));
        let (buckets, tables) = read(&arguments.db, content).await?;
        report.content(buckets, &tables);
    }
    look(arguments, report).await
}

/// Verifies and asks, as told. `true` if everything adds up.
async fn look(arguments: &ClientArguments, report: &Report) -> Result<bool, ClientCommandError> {
    let mut is_ok = true;
    if arguments.look.verify {
        let found = read(&arguments.db, |database| Ok(database.verify()?)).await?;
        report.verification(&found, ADVICE);
        is_ok = found.is_ok();
    }
    for (index, sql) in arguments.look.sql.iter().enumerate() {
        let (sql, is_json) = (sql.clone(), arguments.look.json);
        let ask = move |database: &LocalDatabase| {
            let mut out = BufWriter::new(io::stdout().lock());
            query::run(database, index + 1, &sql, is_json, &mut out)
        };
        read(&arguments.db, ask).await?;
    }
    Ok(is_ok)
}

async fn tables(arguments: &ClientArguments) -> Result<Vec<LocalTable>, ClientCommandError> {
    read(&arguments.db, |database| Ok(database.tables()?)).await
}

/// Reads the file on a thread of its own. Ctrl-C ends a query that takes too long.
async fn read<T: Send + 'static>(
    path: &Path,
    work: impl FnOnce(&LocalDatabase) -> Result<T, ClientCommandError> + Send + 'static,
) -> Result<T, ClientCommandError> {
    let path = path.to_path_buf();
    let database = spawn_blocking(move || LocalDatabase::open(path)).await;
    let database = database.map_err(|_| ClientCommandError::Interrupted)??;
    let interrupt = database.connection().get_interrupt_handle();
    let mut reading = spawn_blocking(move || work(&database));
    let result = tokio::select! {
        result = &mut reading => result,
        () = wait_for_end_signal() => {
            interrupt.interrupt();
            // Rows that are being printed may be waited for by nobody.
            let _ = tokio::time::timeout(Duration::from_secs(1), reading).await;
            return Err(ClientCommandError::Interrupted);
        }
    };
    result.map_err(|_| ClientCommandError::Interrupted)?
}
