//! `POST /sync/stream`: a client's stream over HTTP.

use std::{collections::VecDeque, io, sync::Arc};

use axum::{
    Extension,
    body::Body,
    extract::State,
    http::{HeaderMap, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::stream::unfold;
use kairos_sync_protocol::request::SyncRequest;
use tracing::Span;

use super::{
    ApiError, ApiState,
    body::read_json,
    caller::Caller,
    error::log,
    negotiation::{self, BSON_STREAM, NDJSON},
    place::Place,
    request_id::RequestName,
    stream_answer::StreamOffer,
    write_checkpoint::ClientQuery,
};
use crate::{
    metrics::Metrics,
    rate_limit::Activity,
    sync::{
        Carrier, ClientRequest, Compression, DeviceInfo, Line, LineForm, Packaging, Session, Step, SyncError,
        compression::{Segment, SegmentStream},
    },
};

/// Short lines travel together until they are this many bytes.
const CHUNK_BYTES: usize = 16 * 1024;

pub(super) async fn sync_stream(
    State(state): State<ApiState>,
    caller: Caller,
    query: ClientQuery,
    Extension(name): Extension<RequestName>,
    offer: Option<Extension<StreamOffer>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    caller.begins(Activity::Stream)?;
    let Some(place) = Place::take(&state, Carrier::Http) else {
        return Ok(ApiError::too_many_streams());
    };
    let mut sync: SyncRequest = read_json(&headers, body, state.parts.limits.body_bytes_max).await?;
    sync.client_id = sync.client_id.or(query.client_id);
    caller.device_begins(sync.client_id.as_deref(), Activity::Stream)?;
    let form = negotiation::line_form(&headers, sync.raw_data);
    let packaging = Packaging::new(form, negotiation::compression(&headers));
    let request = ClientRequest {
        revoked: caller.principal.revoked(),
        user_id: caller.principal.user_id.clone(),
        claims: caller.principal.claims.clone(),
        expires_at: caller.principal.expires_at,
        sync,
        device: DeviceInfo { carrier: Carrier::Http, user_agent: user_agent(&headers) },
    };
    let session = Session::open(Arc::clone(&state.parts.sync), request, packaging).await?;
    Span::current().record("connection", session.connection().id);
    let stream = HttpStream {
        session,
        segments: Some(SegmentStream::new(packaging.compression)),
        ready: VecDeque::new(),
        metrics: Arc::clone(&state.parts.metrics),
        name,
        _place: place,
    };
    let body = match offer {
        Some(Extension(offer)) => {
            offer.leave(stream);
            Body::empty()
        }
        None => Body::from_stream(unfold(stream, async |mut stream| Some((stream.next().await?, stream)))),
    };
    Ok((answer_headers(packaging), body).into_response())
}

/// What the device says it is. Browsers let pages set the other header only.
fn user_agent(headers: &HeaderMap) -> Option<String> {
    let text = |name: &str| headers.get(name)?.to_str().ok().map(str::to_owned);
    text("x-user-agent").or_else(|| text(header::USER_AGENT.as_str()))
}

fn answer_headers(Packaging { form, compression }: Packaging) -> HeaderMap {
    let content_type = if form == LineForm::Bson { BSON_STREAM } else { NDJSON };
    let mut headers = HeaderMap::new();
    let mut set = |name: &'static str, value: &'static str| headers.insert(name, value.parse().expect("valid header"));
    set(header::CONTENT_TYPE.as_str(), content_type);
    set(header::CACHE_CONTROL.as_str(), "no-store, no-transform");
    set(header::VARY.as_str(), "accept, accept-encoding");
    // So that nginx hands on each line at once.
    set("x-accel-buffering", "no");
    if compression != Compression::Identity {
        set(header::CONTENT_ENCODING.as_str(), compression.name());
    }
    headers
}

/// A session whose lines become chunks of a response.
pub(super) struct HttpStream {
    session: Session,
    /// `None` once the end was sent.
    segments: Option<SegmentStream>,
    ready: VecDeque<Bytes>,
    metrics: Arc<Metrics>,
    /// Of the request that is long answered.
    name: RequestName,
    _place: Place,
}

impl HttpStream {
    /// The next bytes, as soon as there are some, or why there are none; `None` at the end.
    pub(super) async fn next(&mut self) -> Option<io::Result<Bytes>> {
        let next = self.next_chunk().await;
        if let Err(error) = &next {
            let span = self.name.span();
            span.record("connection", self.session.connection().id);
            span.in_scope(|| log(error.code(), error));
        }
        // After the first byte an error can only be told by cutting the connection.
        next.map_err(io::Error::other).transpose()
    }

    /// The next bytes, as soon as there are some; `None` at the end.
    async fn next_chunk(&mut self) -> Result<Option<Bytes>, SyncError> {
        let mut lines = Vec::new();
        loop {
            if let Some(chunk) = self.ready.pop_front() {
                self.metrics.bytes_sent.inc_by(chunk.len() as u64);
                self.session.connection().sent(chunk.len());
                return Ok(Some(chunk));
            }
            if self.segments.is_none() {
                return Ok(None);
            }
            // In a place of its own, which is given back while there is nothing to do.
            match Box::pin(self.session.step()).await? {
                Step::Line(Line::Plain(line)) => {
                    lines.extend_from_slice(&line);
                    if lines.len() >= CHUNK_BYTES {
                        self.push_lines(&mut lines);
                    }
                }
                Step::Line(Line::Packed(segment)) => {
                    self.push_lines(&mut lines);
                    self.push(&segment);
                }
                Step::Idle if lines.is_empty() => {
                    // Nearly all of a stream's life is here.
                    self.ready.shrink_to_fit();
                    self.session.wait().await;
                }
                Step::Idle => self.push_lines(&mut lines),
                Step::End => {
                    self.push_lines(&mut lines);
                    let end = self.segments.take().map(SegmentStream::finish);
                    self.ready.extend(end.filter(|end| !end.is_empty()));
                }
            }
        }
    }

    fn push_lines(&mut self, lines: &mut Vec<u8>) {
        if let Some(stream) = self.segments.as_ref().filter(|_| !lines.is_empty()) {
            let segment = stream.segment(std::mem::take(lines).into());
            self.push(&segment);
        }
    }

    fn push(&mut self, segment: &Segment) {
        self.metrics.bytes_synced.inc_by(segment.plain_length() as u64);
        if let Some(stream) = &mut self.segments {
            let before = stream.push(segment);
            self.ready.extend([before, segment.bytes().clone()].into_iter().filter(|bytes| !bytes.is_empty()));
        }
    }
}
