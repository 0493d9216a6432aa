//! A socket that is lent to the HTTP library, and can be taken back from it.
//!
//! The library has no way to give up a connection in the middle of an answer. What it gets is a handle; who takes the
//! socket out of it drops the library's connection, which has nothing to read from or write to any more.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

/// A socket that others use. A clone is the same socket.
#[derive(Clone)]
pub(super) struct LentSocket(Arc<Mutex<Lent>>);

struct Lent {
    /// `None` once it was taken back.
    socket: Option<TcpStream>,
    /// Its user has nothing left that it means to write.
    is_flushed: bool,
}

impl LentSocket {
    pub(super) fn new(socket: TcpStream) -> Self {
        Self(Arc::new(Mutex::new(Lent { socket: Some(socket), is_flushed: true })))
    }

    /// Takes the socket back, unless its user still has something to write, such as the end of an earlier answer.
    pub(super) fn take_back(&self) -> Option<TcpStream> {
        let mut lent = self.lock();
        if lent.is_flushed { lent.socket.take() } else { None }
    }

    /// Locked for one call of the system at most. A socket is whole whatever happened to its user.
    fn lock(&self) -> MutexGuard<'_, Lent> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write<T>(
        &self,
        write: impl FnOnce(Pin<&mut TcpStream>) -> Poll<io::Result<T>>,
        is_flushed: bool,
    ) -> Poll<io::Result<T>> {
        let mut lent = self.lock();
        lent.is_flushed = is_flushed;
        lent.socket.as_mut().map_or_else(taken_back, |socket| write(Pin::new(socket)))
    }
}

fn taken_back<T>() -> Poll<io::Result<T>> {
    Poll::Ready(Err(io::ErrorKind::NotConnected.into()))
}

impl AsyncRead for LentSocket {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut lent = self.lock();
        lent.socket.as_mut().map_or_else(taken_back, |socket| Pin::new(socket).poll_read(context, buffer))
    }
}

impl AsyncWrite for LentSocket {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.write(|socket| socket.poll_write(context, bytes), false)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.write(|socket| socket.poll_write_vectored(context, parts), false)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// The library asks for this once its own buffer is empty.
    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.write(|socket| socket.poll_flush(context), true)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.write(|socket| socket.poll_shutdown(context), true)
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    #[tokio::test]
    async fn a_socket_is_taken_back_once_nothing_is_left_to_write() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let mut user = LentSocket::new(listener.accept().await.unwrap().0);
        let lender = user.clone();
        user.write_all(b"one").await.unwrap();
        assert!(lender.take_back().is_none(), "there may be more");
        user.flush().await.unwrap();
        let mut socket = lender.take_back().unwrap();
        assert!(user.write_all(b"two").await.is_err() && user.read_u8().await.is_err());
        socket.write_all(b"three").await.unwrap();
        drop(socket);
        let mut got = String::new();
        client.read_to_string(&mut got).await.unwrap();
        assert_eq!(got, "onethree");
    }
}
