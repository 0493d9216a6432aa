//! A connection in replication mode, up to the point where the stream begins.

use std::time::Duration;

use bytes::BytesMut;
use postgres_protocol::message::{
    backend::{DataRowBody, Message},
    frontend,
};
use tokio::time::timeout;
use tokio_postgres::fallible_iterator::FallibleIterator;

use crate::{
    lsn::Lsn,
    postgres::{
        connect::SESSION_SETTINGS,
        dial::dial,
        error::PgError,
        frame::{Framed, server_error},
        source::SourceConfig,
        startup::start_session,
        wal_stream::{self, StreamHandle, StreamLimits, WalStream},
    },
};

/// For commands the server answers at once.
const COMMAND_DEADLINE: Duration = Duration::from_secs(30);
/// `CopyBothResponse`, which `postgres-protocol` does not know.
const COPY_BOTH_TAG: u8 = b'W';
/// Silence after which a connection is dead, where the server has no `wal_sender_timeout`.
const SILENCE_DEFAULT: Duration = Duration::from_mins(5);
/// A connection is not called dead sooner, however short the server's timeout is.
const SILENCE_MIN: Duration = Duration::from_secs(10);

/// Which server this is: the same one as before, or another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SystemIdentity {
    /// Unique for a cluster since `initdb`; the same on its standbys.
    pub system_id: String,
    /// Grows with each promotion of a standby.
    pub timeline: String,
    /// Where its WAL ends.
    pub head: Lsn,
}

/// A connection that takes replication commands.
#[derive(Debug)]
pub struct WalSender {
    framed: Framed,
}

/// The columns of a row, as text.
type TextRow = Vec<Option<String>>;

impl WalSender {
    /// Connects with `replication=database`.
    ///
    /// # Errors
    /// [`PgError`].
    pub async fn connect(source: &SourceConfig) -> Result<Self, PgError> {
        let deadline = source.connect_timeout;
        let open = async {
            let mut framed = Framed::new(dial(source).await?);
            let parameters = [&[("replication", "database")], SESSION_SETTINGS].concat();
            start_session(&mut framed, source, &parameters).await?;
            Ok(Self { framed })
        };
        timeout(deadline, open).await.map_err(|_| PgError::Timeout { doing: "connecting", after: deadline })?
    }

    /// Asks which server this is.
    ///
    /// # Errors
    /// [`PgError`].
    pub async fn identify_system(&mut self) -> Result<SystemIdentity, PgError> {
        let row = self.single_row("IDENTIFY_SYSTEM", COMMAND_DEADLINE).await?;
        let mut columns = row.into_iter().flatten();
        let mut text = || columns.next().ok_or(PgError::Protocol("IDENTIFY_SYSTEM without its columns"));
        let (system_id, timeline, head) = (text()?, text()?, text()?);
        Ok(SystemIdentity { system_id, timeline, head: parse_lsn(&head)? })
    }

    /// The server process at the other end.
    ///
    /// # Errors
    /// [`PgError`].
    pub async fn backend_pid(&mut self) -> Result<i32, PgError> {
        let row = self.single_row("SELECT pg_catalog.pg_backend_pid()", COMMAND_DEADLINE).await?;
        let pid = row.into_iter().next().flatten().and_then(|text| text.parse().ok());
        pid.ok_or(PgError::Protocol("a process id that is none"))
    }

    /// Creates a logical slot and returns its consistent point: everything committed after it will be streamed.
    ///
    /// With `failover`, which Postgres 17 and newer know, standbys may keep the slot as well.
    ///
    /// Waits until the transactions that run now have ended, which may take any time. The caller sets the bound, and
    /// learns from [`blocker_of`](crate::postgres::blocker::blocker_of) what is waited for.
    ///
    /// # Errors
    /// [`PgError`].
    pub async fn create_slot(&mut self, slot: &str, failover: bool) -> Result<Lsn, PgError> {
        let options = if failover { "(SNAPSHOT 'nothing', FAILOVER true)" } else { "NOEXPORT_SNAPSHOT" };
        let command = format!("CREATE_REPLICATION_SLOT {} LOGICAL pgoutput {options}", quote_identifier(slot));
        let row = self.query(&command).await?.into_iter().next();
        match row.and_then(|row| row.into_iter().nth(1).flatten()) {
            Some(text) => parse_lsn(&text),
            None => Err(PgError::Protocol("CREATE_REPLICATION_SLOT without its consistent point")),
        }
    }

    /// Changes whether standbys may keep the slot. Postgres 17 and newer; nobody may be reading the slot.
    ///
    /// # Errors
    /// [`PgError`].
    pub async fn set_failover(&mut self, slot: &str, failover: bool) -> Result<(), PgError> {
        let command = format!("ALTER_REPLICATION_SLOT {} (FAILOVER {failover})", quote_identifier(slot));
        let answered = timeout(COMMAND_DEADLINE, self.query(&command)).await;
        answered.map_err(|_| deadline_missed(COMMAND_DEADLINE))?.map(drop)
    }

    /// Begins to stream everything committed after the later of `after` and what the slot has confirmed.
    ///
    /// # Errors
    /// [`PgError`]: SQLSTATE 42704 for a slot that is gone, 55000 for one that lost its WAL, 55006 for one in use.
    pub async fn start(
        mut self,
        slot: &str,
        after: Lsn,
        publications: &[String],
        limits: StreamLimits,
    ) -> Result<(WalStream, StreamHandle), PgError> {
        let silence_max = self.silence_max().await?;
        let names: Vec<_> = publications.iter().map(|name| quote_identifier(name)).collect();
        let names = quote_literal(&names.join(","));
        let command = format!(
            "START_REPLICATION SLOT {} LOGICAL {after} (proto_version '2', streaming 'on', publication_names {names}, messages 'true')",
            quote_identifier(slot)
        );
        timeout(COMMAND_DEADLINE, self.begin_copy(&command)).await.map_err(|_| deadline_missed(COMMAND_DEADLINE))??;
        Ok(wal_stream::spawn(self.framed, after, silence_max, limits))
    }

    /// Twice the server's own timeout: it speaks at least once within one.
    async fn silence_max(&mut self) -> Result<Duration, PgError> {
        let query = "SELECT setting FROM pg_catalog.pg_settings WHERE name = 'wal_sender_timeout'";
        let row = self.single_row(query, COMMAND_DEADLINE).await?;
        let setting = row.into_iter().next().flatten().and_then(|text| text.parse().ok()).unwrap_or(0);
        Ok(if setting == 0 { SILENCE_DEFAULT } else { (2 * Duration::from_millis(setting)).max(SILENCE_MIN) })
    }

    async fn begin_copy(&mut self, command: &str) -> Result<(), PgError> {
        self.send_query(command).await?;
        loop {
            let frame = self.framed.read().await?;
            if frame.tag == COPY_BOTH_TAG {
                return Ok(());
            }
            match frame.parse()? {
                Message::ErrorResponse(body) => return Err(PgError::Server(server_error(body.fields()))),
                Message::NoticeResponse(_) | Message::ParameterStatus(_) => {}
                _ => return Err(PgError::Protocol("START_REPLICATION answered by something else than a stream")),
            }
        }
    }

    async fn single_row(&mut self, command: &str, deadline: Duration) -> Result<TextRow, PgError> {
        let rows = timeout(deadline, self.query(command)).await.map_err(|_| deadline_missed(deadline))??;
        rows.into_iter().next().ok_or(PgError::Protocol("a replication command without its row"))
    }

    async fn query(&mut self, command: &str) -> Result<Vec<TextRow>, PgError> {
        self.send_query(command).await?;
        let (mut rows, mut failure) = (Vec::new(), None);
        loop {
            match self.framed.read().await?.parse()? {
                Message::DataRow(body) => rows.push(text_row(&body)?),
                Message::ErrorResponse(body) => failure = Some(PgError::Server(server_error(body.fields()))),
                Message::ReadyForQuery(_) => return failure.map_or(Ok(rows), Err),
                _ => {}
            }
        }
    }

    async fn send_query(&mut self, command: &str) -> Result<(), PgError> {
        let mut message = BytesMut::new();
        frontend::query(command, &mut message).map_err(|_| PgError::Protocol("a command with a zero byte"))?;
        self.framed.write(&message).await
    }
}

fn deadline_missed(after: Duration) -> PgError {
    PgError::Timeout { doing: "waiting for a replication command", after }
}

fn parse_lsn(text: &str) -> Result<Lsn, PgError> {
    text.parse().map_err(|_| PgError::Protocol("a WAL position that is none"))
}

fn text_row(body: &DataRowBody) -> Result<TextRow, PgError> {
    let malformed = |_| PgError::Protocol("a malformed row");
    let ranges: Vec<_> = body.ranges().collect().map_err(malformed)?;
    let text = |range| String::from_utf8_lossy(body.buffer().get(range).unwrap_or_default()).into_owned();
    Ok(ranges.into_iter().map(|range| range.map(text)).collect())
}

/// A name as SQL takes it.
pub fn quote_identifier(name: &str) -> String {
    quoted(name, '"')
}

/// A text as SQL takes it, where `standard_conforming_strings` is on, as it is by default.
pub fn quote_literal(text: &str) -> String {
    quoted(text, '\'')
}

fn quoted(text: &str, quote: char) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push(quote);
    for character in text.chars() {
        if character == quote {
            quoted.push(quote);
        }
        quoted.push(character);
    }
    quoted.push(quote);
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_texts_are_quoted() {
        assert_eq!(quote_identifier(r#"My "table""#), r#""My ""table""""#);
        assert_eq!(quote_literal("it's"), "'it''s'");
    }
}
