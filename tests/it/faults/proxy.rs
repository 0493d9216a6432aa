//! A proxy between the service and a real server: passes everything through, until a fault is ordered. Then it tampers
//! with a replication stream in the way a server will not do on demand.

use std::{
    collections::BTreeMap,
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use kairos_sync::lsn::Lsn;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
    time::sleep,
};

/// Between two pieces of a message, so that they arrive apart.
const PIECE_PAUSE: Duration = Duration::from_millis(1);
/// What is on its way when a connection is cut arrives before the end does.
const CUT_PAUSE: Duration = Duration::from_millis(20);

/// A message of the server on a connection that streams, from `CopyBothResponse` on.
pub(super) struct Frame {
    /// With type byte and length.
    pub(super) bytes: Vec<u8>,
}

/// Where what is wrapped begins in a frame with a change: behind the header, its own kind, two positions and a clock.
pub(super) const CHANGE_AT: usize = 5 + 25;

impl Frame {
    /// The kind of change, `k` for a keepalive, `W` for the beginning of the stream, 0 for anything else.
    pub(super) fn kind(&self) -> u8 {
        match (self.bytes[0], self.bytes.get(5)) {
            (b'd', Some(b'w')) => self.bytes.get(CHANGE_AT).copied().unwrap_or_default(),
            (b'd', Some(b'k')) => b'k',
            (b'W', _) => b'W',
            _ => 0,
        }
    }
}

/// What becomes of a message.
pub(super) enum Action {
    Pass,
    /// In its place these pieces, one after the other.
    Send(Vec<Vec<u8>>),
    /// In its place these bytes, which cannot be lived with: new connections wait from here on.
    Spoil(Vec<u8>),
    /// In its place these bytes, and the end of the connection; new ones wait.
    Cut(Vec<u8>),
    /// Nothing more comes, and the connection stays open; new ones wait.
    Silence,
}

/// Decides about each message, one after the other.
pub(super) type Fault = Box<dyn FnMut(&Frame) -> Action + Send>;

/// The running proxy.
pub(super) struct Proxy {
    port: u16,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

struct Shared {
    server_port: u16,
    fault: Mutex<Option<Fault>>,
    /// New connections wait while it is shut.
    gate: watch::Sender<bool>,
    /// What the store has made durable, as it is now.
    durable: Box<dyn Fn() -> Lsn + Send + Sync>,
    acknowledgements: AtomicUsize,
    /// What was acknowledged before it was durable.
    too_early: Mutex<Vec<String>>,
    /// Messages that passed, by kind.
    passed: Mutex<BTreeMap<u8, usize>>,
}

impl Proxy {
    /// In front of the server on `server_port`. `durable` is asked whenever the service acknowledges something.
    pub(super) async fn start(server_port: u16, durable: impl Fn() -> Lsn + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let shared = Arc::new(Shared {
            server_port,
            fault: Mutex::new(None),
            gate: watch::Sender::new(true),
            durable: Box::new(durable),
            acknowledgements: AtomicUsize::new(0),
            too_early: Mutex::default(),
            passed: Mutex::default(),
        });
        let accepting = Arc::clone(&shared);
        let task = tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.expect("a connection");
                let shared = Arc::clone(&accepting);
                // What breaks a connection is seen on both of its ends.
                tokio::spawn(async move { drop(shared.serve(client).await) });
            }
        });
        Self { port, shared, task }
    }

    pub(super) fn uri(&self) -> String {
        format!("postgresql://postgres:trusted@127.0.0.1:{}/postgres", self.port)
    }

    /// From now on this decides about messages.
    pub(super) fn order(&self, fault: Fault) {
        *self.shared.fault.lock().expect("not poisoned") = Some(fault);
    }

    /// Everything passes again, new connections too.
    pub(super) fn relent(&self) {
        *self.shared.fault.lock().expect("not poisoned") = None;
        self.shared.gate.send_replace(true);
    }

    /// How often the service said what is durable.
    pub(super) fn acknowledgements(&self) -> usize {
        self.shared.acknowledgements.load(Ordering::SeqCst)
    }

    /// Tells the same where the proxy is out of reach, as in a fault.
    pub(super) fn acknowledgement_counter(&self) -> impl Fn() -> usize + Send + use<> {
        let shared = Arc::clone(&self.shared);
        move || shared.acknowledgements.load(Ordering::SeqCst)
    }

    /// What was acknowledged too early.
    pub(super) fn too_early(&self) -> Vec<String> {
        self.shared.too_early.lock().expect("not poisoned").clone()
    }

    /// How many messages of a kind were sent to the service.
    pub(super) fn passed(&self, kind: u8) -> usize {
        self.shared.passed.lock().expect("not poisoned").get(&kind).copied().unwrap_or_default()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    async fn serve(&self, client: TcpStream) -> io::Result<()> {
        let _ = self.gate.subscribe().wait_for(|is_open| *is_open).await;
        let server = TcpStream::connect(("127.0.0.1", self.server_port)).await?;
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
        tokio::select! {
            ended = self.requests(BufReader::new(from_client), to_server) => ended,
            ended = self.answers(BufReader::new(from_server), to_client) => ended,
        }
    }

    /// From the service to the server.
    async fn requests(&self, mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) -> io::Result<()> {
        // The first message has no type byte.
        let startup = read_sized(&mut from, Vec::new()).await?;
        to.write_all(&startup).await?;
        loop {
            let message = read_message(&mut from).await?;
            if let Some(flushed) = flushed_position(&message) {
                let durable = (self.durable)();
                if flushed > durable {
                    let finding = format!("{flushed} was acknowledged, {durable} was durable");
                    self.too_early.lock().expect("not poisoned").push(finding);
                }
                self.acknowledgements.fetch_add(1, Ordering::SeqCst);
            }
            to.write_all(&message).await?;
        }
    }

    /// From the server to the service.
    async fn answers(&self, mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) -> io::Result<()> {
        let mut is_streaming = false;
        loop {
            let frame = Frame { bytes: read_message(&mut from).await? };
            is_streaming |= frame.kind() == b'W';
            let action = if is_streaming { self.action(&frame) } else { Action::Pass };
            match action {
                Action::Pass => to.write_all(&frame.bytes).await?,
                Action::Spoil(bytes) => to.write_all(&bytes).await?,
                Action::Send(pieces) => {
                    for piece in pieces {
                        to.write_all(&piece).await?;
                        to.flush().await?;
                        sleep(PIECE_PAUSE).await;
                    }
                }
                Action::Cut(last) => {
                    to.write_all(&last).await?;
                    to.shutdown().await?;
                    sleep(CUT_PAUSE).await;
                    return Ok(());
                }
                Action::Silence => std::future::pending().await,
            }
        }
    }

    fn action(&self, frame: &Frame) -> Action {
        let action = self.fault.lock().expect("not poisoned").as_mut().map_or(Action::Pass, |fault| fault(frame));
        if matches!(action, Action::Spoil(_) | Action::Cut(_) | Action::Silence) {
            self.gate.send_replace(false);
        }
        *self.passed.lock().expect("not poisoned").entry(frame.kind()).or_default() += 1;
        action
    }
}

async fn read_message(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let kind = from.read_u8().await?;
    read_sized(from, vec![kind]).await
}

/// A length, which counts itself, and as many bytes.
async fn read_sized(from: &mut (impl AsyncRead + Unpin), mut message: Vec<u8>) -> io::Result<Vec<u8>> {
    let length = from.read_u32().await?;
    message.extend(length.to_be_bytes());
    let rest = message.len() + length as usize - 4;
    from.take(u64::from(length) - 4).read_to_end(&mut message).await?;
    if message.len() == rest { Ok(message) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// What a standby status update calls flushed.
fn flushed_position(message: &[u8]) -> Option<Lsn> {
    let body = message.strip_prefix(b"d").and_then(|message| message.get(4..)).filter(|body| body.len() == 34)?;
    let positions = body.strip_prefix(b"r")?;
    Some(Lsn::new(u64::from_be_bytes(positions[8..16].try_into().ok()?)))
}
