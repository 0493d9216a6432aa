//! The connection, and what the server allows.

use super::source::of_setup;
use crate::{
    doctor::{
        check::{Check, Status},
        facts::{Connection, Facts, Source},
    },
    postgres::TlsMode,
};

/// What keeps replication connections away; the refusal itself then says nothing new.
const KNOWN_REASONS: [&str; 3] = ["PG-0202", "PG-0203", "PG-0205"];

pub(super) fn connection(connection: &Connection, source: &Source) -> Vec<Check> {
    let mut checks = vec![tls(connection)];
    checks.extend(pooler(connection));
    let is_explained = source.found.iter().any(|found| KNOWN_REASONS.contains(&found.code));
    match &connection.replication {
        None => checks.push(Check::pass("replication_connection", "the server takes replication connections")),
        Some(_) if is_explained => {}
        Some(refusal) => {
            let message = format!("no replication connection: {}", refusal.message);
            let help = "let the role make replication connections in pg_hba.conf, and connect to the server itself";
            checks.push(Check::fail("replication_connection", refusal.code, message).help(help));
        }
    }
    checks
}

fn tls(connection: &Connection) -> Check {
    let mode = match connection.tls {
        TlsMode::Disable => "disable",
        TlsMode::VerifyCa => "verify-ca",
        TlsMode::VerifyFull => "verify-full",
    };
    match (connection.is_encrypted, connection.is_local) {
        (true, _) => Check::pass("tls", format!("the connection is encrypted, sslmode is {mode}")),
        (false, true) => Check::pass("tls", format!("not encrypted and on the same host, sslmode is {mode}")),
        (false, false) => {
            let message = format!("the connection is not encrypted, sslmode is {mode}");
            let help = "set sslmode to verify-full, unless the network is private";
            Check::warn("tls", "connection_not_encrypted", message).help(help)
        }
    }
}

/// A pooler hands a session's statements to several servers' sessions, and most know no replication.
fn pooler(connection: &Connection) -> Option<Check> {
    let name = match (&connection.pooler, &connection.replication) {
        (Some(name), _) => name.as_str(),
        (None, Some(refusal)) if refusal.code == "PG-0114" => "PgBouncer",
        (None, _) => return None,
    };
    let message = format!("a pooler is between here and Postgres: {name}");
    Some(Check::fail("pooler", "pooler_in_between", message).help("give the address of Postgres itself"))
}

pub(super) fn server(facts: &Facts) -> Vec<Check> {
    let server = &facts.server;
    let mut checks = of_setup("server_version", &facts.source, || format!("Postgres {}", server.version));
    if server.is_standby {
        let message = "the server is a standby; the service writes messages, and its slot is to outlive a failover";
        checks.push(Check::fail("server_role", "server_is_standby", message).help("give the address of the primary"));
    }
    checks.extend(of_setup("wal_level", &facts.source, || "wal_level is logical".to_owned()));
    checks.extend(wal_senders(facts));
    checks.extend(replication_slots(facts));
    checks
}

fn wal_senders(facts: &Facts) -> Vec<Check> {
    let senders = facts.server.wal_senders;
    let counts = format!("{} of {} WAL senders are free", senders.free(), senders.allowed);
    if senders.allowed > 0 && senders.free() == 0 {
        let sql = format!("ALTER SYSTEM SET max_wal_senders = {};", senders.allowed + 10);
        let check = Check::warn("wal_senders", "wal_senders_taken", counts).run([sql]);
        return vec![check.help("the service waits for one; raise max_wal_senders, and restart Postgres")];
    }
    of_setup("wal_senders", &facts.source, || counts)
}

fn replication_slots(facts: &Facts) -> Vec<Check> {
    let slots = facts.server.slots;
    let counts = || format!("{} of {} replication slots are free", slots.free(), slots.allowed);
    let mut checks = of_setup("replication_slots", &facts.source, counts);
    for check in &mut checks {
        // A service that has its slot already needs no other one.
        if check.status == Status::Warn && facts.slots.is_empty() {
            check.status = Status::Fail;
        }
    }
    checks
}
