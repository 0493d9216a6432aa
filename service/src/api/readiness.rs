//! Whether clients can be served, and if not, why. Pure.

use std::time::{Duration, Instant};

use crate::{
    byte_size::ByteSize,
    replication::{CopyStage, CopyStatus, Phase, StatusSnapshot},
};

/// Heartbeats that may pass without a checkpoint.
const HEARTBEATS_MISSED_MAX: u32 = 3;
/// A checkpoint is not called old sooner, however often there are heartbeats: the source may be busy for a moment.
const CHECKPOINT_AGE_MIN: Duration = Duration::from_secs(30);

/// Why no clients should be sent here; `None` if they should. `heartbeat` is how often the source has something to say
/// at least; without one, silence means nothing.
///
/// While the source is away clients are served what the store has: that is no reason. A stream that is open and brings
/// nothing is one, because nobody else notices; a full disk is one, because somebody has to free it.
pub(super) fn unready(
    status: &StatusSnapshot,
    has_checkpoint: bool,
    heartbeat: Option<Duration>,
    now: Instant,
) -> Option<String> {
    if let Some(code) = status.full_disk {
        return Some(format!(
            "nothing new is stored, because the disk under `data_dir` is full ({code}): free some space, and it goes on \
             by itself"
        ));
    }
    if !has_checkpoint {
        return Some(format!("no checkpoint is visible yet: {}", doing(status)));
    }
    let (Phase::Streaming, Some(heartbeat), Some(fresh_at)) = (&status.phase, heartbeat, status.fresh_at) else {
        return None;
    };
    let age = now.saturating_duration_since(fresh_at);
    let age_max = (HEARTBEATS_MISSED_MAX * heartbeat).max(CHECKPOINT_AGE_MIN);
    (age > age_max).then(|| {
        format!(
            "the stream is open, but the newest checkpoint is {} s old, where a heartbeat is written every {} s: see \
             whether Postgres, the network or this service is stuck",
            age.as_secs(),
            heartbeat.as_secs()
        )
    })
}

/// What replication does, in a sentence. Of an error only the code: its text may name hosts and roles, and is in the log.
fn doing(status: &StatusSnapshot) -> String {
    match &status.phase {
        Phase::Connecting => match &status.last_error {
            Some((code, _)) => format!("replication failed with {code} and is tried again"),
            None => "connecting to the source".to_owned(),
        },
        Phase::CreatingSlot(None) => "the replication slot is being created".to_owned(),
        Phase::CreatingSlot(Some(blocker)) => format!("the replication slot waits for {blocker}"),
        Phase::Snapshot => match status.current_copy() {
            Some(copy) => copying(copy, status.copies.len()),
            None => "tables are to be copied".to_owned(),
        },
        Phase::Streaming => "the stream has not passed the copies yet".to_owned(),
    }
}

fn copying(copy: &CopyStatus, tables_left: usize) -> String {
    let waits =
        if copy.stage == CopyStage::WaitingForStream { ", and waits for the stream, which is behind" } else { "" };
    format!(
        "{} is being copied, {} of {} are done{waits}, tables left: {tables_left}",
        copy.table,
        ByteSize(copy.bytes_done),
        ByteSize(copy.bytes_total),
    )
}

/// The phase as one word.
pub(super) fn phase_name(phase: &Phase) -> &'static str {
    match phase {
        Phase::Connecting => "connecting",
        Phase::CreatingSlot(_) => "creating_slot",
        Phase::Snapshot => "copying",
        Phase::Streaming => "streaming",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::blocker::Blocker;

    #[test]
    fn an_open_stream_without_a_fresh_checkpoint_is_not_ready() {
        let start = Instant::now();
        let status = |phase| StatusSnapshot { phase, fresh_at: Some(start), ..StatusSnapshot::default() };
        let streaming = || status(Phase::Streaming);
        for (status, heartbeat, age, is_ready) in [
            (streaming(), Some(5), 30, true),
            (streaming(), Some(5), 31, false),
            (streaming(), Some(20), 60, true),
            (streaming(), Some(20), 61, false),
            (streaming(), None, 100_000, true),
            (status(Phase::Connecting), Some(5), 100_000, true),
        ] {
            let reason = unready(&status, true, heartbeat.map(Duration::from_secs), start + Duration::from_secs(age));
            assert_eq!(reason.is_none(), is_ready, "{:?}, {heartbeat:?}, {age} s: {reason:?}", status.phase);
        }
    }

    #[test]
    fn a_full_disk_is_a_reason_also_where_there_is_something_to_serve() {
        let status = StatusSnapshot { full_disk: Some("STORE-0107"), ..StatusSnapshot::default() };
        let reason = unready(&status, true, None, Instant::now()).expect("not ready");
        assert!(reason.contains("STORE-0107"), "{reason}");
    }

    #[test]
    fn without_a_checkpoint_the_reason_is_what_replication_does() {
        let blocker = Blocker::Session { pid: 7, application: "x".to_owned(), state: None, age: None };
        let copy = CopyStatus {
            table: "public.items".to_owned(),
            stage: CopyStage::WaitingForStream,
            bytes_done: 1 << 20,
            bytes_total: 3 << 20,
            ..Default::default()
        };
        for (phase, error, expected) in [
            (Phase::Connecting, None, "connecting to the source"),
            (Phase::Connecting, Some(("PG-0102", "secret.host".to_owned())), "failed with PG-0102"),
            (Phase::CreatingSlot(Some(blocker)), None, "pg_terminate_backend(7)"),
            (Phase::Snapshot, None, "public.items is being copied, 1 MB of 3 MB are done, and waits"),
            (Phase::Streaming, None, "has not passed"),
        ] {
            let copies = vec![copy.clone()];
            let status = StatusSnapshot { phase, copies, last_error: error, ..StatusSnapshot::default() };
            let reason = unready(&status, false, None, Instant::now()).expect("not ready");
            assert!(reason.contains(expected) && !reason.contains("secret"), "{reason}");
        }
    }
}
