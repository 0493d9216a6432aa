//! Postgres, as far as replication needs it: connections, the replication protocol, types. Knows no buckets, no rules.

pub mod source;

pub use source::{SourceConfig, TlsMode};
