//! Publication, tables and role, as the rules' own check found them.

use kairos_sync_rules::{Diagnostic, Severity};

use crate::{
    doctor::{
        check::{Check, Status},
        facts::Source,
        remedy,
    },
    postgres::{preflight::SetupProblem, walsender::quote_identifier},
};

/// What a finding is about.
fn topic(code: &str) -> &'static str {
    match code {
        "PG-0201" => "server_version",
        "PG-0202" => "wal_level",
        "PG-0203" => "wal_senders",
        "PG-0204" => "replication_slots",
        "PG-0205" => "role",
        "PG-0206" | "PG-0207" | "PG-0212" | "PG-0213" => "publication",
        "PG-0209" => "privileges",
        "PG-0210" => "row_security",
        "PG-0211" | "PG-0214" => "replica_identity",
        _ => "tables",
    }
}

/// What was found about a topic, or that all is well.
pub(super) fn of_setup(about: &'static str, source: &Source, well: impl FnOnce() -> String) -> Vec<Check> {
    let found = source.found.iter().filter(|found| topic(found.code) == about);
    let checks: Vec<_> = found.map(|found| check(about, found, source)).collect();
    if checks.is_empty() { vec![Check::pass(about, well())] } else { checks }
}

fn check(about: &'static str, found: &Diagnostic, source: &Source) -> Check {
    let status = match found.severity {
        Severity::Fatal => Check::fail,
        Severity::Warning => Check::warn,
    };
    let check = status(about, found.code, found.message.clone());
    let check = match &found.help {
        Some(help) => check.help(help.clone()),
        None => check,
    };
    let is_it = |problem: &&SetupProblem| {
        problem.code() == found.code && problem.to_string().starts_with(found.message.as_str())
    };
    match source.inspection.problems.iter().find(is_it) {
        // Publishing all tables, as wildcards need it, is for a person to decide.
        Some(SetupProblem::PublicationMissing { name, .. }) if !source.has_wildcards => {
            let create = create_publication(name, &source.publishable);
            Check { help: None, ..check }.run([create]).safe()
        }
        Some(problem) => {
            let (sql, is_safe) = remedy::of(problem);
            Check { is_safe, ..check.run(sql) }
        }
        None => {
            let sql = found.help.as_deref().and_then(remedy::quoted_in);
            check.run(sql)
        }
    }
}

/// With the tables that are there; others would make it fail.
fn create_publication(name: &str, tables: &[String]) -> String {
    let name = quote_identifier(name);
    if tables.is_empty() {
        return format!("CREATE PUBLICATION {name};");
    }
    format!("CREATE PUBLICATION {name} FOR TABLE {};", tables.join(", "))
}

pub(super) fn source(source: &Source) -> Vec<Check> {
    let role = quote_identifier(&source.role);
    let publications = &source.inspection.publications;
    let mut checks: Vec<_> = source.rules.iter().map(|rules| rules_check(&rules.file, rules.error_count)).collect();
    checks.extend(of_setup("role", source, || format!("role {role} may replicate")));
    checks.extend(of_setup("publication", source, || {
        let (noun, verb) =
            if publications.len() == 1 { ("publication", "publishes") } else { ("publications", "publish") };
        format!("{noun} {} {verb} all changes", publications.join(", "))
    }));
    if publications.is_empty() || source.inspection.tables.is_empty() {
        checks.extend(of_setup("tables", source, String::new).into_iter().filter(|check| check.status != Status::Pass));
        checks.extend(no_tables(source));
    } else {
        let count = source.inspection.tables.len();
        checks.extend(of_setup("tables", source, || format!("{count} published and read, whole")));
    }
    checks.extend(of_setup("replica_identity", source, || "every table read says which row has changed".to_owned()));
    checks.extend(of_setup("privileges", source, || format!("role {role} may read every table")));
    checks.extend(of_setup("row_security", source, || format!("no rows are hidden from role {role}")));
    checks
}

fn rules_check(file: &str, error_count: usize) -> Check {
    if error_count == 0 {
        return Check::pass("rules", format!("{file} can be deployed"));
    }
    let message = format!("{file} cannot be deployed, errors: {error_count}");
    Check::fail("rules", "CONF-0201", message).help("see `kairos-sync rules check`")
}

/// The publication is there and offers nothing that is read.
fn no_tables(source: &Source) -> Option<Check> {
    let name = quote_identifier(source.inspection.publications.first()?);
    let message = format!("publication {name} has no table that is read");
    let help = format!("run `ALTER PUBLICATION {name} ADD TABLE …;` for the tables that devices should have");
    Some(Check::warn("tables", "publication_empty", message).help(help))
}
