//! Traces: where the time of a request, an upload or a commit went, for a collector of OpenTelemetry.
//!
//! Spans for traces have a target of their own, [`TARGET`]. The log never shows them, and traces never have the spans of
//! the log, which live as long as a stream does: a span is only sent when it has ended. Where traces go nowhere, nobody is
//! interested in the target, and a span costs next to nothing.
//!
//! **Invariants**
//!
//! - Every span ends within seconds, or with one piece of work. A stream is none: each checkpoint that is sent on it is a
//!   trace by itself.
//! - Attributes are counts, codes, routes and numbers; never values of rows, names of users, or tokens.
//! - A collector that is slow or gone costs spans, never time or memory: the queue has a bound, a request a deadline.
//!
//! Start reading at [`Export::begin`].

#[cfg(feature = "otlp")]
mod export;
#[cfg(not(feature = "otlp"))]
#[path = "no_export.rs"]
mod export;

use reqwest::Url;
use tracing::Metadata;
use tracing_subscriber::{Layer, layer::Filter};

pub use export::Export;
pub(crate) use export::join_caller;

/// Of spans for traces.
pub const TARGET: &str = "kairos_sync::traces";

/// Whether this binary can send traces.
pub const ARE_BUILT_IN: bool = cfg!(feature = "otlp");

/// Where traces go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TracesConfig {
    /// The collector, as it takes OTLP over HTTP. `/v1/traces` follows.
    pub endpoint: Url,
    /// As what the service appears there.
    pub service_name: String,
}

/// Traces cannot be sent.
#[derive(Debug, thiserror::Error)]
#[error("prepare the export of traces: {0}")]
pub struct TracesError(String);

impl TracesError {
    /// Stable across releases; listed in `docs/errors.md`.
    pub const fn code(&self) -> &'static str {
        "CONF-0204"
    }
}

/// Takes what it sees of the log's registry.
pub type TracesLayer<S> = Box<dyn Layer<S> + Send + Sync>;

/// What the log shows: everything but spans for traces.
pub fn log_filter<S>() -> impl Filter<S> + Send + Sync + 'static {
    tracing_subscriber::filter::filter_fn(|metadata: &Metadata<'_>| metadata.target() != TARGET)
}

/// A span for traces, with its name and fields. It belongs to the span for traces that it is made in, or with
/// `parent: None` to none.
macro_rules! trace_span {
    (parent: None, $($rest:tt)*) => {
        ::tracing::info_span!(target: $crate::traces::TARGET, parent: None, $($rest)*)
    };
    ($($rest:tt)*) => {
        ::tracing::info_span!(target: $crate::traces::TARGET, $($rest)*)
    };
}
pub(crate) use trace_span;

/// A number as an attribute: others than these become texts on their way.
pub(crate) fn number(count: impl TryInto<i64>) -> i64 {
    count.try_into().unwrap_or(i64::MAX)
}

/// Says that what the span is about failed, and by which code.
pub(crate) fn failed(span: &tracing::Span, code: &str) {
    span.record("otel.status_code", "ERROR");
    span.record("error.type", code);
}
