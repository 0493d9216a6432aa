//! Any number of clients that do next to nothing, so that what is measured is the service.
//!
//! They speak HTTP by hand over plain sockets and look for two things only: the number of a row's change, and the end of
//! a checkpoint.

use std::{
    error::Error,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Semaphore,
    task::JoinSet,
};

/// Connections that are opened at once; the system queues only so many.
const OPENING_MAX: usize = 200;

/// A checkpoint that a client got whole.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrival {
    pub(crate) client: usize,
    pub(crate) at: Instant,
    /// The newest change among the rows that came.
    pub(crate) change: u64,
}

/// What all clients tell.
#[derive(Debug, Default)]
struct Board {
    arrivals: Mutex<Vec<Arrival>>,
    complete_count: AtomicUsize,
}

/// Open streams, closed when dropped.
pub(crate) struct Swarm {
    board: Arc<Board>,
    clients: JoinSet<()>,
}

impl Swarm {
    /// Opens a stream for each token, and waits until each had its first checkpoint whole.
    pub(crate) async fn open(endpoint: &str, tokens: &[String], deadline: Duration) -> Result<Self, Box<dyn Error>> {
        let address = endpoint.trim_start_matches("http://").to_owned();
        let mut swarm = Self { board: Arc::default(), clients: JoinSet::new() };
        let opening = Arc::new(Semaphore::new(OPENING_MAX));
        for (client, token) in tokens.iter().enumerate() {
            let (board, opening) = (Arc::clone(&swarm.board), Arc::clone(&opening));
            let (address, request) = (address.clone(), request(&address, token));
            swarm.clients.spawn(async move {
                // What goes wrong shows as a checkpoint that does not arrive.
                let _ = follow(client, &address, request, &board, &opening).await;
            });
        }
        swarm.wait_for(tokens.len(), deadline).await?;
        Ok(swarm)
    }

    /// Waits until so many checkpoints arrived in all.
    pub(crate) async fn wait_for(&self, count: usize, deadline: Duration) -> Result<(), Box<dyn Error>> {
        let started = Instant::now();
        while self.board.complete_count.load(Ordering::Relaxed) < count {
            if started.elapsed() > deadline {
                let arrived = self.board.complete_count.load(Ordering::Relaxed);
                return Err(format!("{arrived} of {count} checkpoints arrived in {deadline:?}").into());
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Ok(())
    }

    /// Checkpoints that arrived since this was asked last.
    pub(crate) fn take_arrivals(&self) -> Vec<Arrival> {
        self.board.complete_count.store(0, Ordering::Relaxed);
        std::mem::take(&mut *self.board.arrivals.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn request(address: &str, token: &str) -> String {
    let body = r#"{"raw_data":true,"buckets":[]}"#;
    format!(
        "POST /sync/stream HTTP/1.1\r\nhost: {address}\r\nauthorization: Token {token}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

async fn follow(
    client: usize,
    address: &str,
    request: String,
    board: &Board,
    opening: &Semaphore,
) -> Result<(), Box<dyn Error + Send + Sync>> {
    let permit = opening.acquire().await?;
    let mut socket = TcpStream::connect(address).await?;
    socket.write_all(request.as_bytes()).await?;
    drop((permit, request));
    let (mut pending, mut change) = (Vec::new(), 0);
    loop {
        if socket.read_buf(&mut pending).await? == 0 {
            return Ok(());
        }
        let Some(end) = pending.iter().rposition(|byte| *byte == b'\n') else { continue };
        let at = Instant::now();
        for line in pending[..end].split(|byte| *byte == b'\n') {
            change = changes_in(line).fold(change, u64::max);
            if line.starts_with(br#"{"checkpoint_complete""#) {
                board.arrivals.lock().unwrap_or_else(PoisonError::into_inner).push(Arrival { client, at, change });
                board.complete_count.fetch_add(1, Ordering::Relaxed);
            }
        }
        pending.drain(..=end);
    }
}

/// Each `"change":n` of a line of data, in which quotes of rows are escaped.
fn changes_in(line: &[u8]) -> impl Iterator<Item = u64> {
    let name: &[u8] = br#"\"change\":"#;
    let places = line.windows(name.len()).enumerate().filter(move |(_, window)| *window == name);
    places.filter_map(move |(at, _)| {
        let digits = line[at + name.len()..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        std::str::from_utf8(&line[at + name.len()..][..digits]).ok()?.parse().ok()
    })
}
