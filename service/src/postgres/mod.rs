//! Postgres, as far as replication needs it: connections, the replication protocol, types. Knows no buckets, no rules.

pub mod connect;
pub mod dial;
pub mod error;
pub mod source;
mod tls;
mod uri;

pub use error::{PgError, ServerError};
pub use source::{SourceConfig, TlsMode};
