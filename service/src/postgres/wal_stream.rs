//! The running replication stream: a task of its own reads, decodes and answers keepalives, whatever the consumer does.
//!
//! Messages go to the consumer through a channel that is bounded in items and in bytes. While it is full the task stops
//! reading, which is the backpressure Postgres feels; it goes on sending status updates, so that the server does not
//! take a slow consumer for a dead one. What has arrived together is handed over together: waking a thread costs more
//! than decoding a change.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::{Buf, BufMut, BytesMut};
use postgres_protocol::message::backend::Message;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, mpsc::error::TryRecvError, oneshot, watch},
    task::JoinHandle,
    time::{Instant, Interval, MissedTickBehavior, interval, timeout},
};

use crate::{
    lsn::Lsn,
    postgres::{
        error::PgError,
        frame::{Framed, server_error},
        pgoutput,
    },
};

/// How often the server hears what is durable here. Well below any sensible `wal_sender_timeout`.
const STATUS_INTERVAL: Duration = Duration::from_secs(1);
/// A status update is small; a peer that does not take it within this time is gone.
const WRITE_DEADLINE: Duration = Duration::from_secs(30);
/// For the last word when the consumer leaves.
const FAREWELL_DEADLINE: Duration = Duration::from_secs(5);
/// Most events handed over at once.
const BATCH_EVENTS_MAX: usize = 256;
/// Room taken from the bound on bytes at once, so that a full channel wakes the task rarely.
const ROOM_BYTES_AT_ONCE: u32 = 256 * 1024;
/// Postgres counts microseconds since 2000-01-01, which is this long after 1970-01-01.
const POSTGRES_EPOCH: Duration = Duration::from_hours(10_957 * 24);

/// Bounds of what is read but not yet taken by the consumer.
#[derive(Debug, Clone, Copy)]
pub struct StreamLimits {
    /// Messages.
    pub messages: usize,
    /// Bytes. One message may be larger; it then waits until it is alone.
    pub bytes: u32,
}

/// What the consumer receives, in the order of the stream.
#[derive(Debug)]
pub enum StreamEvent {
    /// A message of the publication.
    Message {
        /// What it says.
        message: pgoutput::Message,
        /// Its size as received.
        size: usize,
        /// Room in the bound on bytes; given back when dropped.
        room: OwnedSemaphorePermit,
    },
    /// Everything before this position has been sent, or concerns nobody here.
    Keepalive {
        /// Where the server's reading of the WAL stands.
        position: Lsn,
        /// Whether the server wants to know what is durable: now and then, and before it shuts down.
        is_urgent: bool,
    },
}

/// The consumer's end.
#[derive(Debug)]
pub struct WalStream {
    /// Events; ends when the connection does, with the reason as the last item.
    pub events: EventReceiver,
    /// What the server is told to be durable. Set it only after the store said so.
    pub durable: watch::Sender<Lsn>,
}

/// Receives events one by one; they travel in batches.
#[derive(Debug)]
pub struct EventReceiver {
    batches: mpsc::Receiver<EventBatch>,
    current: std::vec::IntoIter<Result<StreamEvent, PgError>>,
    is_closing: Arc<AtomicBool>,
}

type EventBatch = Vec<Result<StreamEvent, PgError>>;

impl EventReceiver {
    /// Whether the stream is being closed on purpose: long work on what has been received should end.
    pub fn is_closing(&self) -> bool {
        self.is_closing.load(Ordering::Relaxed)
    }

    /// The next event, once there is one; `None` after the last. Not to be called from asynchronous code.
    pub fn blocking_recv(&mut self) -> Option<Result<StreamEvent, PgError>> {
        while self.current.len() == 0 {
            self.current = self.batches.blocking_recv()?.into_iter();
        }
        self.current.next()
    }

    /// The next event, once there is one; `None` after the last. Cancelling loses nothing.
    pub async fn recv(&mut self) -> Option<Result<StreamEvent, PgError>> {
        while self.current.len() == 0 {
            self.current = self.batches.recv().await?.into_iter();
        }
        self.current.next()
    }

    /// The next event if it has arrived.
    ///
    /// # Errors
    /// [`TryRecvError::Empty`] if none has, [`TryRecvError::Disconnected`] after the last.
    pub fn try_recv(&mut self) -> Result<Result<StreamEvent, PgError>, TryRecvError> {
        loop {
            if let Some(event) = self.current.next() {
                return Ok(event);
            }
            self.current = self.batches.try_recv()?.into_iter();
        }
    }
}

/// Ends a stream in order.
#[derive(Debug)]
pub struct StreamHandle {
    stop: oneshot::Sender<()>,
    is_closing: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl StreamHandle {
    /// Stops reading. The consumer then sees the end of its events; once it has dropped its [`WalStream`], the server
    /// hears a last time what is durable, so that it repeats as little as possible.
    pub async fn close(self) {
        self.is_closing.store(true, Ordering::Relaxed);
        // A task that has ended already needs no word.
        let _ = self.stop.send(());
        let abort = self.task.abort_handle();
        if timeout(FAREWELL_DEADLINE, self.task).await.is_err() {
            abort.abort();
        }
    }
}

/// Hands the connection over to a task of its own.
pub(super) fn spawn(
    framed: Framed,
    durable: Lsn,
    silence_max: Duration,
    limits: StreamLimits,
) -> (WalStream, StreamHandle) {
    let (sender, batches) = mpsc::channel(limits.messages.div_ceil(BATCH_EVENTS_MAX));
    let (durable, confirmed) = watch::channel(durable);
    let (stop, stopped) = oneshot::channel();
    let reader = StreamReader {
        framed,
        decoder: pgoutput::Decoder::default(),
        durable: confirmed,
        stopped,
        room: Arc::new(Semaphore::new(limits.bytes as usize)),
        room_bytes: limits.bytes,
        room_taken: None,
        batch: Vec::new(),
        status: status_interval(),
        silence_max,
    };
    let task = tokio::spawn(reader.run(sender));
    let is_closing = Arc::new(AtomicBool::new(false));
    let events = EventReceiver { batches, current: Vec::new().into_iter(), is_closing: Arc::clone(&is_closing) };
    (WalStream { events, durable }, StreamHandle { stop, is_closing, task })
}

/// Reads the stream from a socket at whose other end no server is.
#[cfg(test)]
pub(crate) fn read_socket(socket: tokio::net::UnixStream, limits: StreamLimits) -> (WalStream, StreamHandle) {
    let framed = Framed::new(crate::postgres::dial::Transport::Unix(socket));
    spawn(framed, Lsn::ZERO, Duration::from_mins(5), limits)
}

fn status_interval() -> Interval {
    let mut ticks = interval(STATUS_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// The task's state.
struct StreamReader {
    framed: Framed,
    decoder: pgoutput::Decoder,
    durable: watch::Receiver<Lsn>,
    stopped: oneshot::Receiver<()>,
    room: Arc<Semaphore>,
    room_bytes: u32,
    /// Room for messages to come.
    room_taken: Option<OwnedSemaphorePermit>,
    /// Events to be handed over next.
    batch: EventBatch,
    status: Interval,
    silence_max: Duration,
}

/// An event without its place in the channel.
enum Decoded {
    Message(pgoutput::Message),
    Keepalive { position: Lsn, is_urgent: bool },
}

type EventSender = mpsc::Sender<EventBatch>;

impl StreamReader {
    async fn run(mut self, sender: EventSender) {
        match self.forward(&sender).await {
            Ok(()) => {
                drop(sender);
                // The server has closed, or will notice that we have.
                let _ = self.say_goodbye().await;
            }
            Err(error) => {
                let mut batch = std::mem::take(&mut self.batch);
                batch.push(Err(error));
                // A consumer that left needs no reason.
                drop(sender.send(batch).await);
            }
        }
    }

    /// Returns when told to stop, or when the consumer has left.
    async fn forward(&mut self, sender: &EventSender) -> Result<(), PgError> {
        loop {
            let Some(body) = self.next_copy_data(sender).await? else {
                return Ok(());
            };
            let Some((event, size)) = self.event(body).await? else {
                continue;
            };
            if !self.deliver(sender, event, size).await? {
                return Ok(());
            }
        }
    }

    /// The next part of the stream; `None` when there is no more to do.
    async fn next_copy_data(&mut self, sender: &EventSender) -> Result<Option<BytesMut>, PgError> {
        if let Some(frame) = self.framed.next_if(b'd')? {
            return Ok(Some(frame.into_body()));
        }
        let mut silent_since = Instant::now();
        loop {
            tokio::select! {
                frame = self.framed.read() => {
                    let frame = frame?;
                    if frame.tag == b'd' {
                        return Ok(Some(frame.into_body()));
                    }
                    match frame.parse()? {
                        Message::ErrorResponse(body) => return Err(PgError::Server(server_error(body.fields()))),
                        Message::NoticeResponse(_) | Message::ParameterStatus(_) => silent_since = Instant::now(),
                        _ => return Err(PgError::Protocol("the stream ended: the server is shutting down")),
                    }
                }
                _ = self.status.tick() => {
                    let silence = silent_since.elapsed();
                    if silence > self.silence_max {
                        return Err(PgError::Timeout { doing: "streaming", after: self.silence_max });
                    }
                    self.send_status(silence > self.silence_max / 2).await?;
                }
                () = sender.closed() => return Ok(None),
                _ = &mut self.stopped => return Ok(None),
            }
        }
    }

    /// Takes the wrapping off. Keepalives that ask for an answer get it here.
    async fn event(&mut self, mut body: BytesMut) -> Result<Option<(Decoded, usize)>, PgError> {
        const XLOG_DATA_HEADER: usize = 25;
        const KEEPALIVE_LENGTH: usize = 18;
        let size = body.len();
        match body.first() {
            Some(b'w') if size >= XLOG_DATA_HEADER => {
                body.advance(XLOG_DATA_HEADER);
                match self.decoder.decode(body).map_err(|_| PgError::Protocol("a malformed change"))? {
                    pgoutput::Message::Ignored => Ok(None),
                    message => Ok(Some((Decoded::Message(message), size))),
                }
            }
            Some(b'k') if size == KEEPALIVE_LENGTH => {
                body.advance(1);
                let position = Lsn::new(body.get_u64());
                let _server_clock = body.get_i64();
                let is_urgent = body.get_u8() == 1;
                if is_urgent {
                    self.send_status(false).await?;
                }
                Ok(Some((Decoded::Keepalive { position, is_urgent }, size)))
            }
            _ => Err(PgError::Protocol("one of an unknown kind in the stream")),
        }
    }

    /// Hands an event over, together with those before it once nothing more has arrived. `false` when there is no more
    /// to do.
    async fn deliver(&mut self, sender: &EventSender, decoded: Decoded, size: usize) -> Result<bool, PgError> {
        let event = match decoded {
            Decoded::Keepalive { position, is_urgent } => StreamEvent::Keepalive { position, is_urgent },
            Decoded::Message(message) => {
                let Some(room) = self.take_room(sender, size).await? else { return Ok(false) };
                StreamEvent::Message { message, size, room }
            }
        };
        self.batch.push(Ok(event));
        if self.batch.len() < BATCH_EVENTS_MAX && self.framed.has_next(b'd') {
            return Ok(true);
        }
        self.hand_over(sender).await
    }

    async fn hand_over(&mut self, sender: &EventSender) -> Result<bool, PgError> {
        let batch = std::mem::take(&mut self.batch);
        if batch.is_empty() {
            return Ok(true);
        }
        Ok(self.until(async { sender.send(batch).await.ok() }).await?.is_some())
    }

    /// Room for a message. Events that were not handed over hold some themselves, so they go before anything is waited
    /// for. `None` when there is no more to do.
    async fn take_room(&mut self, sender: &EventSender, size: usize) -> Result<Option<OwnedSemaphorePermit>, PgError> {
        let wanted = u32::try_from(size).unwrap_or(u32::MAX).min(self.room_bytes);
        let taken = self.room_taken.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let taken = u32::try_from(taken).unwrap_or(u32::MAX);
        if taken < wanted {
            // Never more than the consumer leaves when it has given everything back.
            let more = (wanted - taken).max(ROOM_BYTES_AT_ONCE.min(self.room_bytes - taken));
            let room = match Arc::clone(&self.room).try_acquire_many_owned(more) {
                Ok(room) => Some(room),
                Err(_) if !self.hand_over(sender).await? => None,
                Err(_) => {
                    let room = Arc::clone(&self.room);
                    self.until(async { room.acquire_many_owned(more).await.ok() }).await?
                }
            };
            let Some(room) = room else { return Ok(None) };
            match &mut self.room_taken {
                Some(taken) => taken.merge(room),
                None => self.room_taken = Some(room),
            }
        }
        Ok(self.room_taken.as_mut().and_then(|taken| taken.split(wanted as usize)))
    }

    /// Waits for the consumer; the server keeps hearing from us meanwhile. `None` when there is no more to do.
    async fn until<T>(&mut self, done: impl Future<Output = Option<T>>) -> Result<Option<T>, PgError> {
        tokio::pin!(done);
        loop {
            tokio::select! {
                biased;
                done = &mut done => return Ok(done),
                _ = &mut self.stopped => return Ok(None),
                _ = self.status.tick() => self.send_status(false).await?,
            }
        }
    }

    /// Standby status update: everything before the durable position may be forgotten.
    async fn send_status(&mut self, wants_reply: bool) -> Result<(), PgError> {
        let durable = self.durable.borrow().get();
        let clock = SystemTime::now().duration_since(UNIX_EPOCH + POSTGRES_EPOCH).unwrap_or_default();
        let mut message = BytesMut::with_capacity(39);
        message.put_u8(b'd');
        message.put_u32(38);
        message.put_u8(b'r');
        // Written, flushed and applied: only what is durable counts here.
        message.put_u64(durable);
        message.put_u64(durable);
        message.put_u64(durable);
        message.put_i64(i64::try_from(clock.as_micros()).unwrap_or(i64::MAX));
        message.put_u8(u8::from(wants_reply));
        timeout(WRITE_DEADLINE, self.framed.write(&message))
            .await
            .map_err(|_| PgError::Timeout { doing: "sending a status update", after: WRITE_DEADLINE })?
    }

    async fn say_goodbye(&mut self) -> Result<(), PgError> {
        const COPY_DONE_AND_TERMINATE: &[u8] = b"c\0\0\0\x04X\0\0\0\x04";
        // The consumer may still be committing what it has received; it is done once its end is dropped.
        while self.durable.changed().await.is_ok() {}
        self.send_status(false).await?;
        self.framed.write(COPY_DONE_AND_TERMINATE).await?;
        // Closing a socket with unread bytes resets it, and the server might lose our last words.
        while self.framed.read().await.is_ok() {}
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keepalive(position: u64) -> StreamEvent {
        StreamEvent::Keepalive { position: Lsn::new(position), is_urgent: false }
    }

    #[test]
    fn events_of_batches_come_one_by_one_and_their_end_is_told_from_a_pause() {
        let (sender, batches) = mpsc::channel(4);
        let is_closing = Arc::default();
        let mut events = EventReceiver { batches, current: Vec::new().into_iter(), is_closing };
        let position = |event| match event {
            Ok(StreamEvent::Keepalive { position, .. }) => position.get(),
            other => panic!("a keepalive, not {other:?}"),
        };
        assert!(matches!(events.try_recv(), Err(TryRecvError::Empty)));
        sender.try_send(vec![Ok(keepalive(1)), Ok(keepalive(2))]).expect("room");
        sender.try_send(vec![Ok(keepalive(3)), Err(PgError::Protocol("the reason"))]).expect("room");
        drop(sender);
        assert_eq!(position(events.try_recv().expect("the first")), 1);
        assert_eq!(events.blocking_recv().map(position), Some(2));
        assert_eq!(position(events.try_recv().expect("the third")), 3);
        assert!(matches!(events.blocking_recv(), Some(Err(PgError::Protocol(_)))));
        assert!(matches!(events.try_recv(), Err(TryRecvError::Disconnected)));
        assert!(events.blocking_recv().is_none());
    }
}
