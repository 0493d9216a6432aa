//! One stream of a connection.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use kairos_sync_protocol::request::SyncRequest;
use tokio::sync::{Semaphore, mpsc};
use tracing::Span;

use super::{
    document::DocumentType,
    frame::{self, ErrorCode},
};
use crate::{
    api::{ApiError, ApiState, caller::Caller, error::log, place::Place},
    rate_limit::Activity,
    sync::{Carrier, ClientRequest, Compression, DeviceInfo, Line, LineForm, Packaging, Session, Step, SyncError},
};

/// Documents that are not compressed.
const PACKAGING: Packaging = Packaging { form: LineForm::Bson, compression: Compression::Identity };

/// How long a client has to take in the last line before it is told that there are no more: SDKs drop what they have not
/// looked at then, and would come back with the token they were just told is over.
const LAST_LINE_TIME: Duration = Duration::from_secs(1);

/// What a client asked for.
pub(super) struct Request {
    pub(super) state: ApiState,
    pub(super) caller: Caller,
    pub(super) user_agent: Option<String>,
    pub(super) document_type: DocumentType,
    pub(super) body: Bytes,
    /// One permit per payload the client wants.
    pub(super) credit: Arc<Semaphore>,
    /// To the socket.
    pub(super) frames: mpsc::Sender<Bytes>,
    pub(super) stream: u32,
}

/// Why a stream ends in an error.
struct Failure {
    code: &'static str,
    message: String,
}

impl From<SyncError> for Failure {
    fn from(error: SyncError) -> Self {
        log(error.code(), &error);
        Self { code: error.code(), message: error.to_string() }
    }
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        Self { code: error.code(), message: error.description().to_owned() }
    }
}

impl Request {
    /// Sends lines as long as the client wants them.
    pub(super) async fn serve(self) {
        let (frames, stream) = (self.frames.clone(), self.stream);
        let metrics = Arc::clone(&self.state.parts.metrics);
        let last = match self.send_lines().await {
            Ok(()) => frame::complete(stream),
            Err(Failure { code, message }) => {
                metrics.requests_refused.with_label_values(&[code]).inc();
                frame::error(stream, ErrorCode::ApplicationError, &format!("[{code}] {message}"))
            }
        };
        // A connection that is gone needs no last word.
        let _ = frames.send(last).await;
    }

    async fn send_lines(self) -> Result<(), Failure> {
        self.caller.begins(Activity::Stream)?;
        let Some(_place) = Place::take(&self.state, Carrier::WebSocket) else {
            return Err(Failure {
                code: "PSYNC_S2304",
                message: "There are too many open connections: try again later".to_owned(),
            });
        };
        // The connection may have been opened long ago.
        if !self.caller.principal.is_confirmed().await {
            return Err(Failure { code: "PSYNC_S2101", message: "Authorization failed".to_owned() });
        }
        let sync: SyncRequest = self
            .document_type
            .read(&self.body)
            .map_err(|invalid| Failure { code: "PSYNC_S2001", message: format!("Validation failed: {invalid}") })?;
        drop(self.body);
        self.caller.device_begins(sync.client_id.as_deref(), Activity::Stream)?;
        let principal = &self.caller.principal;
        let request = ClientRequest {
            revoked: principal.revoked(),
            user_id: principal.user_id.clone(),
            claims: principal.claims.clone(),
            expires_at: principal.expires_at,
            sync,
            device: DeviceInfo { carrier: Carrier::WebSocket, user_agent: self.user_agent },
        };
        let mut session = Session::open(Arc::clone(&self.state.parts.sync), request, PACKAGING).await?;
        Span::current().record("connection", session.connection().id);
        let metrics = &self.state.parts.metrics;
        loop {
            let line = match session.step().await? {
                Step::Line(Line::Plain(line)) => line,
                Step::Line(Line::Packed(segment)) => segment.bytes().clone(),
                Step::Idle => {
                    session.wait().await;
                    continue;
                }
                Step::End => {
                    tokio::time::sleep(LAST_LINE_TIME).await;
                    return Ok(());
                }
            };
            let Ok(wanted) = self.credit.acquire().await else { return Ok(()) };
            wanted.forget();
            metrics.bytes_synced.inc_by(line.len() as u64);
            metrics.bytes_sent.inc_by(line.len() as u64);
            session.connection().sent(line.len());
            if self.frames.send(frame::payload(self.stream, &line)).await.is_err() {
                return Ok(());
            }
        }
    }
}
