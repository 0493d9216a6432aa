//! Sync streams as RSocket streams over a WebSocket, for SDKs that prefer it.
//!
//! One task per connection reads frames, and sends those of its streams; one task per stream has a
//! [`Session`](crate::sync::Session) and makes a payload, one BSON document, whenever the client gave it credit. A client that gives no credit or does not
//! read costs one line per stream.
//!
//! **Invariants**
//!
//! - The token comes in the first frame and holds for all streams of the connection.
//! - Messages, streams per connection and the time until the first frame have bounds; a client that is silent for the
//!   lifetime it announced is gone.
//! - Errors name their code in brackets, since SDKs look for it there.

mod document;
mod frame;
mod stream;

use std::{collections::HashMap, sync::Arc, time::Duration};

use axum::{
    extract::{
        State, WebSocketUpgrade,
        ws::{Message, WebSocket, rejection::WebSocketUpgradeRejection},
    },
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use serde::Deserialize;
use tokio::{
    sync::{Semaphore, mpsc},
    task::{AbortHandle, JoinSet},
    time::{Instant, timeout, timeout_at},
};
use tracing::{Instrument, Span, field, info_span};

use self::{
    document::DocumentType,
    frame::{ClientFrame, ErrorCode, InvalidFrame, Setup},
};
use super::{ApiError, ApiState, caller::Caller, client_address::ClientAddress};

/// How long a client may take to send its first frame.
const SETUP_DEADLINE: Duration = Duration::from_secs(10);
/// Bounds of the lifetime that clients announce.
const LIFETIME_MIN: Duration = Duration::from_secs(10);
const LIFETIME_MAX: Duration = Duration::from_mins(5);
/// How long a last word may take to be sent.
const FAREWELL_DEADLINE: Duration = Duration::from_secs(5);
/// Streams of one connection. SDKs open one.
const STREAMS_MAX: usize = 8;
/// What is read at once. The default of the library would be 128 KiB per connection, allocated at once.
const READ_BUFFER_BYTES: usize = 4 * 1024;

/// `GET /sync/stream` with an upgrade.
pub(super) async fn upgrade(
    State(state): State<ApiState>,
    address: ClientAddress,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    let Ok(upgrade) = upgrade else { return ApiError::method_not_allowed().into_response() };
    let message_bytes_max = state.parts.limits.body_bytes_max;
    upgrade
        .read_buffer_size(READ_BUFFER_BYTES)
        // Each message is one line, written when it is sent.
        .write_buffer_size(0)
        .max_message_size(message_bytes_max)
        .max_frame_size(message_bytes_max)
        .on_upgrade({
            let span = Span::current();
            move |socket| serve(state, address, socket).instrument(span)
        })
}

/// Why a connection ends early: a code for SDKs and people, and a message.
#[derive(Debug)]
struct Refusal {
    error: ErrorCode,
    code: &'static str,
    message: String,
}

impl Refusal {
    fn new(error: ErrorCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { error, code, message: message.into() }
    }

    /// As SDKs expect it.
    fn text(&self) -> String {
        format!("[{}] {}", self.code, self.message)
    }
}

impl From<InvalidFrame> for Refusal {
    fn from(invalid: InvalidFrame) -> Self {
        Self::new(ErrorCode::ConnectionError, "PSYNC_S2001", invalid.to_string())
    }
}

#[derive(Deserialize)]
struct SetupMetadata {
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    user_agent: Option<String>,
}

async fn serve(state: ApiState, address: ClientAddress, mut socket: WebSocket) {
    let refusal = match open(&state, address, &mut socket).await {
        Ok(connection) => connection.run(&mut socket).await,
        Err(refusal) => Err(refusal),
    };
    if let Err(refusal) = refusal {
        tracing::info!(code = refusal.code, message = refusal.message, "WebSocket connection refused");
        state.parts.metrics.requests_refused.with_label_values(&[refusal.code]).inc();
        let farewell = frame::error(0, refusal.error, &refusal.text());
        let _ = timeout(FAREWELL_DEADLINE, socket.send(Message::Binary(farewell))).await;
    }
    let _ = timeout(FAREWELL_DEADLINE, socket.send(Message::Close(None))).await;
}

/// Reads the first frame, and finds out who it is.
async fn open(state: &ApiState, address: ClientAddress, socket: &mut WebSocket) -> Result<Connection, Refusal> {
    let rejected = |code, message: &str| Refusal::new(ErrorCode::RejectedSetup, code, message);
    let first = timeout(SETUP_DEADLINE, next_frame(socket)).await;
    let first = first.map_err(|_| rejected("PSYNC_S2001", "No frame came in time"))??;
    let Some(ClientFrame::Setup(setup)) = first else {
        return Err(rejected("PSYNC_S2001", "The first frame must be SETUP"));
    };
    let Setup { lifetime_ms, metadata_type, data_type, metadata } = setup;
    let unsupported = || rejected("PSYNC_S2004", "The MIME type must be application/json or application/bson");
    let metadata_type = DocumentType::from_mime(&metadata_type).ok_or_else(unsupported)?;
    let data_type = DocumentType::from_mime(&data_type).ok_or_else(unsupported)?;
    let metadata = metadata_type.read(&metadata);
    let SetupMetadata { token, user_agent } = metadata
        .map_err(|invalid| rejected("PSYNC_S2001", &format!("The metadata of SETUP cannot be read: {invalid}")))?;
    let caller = Caller::authenticate(state, token.as_deref(), address).await;
    let caller = caller.map_err(|error| rejected(error.code(), error.description()))?;
    if state.streams.available_permits() == 0 {
        return Err(rejected("PSYNC_S2304", "There are too many open connections: try again later"));
    }
    let lifetime = Duration::from_millis(lifetime_ms.into()).clamp(LIFETIME_MIN, LIFETIME_MAX);
    let (frames, outgoing) = mpsc::channel(1);
    Ok(Connection {
        state: state.clone(),
        caller,
        user_agent,
        metadata_type,
        data_type,
        lifetime,
        frames,
        outgoing,
        streams: HashMap::new(),
        tasks: JoinSet::new(),
    })
}

/// The next frame; `None` when the client is gone.
async fn next_frame(socket: &mut WebSocket) -> Result<Option<ClientFrame>, Refusal> {
    loop {
        match socket.recv().await {
            Some(Ok(Message::Binary(message))) => return Ok(Some(ClientFrame::read(message)?)),
            // Answered by the library.
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
            Some(Ok(Message::Text(_))) => return Err(InvalidFrame("frames are binary messages").into()),
            Some(Ok(Message::Close(_)) | Err(_)) | None => return Ok(None),
        }
    }
}

/// A client that said who it is.
struct Connection {
    state: ApiState,
    caller: Caller,
    user_agent: Option<String>,
    metadata_type: DocumentType,
    data_type: DocumentType,
    /// Without a frame for so long the client is gone.
    lifetime: Duration,
    frames: mpsc::Sender<Bytes>,
    /// One frame at a time: streams wait until the socket took it.
    outgoing: mpsc::Receiver<Bytes>,
    streams: HashMap<u32, OpenStream>,
    /// Aborted when dropped.
    tasks: JoinSet<u32>,
}

struct OpenStream {
    /// Payloads that the client wants.
    credit: Arc<Semaphore>,
    task: AbortHandle,
}

impl Connection {
    /// Until the client is gone.
    async fn run(mut self, socket: &mut WebSocket) -> Result<(), Refusal> {
        let mut silent_since = Instant::now();
        loop {
            tokio::select! {
                incoming = timeout_at(silent_since + self.lifetime, next_frame(socket)) => match incoming {
                    Ok(Ok(Some(frame))) => {
                        silent_since = Instant::now();
                        if let Some(answer) = self.receive(frame)? && !send(socket, answer).await {
                            return Ok(());
                        }
                    }
                    Ok(Ok(None)) | Err(_) => return Ok(()),
                    Ok(Err(refusal)) => return Err(refusal),
                },
                Some(frame) = self.outgoing.recv() => {
                    if !send(socket, frame).await {
                        return Ok(());
                    }
                }
                Some(ended) = self.tasks.join_next() => {
                    if let Ok(stream) = ended {
                        self.streams.remove(&stream);
                    }
                }
            }
        }
    }

    /// Does what a frame asks for; what is to be sent at once comes back.
    fn receive(&mut self, frame: ClientFrame) -> Result<Option<Bytes>, Refusal> {
        match frame {
            ClientFrame::Setup(_) => return Err(InvalidFrame("SETUP can be sent only once").into()),
            ClientFrame::KeepAlive { respond: true, data } => return Ok(Some(frame::keepalive(&data))),
            ClientFrame::RequestStream { stream, credit, metadata, data } => {
                return Ok(self.open_stream(stream, credit, &metadata, data).err());
            }
            ClientFrame::RequestN { stream, credit } => {
                if let Some(open) = self.streams.get(&stream) {
                    add_credit(&open.credit, credit);
                }
            }
            ClientFrame::Cancel { stream } => {
                if let Some(open) = self.streams.remove(&stream) {
                    open.task.abort();
                }
            }
            ClientFrame::KeepAlive { respond: false, .. } | ClientFrame::Ignored => {}
        }
        Ok(None)
    }

    /// # Errors
    /// The frame that refuses it.
    fn open_stream(&mut self, stream: u32, credit: u32, metadata: &[u8], data: Bytes) -> Result<(), Bytes> {
        #[derive(Deserialize)]
        struct Metadata {
            path: String,
        }
        let refuse = |code, message: &str| {
            self.state.parts.metrics.requests_refused.with_label_values(&[code]).inc();
            frame::error(stream, ErrorCode::ApplicationError, &format!("[{code}] {message}"))
        };
        let Metadata { path } = self.metadata_type.read(metadata).map_err(|invalid| {
            refuse("PSYNC_S2001", &format!("The metadata of the request cannot be read: {invalid}"))
        })?;
        if path != "/sync/stream" {
            return Err(refuse("PSYNC_S2002", "There is nothing at this path"));
        }
        if self.streams.contains_key(&stream) {
            return Err(refuse("PSYNC_S2001", "This stream is open already"));
        }
        if self.streams.len() >= STREAMS_MAX {
            return Err(refuse("PSYNC_S2304", "There are too many streams on this connection"));
        }
        let available = Arc::new(Semaphore::new(0));
        add_credit(&available, credit);
        let request = stream::Request {
            state: self.state.clone(),
            caller: self.caller.clone(),
            user_agent: self.user_agent.clone(),
            document_type: self.data_type,
            body: data,
            credit: Arc::clone(&available),
            frames: self.frames.clone(),
            stream,
        };
        let serving = async move {
            request.serve().await;
            stream
        };
        let task = self.tasks.spawn(serving.instrument(info_span!("stream", connection = field::Empty)));
        self.streams.insert(stream, OpenStream { credit: available, task });
        Ok(())
    }
}

fn add_credit(available: &Semaphore, credit: u32) {
    let room = Semaphore::MAX_PERMITS - available.available_permits();
    available.add_permits((credit as usize).min(room));
}

async fn send(socket: &mut WebSocket, frame: Bytes) -> bool {
    socket.send(Message::Binary(frame)).await.is_ok()
}
