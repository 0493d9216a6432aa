//! The HTTP server: sockets, their bounds, and a graceful end.

use std::{io, sync::Arc, time::Duration};

use axum::Router;
use hyper_util::{
    rt::{TokioExecutor, TokioTimer},
    server::{conn::auto::Builder, graceful::GracefulShutdown},
};
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    time::{sleep, timeout},
};

use super::{client_address::Peer, connection::Connection};

/// How long a client may take to send a request's head; also how long an idle connection is kept.
pub(super) const HEAD_DEADLINE: Duration = Duration::from_secs(10);
/// Largest head of a request: a token of the largest size, and what proxies add. Also about what is kept per connection of
/// what is read and written, before anybody knows who it is.
const HEAD_BYTES_MAX: u16 = 60 * 1024;
/// How often HTTP/2 clients are asked whether they are still there.
const PING_INTERVAL: Duration = Duration::from_secs(20);
/// How long requests may take to end when the service stops.
const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(10);
/// How long a client may leave what was sent without acknowledgement before it counts as gone.
const UNHEARD_MAX: Duration = Duration::from_mins(1);
/// Pause after a failed accept, which most often means that no file descriptor is free.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves `router` on `listener` until `shutdown` becomes true, then lets open requests end.
///
/// At most `socket_count_max` sockets are open at once; further ones wait in the system's queue.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    socket_count_max: usize,
    mut shutdown: watch::Receiver<bool>,
) {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_DEADLINE)
        .max_buf_size(usize::from(HEAD_BYTES_MAX));
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_INTERVAL)
        .max_header_list_size(u32::from(HEAD_BYTES_MAX));
    let http = Arc::new(builder);
    let sockets = Arc::new(Semaphore::new(socket_count_max));
    let graceful = GracefulShutdown::new();
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &sockets) => accepted,
            // The sender being gone means the same: the service is over.
            _ = shutdown.wait_for(|stopping| *stopping) => break,
        };
        let Some((socket, peer, place)) = accepted else { continue };
        let connection = Connection { peer, router: router.clone(), http: Arc::clone(&http) };
        let (answers, watcher) = (Box::pin(connection.serve(socket, graceful.watcher())), graceful.watcher());
        tokio::spawn(async move {
            // What a connection needs before is given back while a stream is sent.
            if let Some((socket, answer)) = answers.await {
                answer.send(socket).await;
            }
            drop((place, watcher));
        });
    }
    drop(listener);
    if timeout(SHUTDOWN_DEADLINE, graceful.shutdown()).await.is_err() {
        tracing::warn!("some requests were still open when the service stopped");
    }
}

fn set_options(socket: &TcpStream) -> io::Result<()> {
    // Lines are small and must not wait for each other's acknowledgement.
    socket.set_nodelay(true)?;
    // A device that went out of reach says no goodbye.
    let socket = SockRef::from(socket);
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(UNHEARD_MAX / 2).with_interval(UNHEARD_MAX / 6))?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(UNHEARD_MAX))?;
    Ok(())
}

async fn accept(
    listener: &TcpListener,
    sockets: &Arc<Semaphore>,
) -> Option<(TcpStream, Peer, tokio::sync::OwnedSemaphorePermit)> {
    let place = Arc::clone(sockets).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((socket, address)) => {
            if let Err(error) = set_options(&socket) {
                tracing::debug!(%error, "socket option not set");
            }
            Some((socket, Peer(address.ip()), place))
        }
        Err(error) => {
            tracing::warn!(%error, "connection not accepted");
            sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}
