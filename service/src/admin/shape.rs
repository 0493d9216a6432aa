//! Answers as tools for the reference service know them.

use std::collections::BTreeSet;

use serde::Serialize;

/// The connection's name in all answers: there is one.
pub(super) const CONNECTION: &str = "default";

/// How the service is.
#[derive(Debug, Serialize)]
pub struct Diagnostics {
    /// The source.
    pub connections: Vec<ConnectionReport>,
    /// The rules in force; absent before a checkpoint is visible.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub active_sync_rules: Option<RulesReport>,
    /// Rules that are being built.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deploying_sync_rules: Option<RulesReport>,
}

/// A connection to a source.
#[derive(Debug, Serialize)]
pub struct ConnectionReport {
    /// Its name.
    pub id: &'static str,
    /// Where it leads, without user and password.
    pub postgres_uri: String,
    /// Whether it does.
    pub connected: bool,
    /// Why not.
    pub errors: Vec<Finding>,
}

/// How rules are doing, or would do.
#[derive(Debug, Serialize)]
pub struct RulesReport {
    /// Their text, where it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// What they read.
    pub connections: Vec<ReplicationReport>,
    /// What is wrong with them.
    pub errors: Vec<Finding>,
}

/// How replication of a source is doing.
#[derive(Debug, Default, Serialize)]
pub struct ReplicationReport {
    /// Name of the connection.
    pub id: &'static str,
    /// The same.
    pub tag: &'static str,
    /// The replication slot.
    pub slot_name: String,
    /// Whether everything was copied once.
    pub initial_replication_done: bool,
    /// Everything before is here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_lsn: Option<String>,
    /// When the source was last heard of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_keepalive_ts: Option<String>,
    /// When a checkpoint last became visible.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_checkpoint_ts: Option<String>,
    /// WAL that is not here yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replication_lag_bytes: Option<u64>,
    /// As `pg_replication_slots` has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wal_status: Option<String>,
    /// Bytes of WAL until the slot may be lost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub safe_wal_size: Option<i64>,
    /// Bytes of WAL the server keeps for a slot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_slot_wal_keep_size: Option<i64>,
    /// The tables that are read.
    pub tables: Vec<TableReport>,
}

/// A table that rules read.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct TableReport {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// As the rules name it, where that may be several tables.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pattern: Option<String>,
    /// Columns that identify a row.
    pub replication_id: Vec<String>,
    /// Its rows go into buckets.
    pub data_queries: bool,
    /// Its rows decide who gets what.
    pub parameter_queries: bool,
    /// What is wrong with it.
    pub errors: Vec<Finding>,
}

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub level: Level,
    /// What it is, and what to do.
    pub message: String,
    /// Where in the rules.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub location: Option<Location>,
    /// Since when.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ts: Option<String>,
}

impl Finding {
    pub(super) fn new(level: Level, message: impl Into<String>) -> Self {
        Self { level, message: message.into(), location: None, ts: None }
    }
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// It goes on, and something is left out or may hurt later.
    Warning,
    /// It does not go on.
    Fatal,
}

/// A place in the rules, in bytes from their beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Location {
    /// Where it begins.
    pub start_offset: usize,
    /// Where it ends.
    pub end_offset: usize,
}

/// Tables and columns of the source.
#[derive(Debug, Serialize)]
pub struct SourceSchemas {
    /// By connection.
    pub connections: Vec<ConnectionSchemas>,
    /// The connection of tables that are named without one.
    #[serde(rename = "defaultConnectionTag")]
    pub default_connection_tag: &'static str,
    /// Their schema.
    #[serde(rename = "defaultSchema")]
    pub default_schema: &'static str,
}

/// Schemas of a connection.
#[derive(Debug, Serialize)]
pub struct ConnectionSchemas {
    /// Its name.
    pub id: &'static str,
    /// The same.
    pub tag: &'static str,
    /// Its schemas, by name.
    pub schemas: Vec<NamedSchema>,
}

/// A schema.
#[derive(Debug, Serialize)]
pub struct NamedSchema {
    /// Its name.
    pub name: String,
    /// Its tables, by name.
    pub tables: Vec<NamedTable>,
}

/// A table.
#[derive(Debug, Serialize)]
pub struct NamedTable {
    /// Its name.
    pub name: String,
    /// Its columns, in their order.
    pub columns: Vec<NamedColumn>,
}

/// A column.
#[derive(Debug, Serialize)]
pub struct NamedColumn {
    /// Its name.
    pub name: String,
    /// What it is to the rules: 1 bytes, 2 text, 4 integer, 8 real.
    pub sqlite_type: u8,
    /// Its type in Postgres.
    pub internal_type: String,
    /// The same, for older tools.
    #[serde(rename = "type")]
    pub kind: String,
    /// The same, for older tools.
    pub pg_type: String,
}

/// Whether rules can be deployed. Not wrapped in `data`.
#[derive(Debug, Serialize)]
pub struct Validation {
    /// Whether they can.
    pub valid: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<String>,
    /// Names of the definitions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bucket_definitions: Option<Vec<NamedDefinition>>,
    /// Tables of the source that are read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_tables: Option<Vec<TableReport>>,
    /// Tables that devices have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_tables: Option<BTreeSet<String>>,
}

/// A bucket definition or stream.
#[derive(Debug, Serialize)]
pub struct NamedDefinition {
    /// Its name.
    pub name: String,
}

/// Rules that are in force, and those that are to be.
#[derive(Debug, Serialize)]
pub struct CurrentRules {
    /// In force.
    pub current: DeployedRules,
    /// To be in force once they are built.
    pub next: Option<DeployedRules>,
}

/// Rules of a deployment.
#[derive(Debug, Serialize)]
pub struct DeployedRules {
    /// Its replication slot.
    pub slot_name: String,
    /// Their text.
    pub content: String,
    /// Whether they can be used; those in force can.
    pub valid: bool,
}
