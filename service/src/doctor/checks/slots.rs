//! How long the server keeps what the service has not read yet.

use std::time::Duration;

use crate::{
    byte_size::ByteSize,
    doctor::{
        check::Check,
        facts::{Server, Slot},
    },
    postgres::walsender::quote_literal,
};

/// A service that is stopped for so long should find its slot.
const OUTAGE: Duration = Duration::from_hours(1);
/// Less is used up by one large transaction.
const KEEP_BYTES_MIN: u64 = 1 << 30;
/// What is proposed, in gigabytes, where the present rate asks for no more.
const KEEP_GIGABYTES_PROPOSED: u64 = 10;
/// The service speaks every few seconds; a busy second must not cost the connection.
const SENDER_TIMEOUT_MIN: Duration = Duration::from_secs(10);
/// Better is long enough for a weekend; a day is the least.
const IDLE_TIMEOUT_MIN: Duration = Duration::from_hours(24);

pub(super) fn settings(server: &Server) -> Vec<Check> {
    let mut checks = vec![keep_size(server), sender_timeout(server.wal_sender_timeout)];
    checks.extend(server.idle_slot_timeout.map(idle_timeout));
    checks
}

fn keep_size(server: &Server) -> Check {
    let rate = server.wal_bytes_per_second;
    let needed = rate.saturating_mul(OUTAGE.as_secs());
    let proposed = format!("{}GB", KEEP_GIGABYTES_PROPOSED.max((needed >> 30) + 1));
    let now = format!("at present {} of WAL are written per second", ByteSize(rate));
    let Some(keep) = server.slot_wal_bytes_max else {
        let message = format!("max_slot_wal_keep_size is unlimited: a slot that nobody reads fills the disk; {now}");
        return Check::warn("slot_wal_keep_size", "slot_wal_unlimited", message)
            .set("max_slot_wal_keep_size", &proposed);
    };
    let size = format!("max_slot_wal_keep_size is {}", ByteSize(keep));
    if keep < needed.max(KEEP_BYTES_MIN) {
        let message = format!("{size}: a slot may be lost in an outage of less than an hour; {now}");
        return Check::warn("slot_wal_keep_size", "slot_wal_small", message).set("max_slot_wal_keep_size", &proposed);
    }
    Check::pass("slot_wal_keep_size", format!("{size}; {now}"))
}

fn sender_timeout(timeout: Duration) -> Check {
    if timeout.is_zero() {
        let message = "wal_sender_timeout is off: a connection that died keeps the slot";
        return Check::warn("wal_sender_timeout", "wal_sender_timeout_off", message).set("wal_sender_timeout", "60s");
    }
    let message = format!("wal_sender_timeout is {timeout:?}");
    if timeout < SENDER_TIMEOUT_MIN {
        let message = format!("{message}: a busy moment may cost the connection");
        return Check::warn("wal_sender_timeout", "wal_sender_timeout_small", message).set("wal_sender_timeout", "60s");
    }
    Check::pass("wal_sender_timeout", message)
}

fn idle_timeout(timeout: Duration) -> Check {
    if timeout.is_zero() {
        return Check::pass("idle_slot_timeout", "idle_replication_slot_timeout is off");
    }
    let message = format!("idle_replication_slot_timeout is {} s", timeout.as_secs());
    if timeout < IDLE_TIMEOUT_MIN {
        let message = format!("{message}: a service that is stopped for longer copies everything again");
        return Check::warn("idle_slot_timeout", "idle_slot_timeout_small", message)
            .set("idle_replication_slot_timeout", "3d");
    }
    Check::pass("idle_slot_timeout", message)
}

/// Slots of ours. Whether a silent one belongs to a service that will come back, only a person knows.
pub(super) fn idle(slots: &[Slot]) -> Vec<Check> {
    let mut checks: Vec<_> = slots.iter().filter(|slot| !slot.is_active || slot.is_lost).map(idle_slot).collect();
    if checks.is_empty() {
        let message = match slots.len() {
            0 => "none of ours in this database".to_owned(),
            count => format!("{count} of ours in this database, and in use"),
        };
        checks.push(Check::pass("slots", message));
    }
    checks
}

fn idle_slot(slot: &Slot) -> Check {
    let drop = format!("SELECT pg_drop_replication_slot({});", quote_literal(&slot.name));
    if slot.is_lost {
        let message = format!("slot {} has lost its WAL", slot.name);
        let help = "its service makes another one; drop this one if it has no service any more";
        return Check::warn("slots", "slot_lost", message).help(help).run([drop]);
    }
    let message = format!("nobody reads slot {}, which keeps {} of WAL", slot.name, ByteSize(slot.retained_bytes));
    let help = "start its service again; drop the slot only if that is gone for good";
    Check::warn("slots", "slot_idle", message).help(help).run([drop])
}
