//! Snapshots of the source, in which several chunks are read one after the other.
//!
//! Each costs a wait until the stream has passed it. When the stream is behind, waiting for every chunk would make a copy
//! last as many times that as there are chunks.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::time::sleep;
use tokio_postgres::{Client, Row};

use super::{
    super::{relations::Layout, replicator::within_deadline},
    ledger::SnapshotId,
};
use crate::{lsn::Lsn, postgres::PgError};

/// A transaction becomes visible a moment after it was streamed.
const VISIBLE_POLL: Duration = Duration::from_millis(5);
/// A snapshot serves for so many times as long as was waited for it, so that copying takes most of the time;
const SERVES_TIMES: u32 = 4;
/// but at least for so long,
const SERVES_MIN: Duration = Duration::from_secs(1);
/// and no longer: as long as it lasts, the source cannot clean up after deleted rows.
const SERVES_MAX: Duration = Duration::from_mins(1);

/// A snapshot that the stream has passed; its transaction is open.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) id: SnapshotId,
    /// Of the rows read in it.
    pub(super) layout: Arc<Layout>,
    serves_until: Instant,
}

impl Snapshot {
    /// One that was waited for as long as this.
    pub(super) fn new(id: SnapshotId, layout: Arc<Layout>, waited: Duration) -> Self {
        Self { id, layout, serves_until: Instant::now() + serving_time(waited) }
    }

    /// Whether another one should be taken.
    pub(super) fn has_served(&self) -> bool {
        Instant::now() >= self.serves_until
    }
}

fn serving_time(waited: Duration) -> Duration {
    (waited * SERVES_TIMES).clamp(SERVES_MIN, SERVES_MAX)
}

/// Begins a transaction whose snapshot sees the end of these transactions. All that it sees was committed before the
/// position that is returned.
pub(super) async fn take(session: &Client, ended: &[u32]) -> Result<Lsn, PgError> {
    let sql = "SELECT pg_current_snapshot()::text, pg_current_wal_insert_lsn()::text";
    loop {
        let ask = async {
            session.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
            let visible = Visible::read(&session.query_one(sql, &[]).await?)?;
            // To go back to after each chunk, which gives up its lock.
            session.batch_execute("SAVEPOINT before_chunk").await?;
            Ok(visible)
        };
        let visible = within_deadline(ask).await?;
        if ended.iter().all(|xid| visible.sees_end_of(*xid)) {
            return Ok(visible.end);
        }
        within_deadline(end(session)).await?;
        sleep(VISIBLE_POLL).await;
    }
}

/// Which file of the table was read just now; zero where there is none. The lock on it is given up then, so that nobody
/// who wants to change the table waits for more than a chunk.
pub(super) async fn file_read(session: &Client, oid: u32) -> Result<u32, PgError> {
    let sql = "SELECT coalesce(pg_relation_filenode($1::oid::regclass), 0)::bigint";
    let filenode: i64 = session.query_one(sql, &[&oid]).await?.try_get(0)?;
    session.batch_execute("ROLLBACK TO SAVEPOINT before_chunk").await?;
    Ok(u32::try_from(filenode).unwrap_or_default())
}

/// Ends the transaction.
pub(super) async fn end(session: &Client) -> Result<(), PgError> {
    Ok(session.batch_execute("COMMIT").await?)
}

/// What a transaction sees.
#[derive(Debug, PartialEq, Eq)]
struct Visible {
    /// Transactions from here on had not ended. The low half of the number, as the stream has it.
    next: u32,
    /// Earlier ones which had not ended either.
    running: Vec<u32>,
    /// All that is seen was committed before this position.
    end: Lsn,
}

impl Visible {
    fn read(row: &Row) -> Result<Self, PgError> {
        let (text, end): (String, String) = (row.try_get(0)?, row.try_get(1)?);
        let (next, running) = parse_snapshot(&text).ok_or(PgError::Protocol("a snapshot that is none"))?;
        let end = end.parse().map_err(|_| PgError::Protocol("a WAL position that is none"))?;
        Ok(Self { next, running, end })
    }

    fn sees_end_of(&self, xid: u32) -> bool {
        // Numbers wrap around; what is compared lies close together.
        let is_later = xid.wrapping_sub(self.next) < u32::MAX / 2;
        !is_later && !self.running.contains(&xid)
    }
}

/// `xmin:xmax:xip,xip`, of numbers that do not wrap around.
fn parse_snapshot(text: &str) -> Option<(u32, Vec<u32>)> {
    let mut parts = text.split(':');
    let low = |number: &str| Some(u32::try_from(number.parse::<u64>().ok()? & 0xFFFF_FFFF).unwrap_or_default());
    let (_, next, running) = (parts.next()?, low(parts.next()?)?, parts.next()?);
    let running = running.split(',').filter(|xid| !xid.is_empty()).map(low).collect::<Option<_>>()?;
    Some((next, running))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_sees_the_end_of_what_ended_before() {
        let (next, running) = parse_snapshot("4294967290:4294967300:4294967292,4294967298").expect("a snapshot");
        let visible = Visible { next, running, end: Lsn::ZERO };
        // 4294967300 is 4 in the stream, 4294967298 is 2.
        for (xid, seen) in
            [(u32::MAX - 4, true), (u32::MAX - 3, false), (1, true), (2, false), (3, true), (4, false), (5, false)]
        {
            assert_eq!(visible.sees_end_of(xid), seen, "{xid}");
        }
        assert!(visible.sees_end_of(u32::MAX), "one from before the numbers wrapped");
        assert_eq!(parse_snapshot("10:11:"), Some((11, vec![])));
        assert_eq!(parse_snapshot("10"), None);
    }

    #[test]
    fn a_snapshot_serves_longer_than_was_waited_for_it_within_bounds() {
        let seconds = Duration::from_secs;
        assert_eq!([0, 5, 100].map(|waited| serving_time(seconds(waited))), [seconds(1), seconds(20), seconds(60)]);
    }
}
