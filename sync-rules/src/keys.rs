//! The keys of a rules file, map by map. [`crate::config`] accepts these and no others, and
//! [`json_schema()`](crate::json_schema()) offers these and no others.

/// The file.
pub(crate) const FILE: &[&str] =
    &["config", "bucket_definitions", "streams", "with", "event_definitions", "write_rules"];

/// `config`
pub(crate) const CONFIG: &[&str] = &[
    "edition",
    "timestamps_iso8601",
    "versioned_bucket_ids",
    "fixed_json_extract",
    "custom_postgres_types",
    "unstable_sqlite_expression_engine",
    "timestamp_max_precision",
    "storage_version",
];

/// A bucket definition.
pub(crate) const DEFINITION: &[&str] = &["priority", "accept_potentially_dangerous_queries", "parameters", "data"];

/// An entry of `parameters` in the Kairos dialect.
pub(crate) const PARAMETER: &[&str] = &["name", "type"];

/// An entry of `data` in the Kairos dialect.
pub(crate) const FILTERED_TABLE: &[&str] = &["table", "filter", "columns"];

/// A stream.
pub(crate) const STREAM: &[&str] = &[
    "query",
    "queries",
    "with",
    "auto_subscribe",
    "priority",
    "accept_potentially_dangerous_queries",
    "write_time_joins",
];

/// An event.
pub(crate) const EVENT: &[&str] = &["payloads"];

/// A write rule.
pub(crate) const WRITE_RULE: &[&str] = &["allow", "columns", "check", "conflict", "validators"];

/// Those of a write rule that are known, but refused in this release.
pub(crate) const WRITE_RULE_NOT_YET: &[&str] = &["conflict", "validators"];

/// `columns` of a write rule.
pub(crate) const WRITE_COLUMNS: &[&str] = &["allow", "deny", "stamp"];
