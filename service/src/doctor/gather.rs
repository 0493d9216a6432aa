//! Asks server and host. Judges nothing.

use std::time::{Duration, SystemTime};

use kairos_sync_rules::{Severity, TablePattern};
use tokio::time::{Instant, sleep_until};
use tokio_postgres::{Client, Row, SimpleQueryMessage};

use super::{
    Target,
    facts::{Clock, Connection, Facts, Ledger, Quota, Refusal, Rules, Server, Slot, Source, Write, WriteRole},
    host,
};
use crate::{
    config::Config,
    lsn::Lsn,
    postgres::{PgError, SourceConfig, slot::INVALIDATION_REASON, walsender::WalSender},
    rules_check::{DEFAULT_SCHEMA, look_at_source},
    server::chain,
};

/// How long the growth of the WAL is measured.
const WAL_WATCH: Duration = Duration::from_secs(1);
/// The clocks are compared this often; the fastest answer counts.
const CLOCK_TRIES: usize = 3;
/// Where WAL ends, on a standby too.
const WAL_POSITION: &str = "CASE WHEN pg_is_in_recovery() THEN pg_last_wal_receive_lsn() ELSE pg_current_wal_lsn() END";

/// Everything the checks need.
pub(super) async fn facts(target: &Target) -> Result<Facts, PgError> {
    let client = target.source.connect().await?;
    let began = (Instant::now(), wal_position(&client).await?);
    let connection = connection(&client, &target.source).await?;
    let (source, write) = source(&client, target).await?;
    let slots = slots(&client, &target.source.slot_prefix).await?;
    let clock = clock(&client).await?;
    let store = target.config.as_ref().map(|config| host::store(&config.data_dir));
    let wal_bytes_per_second = wal_rate(&client, began).await?;
    let server = Server { wal_bytes_per_second, ..server(&client).await? };
    let unknown_proxy = target.config.as_ref().filter(|config| config.trusted_proxies.is_empty());
    let unknown_proxy = unknown_proxy.and_then(|config| config.base_path.clone());
    Ok(Facts { connection, server, clock, slots, source, write, store, unknown_proxy })
}

async fn connection(client: &Client, source: &SourceConfig) -> Result<Connection, PgError> {
    let sql = "SELECT coalesce((SELECT ssl FROM pg_catalog.pg_stat_ssl WHERE pid = pg_backend_pid()), false)";
    let is_encrypted = client.query_one(sql, &[]).await?.try_get(0)?;
    let is_local = source.socket_dir.is_some() || matches!(source.host.as_str(), "localhost" | "127.0.0.1" | "::1");
    let replication = replication(source).await;
    Ok(Connection { tls: source.tls, is_local, is_encrypted, pooler: pooler(client).await, replication })
}

/// What a pooler says it is. Postgres has no setting of this name, and refuses.
async fn pooler(client: &Client) -> Option<String> {
    let answer = client.simple_query("SHOW VERSION").await.ok()?;
    answer.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.try_get(0).ok().flatten().map(str::to_owned),
        _ => None,
    })
}

/// Why the way that the service takes to the WAL is closed.
async fn replication(source: &SourceConfig) -> Option<Refusal> {
    let asked = async { WalSender::connect(source).await?.identify_system().await };
    let error = asked.await.err()?;
    Some(Refusal { code: error.code(), message: chain(&error) })
}

async fn wal_position(client: &Client) -> Result<Lsn, PgError> {
    let row = client.query_one(&format!("SELECT ({WAL_POSITION})::text"), &[]).await?;
    let text: Option<String> = row.try_get(0)?;
    Ok(text.and_then(|text| text.parse().ok()).unwrap_or(Lsn::ZERO))
}

async fn wal_rate(client: &Client, (since, from): (Instant, Lsn)) -> Result<u64, PgError> {
    sleep_until(since + WAL_WATCH).await;
    let bytes = wal_position(client).await?.bytes_since(from);
    let millis = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX).max(1);
    Ok(bytes.saturating_mul(1000) / millis)
}

async fn server(client: &Client) -> Result<Server, PgError> {
    let sql = "
        SELECT current_setting('server_version'), pg_is_in_recovery(),
               current_setting('max_wal_senders')::bigint, (SELECT count(*) FROM pg_stat_get_wal_senders()),
               current_setting('max_replication_slots')::bigint,
               (SELECT count(*) FROM pg_catalog.pg_replication_slots),
               (SELECT setting::bigint FROM pg_catalog.pg_settings WHERE name = 'max_slot_wal_keep_size'),
               (extract(epoch FROM current_setting('wal_sender_timeout')::interval) * 1000)::bigint,
               (extract(epoch FROM current_setting('idle_replication_slot_timeout', true)::interval) * 1000)::bigint";
    let row = client.query_one(sql, &[]).await?;
    // In megabytes; less than nothing means no bound.
    let keep: Option<i64> = row.try_get(6)?;
    Ok(Server {
        version: row.try_get(0)?,
        is_standby: row.try_get(1)?,
        wal_senders: Quota { allowed: count(&row, 2)?, taken: count(&row, 3)? },
        slots: Quota { allowed: count(&row, 4)?, taken: count(&row, 5)? },
        slot_wal_bytes_max: keep.and_then(|megabytes| u64::try_from(megabytes).ok()).map(|megabytes| megabytes << 20),
        wal_bytes_per_second: 0,
        wal_sender_timeout: Duration::from_millis(count(&row, 7)?),
        idle_slot_timeout: row.try_get::<_, Option<i64>>(8)?.map(|millis| Duration::from_millis(millis.unsigned_abs())),
    })
}

fn count(row: &Row, column: usize) -> Result<u64, PgError> {
    Ok(row.try_get::<_, i64>(column)?.unsigned_abs())
}

async fn slots(client: &Client, prefix: &str) -> Result<Vec<Slot>, PgError> {
    let sql = format!(
        "SELECT slot_name::text, active, {INVALIDATION_REASON} IS NOT NULL,
                greatest(coalesce(pg_wal_lsn_diff({WAL_POSITION}, restart_lsn), 0), 0)::bigint
           FROM pg_catalog.pg_replication_slots s
          WHERE starts_with(slot_name, $1) AND database = current_database() ORDER BY 1"
    );
    let slot = |row: &Row| {
        let (name, is_active, is_lost) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        Ok(Slot { name, is_active, is_lost, retained_bytes: count(row, 3)? })
    };
    client.query(&sql, &[&prefix]).await?.iter().map(slot).collect()
}

/// The answer that took least says most.
async fn clock(client: &Client) -> Result<Clock, PgError> {
    let question = client.prepare("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint").await?;
    let mut best: Option<Clock> = None;
    for _ in 0..CLOCK_TRIES {
        let (asked, asked_at) = (Instant::now(), SystemTime::now());
        let micros: i64 = client.query_one(&question, &[]).await?.try_get(0)?;
        let uncertainty = asked.elapsed() / 2;
        let server = SystemTime::UNIX_EPOCH + Duration::from_micros(micros.unsigned_abs());
        let (apart, server_is_ahead) = match server.duration_since(asked_at + uncertainty) {
            Ok(ahead) => (ahead, true),
            Err(behind) => (behind.duration(), false),
        };
        if best.is_none_or(|best| uncertainty < best.uncertainty) {
            best = Some(Clock { apart, uncertainty, server_is_ahead });
        }
    }
    best.ok_or(PgError::Protocol("no answer about the time"))
}

/// What the rules find in the source, and what their uploads need.
async fn source(client: &Client, target: &Target) -> Result<(Source, Option<Write>), PgError> {
    let rules = target.config.as_ref().map(|config| &config.rules);
    let report = look_at_source(client, &target.source, rules.map(|rules| rules.text.as_str())).await?;
    let compiled = report.compiled;
    let error_count = compiled.diagnostics.iter().filter(|found| found.severity == Severity::Fatal).count();
    let is_of_source = |code: &str| matches!(code, "table_not_found" | "column_not_found");
    let mut found: Vec<_> = compiled.diagnostics.into_iter().filter(|found| is_of_source(found.code)).collect();
    found.extend(report.found);
    let write = match &target.config {
        None => None,
        Some(config) => {
            let writable = compiled.plan.as_ref().map(|plan| plan.writable_tables()).unwrap_or_default();
            Some(write(client, config, &writable).await?)
        }
    };
    let source = Source {
        role: target.source.user.clone(),
        inspection: report.inspection,
        publishable: report.publishable,
        has_wildcards: rules.is_some() && report.patterns.iter().any(TablePattern::is_wildcard),
        found,
        rules: rules.map(|rules| Rules { file: rules.file.clone(), error_count }),
    };
    Ok((source, write))
}

async fn write(client: &Client, config: &Config, writable: &[&str]) -> Result<Write, PgError> {
    let login = config.write.source.user.clone();
    let role = match &config.write.role {
        None => None,
        Some(role) => Some(write_role(client, role, &login, writable).await?),
    };
    let refusal = config.write.source.connect().await.err();
    let refusal = refusal.map(|error| Refusal { code: error.code(), message: chain(&error) });
    let ledger = ledger(client, &login).await?;
    Ok(Write { login, refusal, ledger, role, has_rules: !writable.is_empty() })
}

async fn ledger(client: &Client, login: &str) -> Result<Ledger, PgError> {
    let sql = "
        SELECT count(c.oid) = 3,
               bool_and(has_schema_privilege(l.oid, n.oid, 'USAGE') AND has_table_privilege(l.oid, c.oid, 'SELECT')
                        AND has_table_privilege(l.oid, c.oid, 'INSERT') AND has_table_privilege(l.oid, c.oid, 'DELETE')
                        AND (c.relname = 'write_ledger' OR has_table_privilege(l.oid, c.oid, 'UPDATE')))
          FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
          LEFT JOIN pg_catalog.pg_roles l ON l.rolname = $1
         WHERE n.nspname = 'kairos' AND c.relname IN ('write_ledger', 'conflicts', 'conflict_preferences')";
    let row = client.query_one(sql, &[&login]).await?;
    Ok(match (row.try_get(0)?, row.try_get::<_, Option<bool>>(1)?) {
        (false, _) => Ledger::Missing,
        (true, Some(true)) => Ledger::Open,
        (true, _) => Ledger::Closed,
    })
}

async fn write_role(client: &Client, name: &str, login: &str, writable: &[&str]) -> Result<WriteRole, PgError> {
    let sql = "
        SELECT r.rolsuper OR r.rolbypassrls, coalesce(pg_has_role(l.oid, r.oid, 'MEMBER'), false),
               array(SELECT format('%I.%I', n.nspname, c.relname) FROM pg_catalog.pg_class c
                       JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                      WHERE concat(n.nspname, '.', c.relname) = ANY ($3) AND NOT c.relforcerowsecurity
                        AND pg_has_role(r.oid, c.relowner, 'USAGE') ORDER BY 1)
          FROM pg_catalog.pg_roles r LEFT JOIN pg_catalog.pg_roles l ON l.rolname = $2
         WHERE r.rolname = $1";
    let whole =
        |table: &&str| if table.contains('.') { (*table).to_owned() } else { format!("{DEFAULT_SCHEMA}.{table}") };
    let tables: Vec<String> = writable.iter().map(whole).collect();
    let name = name.to_owned();
    let Some(row) = client.query_opt(sql, &[&name, &login, &tables]).await? else {
        return Ok(WriteRole { name, ..WriteRole::default() });
    };
    let (is_above_rls, is_granted, owned) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    Ok(WriteRole { name, exists: true, is_granted, is_above_rls, owned })
}
