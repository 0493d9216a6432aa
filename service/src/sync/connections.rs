//! Who is connected, and what was sent to whom: for operators, who ask why a row is not on a device.
//!
//! A session has an entry here for as long as it lives. What it notes of each line costs a short lock of its own; only
//! connecting, leaving and listing take the one that all share.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

use kairos_sync_protocol::{OpId, line::SyncLine};
use kairos_sync_rules::RequestContext;

use super::hub::ConnectionId;

/// User agents are shortened to so many characters.
const USER_AGENT_CHARS_MAX: usize = 200;

/// What carries a stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Carrier {
    /// An HTTP answer that goes on.
    #[default]
    Http,
    /// RSocket over a WebSocket.
    WebSocket,
}

impl Carrier {
    /// As it is shown.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::WebSocket => "websocket",
        }
    }
}

/// What a device says of itself.
#[derive(Debug, Clone, Default)]
pub struct DeviceInfo {
    /// What carries the stream.
    pub carrier: Carrier,
    /// Program and version, as it says.
    pub user_agent: Option<String>,
}

/// All open streams.
#[derive(Debug, Default)]
pub struct Connections {
    open: Mutex<BTreeMap<ConnectionId, Arc<Connection>>>,
}

/// An open stream.
#[derive(Debug)]
pub struct Connection {
    /// Its number in the hub; later ones are larger.
    pub id: ConnectionId,
    /// Whose it is.
    pub user_id: String,
    /// The database of the user that asks, where it said so.
    pub client_id: Option<String>,
    /// What carries it.
    pub carrier: Carrier,
    /// Program and version, as the device says.
    pub user_agent: Option<String>,
    /// When it began.
    pub since: SystemTime,
    /// What was proved and asked for.
    pub request: Arc<RequestContext>,
    bytes_sent: AtomicU64,
    told: Mutex<Told>,
}

/// What a stream has told its client. The socket has taken the lines; the client may still be reading them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Told {
    /// The newest checkpoint that was announced.
    pub announced: Option<Moment>,
    /// The newest that was complete: all its operations were sent before.
    pub completed: Option<Moment>,
}

/// A checkpoint and when it was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// Its last operation.
    pub op_id: OpId,
    /// When.
    pub at: SystemTime,
}

/// All open streams in figures.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ConnectionTotals {
    /// Open streams.
    pub count: usize,
    /// Users that have one.
    pub user_count: usize,
    /// Streams over HTTP; the others have another carrier.
    pub http_count: usize,
    /// Streams that were not sent a whole checkpoint yet.
    pub waiting_count: usize,
    /// The oldest among the newest checkpoints that were complete.
    pub oldest_completed: Option<Moment>,
    /// Bytes sent over all of them so far.
    pub bytes_sent: u64,
}

impl Connections {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<ConnectionId, Arc<Connection>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a stream, until its entry is dropped.
    pub(super) fn enter(
        self: &Arc<Self>,
        id: ConnectionId,
        user_id: String,
        client_id: Option<String>,
        device: DeviceInfo,
        request: Arc<RequestContext>,
    ) -> Entry {
        let shorten = |text: String| text.chars().take(USER_AGENT_CHARS_MAX).collect();
        let connection = Arc::new(Connection {
            id,
            user_id,
            client_id,
            carrier: device.carrier,
            user_agent: device.user_agent.map(shorten),
            since: SystemTime::now(),
            request,
            bytes_sent: AtomicU64::new(0),
            told: Mutex::default(),
        });
        self.lock().insert(id, Arc::clone(&connection));
        Entry { connections: Arc::clone(self), connection }
    }

    /// Open streams after the one with this number, of a user or of all, oldest first, at most `limit`; and how many
    /// there are from the first on.
    pub fn list(&self, user_id: Option<&str>, after: ConnectionId, limit: usize) -> (Vec<Arc<Connection>>, usize) {
        let open = self.lock();
        let is_wanted = |connection: &&Arc<Connection>| user_id.is_none_or(|user_id| connection.user_id == user_id);
        let count = if user_id.is_none() { open.len() } else { open.values().filter(is_wanted).count() };
        let page = open.range(after.saturating_add(1)..).map(|(_, connection)| connection).filter(is_wanted);
        (page.take(limit).cloned().collect(), count)
    }

    /// All of them in figures.
    pub fn totals(&self) -> ConnectionTotals {
        let open: Vec<_> = self.lock().values().cloned().collect();
        let completed: Vec<_> = open.iter().filter_map(|connection| connection.told().completed).collect();
        ConnectionTotals {
            count: open.len(),
            user_count: open.iter().map(|connection| &connection.user_id).collect::<BTreeSet<_>>().len(),
            http_count: open.iter().filter(|connection| connection.carrier == Carrier::Http).count(),
            waiting_count: open.len() - completed.len(),
            oldest_completed: completed.into_iter().min_by_key(|moment| moment.op_id),
            bytes_sent: open.iter().map(|connection| connection.bytes_sent()).sum(),
        }
    }
}

impl Connection {
    /// What it was told so far.
    pub fn told(&self) -> Told {
        *self.lock()
    }

    /// Bytes sent so far, as they are on the wire.
    pub fn bytes_sent(&self) -> u64 {
        self.bytes_sent.load(Ordering::Relaxed)
    }

    /// Counts bytes that the socket takes.
    pub fn sent(&self, bytes: usize) {
        self.bytes_sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what a line tells.
    pub(super) fn tell(&self, line: &SyncLine) {
        let moment = |op_id| Some(Moment { op_id, at: SystemTime::now() });
        match line {
            SyncLine::Checkpoint(checkpoint) => self.lock().announced = moment(checkpoint.last_op_id),
            SyncLine::CheckpointDiff(diff) => self.lock().announced = moment(diff.last_op_id),
            SyncLine::CheckpointComplete(complete) => self.lock().completed = moment(complete.last_op_id),
            _ => {}
        }
    }
}

/// A stream's place among those that are open; it leaves when dropped.
#[derive(Debug)]
pub(super) struct Entry {
    connections: Arc<Connections>,
    pub(super) connection: Arc<Connection>,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.connections.lock().remove(&self.connection.id);
    }
}

#[cfg(test)]
mod tests {
    use kairos_sync_protocol::line::CheckpointComplete;

    use super::*;

    fn enter(connections: &Arc<Connections>, id: ConnectionId, user_id: &str) -> Entry {
        let device = DeviceInfo { user_agent: Some("x".repeat(1000)), ..DeviceInfo::default() };
        connections.enter(id, user_id.to_owned(), None, device, Arc::default())
    }

    fn ids((page, count): (Vec<Arc<Connection>>, usize)) -> (Vec<ConnectionId>, usize) {
        (page.iter().map(|connection| connection.id).collect(), count)
    }

    #[test]
    fn streams_are_listed_by_page_and_user_until_they_end() {
        let connections = Arc::new(Connections::default());
        let _anna = [1, 3, 5].map(|id| enter(&connections, id, "anna"));
        let ben = enter(&connections, 2, "ben");
        assert_eq!(ids(connections.list(None, 0, 3)), (vec![1, 2, 3], 4));
        assert_eq!(ids(connections.list(None, 3, 3)), (vec![5], 4));
        assert_eq!(ids(connections.list(Some("anna"), 1, 1)), (vec![3], 3));
        drop(ben);
        assert_eq!(ids(connections.list(None, 0, 9)), (vec![1, 3, 5], 3));
        assert_eq!(ids(connections.list(None, u64::MAX, 9)), (vec![], 3));
    }

    #[test]
    fn what_was_asked_and_told_is_known() {
        let connections = Arc::new(Connections::default());
        let mut request = RequestContext { include_defaults: true, ..RequestContext::default() };
        request.token.insert("sub".to_owned(), "anna".into());
        let entry = connections.enter(1, "anna".to_owned(), None, DeviceInfo::default(), Arc::new(request.clone()));
        let op_id = OpId::new(7).unwrap();
        entry.connection.tell(&SyncLine::CheckpointComplete(CheckpointComplete { last_op_id: op_id }));
        entry.connection.sent(5);
        let Told { announced, completed } = entry.connection.told();
        assert_eq!((announced, completed.map(|moment| moment.op_id)), (None, Some(op_id)));
        let waiting = enter(&connections, 3, "anna");
        let expected = ConnectionTotals {
            count: 2,
            user_count: 1,
            http_count: 2,
            waiting_count: 1,
            oldest_completed: completed,
            bytes_sent: 5,
        };
        assert_eq!(connections.totals(), expected);
        drop(waiting);
        assert_eq!((&*entry.connection.request, entry.connection.bytes_sent()), (&request, 5));
        let long = enter(&connections, 2, "ben").connection.user_agent.clone().unwrap();
        assert_eq!(long.len(), USER_AGENT_CHARS_MAX);
    }
}
