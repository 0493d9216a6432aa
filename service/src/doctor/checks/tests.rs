//! Each check on facts made up, for what a test server cannot show.

use std::time::Duration;

use kairos_sync_rules::{Diagnostic, Severity};

use super::all;
use crate::{
    doctor::{
        check::Status,
        facts::{Clock, Connection, Facts, Ledger, Quota, Refusal, Server, Slot, Source, Store, Write, WriteRole},
    },
    postgres::{
        TlsMode,
        preflight::{Inspection, SetupProblem},
    },
};

const DAY: Duration = Duration::from_hours(24);

/// Nothing to complain of.
fn healthy() -> Facts {
    Facts {
        connection: Connection {
            tls: TlsMode::VerifyFull,
            is_local: false,
            is_encrypted: true,
            pooler: None,
            replication: None,
        },
        server: Server {
            version: "18.1".to_owned(),
            is_standby: false,
            wal_senders: Quota { allowed: 10, taken: 1 },
            slots: Quota { allowed: 10, taken: 1 },
            slot_wal_bytes_max: Some(10 << 30),
            wal_bytes_per_second: 1 << 20,
            wal_sender_timeout: Duration::from_mins(1),
            idle_slot_timeout: Some(Duration::ZERO),
        },
        clock: Clock { apart: Duration::from_millis(3), uncertainty: Duration::from_millis(1), server_is_ahead: true },
        slots: vec![slot(true, false)],
        source: Source {
            role: "app".to_owned(),
            inspection: Inspection { publications: vec!["kairos_sync".to_owned()], ..Inspection::default() },
            publishable: Vec::new(),
            has_wildcards: false,
            found: Vec::new(),
            rules: None,
        },
        write: Some(Write { has_rules: false, ..write(None) }),
        store: Some(Store { folder: "data".into(), refusal: None, free_bytes: Some(10 << 30) }),
        unknown_proxy: None,
    }
}

fn slot(is_active: bool, is_lost: bool) -> Slot {
    Slot { name: "kairos_it's".to_owned(), is_active, is_lost, retained_bytes: 3 << 20 }
}

fn write(role: Option<WriteRole>) -> Write {
    Write { login: "app".to_owned(), refusal: None, ledger: Ledger::Open, role, has_rules: true }
}

/// All that is not well once `spoil` has been at the healthy facts, with status and SQL.
fn found(spoil: impl FnOnce(&mut Facts)) -> Vec<(Status, &'static str, Vec<String>)> {
    let mut facts = healthy();
    spoil(&mut facts);
    let checks = all(&facts).into_iter();
    // The healthy facts have no tables, which is the one thing said about them.
    let told = checks.filter(|check| check.code.is_some_and(|code| code != "publication_empty"));
    told.map(|check| (check.status, check.code.unwrap_or_default(), check.sql)).collect()
}

/// As `found`, of a spoiler with one fault, without SQL.
fn only(spoil: impl FnOnce(&mut Facts)) -> (Status, &'static str) {
    let found = found(spoil);
    assert_eq!(found.len(), 1, "{found:?}");
    (found[0].0, found[0].1)
}

#[test]
fn what_is_healthy_is_not_complained_of() {
    assert_eq!(found(|_| {}), []);
}

#[test]
fn an_open_connection_is_for_the_same_host() {
    let open = |is_local| {
        move |facts: &mut Facts| {
            (facts.connection.is_encrypted, facts.connection.is_local) = (false, is_local);
        }
    };
    assert_eq!(only(open(false)), (Status::Warn, "connection_not_encrypted"));
    assert_eq!(found(open(true)), []);
}

#[test]
fn a_pooler_is_known_by_its_answer_or_its_refusal() {
    let name = |facts: &mut Facts| facts.connection.pooler = Some("PgBouncer 1.24".to_owned());
    assert_eq!(only(name), (Status::Fail, "pooler_in_between"));
    let refuse = |code: &'static str| {
        move |facts: &mut Facts| {
            facts.connection.replication = Some(Refusal { code, message: "refused".to_owned() });
        }
    };
    assert_eq!(found(refuse("PG-0114")).len(), 2);
    assert_eq!(only(refuse("PG-0109")), (Status::Fail, "PG-0109"));
}

#[test]
fn a_standby_is_refused() {
    assert_eq!(only(|facts| facts.server.is_standby = true), (Status::Fail, "server_is_standby"));
}

#[test]
fn the_last_wal_sender_is_missed_before_it_is_needed() {
    let taken = |taken| move |facts: &mut Facts| facts.server.wal_senders = Quota { allowed: 10, taken };
    assert_eq!(found(taken(9)), []);
    let sql = "ALTER SYSTEM SET max_wal_senders = 20;".to_owned();
    assert_eq!(found(taken(10)), [(Status::Warn, "wal_senders_taken", vec![sql])]);
}

#[test]
fn what_a_slot_may_keep_is_measured_by_what_is_written() {
    let keep = |size, rate| {
        move |facts: &mut Facts| {
            (facts.server.slot_wal_bytes_max, facts.server.wal_bytes_per_second) = (size, rate);
        }
    };
    assert_eq!(only(keep(None, 0)), (Status::Warn, "slot_wal_unlimited"));
    assert_eq!(only(keep(Some((1 << 30) - 1), 0)), (Status::Warn, "slot_wal_small"));
    assert_eq!(found(keep(Some(1 << 30), 0)), []);
    // An hour at 10 MB each second is 35 GB and a bit.
    let found_busy = found(keep(Some(20 << 30), 10 << 20));
    assert_eq!(found_busy[0].2[0], "ALTER SYSTEM SET max_slot_wal_keep_size = '36GB';");
    assert_eq!(found(keep(Some(36 << 30), 10 << 20)), [], "what was proposed is enough");
    assert_eq!(found(keep(Some(u64::MAX), u64::MAX)), [], "no overflow");
}

#[test]
fn a_slot_may_be_idle_for_a_day() {
    let idle = |timeout| move |facts: &mut Facts| facts.server.idle_slot_timeout = timeout;
    assert_eq!(found(idle(None)), [], "older than 18");
    assert_eq!(found(idle(Some(DAY))), []);
    assert_eq!(only(idle(Some(DAY.saturating_sub(Duration::from_secs(1))))), (Status::Warn, "idle_slot_timeout_small"));
}

#[test]
fn slots_that_are_idle_or_lost_are_named_and_quoted() {
    let drop = vec!["SELECT pg_drop_replication_slot('kairos_it''s');".to_owned()];
    let with = |slot| move |facts: &mut Facts| facts.slots = vec![slot];
    assert_eq!(found(with(slot(false, false))), [(Status::Warn, "slot_idle", drop.clone())]);
    assert_eq!(found(with(slot(false, true))), [(Status::Warn, "slot_lost", drop)]);
}

#[test]
fn clocks_may_differ_by_what_the_question_took() {
    let apart = |millis, uncertainty| {
        move |facts: &mut Facts| {
            facts.clock.apart = Duration::from_millis(millis);
            facts.clock.uncertainty = Duration::from_millis(uncertainty);
        }
    };
    assert_eq!(only(apart(2_100, 50)), (Status::Warn, "clocks_apart"));
    assert_eq!(found(apart(2_100, 200)), []);
}

#[test]
fn the_role_of_uploads_is_one_that_row_level_security_binds() {
    let role = |role: WriteRole| {
        move |facts: &mut Facts| {
            facts.write = Some(write(Some(role)));
        }
    };
    let good = || WriteRole { name: "w".to_owned(), exists: true, is_granted: true, ..WriteRole::default() };
    assert_eq!(found(role(good())), []);
    assert_eq!(only(role(WriteRole { exists: false, ..good() })), (Status::Fail, "WRITE_ROLE"));
    assert_eq!(only(role(WriteRole { is_granted: false, ..good() })), (Status::Fail, "WRITE_ROLE"));
    assert_eq!(only(role(WriteRole { is_above_rls: true, ..good() })), (Status::Warn, "write_role_above_rls"));
    let owned = vec!["t".to_owned()];
    assert_eq!(only(role(WriteRole { owned, ..good() })), (Status::Warn, "write_role_owns_tables"));
    let unset = |facts: &mut Facts| {
        facts.write = Some(write(None));
    };
    assert_eq!(only(unset), (Status::Warn, "write_role_unset"));
}

#[test]
fn uploads_need_a_ledger_and_a_login() {
    let with = |change: Write| move |facts: &mut Facts| facts.write = Some(change);
    let role = || Some(WriteRole { name: "w".to_owned(), exists: true, is_granted: true, ..WriteRole::default() });
    for ledger in [Ledger::Missing, Ledger::Closed] {
        assert_eq!(only(with(Write { ledger, ..write(role()) })), (Status::Fail, "WRITE_LEDGER"));
    }
    let refusal = Some(Refusal { code: "PG-0106", message: "refused".to_owned() });
    assert_eq!(only(with(Write { refusal, ..write(role()) })), (Status::Fail, "PG-0106"));
    assert_eq!(found(with(Write { has_rules: false, ledger: Ledger::Missing, ..write(None) })), [], "none is needed");
}

#[test]
fn the_store_needs_a_folder_and_room() {
    let free = |bytes| {
        move |facts: &mut Facts| {
            facts.store = Some(Store { folder: "data".into(), refusal: None, free_bytes: bytes });
        }
    };
    assert_eq!(found(free(None)), []);
    assert_eq!(only(free(Some(63 << 20))), (Status::Fail, "STORE-0101"));
    assert_eq!(only(free(Some(64 << 20))), (Status::Warn, "disk_nearly_full"));
    let refused = |facts: &mut Facts| {
        let refusal = Some("denied".to_owned());
        facts.store = Some(Store { folder: "data".into(), refusal, free_bytes: Some(1 << 40) });
    };
    assert_eq!(only(refused), (Status::Fail, "STORE-0101"));
}

#[test]
fn a_proxy_is_known() {
    let behind = |facts: &mut Facts| facts.unknown_proxy = Some("/sync".to_owned());
    assert_eq!(only(behind), (Status::Warn, "proxy_not_trusted"));
}

#[test]
fn all_tables_are_never_published_unasked() {
    let missing = |has_wildcards, tables: &[&str]| {
        let sql = "CREATE PUBLICATION p FOR ALL TABLES;".to_owned();
        let problem = SetupProblem::PublicationMissing { name: "p".to_owned(), sql };
        let mut facts = healthy();
        facts.source.found = vec![Diagnostic {
            code: problem.code(),
            severity: Severity::Fatal,
            message: "publication p does not exist".to_owned(),
            help: None,
            span: None,
        }];
        facts.source.inspection = Inspection { problems: vec![problem], ..Inspection::default() };
        facts.source.publishable = tables.iter().map(|&table| table.to_owned()).collect();
        facts.source.has_wildcards = has_wildcards;
        let check = all(&facts).into_iter().find(|check| check.code == Some("PG-0206")).unwrap();
        (check.sql.join(" "), check.is_safe)
    };
    assert_eq!(missing(true, &["a"]), ("CREATE PUBLICATION p FOR ALL TABLES;".to_owned(), false));
    assert_eq!(missing(false, &["a", "b"]), ("CREATE PUBLICATION \"p\" FOR TABLE a, b;".to_owned(), true));
    assert_eq!(missing(false, &[]), ("CREATE PUBLICATION \"p\";".to_owned(), true));
}

#[test]
fn only_what_gives_is_run_unasked() {
    let mut facts = healthy();
    facts.slots = vec![slot(false, false)];
    facts.server.slot_wal_bytes_max = None;
    let role = WriteRole { name: "w".to_owned(), exists: true, is_above_rls: true, ..WriteRole::default() };
    facts.write = Some(write(Some(role)));
    let safe: Vec<_> = all(&facts).into_iter().filter(|check| check.is_safe).flat_map(|check| check.sql).collect();
    assert_eq!(safe, ["GRANT \"w\" TO \"app\";"]);
}
