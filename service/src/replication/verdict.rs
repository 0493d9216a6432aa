//! The decision: go on where we were, compare everything with the source, or begin afresh. Pure.

use crate::{
    postgres::{preflight::Inspection, slot::SlotState, walsender::SystemIdentity},
    replication::{discontinuity::Discontinuity, replicator::Remedy, state::ReplicationState},
};

/// What the source said about itself.
pub(super) struct Found<'a> {
    pub(super) system: &'a SystemIdentity,
    /// The slot of the stored state.
    pub(super) slot: Option<&'a SlotState>,
    pub(super) inspection: &'a Inspection,
}

/// How to go on.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The slot goes on where we were.
    Resume(ReplicationState),
    /// Changes may have been missed: a new slot, and all tables are compared with what is stored.
    Compare { reason: Discontinuity, state: ReplicationState },
    /// What is stored, if anything, cannot be continued.
    StartOver {
        reason: &'static str,
        /// A slot of ours to drop; its name is used again.
        old_slot: Option<String>,
    },
}

/// Whether everything is still as the stored state assumes, and nothing was found before that speaks against it.
pub(super) fn judge(
    stored: Option<ReplicationState>,
    remedy: Option<Remedy>,
    has_rules: bool,
    found: &Found<'_>,
) -> Verdict {
    if remedy == Some(Remedy::StartOver) {
        let old_slot = stored.map(|state| state.slot);
        return Verdict::StartOver { reason: "what is stored cannot be read", old_slot };
    }
    let Some(state) = stored else {
        return Verdict::StartOver { reason: "nothing is stored yet", old_slot: None };
    };
    if !has_rules {
        return Verdict::StartOver {
            reason: "it is not known by which rules it was stored",
            old_slot: Some(state.slot),
        };
    }
    match discontinuity(&state, found) {
        Some(reason) => Verdict::Compare { reason, state },
        None => match remedy {
            Some(Remedy::Compare(code)) => Verdict::Compare { reason: Discontinuity::Contradiction { code }, state },
            _ => Verdict::Resume(state),
        },
    }
}

fn discontinuity(state: &ReplicationState, found: &Found<'_>) -> Option<Discontinuity> {
    if state.system_id != found.system.system_id {
        return Some(Discontinuity::OtherHistory("the source is another server"));
    }
    if state.timeline != found.system.timeline {
        return Some(Discontinuity::OtherHistory("the source was restored or failed over"));
    }
    if found.system.head < state.resume {
        let reason = "the source is behind what was read from it: it was restored to an earlier state";
        return Some(Discontinuity::OtherHistory(reason));
    }
    if state.slot_created_at.is_none() {
        return Some(Discontinuity::Interrupted);
    }
    if let Some(reason) = Discontinuity::of_slot(&state.slot, found.slot) {
        return Some(reason);
    }
    // The slot is only ever told what is stored, so if it is further on, it is another one, or somebody moved it.
    if found.slot.and_then(|slot| slot.confirmed).is_some_and(|confirmed| confirmed > state.resume) {
        return Some(Discontinuity::SlotMoved { slot: state.slot.clone() });
    }
    (state.publications != found.inspection.publications).then_some(Discontinuity::OtherPublication)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{lsn::Lsn, postgres::slot::SlotFault};

    fn system() -> SystemIdentity {
        SystemIdentity { system_id: "7".to_owned(), timeline: "1".to_owned(), head: Lsn::new(500) }
    }

    fn slot(confirmed: u64) -> SlotState {
        let confirmed = Some(Lsn::new(confirmed));
        SlotState { fault: None, failover: None, confirmed, active_pid: None, active_application: None }
    }

    fn publications() -> Vec<String> {
        vec!["kairos_sync".to_owned()]
    }

    fn stored() -> ReplicationState {
        let mut state = ReplicationState::fresh(&system(), "kairos_1".to_owned(), publications(), &[]);
        (state.slot_created_at, state.resume) = (Some(Lsn::new(100)), Lsn::new(400));
        state
    }

    fn verdict(remedy: Option<Remedy>, system: &SystemIdentity, slot: Option<&SlotState>) -> Verdict {
        let inspection = Inspection { publications: publications(), ..Inspection::default() };
        judge(Some(stored()), remedy, true, &Found { system, slot, inspection: &inspection })
    }

    fn code(verdict: Verdict) -> &'static str {
        match verdict {
            Verdict::Compare { reason, .. } => reason.code(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_as_we_left_it_is_resumed() {
        assert_eq!(verdict(None, &system(), Some(&slot(400))), Verdict::Resume(stored()));
        let earlier = verdict(None, &system(), Some(&slot(100)));
        assert_eq!(earlier, Verdict::Resume(stored()), "the server may not have heard our last word");
    }

    #[test]
    fn another_server_or_history_is_never_resumed() {
        for other in [
            SystemIdentity { system_id: "8".to_owned(), ..system() },
            SystemIdentity { timeline: "2".to_owned(), ..system() },
            SystemIdentity { head: Lsn::new(399), ..system() },
        ] {
            assert_eq!(code(verdict(None, &other, Some(&slot(400)))), "REPL-0204", "{other:?}");
        }
    }

    #[test]
    fn a_slot_that_is_gone_invalid_or_moved_is_never_resumed() {
        let invalid = SlotState { fault: Some(SlotFault::Invalidated("wal_removed".to_owned())), ..slot(400) };
        let foreign = SlotState { fault: Some(SlotFault::Foreign), ..slot(400) };
        for (slot, expected) in [
            (None, "REPL-0201"),
            (Some(&invalid), "REPL-0202"),
            (Some(&foreign), "REPL-0203"),
            (Some(&slot(401)), "REPL-0203"),
        ] {
            assert_eq!(code(verdict(None, &system(), slot)), expected, "{slot:?}");
        }
    }

    #[test]
    fn what_was_found_before_counts_where_all_looks_well() {
        let remedy = Some(Remedy::Compare("REPL-0103"));
        assert_eq!(code(verdict(remedy, &system(), Some(&slot(400)))), "REPL-0103");
        assert_eq!(code(verdict(remedy, &system(), None)), "REPL-0201", "the better reason");
        let verdict = verdict(Some(Remedy::StartOver), &system(), Some(&slot(400)));
        assert!(matches!(verdict, Verdict::StartOver { old_slot: Some(_), .. }), "{verdict:?}");
    }
}
