//! Who holds up the creation of a slot: a slot only begins once every transaction that was running then has ended.

use std::{fmt, io, time::Duration};

use tokio_postgres::Client;

use crate::postgres::{error::PgError, walsender::quote_literal};

/// A transaction that must end before the slot is there. Its statement is not among this: it may hold values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Blocker {
    /// One of a session.
    Session {
        /// The server process.
        pid: i32,
        /// How its client calls itself; often empty.
        application: String,
        /// Such as `idle in transaction`; `None` where the role may not see it.
        state: Option<String>,
        /// How long the transaction has been open; `None` where the role may not see it.
        age: Option<Duration>,
    },
    /// One that was prepared for a commit in two phases, and belongs to no session.
    Prepared {
        /// Its name.
        gid: String,
        /// How long ago it was prepared.
        age: Option<Duration>,
    },
}

impl Blocker {
    /// Whether both mean the same transaction, which has only become older.
    pub fn is_same_as(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Session { pid, .. }, Self::Session { pid: other, .. }) => pid == other,
            (Self::Prepared { gid, .. }, Self::Prepared { gid: other, .. }) => gid == other,
            _ => false,
        }
    }
}

impl fmt::Display for Blocker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Session { pid, application, state, age } => {
                write!(f, "a transaction of pid {pid} (application {application:?}")?;
                if let Some(state) = state {
                    write!(f, ", {state}")?;
                }
                if let Some(age) = age {
                    write!(f, ", {}", Age(*age))?;
                }
                write!(f, "): end it with SELECT pg_terminate_backend({pid})")
            }
            Self::Prepared { gid, age } => {
                let name = quote_literal(gid);
                write!(f, "the prepared transaction {name}")?;
                if let Some(age) = age {
                    write!(f, " ({})", Age(*age))?;
                }
                write!(f, ": end it with COMMIT PREPARED {name} or ROLLBACK PREPARED {name}")
            }
        }
    }
}

/// In the unit a person would choose.
struct Age(Duration);

impl fmt::Display for Age {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_secs() {
            seconds @ 0..120 => write!(f, "{seconds} s"),
            seconds @ 120..7_200 => write!(f, "{} min", seconds / 60),
            seconds => write!(f, "{} h", seconds / 3_600),
        }
    }
}

/// The transaction which the server process `pid` waits for at this moment; `None` while it waits for none.
///
/// # Errors
/// [`PgError::Lost`] when there is no such process any more, whatever its connection seems to be.
pub async fn blocker_of(client: &Client, pid: i32) -> Result<Option<Blocker>, PgError> {
    let sql = "
        SELECT holder.pid, a.application_name, a.state,
               extract(epoch FROM clock_timestamp() - coalesce(a.xact_start, p.prepared))::float8, p.gid
          FROM pg_catalog.pg_stat_activity us
          LEFT JOIN pg_catalog.pg_locks w ON w.pid = us.pid AND w.locktype = 'transactionid' AND NOT w.granted
          LEFT JOIN pg_catalog.pg_locks holder ON holder.transactionid = w.transactionid AND holder.granted
          LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = holder.pid
          LEFT JOIN pg_catalog.pg_prepared_xacts p ON p.transaction = w.transactionid
         WHERE us.pid = $1 LIMIT 1";
    let Some(row) = client.query_opt(sql, &[&pid]).await? else {
        let reason = "the server has ended the session that creates the replication slot";
        return Err(PgError::Lost(io::Error::new(io::ErrorKind::ConnectionAborted, reason)));
    };
    let age = row.try_get::<_, Option<f64>>(3)?.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let (holder, gid): (Option<i32>, Option<String>) = (row.try_get(0)?, row.try_get(4)?);
    Ok(match (holder, gid) {
        (_, Some(gid)) => Some(Blocker::Prepared { gid, age }),
        (Some(pid), None) => Some(Blocker::Session {
            pid,
            application: row.try_get::<_, Option<String>>(1)?.unwrap_or_default(),
            state: row.try_get(2)?,
            age,
        }),
        (None, None) => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_holds_up_is_told_with_what_ends_it() {
        let session = |state: Option<&str>, seconds: Option<u64>| Blocker::Session {
            pid: 123,
            application: "x".to_owned(),
            state: state.map(str::to_owned),
            age: seconds.map(Duration::from_secs),
        };
        assert_eq!(
            session(Some("idle in transaction"), Some(250)).to_string(),
            "a transaction of pid 123 (application \"x\", idle in transaction, 4 min): end it with SELECT \
             pg_terminate_backend(123)"
        );
        assert_eq!(
            session(None, None).to_string(),
            "a transaction of pid 123 (application \"x\"): end it with SELECT pg_terminate_backend(123)"
        );
        assert_eq!(
            Blocker::Prepared { gid: "it's".to_owned(), age: Some(Duration::from_hours(5)) }.to_string(),
            "the prepared transaction 'it''s' (5 h): end it with COMMIT PREPARED 'it''s' or ROLLBACK PREPARED 'it''s'"
        );
    }
}
