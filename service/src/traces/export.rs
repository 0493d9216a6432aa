//! Spans on their way to a collector: a bounded queue, a thread that empties it, and requests of OTLP over HTTP.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use axum::http::HeaderMap;
use opentelemetry::{
    propagation::TextMapPropagator,
    trace::{TraceContextExt, TracerProvider},
};
use opentelemetry_http::{Bytes, HeaderExtractor, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::{Resource, propagation::TraceContextPropagator, trace::SdkTracerProvider};
use reqwest::{Client, redirect};
use tokio::runtime::Handle;
use tracing::{Level, Metadata, Span, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::{Layer, filter::filter_fn, registry::LookupSpan};

use super::{TARGET, TracesConfig, TracesError, TracesLayer};

/// For one batch, repetitions included. What is done while it lasts waits in the queue.
const EXPORT_DEADLINE: Duration = Duration::from_secs(5);
/// How long the end of the process waits for the last batch.
const END_DEADLINE: Duration = Duration::from_secs(2);
/// Of an answer, whose text nobody reads.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Sends spans until it is ended; nothing without a collector.
#[derive(Debug)]
pub struct Export(Option<SdkTracerProvider>);

impl Export {
    /// Begins to send what [`Self::layer`] will see. Must be called within a runtime.
    ///
    /// # Errors
    /// [`TracesError`] where variables `OTEL_…` ask for what there is not, such as compression.
    pub fn begin(config: Option<&TracesConfig>) -> Result<Self, TracesError> {
        let Some(TracesConfig { endpoint, service_name }) = config else { return Ok(Self(None)) };
        let failed = |error: &dyn fmt::Display| TracesError(error.to_string());
        let client = Client::builder().redirect(redirect::Policy::none()).timeout(EXPORT_DEADLINE);
        let client = client.build().map_err(|error| failed(&error))?;
        let sender = Sender { client, runtime: Handle::current(), is_failing: Arc::default() };
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(sender)
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(format!("{}/v1/traces", endpoint.as_str().trim_end_matches('/')))
            .with_timeout(EXPORT_DEADLINE)
            .build()
            .map_err(|error| failed(&error))?;
        let version = opentelemetry::KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
        let resource = Resource::builder().with_service_name(service_name.clone()).with_attribute(version).build();
        let provider = SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build();
        Ok(Self(Some(provider)))
    }

    /// What takes spans for traces, and warnings and errors of the log that come up in them.
    pub fn layer<S>(&self) -> Option<TracesLayer<S>>
    where
        S: Subscriber + for<'span> LookupSpan<'span> + Send + Sync,
    {
        let tracer = self.0.as_ref()?.tracer("kairos-sync");
        let layer = tracing_opentelemetry::layer()
            .with_tracer(tracer)
            .with_context_activation(false)
            .with_tracked_inactivity(false)
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_filter(filter_fn(is_wanted));
        Some(layer.boxed())
    }

    /// Sends what is left, as far as the collector takes it in time.
    pub async fn end(self) {
        let Some(provider) = self.0 else { return };
        let ended = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(END_DEADLINE)).await;
        if !matches!(ended, Ok(Ok(()))) {
            tracing::warn!("the last traces were not sent");
        }
    }
}

/// Makes a span for traces, which must be new, a part of the trace that the caller says its request belongs to, if it does
/// (W3C Trace Context, `traceparent`).
pub(crate) fn join_caller(span: &Span, headers: &HeaderMap) {
    let context = TraceContextPropagator::new().extract(&HeaderExtractor(headers));
    if context.span().span_context().is_valid() {
        // Where nobody takes traces there is nothing to join.
        let _ = span.set_parent(context);
    }
}

fn is_wanted(metadata: &Metadata<'_>) -> bool {
    let is_ours = || metadata.target().starts_with("kairos_sync") && *metadata.level() <= Level::WARN;
    metadata.target() == TARGET || (metadata.is_event() && is_ours())
}

/// Sends batches for the exporter's thread, which has no runtime.
struct Sender {
    client: Client,
    runtime: Handle,
    is_failing: Arc<AtomicBool>,
}

/// Without the client, which is of no interest.
impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").field("is_failing", &self.is_failing).finish_non_exhaustive()
    }
}

#[async_trait]
impl HttpClient for Sender {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let client = self.client.clone();
        let answer = self.runtime.spawn(async move { send(&client, request).await }).await;
        let answer = answer.map_err(HttpError::from).and_then(|answer| answer);
        let complaint = match &answer {
            Ok(answer) if answer.status().is_success() => None,
            Ok(answer) => Some(format!("it answers with {}", answer.status())),
            Err(error) => Some(error.to_string()),
        };
        // Each way once: a collector may be gone for days.
        let was_failing = self.is_failing.swap(complaint.is_some(), Ordering::Relaxed);
        match complaint {
            Some(complaint) if !was_failing => {
                tracing::warn!("traces are lost while their collector does not take them: {complaint}");
            }
            None if was_failing => tracing::info!("the collector takes traces again"),
            _ => {}
        }
        answer
    }
}

async fn send(client: &Client, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
    // Addresses may hold passwords.
    let mut answer = client.execute(request.try_into()?).await.map_err(reqwest::Error::without_url)?;
    let status = answer.status();
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(reqwest::Error::without_url)? {
        if body.len() + chunk.len() > ANSWER_BYTES_MAX {
            break;
        }
        body.extend_from_slice(&chunk);
    }
    let mut answered = Response::new(body.into());
    *answered.status_mut() = status;
    Ok(answered)
}
