//! From a [`SourceConfig`] to an open, protected byte stream: the one way all connections to the source begin.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::BytesMut;
use postgres_protocol::message::frontend;
use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::{TcpStream, UnixStream},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::postgres::{error::PgError, source::SourceConfig, tls};

/// A peer that vanished without a word is noticed after about a minute.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// How long sent bytes may stay unacknowledged.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_mins(1);

/// An open connection to Postgres, nothing said yet.
#[derive(Debug)]
pub enum Transport {
    /// Plain TCP.
    Tcp(TcpStream),
    /// TLS over TCP.
    Tls(Box<TlsStream<TcpStream>>),
    /// A unix socket.
    Unix(UnixStream),
}

/// Opens the connection and, where asked for, TLS on it. The caller sets the deadline.
pub(super) async fn dial(source: &SourceConfig) -> Result<Transport, PgError> {
    let address = source.address();
    let unreachable = |error| PgError::Unreachable { address: address.clone(), source: error };
    if let Some(folder) = &source.socket_dir {
        let socket = folder.join(format!(".s.PGSQL.{}", source.port));
        return UnixStream::connect(socket).await.map(Transport::Unix).map_err(unreachable);
    }
    let tls = tls::client_config(source)?;
    let mut stream = TcpStream::connect((source.host.as_str(), source.port)).await.map_err(unreachable)?;
    watch_peer(&stream).map_err(unreachable)?;
    let Some(tls) = tls else {
        return Ok(Transport::Tcp(stream));
    };
    let name = source.tls_server_name.as_ref().unwrap_or(&source.host);
    let name = ServerName::try_from(name.clone()).map_err(|_| {
        PgError::Certificates("the host's name cannot be in a certificate: set `tls_servername`".into())
    })?;
    match answer_to_tls(&mut stream).await.map_err(PgError::Lost)? {
        b'S' => {}
        b'N' => return Err(PgError::TlsRefused { address }),
        // An error, from a server that is short of something; or not from a server at all.
        _ => return Err(PgError::Protocol("neither yes nor no to TLS")),
    }
    let connected = TlsConnector::from(Arc::clone(&tls)).connect(name, stream).await;
    let stream = connected.map_err(|error| tls::failure(address, error))?;
    Ok(Transport::Tls(Box::new(stream)))
}

fn watch_peer(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_INTERVAL))?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED_MAX))?;
    Ok(())
}

async fn answer_to_tls(stream: &mut TcpStream) -> io::Result<u8> {
    let mut request = BytesMut::new();
    frontend::ssl_request(&mut request);
    stream.write_all(&request).await?;
    // Not a byte more: what comes unprotected before the handshake must not count as protected.
    stream.read_u8().await
}

macro_rules! on_stream {
    ($transport:expr, $stream:ident => $call:expr) => {
        match $transport.get_mut() {
            Transport::Tcp($stream) => $call,
            Transport::Tls(boxed) => {
                let $stream = boxed.as_mut();
                $call
            }
            Transport::Unix($stream) => $call,
        }
    };
}

impl AsyncRead for Transport {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        on_stream!(self, stream => Pin::new(stream).poll_read(cx, buffer))
    }
}

impl AsyncWrite for Transport {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        on_stream!(self, stream => Pin::new(stream).poll_write(cx, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_stream!(self, stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_stream!(self, stream => Pin::new(stream).poll_shutdown(cx))
    }
}
