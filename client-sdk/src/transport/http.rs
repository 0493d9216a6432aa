//! HTTP: BSON or newline-delimited JSON down, JSON up.

use std::{error::Error, io, time::Duration};

use async_trait::async_trait;
use kairos_sync_protocol::{
    WriteCheckpointId,
    line::SyncLine,
    request::{ErrorBody, SyncRequest, Wrapped, WriteCheckpointResponse},
    upload::{UploadBatch, UploadResponse},
};
use reqwest::{
    RequestBuilder, Response, StatusCode,
    header::{ACCEPT, CONTENT_TYPE, RETRY_AFTER},
};
use serde::de::DeserializeOwned;

use super::{LineStream, Refusal, Transport, TransportError, frames::Frames};
use crate::connector::Credentials;

/// Below the ten seconds that the service keeps a connection on which nothing is asked.
const IDLE_CONNECTION_MAX: Duration = Duration::from_secs(8);
/// What names BSON in a content type.
const BSON: &str = "application/vnd.powersync.bson-stream";

/// How lines are written on a stream. A service that has only the other one sends that.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum LineFormat {
    /// One BSON document for each: rows need not be unescaped.
    #[default]
    Bson,
    /// One JSON object in each line of text: readable on the way, for example in a proxy's log.
    Ndjson,
}

impl LineFormat {
    const fn accept(self) -> &'static str {
        match self {
            Self::Bson => "application/vnd.powersync.bson-stream, application/x-ndjson;q=0.8",
            Self::Ndjson => "application/x-ndjson",
        }
    }
}

/// How answers are compressed. A service that has it only otherwise sends them as they are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Compression {
    /// Zstandard, or gzip where the service has only that.
    #[default]
    Zstd,
    /// Gzip.
    Gzip,
    /// None: for a network that is faster than the device.
    None,
}

/// How [`HttpTransport`] asks, and its limits.
#[derive(Debug, Clone)]
pub struct HttpOptions {
    /// Of streams. Default BSON.
    pub line_format: LineFormat,
    /// Of everything the service sends. Default Zstandard.
    pub compression: Compression,
    /// Until a connection stands. Default 10 s.
    pub connect_timeout: Duration,
    /// For one answer other than a stream. Default 30 s.
    pub request_timeout: Duration,
    /// Longest silence on a stream. Default 60 s: services send something every 20 s.
    pub silence_timeout: Duration,
    /// Longest line. Default 64 MiB: a line has one row of any size, and 15 MiB is the largest services keep, which
    /// escaping may double.
    pub line_bytes_max: usize,
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self {
            line_format: LineFormat::default(),
            compression: Compression::default(),
            connect_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(30),
            silence_timeout: Duration::from_mins(1),
            line_bytes_max: 64 * 1024 * 1024,
        }
    }
}

/// The transport for services.
#[derive(Debug)]
pub struct HttpTransport {
    client: reqwest::Client,
    options: HttpOptions,
}

impl HttpTransport {
    /// # Errors
    /// [`TransportError::Unreachable`] where the platform's TLS cannot be set up.
    pub fn new(options: HttpOptions) -> Result<Self, TransportError> {
        // The app may have chosen a provider already; then ours is not needed and the error says just that.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .connect_timeout(options.connect_timeout)
            .read_timeout(options.silence_timeout)
            // A connection on which the service is about to hang up would lose the next request.
            .pool_idle_timeout(IDLE_CONNECTION_MAX)
            .zstd(options.compression == Compression::Zstd)
            .gzip(options.compression != Compression::None)
            .user_agent(concat!("kairos-client/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(unreachable)?;
        Ok(Self { client, options })
    }

    /// Sends a request; an answer other than 200 becomes an error.
    async fn send(&self, credentials: &Credentials, request: RequestBuilder) -> Result<Response, TransportError> {
        let not_found = || TransportError::NotFound { endpoint: credentials.endpoint.clone() };
        let response = request
            .bearer_auth(&credentials.token)
            .send()
            .await
            .map_err(|error| if error.is_builder() { not_found() } else { unreachable(error) })?;
        match response.status() {
            StatusCode::OK => Ok(response),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                Err(TransportError::Unauthorized(self.refusal(response).await))
            }
            StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => Err(not_found()),
            status => Err(TransportError::Refused { status: status.as_u16(), refusal: self.refusal(response).await }),
        }
    }

    async fn refusal(&self, response: Response) -> Refusal {
        let retry_after = retry_after(&response);
        let body = self.body(response).await.unwrap_or_default();
        let parse = |body: &[u8]| serde_json::from_slice::<ErrorBody>(body).ok();
        parse(&body)
            .map(|body| Refusal::new(&body.error.code, &body.error.description))
            .unwrap_or_default()
            .after(retry_after)
    }

    async fn json<T: DeserializeOwned>(
        &self,
        credentials: &Credentials,
        request: RequestBuilder,
    ) -> Result<T, TransportError> {
        let response = self.send(credentials, request.timeout(self.options.request_timeout)).await?;
        let body = self.body(response).await?;
        let answer: Wrapped<T> = serde_json::from_slice(&body)
            .map_err(|_| TransportError::NotFound { endpoint: credentials.endpoint.clone() })?;
        Ok(answer.data)
    }

    async fn body(&self, mut response: Response) -> Result<Vec<u8>, TransportError> {
        let bytes_max = self.options.line_bytes_max;
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
            if body.len() + chunk.len() > bytes_max {
                return Err(TransportError::LineTooLong { bytes_max });
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }
}

#[async_trait]
impl Transport for HttpTransport {
    async fn open(
        &self,
        credentials: &Credentials,
        request: &SyncRequest,
    ) -> Result<Box<dyn LineStream>, TransportError> {
        let request = self
            .client
            .post(url(credentials, "/sync/stream"))
            .header(ACCEPT, self.options.line_format.accept())
            .json(request);
        let response = self.send(credentials, request).await?;
        let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let bytes_max = self.options.line_bytes_max;
        let frames = if kind.contains(BSON) {
            Frames::documents(bytes_max)
        } else if kind.contains("ndjson") {
            Frames::lines(bytes_max)
        } else {
            return Err(TransportError::NotFound { endpoint: credentials.endpoint.clone() });
        };
        Ok(Box::new(HttpLines { response, frames }))
    }

    async fn upload(&self, credentials: &Credentials, batch: &UploadBatch) -> Result<UploadResponse, TransportError> {
        self.json(credentials, self.client.post(url(credentials, "/api/sync/data")).json(batch)).await
    }

    async fn write_checkpoint(
        &self,
        credentials: &Credentials,
        client_id: &str,
    ) -> Result<WriteCheckpointId, TransportError> {
        let request = self.client.get(url(credentials, "/write-checkpoint2.json")).query(&[("client_id", client_id)]);
        let answer: WriteCheckpointResponse = self.json(credentials, request).await?;
        Ok(answer.write_checkpoint)
    }
}

/// In seconds; a date would depend on the device's clock, and the service sends none.
fn retry_after(response: &Response) -> Option<Duration> {
    response.headers().get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

fn url(credentials: &Credentials, path: &str) -> String {
    format!("{}{path}", credentials.endpoint.trim_end_matches('/'))
}

/// The cause keeps its chain, without the URL: nothing in it is worth hiding, but it repeats itself.
fn unreachable(error: reqwest::Error) -> TransportError {
    let is_tls = is_tls(&error);
    let error: Box<dyn Error + Send + Sync> = error.without_url().into();
    if is_tls { TransportError::Tls(error) } else { TransportError::Unreachable(error) }
}

/// Somewhere in the chain of causes TLS complains. An IO error does not name what it wraps as its cause.
fn is_tls(error: &(dyn Error + 'static)) -> bool {
    let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    error.is::<rustls::Error>() || wrapped.is_some_and(|inner| is_tls(inner)) || error.source().is_some_and(is_tls)
}

struct HttpLines {
    response: Response,
    frames: Frames,
}

#[async_trait]
impl LineStream for HttpLines {
    async fn next(&mut self) -> Result<Option<(SyncLine, usize)>, TransportError> {
        loop {
            if let Some(line) = self.frames.next()? {
                return Ok(Some(line));
            }
            match self.response.chunk().await.map_err(unreachable)? {
                Some(chunk) => self.frames.push(&chunk),
                None => return Ok(None),
            }
        }
    }
}
