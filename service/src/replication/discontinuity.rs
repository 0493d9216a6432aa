//! What cannot be proven to continue: why everything is compared with the source.

use crate::postgres::{
    PgError,
    slot::{SlotFault, SlotState},
};

/// Why changes may have been missed. All tables are read again and compared with what is stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Discontinuity {
    /// The slot is not there.
    #[error("replication slot {slot} was dropped")]
    SlotDropped {
        /// Its name.
        slot: String,
    },
    /// Postgres took away what the slot needs.
    #[error("Postgres has invalidated replication slot {slot}: {}", explained(.reason))]
    SlotInvalidated {
        /// Its name.
        slot: String,
        /// As Postgres names it.
        reason: String,
    },
    /// The slot is not the one we left.
    #[error("replication slot {slot} was moved or created again by somebody else")]
    SlotMoved {
        /// Its name.
        slot: String,
    },
    /// Positions in the source's WAL mean something else now.
    #[error("{0}")]
    OtherHistory(&'static str),
    /// Other tables may have been published.
    #[error("other publications are used")]
    OtherPublication,
    /// The service ended before it knew of its slot.
    #[error("creating the replication slot was interrupted")]
    Interrupted,
    /// What the stream brought contradicts what is stored.
    #[error("what is stored no longer fits the source ({code})")]
    Contradiction {
        /// Of the error that showed it.
        code: &'static str,
    },
}

impl Discontinuity {
    /// The codes that are its own: all but those of a contradiction.
    pub(crate) const CODES: [&str; 6] = ["REPL-0201", "REPL-0202", "REPL-0203", "REPL-0204", "REPL-0205", "REPL-0206"];

    /// Stable across releases; listed in `docs/errors.md`.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::SlotDropped { .. } => "REPL-0201",
            Self::SlotInvalidated { .. } => "REPL-0202",
            Self::SlotMoved { .. } => "REPL-0203",
            Self::OtherHistory(_) => "REPL-0204",
            Self::OtherPublication => "REPL-0205",
            Self::Interrupted => "REPL-0206",
            Self::Contradiction { code } => code,
        }
    }

    /// Why the slot cannot be continued as it was found; `None` if nothing speaks against it.
    pub(super) fn of_slot(slot: &str, found: Option<&SlotState>) -> Option<Self> {
        let slot = slot.to_owned();
        match found.map(|found| &found.fault) {
            None => Some(Self::SlotDropped { slot }),
            Some(Some(SlotFault::Invalidated(reason))) => Some(Self::SlotInvalidated { slot, reason: reason.clone() }),
            Some(Some(SlotFault::Foreign)) => Some(Self::SlotMoved { slot }),
            Some(None) => None,
        }
    }

    /// What the server's refusal to stream from a slot means; other errors are handed back.
    pub(super) fn of_refusal(slot: &str, error: PgError) -> Result<Self, PgError> {
        let slot = slot.to_owned();
        match error {
            PgError::Server(server) if server.sqlstate == "42704" => Ok(Self::SlotDropped { slot }),
            PgError::Server(server) if server.sqlstate == "55000" => {
                Ok(Self::SlotInvalidated { slot, reason: server.message })
            }
            error => Err(error),
        }
    }
}

/// A reason with what brings it about, and how it is kept from happening again.
fn explained(reason: &str) -> String {
    let meaning = match reason {
        "wal_removed" => {
            "its WAL outgrew max_slot_wal_keep_size: raise that setting, or stop the service for less long"
        }
        "rows_removed" => "rows of the catalog that it needs were removed by VACUUM on the primary",
        "wal_level_insufficient" => "wal_level was not logical for a while",
        "idle_timeout" => "nobody read it for idle_replication_slot_timeout: raise that setting",
        _ => return reason.to_owned(),
    };
    format!("{reason}, {meaning}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::ServerError;

    #[test]
    fn refusals_to_stream_are_told_from_other_errors() {
        let refused = |sqlstate: &str| {
            let error = ServerError { sqlstate: sqlstate.to_owned(), message: "m".to_owned() };
            Discontinuity::of_refusal("s", PgError::Server(error)).map(|found| found.code()).ok()
        };
        assert_eq!(
            [refused("42704"), refused("55000"), refused("55006")],
            [Some("REPL-0201"), Some("REPL-0202"), None]
        );
    }
}
