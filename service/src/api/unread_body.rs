//! Bodies of requests that are answered without being read, as where a token is refused.
//!
//! The HTTP library closes such a connection and does not say so. A proxy that keeps it would send the next request into
//! it, somebody else's, and answer that one with a bad gateway. So a body that is short is read to its end before the
//! answer is sent, and otherwise the answer says that the connection ends.

use std::{
    mem,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    Error,
    body::{Body, Bytes, HttpBody},
    http::{HeaderValue, Request, Version, header},
    response::Response,
};
use futures_util::TryStreamExt;
use http_body::{Frame, SizeHint};
use tokio::time::timeout;

/// What is read of a body for which nobody has a use.
const BYTES_MAX: usize = 64 << 10;
/// How long it is waited for, and with it the answer.
const PATIENCE: Duration = Duration::from_millis(500);

/// What became of a request's body.
#[derive(Clone)]
pub(super) struct UnreadBody(Arc<Mutex<State>>);

enum State {
    /// Somebody has it.
    Lent,
    /// There is nothing more to read.
    Read,
    /// Nobody wants it.
    Left(Body),
    /// Its client waits with it until it is asked to go on.
    HeldBack,
}

impl UnreadBody {
    /// Watches the body of a request, where a connection depends on it: with HTTP/2 none does.
    pub(super) fn watch(request: Request<Body>) -> (Request<Body>, Option<Self>) {
        if request.version() >= Version::HTTP_2 || request.body().is_end_stream() {
            return (request, None);
        }
        let is_held_back = request.headers().contains_key(header::EXPECT);
        let unread = Self(Arc::new(Mutex::new(if is_held_back { State::HeldBack } else { State::Lent })));
        let lent = unread.clone();
        (request.map(|body| Body::new(WatchedBody { body, unread: lent })), Some(unread))
    }

    /// The answer, once the connection can go on after it, or with the word that it does not.
    pub(super) async fn settle(self, mut response: Response) -> Response {
        let state = mem::replace(&mut *self.lock(), State::Read);
        let is_read = match state {
            State::Read => true,
            State::Left(body) => read_out(body).await,
            State::Lent | State::HeldBack => false,
        };
        if !is_read {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    /// Locked for a moment only.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether that was all of it.
async fn read_out(body: Body) -> bool {
    let mut chunks = body.into_data_stream();
    let mut byte_count = 0;
    let read = async {
        while let Some(chunk) = chunks.try_next().await? {
            byte_count += chunk.len();
            if byte_count > BYTES_MAX {
                return Ok(false);
            }
        }
        Ok::<_, Error>(true)
    };
    matches!(timeout(PATIENCE, read).await, Ok(Ok(true)))
}

/// A body that comes back when it is dropped before its end.
struct WatchedBody {
    body: Body,
    unread: UnreadBody,
}

impl HttpBody for WatchedBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        // Who reads asks the client to go on.
        let mut state = self.unread.lock();
        if matches!(*state, State::HeldBack) {
            *state = State::Lent;
        }
        drop(state);
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for WatchedBody {
    fn drop(&mut self) {
        let mut state = self.unread.lock();
        *state = match *state {
            State::HeldBack => State::HeldBack,
            _ if self.body.is_end_stream() => State::Read,
            _ => State::Left(mem::replace(&mut self.body, Body::empty())),
        };
    }
}
