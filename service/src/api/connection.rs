//! One connection, from its first byte until it ends or is a stream's.

use std::{
    convert::Infallible,
    future::{pending, poll_fn},
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Poll,
};

use axum::{Router, body::Body, http::Request, response::Response};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::{conn::auto::Builder, graceful::Watcher},
    service::TowerToHyperService,
};
use tokio::net::TcpStream;
use tower::{ServiceExt, service_fn};

use super::{
    client_address::Peer,
    idle::Requests,
    lent_socket::LentSocket,
    serve::HEAD_DEADLINE,
    stream_answer::{StreamAnswer, StreamOffer},
    unread_body::UnreadBody,
};

/// What a connection is served by.
pub(super) struct Connection {
    pub(super) peer: Peer,
    pub(super) router: Router,
    pub(super) http: Arc<Builder<TokioExecutor>>,
}

/// The stream that takes a connection over, once there is one.
#[derive(Clone, Default)]
struct Successor(Arc<Mutex<Option<Box<StreamAnswer>>>>);

impl Connection {
    /// Answers requests until the connection ends, or a stream is to be sent on it.
    pub(super) async fn serve(self, socket: TcpStream, watcher: Watcher) -> Option<(TcpStream, Box<StreamAnswer>)> {
        let Self { peer, router, http } = self;
        let (requests, successor, socket) = (Requests::new(), Successor::default(), LentSocket::new(socket));
        // Not a layer, which would be made anew for each route of each connection.
        let service = service_fn({
            let (requests, successor) = (requests.clone(), successor.clone());
            move |request: Request<_>| {
                let offer = StreamOffer::to(&request);
                let (mut request, unread) = UnreadBody::watch(request.map(Body::new));
                request.extensions_mut().insert(peer);
                if let Some(offer) = &offer {
                    request.extensions_mut().insert(offer.clone());
                }
                let under_way = requests.begin();
                let (answer, successor) = (router.clone().oneshot(request), successor.clone());
                async move {
                    let response: Response = answer.await?;
                    if let Some(stream) = offer.and_then(|offer| offer.take()) {
                        *successor.lock() = Some(StreamAnswer::new(&response.into_parts().0, stream));
                        // The connection is about to be taken from the library, and this with it.
                        return pending().await;
                    }
                    let response = match unread {
                        Some(unread) => unread.settle(response).await,
                        None => response,
                    };
                    Ok::<_, Infallible>(under_way.until_sent(response))
                }
            }
        });
        let connection =
            http.serve_connection_with_upgrades(TokioIo::new(socket.clone()), TowerToHyperService::new(service));
        let mut connection = pin!(watcher.watch(connection));
        let done = poll_fn(|context| match connection.as_mut().poll(context) {
            Poll::Ready(ended) => Poll::Ready(ended.map(|()| None)),
            Poll::Pending => successor.take(&socket).map_or(Poll::Pending, |taken| Poll::Ready(Ok(Some(taken)))),
        });
        tokio::select! {
            done = done => done.unwrap_or_else(|error| {
                tracing::debug!(%error, "connection ended early");
                None
            }),
            () = requests.idle_for(HEAD_DEADLINE) => {
                tracing::debug!("connection closed: nothing was asked");
                None
            }
        }
    }
}

impl Successor {
    fn lock(&self) -> MutexGuard<'_, Option<Box<StreamAnswer>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The stream with the socket, once it may be written to.
    fn take(&self, socket: &LentSocket) -> Option<(TcpStream, Box<StreamAnswer>)> {
        let mut answer = self.lock();
        answer.as_ref()?;
        Some((socket.take_back()?, answer.take()?))
    }
}
