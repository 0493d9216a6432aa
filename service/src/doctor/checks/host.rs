//! What is beside the source: the clock, the role of uploads, the store's folder, a proxy.

use std::time::Duration;

use crate::{
    byte_size::ByteSize,
    doctor::{
        check::Check,
        facts::{Clock, Ledger, Store, Write, WriteRole},
    },
    postgres::walsender::quote_identifier,
};

/// Tokens are judged by this host's clock, and answers to uploads kept by the server's.
const APART_MAX: Duration = Duration::from_secs(2);
/// Room for the store to work in.
const FREE_BYTES_MIN: u64 = 1 << 30;
/// Below this the store fails soon.
const FREE_BYTES_LEAST: u64 = 64 << 20;

pub(super) fn clock(clock: Clock) -> Check {
    let ahead = if clock.server_is_ahead { "ahead of" } else { "behind" };
    let message = format!("the server's clock is {} ms {ahead} this host's", clock.apart.as_millis());
    if clock.apart.saturating_sub(clock.uncertainty) > APART_MAX {
        return Check::warn("clock", "clocks_apart", message).help("let both follow a time server (NTP)");
    }
    Check::pass("clock", message)
}

pub(super) fn write(write: &Write) -> Vec<Check> {
    if !write.has_rules {
        return vec![Check::pass("write_role", "devices write nothing")];
    }
    let login = quote_identifier(&write.login);
    let mut checks = write.role.as_ref().map_or_else(|| vec![no_write_role(&login)], |role| write_role(role, &login));
    checks.extend(write.refusal.as_ref().map(|refusal| {
        let message = format!("uploads have no connection: {}", refusal.message);
        Check::fail("write_connection", refusal.code, message)
    }));
    checks.push(ledger(write.ledger, &login));
    checks
}

fn no_write_role(login: &str) -> Check {
    let message = format!("no `write.role`: uploads run as {login}, which row-level security may not bind");
    let sql = ["CREATE ROLE kairos_write NOLOGIN;".to_owned(), format!("GRANT kairos_write TO {login};")];
    let help = "make the role, grant it what devices may write, and set `write.role: kairos_write`";
    Check::warn("write_role", "write_role_unset", message).help(help).run(sql)
}

/// Without the ledger no upload is taken, since a repeated one could have two effects; without the tables of conflicts
/// none that has one.
fn ledger(ledger: Ledger, login: &str) -> Check {
    match ledger {
        Ledger::Open => Check::pass("write_ledger", format!("{login} may use the tables of schema kairos")),
        Ledger::Missing => Check::fail("write_ledger", "WRITE_LEDGER", "the tables of schema kairos are not all there")
            .help("run `kairos-sync migrate` with a role that may create roles"),
        Ledger::Closed => Check::fail(
            "write_ledger",
            "WRITE_LEDGER",
            format!("{login} may not use the tables of schema kairos"),
        )
        .run([
            format!("GRANT USAGE ON SCHEMA kairos TO {login};"),
            format!("GRANT SELECT, INSERT, DELETE ON kairos.write_ledger TO {login};"),
            format!(
                "GRANT SELECT, INSERT, UPDATE, DELETE ON kairos.conflicts, kairos.conflict_preferences TO {login};"
            ),
        ])
        .safe(),
    }
}

fn write_role(role: &WriteRole, login: &str) -> Vec<Check> {
    let name = quote_identifier(&role.name);
    let grant = format!("GRANT {name} TO {login};");
    if !role.exists {
        let create = format!("CREATE ROLE {name} NOLOGIN;");
        return vec![Check::fail("write_role", "WRITE_ROLE", format!("there is no role {name}")).run([create, grant])];
    }
    let mut checks = Vec::new();
    if !role.is_granted {
        let message = format!("{login} may not become {name}");
        checks.push(Check::fail("write_role", "WRITE_ROLE", message).run([grant]).safe());
    }
    if role.is_above_rls {
        let message = format!("row-level security does not bind {name}");
        let sql = format!("ALTER ROLE {name} NOSUPERUSER NOBYPASSRLS;");
        checks.push(Check::warn("write_role", "write_role_above_rls", message).run([sql]));
    } else if !role.owned.is_empty() {
        let message = format!("{name} owns {}; row-level security does not bind an owner", role.owned.join(", "));
        let force = |table: &String| format!("ALTER TABLE {table} FORCE ROW LEVEL SECURITY;");
        let sql = role.owned.iter().map(force);
        checks.push(Check::warn("write_role", "write_role_owns_tables", message).run(sql));
    }
    if checks.is_empty() {
        checks.push(Check::pass("write_role", format!("uploads run as {name}, which row-level security binds")));
    }
    checks
}

/// To limits of addresses all who come through it are one.
pub(super) fn proxy(base_path: &str) -> Check {
    let message = format!(
        "`base_path: {base_path}` is for a proxy, and no `trusted_proxies` are set: all clients have its address"
    );
    Check::warn("proxy", "proxy_not_trusted", message).help("set `trusted_proxies` to the proxy's addresses")
}

pub(super) fn store(store: &Store) -> Check {
    let folder = store.folder.display();
    if let Some(refusal) = &store.refusal {
        let message = format!("{folder} cannot be written: {refusal}");
        return Check::fail("store", "STORE-0101", message)
            .help("give the service's user the folder, or set `data_dir`");
    }
    let Some(free) = store.free_bytes else { return Check::pass("store", format!("{folder} can be written")) };
    let message = format!("{folder} can be written, {} are free", ByteSize(free));
    match free {
        0..FREE_BYTES_LEAST => Check::fail("store", "STORE-0101", message).help("free space"),
        FREE_BYTES_LEAST..FREE_BYTES_MIN => Check::warn("store", "disk_nearly_full", message).help("free space"),
        _ => Check::pass("store", message),
    }
}
