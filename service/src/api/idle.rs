//! Connections on which nothing is asked.
//!
//! HTTP/1 has a timer of its own for the head of a request, but it begins only once the first bytes have told the version
//! of the protocol, and HTTP/2 has none.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    Error,
    body::{Body, Bytes, HttpBody},
    response::Response,
};
use http_body::{Frame, SizeHint};
use tokio::{sync::watch, time::timeout};

/// The requests of one connection.
#[derive(Clone)]
pub(super) struct Requests(watch::Sender<Counts>);

#[derive(Default)]
struct Counts {
    begun: u64,
    under_way: usize,
}

/// A request that is under way until this is dropped.
pub(super) struct UnderWay(watch::Sender<Counts>);

impl Requests {
    pub(super) fn new() -> Self {
        Self(watch::Sender::new(Counts::default()))
    }

    /// A request has begun.
    pub(super) fn begin(&self) -> UnderWay {
        self.0.send_modify(|counts| {
            counts.begun += 1;
            counts.under_way += 1;
        });
        UnderWay(self.0.clone())
    }

    /// Completes once no request has been under way for so long.
    pub(super) async fn idle_for(&self, duration: Duration) {
        let mut counts = self.0.subscribe();
        // The sender lives as long as `self`.
        while let Ok(begun) = counts.wait_for(|counts| counts.under_way == 0).await.map(|counts| counts.begun) {
            // A request that is answered at once is under way between two looks, so that only its number tells of it.
            if timeout(duration, counts.wait_for(|counts| counts.begun != begun)).await.is_err() {
                return;
            }
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.send_modify(|counts| counts.under_way -= 1);
    }
}

impl UnderWay {
    /// Lets the request be under way until its answer has been sent.
    pub(super) fn until_sent(self, response: Response) -> Response {
        response.map(|body| Body::new(CountedBody { body, _request: self }))
    }
}

struct CountedBody {
    body: Body,
    _request: UnderWay,
}

impl HttpBody for CountedBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_is_idle_once_its_last_request_is_long_over() {
        let requests = Requests::new();
        let (first, second) = (requests.begin(), requests.begin());
        let idle = tokio::spawn({
            let requests = requests.clone();
            async move { requests.idle_for(Duration::from_millis(20)).await }
        });
        drop(first);
        let response = second.until_sent(Response::new(Body::from("answer")));
        assert_eq!(response.body().size_hint().exact(), Some(6));
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(!idle.is_finished(), "the answer is still being sent");
        drop(response);
        timeout(Duration::from_mins(1), idle).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn requests_that_are_answered_at_once_keep_a_connection() {
        let (requests, limit) = (Requests::new(), Duration::from_millis(600));
        let mut idle = std::pin::pin!(requests.idle_for(limit));
        for _ in 0..15 {
            assert!(timeout(limit / 10, &mut idle).await.is_err(), "something was asked a moment ago");
            drop(requests.begin());
        }
        timeout(Duration::from_mins(1), idle).await.unwrap();
    }
}
