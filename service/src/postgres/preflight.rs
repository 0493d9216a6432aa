//! Whether a source is set up so that it can be replicated; if not, what is missing and the SQL that mends it.

use std::collections::{BTreeSet, HashMap};

use kairos_sync_rules::{SourceTable, TablePattern};
use tokio_postgres::Client;

use crate::postgres::{
    catalog::{Published, Table, published_tables},
    error::PgError,
    membership::{Listing, disagreement},
    pgoutput::IdentitySetting,
    source::{Failover, SourceConfig},
    walsender::quote_identifier,
};

/// Used where the configuration names no publication, in this order.
const PUBLICATIONS: [&str; 2] = ["kairos_sync", "powersync"];
/// The oldest server whose stream carries logical messages.
const SERVER_VERSION_MIN: u32 = 140_000;
/// The connection tag of rules that name none.
pub const CONNECTION_TAG: &str = "default";

/// A table of the source as the rules name it.
pub fn source_table(schema: &str, name: &str) -> SourceTable {
    SourceTable { connection: CONNECTION_TAG.to_owned(), schema: schema.to_owned(), name: name.to_owned() }
}

/// One thing to mend.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SetupProblem {
    /// The server is too old.
    #[error("Postgres {found} is too old: 14 or newer is needed")]
    ServerVersion {
        /// What it says it is.
        found: String,
    },
    /// The WAL does not carry what logical decoding needs.
    #[error(
        "wal_level is {found}: run `ALTER SYSTEM SET wal_level = 'logical';` and restart Postgres (on managed servers \
         this is a setting of the instance)"
    )]
    WalLevel {
        /// The setting.
        found: String,
    },
    /// No connection in replication mode is allowed.
    #[error("max_wal_senders is 0: run `ALTER SYSTEM SET max_wal_senders = 10;` and restart Postgres")]
    NoWalSenders,
    /// All slots are taken.
    #[error(
        "all {allowed} replication slots are taken: drop one that is no longer used (`SELECT slot_name, active FROM \
         pg_replication_slots;`), or raise max_replication_slots and restart Postgres"
    )]
    NoFreeSlot {
        /// `max_replication_slots`.
        allowed: i64,
    },
    /// The role may not replicate.
    #[error(
        "role {role} may not replicate: run `ALTER ROLE {role} REPLICATION;` (on RDS `GRANT rds_replication TO {role};`)"
    )]
    ReplicationPrivilege {
        /// The role, quoted for SQL.
        role: String,
    },
    /// The configuration wants what the server cannot do.
    #[error("Postgres {found} cannot keep slots on standbys, 17 and newer can: set `failover` to auto or false")]
    Failover {
        /// The server's version.
        found: String,
    },
    /// There is no publication.
    #[error("publication {name} does not exist: run `{sql}`")]
    PublicationMissing {
        /// Its name.
        name: String,
        /// The statement that creates it.
        sql: String,
    },
    /// The publication leaves kinds of changes out.
    #[error(
        "publication {name} does not publish all changes: run `ALTER PUBLICATION {name} SET (publish = 'insert, \
         update, delete, truncate');`"
    )]
    PublicationPartial {
        /// Its name, quoted for SQL.
        name: String,
    },
    /// The rules name a table which is not published, or does not exist. Replication goes on without it.
    #[error(
        "the rules read {table}, which publication {publication} does not have: run `ALTER PUBLICATION {publication} \
         ADD TABLE {table};` if it exists"
    )]
    TableNotPublished {
        /// The table, quoted for SQL.
        table: String,
        /// The publication, quoted for SQL.
        publication: String,
    },
    /// The role may not read a table.
    #[error(
        "role {role} may not read {table}: run `GRANT USAGE ON SCHEMA {schema} TO {role}; GRANT SELECT ON {table} TO {role};`"
    )]
    SelectPrivilege {
        /// The role, quoted for SQL.
        role: String,
        /// The table, quoted for SQL.
        table: String,
        /// Its schema, quoted for SQL.
        schema: String,
    },
    /// The copy of a table would silently lack rows.
    #[error("row-level security hides rows of {table} from role {role}: run `ALTER ROLE {role} BYPASSRLS;`")]
    RowSecurity {
        /// The role, quoted for SQL.
        role: String,
        /// The table, quoted for SQL.
        table: String,
    },
    /// Publications have different columns of a table: Postgres would end the stream at its first change.
    #[error("publications {publication} and {other} publish different columns of {table}: run `{sql}`")]
    ColumnsDiffer {
        /// The table, quoted for SQL.
        table: String,
        /// A publication, quoted for SQL.
        publication: String,
        /// Another one, quoted for SQL.
        other: String,
        /// The statement that makes them agree.
        sql: String,
    },
    /// A publication has partitions of a table that another one publishes whole, with a condition or a column list:
    /// Postgres would not apply these to all partitions.
    #[error(
        "publication {publication} publishes partitions of {table}, of which another one publishes some rows or columns \
         as one table: run `ALTER PUBLICATION {publication} SET (publish_via_partition_root = true);`"
    )]
    PartitionsApart {
        /// The table, quoted for SQL.
        table: String,
        /// The publication, quoted for SQL.
        publication: String,
    },
    /// Nothing but all their values tells rows of a table apart. Replication goes on.
    #[error(
        "{table} has no key, so rows that are equal are one row to clients, and gone for them when one of them is \
         deleted: give it a primary key"
    )]
    EqualRows {
        /// The table, quoted for SQL.
        table: String,
    },
    /// Updates and deletes of a table could not be followed.
    #[error(
        "changes of rows of {table} cannot be followed: run `{sql}`, or better, give it a primary key if it has none"
    )]
    NoIdentity {
        /// The table, quoted for SQL.
        table: String,
        /// The statement that gives it one.
        sql: String,
    },
}

impl SetupProblem {
    /// Stable across releases; listed in `docs/errors.md`.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::ServerVersion { .. } => "PG-0201",
            Self::WalLevel { .. } => "PG-0202",
            Self::NoWalSenders => "PG-0203",
            Self::NoFreeSlot { .. } => "PG-0204",
            Self::ReplicationPrivilege { .. } => "PG-0205",
            Self::PublicationMissing { .. } => "PG-0206",
            Self::PublicationPartial { .. } => "PG-0207",
            Self::TableNotPublished { .. } => "PG-0208",
            Self::SelectPrivilege { .. } => "PG-0209",
            Self::RowSecurity { .. } => "PG-0210",
            Self::NoIdentity { .. } => "PG-0211",
            Self::ColumnsDiffer { .. } => "PG-0212",
            Self::PartitionsApart { .. } => "PG-0213",
            Self::EqualRows { .. } => "PG-0214",
            Self::Failover { .. } => "PG-0220",
        }
    }

    /// Whether replication can go on, leaving something out.
    pub const fn is_warning(&self) -> bool {
        matches!(self, Self::TableNotPublished { .. } | Self::EqualRows { .. })
    }
}

/// What was found on a source.
#[derive(Debug, Clone, Default)]
pub struct Inspection {
    /// The server's version as a number, 150004 for 15.4.
    pub server_version: u32,
    /// The publications to read, sorted; empty where one is missing.
    pub publications: Vec<String>,
    /// Its tables which the rules read.
    pub tables: Vec<Table>,
    /// Partitions whose changes come as those of the whole table.
    pub partitions: BTreeSet<u32>,
    /// What is to be mended.
    pub problems: Vec<SetupProblem>,
}

/// Looks at everything replication depends on. `slot` is the slot that will be used, if it is known already.
///
/// # Errors
/// [`PgError`] when the source cannot be asked; what is wrong with its setup is in the result.
pub async fn inspect(
    client: &Client,
    source: &SourceConfig,
    patterns: &[TablePattern],
    slot: Option<&str>,
) -> Result<Inspection, PgError> {
    let mut found = Inspection::default();
    let role = quote_identifier(&source.user);
    let server_version = inspect_server(client, &role, slot, &mut found.problems).await?;
    if source.failover == Failover::On && server_version < Failover::SERVER_VERSION_MIN {
        found.problems.push(SetupProblem::Failover { found: (server_version / 10_000).to_string() });
    }
    found.server_version = server_version;
    found.publications = find_publications(client, source, patterns, &mut found.problems).await?;
    let Some(first) = found.publications.first().filter(|_| server_version >= SERVER_VERSION_MIN) else {
        return Ok(found);
    };
    let publication = quote_identifier(first);
    Published { tables: found.tables, partitions: found.partitions } =
        read_tables(client, &found.publications, patterns).await?;
    for table in &found.tables {
        inspect_table(table, &role, &mut found.problems);
    }
    for pattern in patterns.iter().filter(|pattern| !pattern.is_wildcard()) {
        if !found.tables.iter().any(|table| names(pattern, &table.schema, &table.name)) {
            found
                .problems
                .push(SetupProblem::TableNotPublished { table: sql_name(pattern), publication: publication.clone() });
        }
    }
    Ok(found)
}

/// The published tables that the patterns name.
///
/// # Errors
/// [`PgError`].
pub async fn read_tables(
    client: &Client,
    publications: &[String],
    patterns: &[TablePattern],
) -> Result<Published, PgError> {
    let is_wanted = |schema: &str, name: &str| patterns.iter().any(|pattern| names(pattern, schema, name));
    published_tables(client, publications, server_version(client).await?, is_wanted).await
}

/// The server's version as a number, 150004 for 15.4.
///
/// # Errors
/// [`PgError`].
pub async fn server_version(client: &Client) -> Result<u32, PgError> {
    let sql = "SELECT current_setting('server_version_num')::bigint";
    let version: i64 = client.query_one(sql, &[]).await?.try_get(0)?;
    Ok(u32::try_from(version).unwrap_or(u32::MAX))
}

fn names(pattern: &TablePattern, schema: &str, name: &str) -> bool {
    pattern.matches(&source_table(schema, name))
}

fn sql_name(pattern: &TablePattern) -> String {
    format!("{}.{}", quote_identifier(&pattern.schema), quote_identifier(&pattern.name))
}

async fn inspect_server(
    client: &Client,
    role: &str,
    slot: Option<&str>,
    problems: &mut Vec<SetupProblem>,
) -> Result<u32, PgError> {
    let sql = "
        SELECT current_setting('server_version_num')::bigint, current_setting('server_version'),
               current_setting('wal_level'), current_setting('max_wal_senders')::bigint,
               current_setting('max_replication_slots')::bigint,
               (SELECT count(*) FROM pg_catalog.pg_replication_slots WHERE slot_name IS DISTINCT FROM $1),
               (SELECT rolreplication OR rolsuper OR EXISTS (
                         SELECT FROM pg_catalog.pg_roles WHERE rolname = 'rds_replication'
                            AND pg_has_role(current_user, oid, 'MEMBER'))
                  FROM pg_catalog.pg_roles WHERE rolname = current_user)";
    let row = client.query_one(sql, &[&slot]).await?;
    let version = u32::try_from(row.try_get::<_, i64>(0)?).unwrap_or(u32::MAX);
    if version < SERVER_VERSION_MIN {
        problems.push(SetupProblem::ServerVersion { found: row.try_get(1)? });
    }
    let wal_level: String = row.try_get(2)?;
    if wal_level != "logical" {
        problems.push(SetupProblem::WalLevel { found: wal_level });
    }
    if row.try_get::<_, i64>(3)? == 0 {
        problems.push(SetupProblem::NoWalSenders);
    }
    let (allowed, taken): (i64, i64) = (row.try_get(4)?, row.try_get(5)?);
    if taken >= allowed {
        problems.push(SetupProblem::NoFreeSlot { allowed });
    }
    if !row.try_get::<_, bool>(6)? {
        problems.push(SetupProblem::ReplicationPrivilege { role: role.to_owned() });
    }
    Ok(version)
}

/// Those of the configuration, or the first of the usual ones. None if any is missing: without it everything else would
/// look wrong.
async fn find_publications(
    client: &Client,
    source: &SourceConfig,
    patterns: &[TablePattern],
    problems: &mut Vec<SetupProblem>,
) -> Result<Vec<String>, PgError> {
    let usual = PUBLICATIONS.map(str::to_owned);
    let candidates = if source.publications.is_empty() { &usual[..] } else { &source.publications };
    let sql = "SELECT pubname::text, pubinsert AND pubupdate AND pubdelete AND pubtruncate
                 FROM pg_catalog.pg_publication WHERE pubname = ANY ($1)";
    let mut existing = HashMap::new();
    for row in client.query(sql, &[&candidates]).await? {
        existing.insert(row.try_get::<_, String>(0)?, row.try_get::<_, bool>(1)?);
    }
    let mut names = candidates.to_vec();
    if source.publications.is_empty() {
        let position = usual.iter().position(|name| existing.contains_key(name)).unwrap_or_default();
        names = vec![usual[position].clone()];
    }
    names.sort_unstable();
    names.dedup();
    let missing: Vec<_> = names.iter().filter(|name| !existing.contains_key(*name)).collect();
    for name in &missing {
        let sql = create_publication(name, patterns);
        problems.push(SetupProblem::PublicationMissing { name: (*name).clone(), sql });
    }
    let partial = names.iter().filter(|name| existing.get(*name) == Some(&false));
    problems.extend(partial.map(|name| SetupProblem::PublicationPartial { name: quote_identifier(name) }));
    Ok(if missing.is_empty() { names } else { Vec::new() })
}

/// The statement that publishes what the rules read. A wildcard can only be published as all tables.
fn create_publication(name: &str, patterns: &[TablePattern]) -> String {
    let name = quote_identifier(name);
    if patterns.is_empty() || patterns.iter().any(TablePattern::is_wildcard) {
        return format!("CREATE PUBLICATION {name} FOR ALL TABLES;");
    }
    let tables: Vec<_> = patterns.iter().map(sql_name).collect();
    format!("CREATE PUBLICATION {name} FOR TABLE {};", tables.join(", "))
}

/// Looks at one table; `role` is quoted for SQL.
pub fn inspect_table(table: &Table, role: &str, problems: &mut Vec<SetupProblem>) {
    let name = table.sql_name();
    if !table.is_readable {
        let schema = quote_identifier(&table.schema);
        problems.push(SetupProblem::SelectPrivilege { role: role.to_owned(), table: name.clone(), schema });
    }
    if table.hides_rows {
        problems.push(SetupProblem::RowSecurity { role: role.to_owned(), table: name.clone() });
    }
    if table.identity_columns().is_empty() {
        problems.push(SetupProblem::NoIdentity { sql: give_identity(table), table: name.clone() });
    }
    if table.has_no_key() {
        problems.push(SetupProblem::EqualRows { table: name.clone() });
    }
    if let Some((gives_way, other)) = disagreement(&table.listings) {
        let (publication, other) = (quote_identifier(&gives_way.publication), quote_identifier(&other.publication));
        let sql = if gives_way.is_by_name {
            format!("ALTER PUBLICATION {publication} DROP TABLE {name};")
        } else {
            // Without a list of columns they can only differ in this.
            format!("ALTER PUBLICATION {other} SET (publish_generated_columns = stored);")
        };
        problems.push(SetupProblem::ColumnsDiffer { table: name.clone(), publication, other, sql });
    }
    if let Some(publication) = &table.published_apart_by
        && (table.row_filter.is_some() || !table.unlisted.is_empty())
    {
        problems.push(SetupProblem::PartitionsApart { table: name, publication: quote_identifier(publication) });
    }
}

/// The statements that make changes of a table's rows followable.
fn give_identity(table: &Table) -> String {
    let name = table.sql_name();
    let is_listed = |column: &String| table.listings.iter().all(|listing| listing.has(column));
    if table.unpublished_key.is_empty() || table.unpublished_key.iter().all(is_listed) {
        let has_key = table.columns.iter().any(|column| column.in_primary_key);
        let setting = if has_key && table.identity == IdentitySetting::Nothing { "DEFAULT" } else { "FULL" };
        return format!("ALTER TABLE {name} REPLICA IDENTITY {setting};");
    }
    let published = table.columns.iter().map(|column| &column.name);
    let columns: Vec<_> = table.unpublished_key.iter().chain(published).map(|name| quote_identifier(name)).collect();
    let columns = columns.join(", ");
    let publish_again = |listing: &Listing| {
        let publication = quote_identifier(&listing.publication);
        let filter = listing.row_filter.as_ref().map_or_else(String::new, |filter| format!(" WHERE ({filter})"));
        format!(
            "ALTER PUBLICATION {publication} DROP TABLE {name}; ALTER PUBLICATION {publication} ADD TABLE {name} \
             ({columns}){filter};"
        )
    };
    table.listings.iter().filter(|listing| listing.is_by_name).map(publish_again).collect::<Vec<_>>().join(" ")
}
