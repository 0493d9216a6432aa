//! A sync service small enough to read, on a real socket: it keeps operations per bucket, takes uploads at their word,
//! and misbehaves where a test asks for it.

#![allow(dead_code, reason = "not every test needs everything")]

pub(crate) mod wire;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex},
};

use kairos_client::protocol::{
    Checksum, OpId,
    line::{
        BucketChecksum, BucketData, Checkpoint, CheckpointComplete, CheckpointDiff, PartialCheckpointComplete, SyncLine,
    },
    operation::{OpKind, Operation},
    request::{SyncRequest, Wrapped, WriteCheckpointResponse},
    upload::{CrudOp, OpResult, Outcome, UploadBatch, UploadResponse},
};
use serde::Serialize;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream, tcp::OwnedReadHalf},
    sync::watch,
    task::JoinSet,
};

use self::wire::{Asked, Weather, Wire};

/// The bucket uploads go to.
pub(crate) const HOME: &str = "home";

/// Ends with its value.
pub(crate) struct FakeService {
    pub(crate) endpoint: String,
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

struct Shared {
    state: Mutex<State>,
    version: watch::Sender<u64>,
}

/// What tests look at and change.
pub(crate) struct State {
    pub(crate) token: String,
    pub(crate) accepts_any_token: bool,
    pub(crate) buckets: BTreeMap<String, Vec<Operation>>,
    /// Of buckets that are not of the last priority, 3.
    pub(crate) priorities: BTreeMap<String, u8>,
    /// Requests for streams, in order.
    pub(crate) requests: Vec<SyncRequest>,
    /// Uploads, in order.
    pub(crate) uploads: Vec<UploadBatch>,
    /// Calls of `/write-checkpoint2.json`.
    pub(crate) write_checkpoint_calls: usize,
    /// Each stream takes one: its connection is cut after so many lines.
    pub(crate) cuts: VecDeque<usize>,
    /// Each stream takes one.
    pub(crate) weather: VecDeque<Weather>,
    /// This line of the next stream is damaged.
    pub(crate) damaged_line: Option<usize>,
    /// Formats and encodings of streams that were opened.
    pub(crate) formats: Vec<(bool, Option<&'static str>)>,
    /// The next checkpoint has a wrong checksum for this bucket.
    pub(crate) damage: Option<String>,
    /// Writes to this table are refused.
    pub(crate) refused_table: Option<&'static str>,
    /// Uploads are answered with a write checkpoint.
    pub(crate) answers_with_checkpoint: bool,
    /// Every request is answered with this status.
    pub(crate) status: Option<u16>,
    /// With such an answer comes a wait of so many seconds.
    pub(crate) retry_after: Option<u32>,
    /// Requests that got such an answer.
    pub(crate) refused_count: usize,
    /// Streams say at once that the token ends in so many seconds.
    pub(crate) token_expires_in: Option<i32>,
    last_op_id: u64,
    write_checkpoint: u64,
}

impl State {
    pub(crate) fn put(&mut self, bucket: &str, table: &str, id: &str, data: &serde_json::Value) {
        self.operation(bucket, OpKind::Put, table, id, Some(data.to_string()));
    }

    pub(crate) fn remove(&mut self, bucket: &str, table: &str, id: &str) {
        self.operation(bucket, OpKind::Remove, table, id, None);
    }

    fn operation(&mut self, bucket: &str, op: OpKind, table: &str, id: &str, data: Option<String>) {
        self.last_op_id += 1;
        let operation = Operation {
            op_id: OpId::new(self.last_op_id).unwrap(),
            op,
            object_type: Some(table.to_owned()),
            object_id: Some(id.to_owned()),
            checksum: Checksum::of_put(table, id, data.as_deref().unwrap_or_default()),
            subkey: None,
            data,
        };
        self.buckets.entry(bucket.to_owned()).or_default().push(operation);
    }

    fn checksums(&mut self) -> Vec<BucketChecksum> {
        let damaged = self.damage.take();
        let checksum = |(bucket, operations): (&String, &Vec<Operation>)| BucketChecksum {
            bucket: bucket.clone(),
            checksum: operations.iter().map(|operation| operation.checksum).sum::<Checksum>()
                + Checksum::from_bits(u32::from(damaged.as_ref() == Some(bucket))),
            count: operations.len() as u64,
            priority: self.priorities.get(bucket).copied().unwrap_or(3),
            subscriptions: Vec::new(),
        };
        self.buckets.iter().map(checksum).collect()
    }

    fn upload(&mut self, batch: UploadBatch) -> UploadResponse {
        let mut results = Vec::new();
        for entry in &batch.batch {
            let id = entry.id.clone().unwrap();
            let refused = self.refused_table == Some(entry.table.as_str());
            if !refused && entry.op == CrudOp::Delete {
                self.remove(HOME, &entry.table, &id);
            } else if !refused {
                let data = self.merged(&entry.table, &id, entry.data.clone().unwrap_or_default());
                self.put(HOME, &entry.table, &id, &data);
            }
            results.push(OpResult {
                op_id: entry.op_id.clone(),
                table: entry.table.clone(),
                id: entry.id.clone(),
                row: None,
                outcome: if refused { Outcome::Refused } else { Outcome::Applied },
                code: refused.then(|| "WRITE_TABLE".to_owned()),
                message: None,
            });
        }
        self.uploads.push(batch);
        self.write_checkpoint += 1;
        let write_checkpoint = self.answers_with_checkpoint.then(|| self.write_checkpoint.to_string().parse().unwrap());
        UploadResponse { write_checkpoint, results }
    }

    /// The row as it is, with these values over it.
    fn merged(&self, table: &str, id: &str, values: serde_json::Map<String, serde_json::Value>) -> serde_json::Value {
        let same = |operation: &&Operation| {
            operation.object_type.as_deref() == Some(table) && operation.object_id.as_deref() == Some(id)
        };
        let stored = self.buckets.get(HOME).and_then(|operations| operations.iter().rev().find(same));
        let mut row: serde_json::Map<_, _> = stored
            .and_then(|operation| operation.data.as_deref())
            .map(|data| serde_json::from_str(data).unwrap())
            .unwrap_or_default();
        row.extend(values);
        row.into()
    }
}

impl FakeService {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let state = State {
            token: "token".to_owned(),
            accepts_any_token: false,
            buckets: BTreeMap::from([(HOME.to_owned(), Vec::new())]),
            priorities: BTreeMap::new(),
            requests: Vec::new(),
            uploads: Vec::new(),
            write_checkpoint_calls: 0,
            cuts: VecDeque::new(),
            weather: VecDeque::new(),
            damaged_line: None,
            formats: Vec::new(),
            damage: None,
            refused_table: None,
            answers_with_checkpoint: true,
            status: None,
            retry_after: None,
            refused_count: 0,
            token_expires_in: None,
            last_op_id: 0,
            write_checkpoint: 0,
        };
        let shared = Arc::new(Shared { state: Mutex::new(state), version: watch::Sender::new(0) });
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, Arc::clone(&shared)));
        Self { endpoint, shared, _tasks: tasks }
    }

    /// Changes something, and tells all streams.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.shared.state.lock().unwrap());
        self.shared.version.send_modify(|version| *version += 1);
        result
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        let (socket, _) = listener.accept().await.unwrap();
        let shared = Arc::clone(&shared);
        connections.spawn(async move {
            let _ = serve(socket, &shared).await; // the client went away
        });
    }
}

/// One request per connection.
async fn serve(socket: TcpStream, shared: &Shared) -> std::io::Result<()> {
    let (read, mut write) = socket.into_split();
    let Request { path, token, asked, body } = read_request(read).await?;
    let (status, retry_after, expected) = {
        let mut state = shared.state.lock().unwrap();
        state.refused_count += usize::from(state.status.is_some());
        (state.status, state.retry_after, (!state.accepts_any_token).then(|| format!("Bearer {}", state.token)))
    };
    if let Some(status) = status {
        let wait = retry_after.map(|seconds| format!("retry-after: {seconds}\r\n")).unwrap_or_default();
        return answer_with(&mut write, status, &wait, "<html>proxy</html>").await;
    }
    if expected.is_some_and(|expected| token != expected) {
        let body = r#"{"error":{"code":"PSYNC_S2103","status":401,"description":"JWT has expired"}}"#;
        return answer(&mut write, 401, body).await;
    }
    match path.split('?').next().unwrap_or_default() {
        "/sync/stream" => {
            let request = serde_json::from_slice(&body).unwrap();
            stream(&mut write, shared, request, &asked).await
        }
        "/api/sync/data" => {
            let batch = serde_json::from_slice(&body).unwrap();
            let data = shared.state.lock().unwrap().upload(batch);
            answer(&mut write, 200, &json(&Wrapped { data })).await?;
            shared.version.send_modify(|version| *version += 1);
            Ok(())
        }
        "/write-checkpoint2.json" => {
            let write_checkpoint = {
                let mut state = shared.state.lock().unwrap();
                state.write_checkpoint_calls += 1;
                state.write_checkpoint += 1;
                state.write_checkpoint.to_string().parse().unwrap()
            };
            shared.version.send_modify(|version| *version += 1);
            answer(&mut write, 200, &json(&Wrapped { data: WriteCheckpointResponse { write_checkpoint } })).await
        }
        _ => answer(&mut write, 404, "{}").await,
    }
}

struct Request {
    path: String,
    token: String,
    asked: Asked,
    body: Vec<u8>,
}

async fn read_request(read: OwnedReadHalf) -> std::io::Result<Request> {
    let mut reader = BufReader::new(read);
    let (mut line, mut token, mut length) = (String::new(), String::new(), 0);
    let mut asked = Asked::default();
    reader.read_line(&mut line).await?;
    let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
    loop {
        line.clear();
        reader.read_line(&mut line).await?;
        let Some((name, value)) = line.trim().split_once(": ") else { break };
        match name.to_lowercase().as_str() {
            "authorization" => value.clone_into(&mut token),
            "accept" => value.clone_into(&mut asked.accept),
            "accept-encoding" => value.clone_into(&mut asked.accept_encoding),
            "content-length" => length = value.parse().unwrap(),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).await?;
    Ok(Request { path, token, asked, body })
}

async fn answer(write: &mut (impl AsyncWriteExt + Unpin), status: u16, body: &str) -> std::io::Result<()> {
    answer_with(write, status, "", body).await
}

async fn answer_with(
    write: &mut (impl AsyncWriteExt + Unpin),
    status: u16,
    headers: &str,
    body: &str,
) -> std::io::Result<()> {
    let head = format!("HTTP/1.1 {status} x\r\nconnection: close\r\n{headers}content-length: {}\r\n\r\n", body.len());
    write.write_all((head + body).as_bytes()).await?;
    write.flush().await
}

/// Checkpoint, one line per operation, completion; then diffs. Returning before the last chunk cuts the connection.
async fn stream(
    write: &mut (impl AsyncWriteExt + Unpin),
    shared: &Shared,
    request: SyncRequest,
    asked: &Asked,
) -> std::io::Result<()> {
    let mut version = shared.version.subscribe();
    let mut positions: BTreeMap<String, OpId> =
        request.buckets.iter().map(|bucket| (bucket.name.clone(), bucket.after)).collect();
    let (cut, expires, damaged_line, mut wire) = {
        let mut state = shared.state.lock().unwrap();
        state.requests.push(request);
        let wire = Wire::new(asked, state.weather.pop_front().unwrap_or_default())?;
        state.formats.push((wire.is_bson, wire.encoding));
        let cut = state.cuts.pop_front().unwrap_or(usize::MAX);
        (cut, state.token_expires_in.take(), state.damaged_line.take(), wire)
    };
    write.write_all(wire.head().as_bytes()).await?;
    let (mut sent, mut is_first) = (0, true);
    loop {
        version.borrow_and_update();
        let mut lines = lines(&mut shared.state.lock().unwrap(), &mut positions, is_first);
        lines.splice(0..0, expires.filter(|_| is_first).map(SyncLine::TokenExpiresIn));
        is_first = false;
        for line in lines {
            let bytes = wire.encode(&line, damaged_line == Some(sent));
            if sent == cut || !wire.send(write, &bytes).await? {
                return Ok(());
            }
            sent += 1;
        }
        write.flush().await?;
        if version.changed().await.is_err() {
            return Ok(());
        }
    }
}

fn lines(state: &mut State, positions: &mut BTreeMap<String, OpId>, is_first: bool) -> Vec<SyncLine> {
    let last_op_id = OpId::new(state.last_op_id).unwrap();
    let write_checkpoint = Some(state.write_checkpoint).filter(|id| *id > 0).map(|id| id.to_string().parse().unwrap());
    let buckets = state.checksums();
    let mut in_order: Vec<(u8, String)> = buckets.iter().map(|aim| (aim.priority, aim.bucket.clone())).collect();
    in_order.sort();
    let mut lines = vec![if is_first {
        SyncLine::Checkpoint(Checkpoint { last_op_id, write_checkpoint, buckets, streams: Vec::new() })
    } else {
        let removed_buckets: Vec<_> =
            positions.keys().filter(|name| !state.buckets.contains_key(*name)).cloned().collect();
        SyncLine::CheckpointDiff(CheckpointDiff {
            last_op_id,
            write_checkpoint,
            updated_buckets: buckets,
            removed_buckets,
        })
    }];
    for (index, (priority, bucket)) in in_order.iter().enumerate() {
        let operations = &state.buckets[bucket];
        let position = positions.entry(bucket.clone()).or_default();
        for operation in operations.iter().filter(|operation| operation.op_id > *position) {
            lines.push(SyncLine::Data(BucketData {
                bucket: bucket.clone(),
                after: OpId::ZERO,
                has_more: false,
                next_after: operation.op_id,
                data: vec![operation.clone()],
            }));
        }
        *position = operations.last().map_or(*position, |operation| operation.op_id);
        if in_order.get(index + 1).is_some_and(|(next, _)| next != priority) {
            let priority = *priority;
            lines.push(SyncLine::PartialCheckpointComplete(PartialCheckpointComplete { last_op_id, priority }));
        }
    }
    lines.push(SyncLine::CheckpointComplete(CheckpointComplete { last_op_id }));
    lines
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap()
}
