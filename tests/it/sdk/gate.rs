//! A proxy in front of the service that lets a number of bytes of its answers through, and then waits.

use std::sync::Arc;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};

/// As much as nobody sends.
const EVERYTHING: usize = 1 << 40;

/// The proxy. Connections that are open end with the test.
pub(super) struct Gate {
    /// Where clients connect.
    pub(super) endpoint: String,
    /// One permit per byte.
    allowed: Arc<Semaphore>,
}

impl Gate {
    /// In front of `endpoint`; lets `bytes` through.
    pub(super) async fn open(endpoint: &str, bytes: usize) -> Self {
        let upstream = endpoint.strip_prefix("http://").expect("an HTTP endpoint").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let allowed = Arc::new(Semaphore::new(bytes));
        tokio::spawn({
            let allowed = Arc::clone(&allowed);
            async move {
                while let Ok((client, _)) = listener.accept().await {
                    // While the service is away, a connection ends at once.
                    if let Ok(server) = TcpStream::connect(&upstream).await {
                        tokio::spawn(carry(client, server, Arc::clone(&allowed)));
                    }
                }
            }
        });
        Self { endpoint: format!("http://{address}"), allowed }
    }

    /// Whether nothing goes through any more.
    pub(super) fn is_closed(&self) -> bool {
        self.allowed.available_permits() == 0
    }

    /// Lets so many more bytes through.
    pub(super) fn allow(&self, bytes: usize) {
        self.allowed.add_permits(bytes);
    }

    /// Lets everything through from now on.
    pub(super) fn allow_everything(&self) {
        self.allow(EVERYTHING);
    }
}

async fn carry(client: TcpStream, server: TcpStream, allowed: Arc<Semaphore>) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let answers = async {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = from_server.read(&mut buffer).await {
            for byte in &buffer[..count] {
                let Ok(permit) = allowed.acquire().await else { return };
                permit.forget();
                if to_client.write_all(&[*byte]).await.is_err() {
                    return;
                }
            }
        }
    };
    tokio::select! {
        () = answers => {}
        _ = copy(&mut from_client, &mut to_server) => {}
    }
}
