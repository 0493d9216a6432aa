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
pub(crate) const WRITE_RULE: &[&str] =
    &["allow", "columns", "check", "conflict", "validators", "soft_delete", "limits"];

/// `limits` of a write rule.
pub(crate) const WRITE_LIMITS: &[&str] = &["row_bytes", "operations_per_batch", "operations_per_minute"];

/// `conflict` of a write rule, where more than its strategy is to be said.
pub(crate) const WRITE_CONFLICT: &[&str] = &["strategy", "column", "columns"];

/// Strategies of `conflict`.
pub(crate) const STRATEGIES: &[&str] =
    &["client_wins", "server_wins", "lww", "version", "merge_fields", "append_only", "manual", "set_union", "counter"];

/// Validators of a column that need no value.
pub(crate) const PLAIN_VALIDATORS: &[&str] = &["secrets"];

/// Validators of a column that need a value.
pub(crate) const VALIDATORS: &[&str] = &["min_length", "max_length", "min", "max", "pattern", "one_of", "json_schema"];

/// `columns` of a write rule.
pub(crate) const WRITE_COLUMNS: &[&str] = &["allow", "deny", "stamp"];
