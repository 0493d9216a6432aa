//! A replication stream that is torn, cut, falsified or silent. A proxy tampers with the stream of a real server.

use std::{sync::Arc, time::Duration};

use kairos_sync::{
    demo::cluster::PgCluster,
    postgres::SourceConfig,
    storage::{SqliteOptions, SqliteStore},
};
use tempfile::TempDir;
use tokio_postgres::Client;

use super::{
    acknowledged::stored_position,
    checks::assert_equal,
    load::Load,
    number,
    proxy::{Action, CHANGE_AT, Fault, Frame, Proxy},
    seed, source,
};
use crate::replica::Replica;

/// Between two transactions of a session.
const LOAD_PAUSE: Duration = Duration::from_millis(10);
/// Where the end of the server's WAL is in a change's frame.
const WAL_END_AT: usize = 5 + 9;

/// A replica behind a proxy.
struct Scene {
    cluster: PgCluster,
    client: Client,
    proxy: Proxy,
    source: SourceConfig,
    replica: Replica,
    seed: u64,
    _folder: TempDir,
}

impl Scene {
    /// With everything copied.
    async fn open(settings: &[(&str, &str)]) -> Self {
        let (seed, (cluster, client)) = (seed(), source(settings).await);
        let folder = tempfile::tempdir().expect("a folder");
        let store = Arc::new(SqliteStore::open(folder.path(), SqliteOptions::default()).expect("a store"));
        let durable = Arc::clone(&store);
        let proxy = Proxy::start(cluster.port(), move || stored_position(durable.as_ref())).await;
        let source = SourceConfig::from_uri(&proxy.uri()).expect("a usable URI");
        let replica = Replica::start_with(source.clone(), store, Arc::default());
        replica.catch_up(&client).await;
        Self { cluster, client, proxy, source, replica, seed, _folder: folder }
    }

    fn start_load(&self, round: u64) -> Load {
        let seed = self.seed.wrapping_add(1_000 * round);
        Load::start(&self.cluster.uri("postgres", "postgres"), seed, 3, LOAD_PAUSE)
    }

    /// The fault strikes while transactions run, ends the stream with this code, and leaves nothing wrong.
    async fn survives(mut self, round: u64, context: &str, code: &str, fault: Fault) -> Self {
        let stopped = self.replica.stop().await;
        self.client.batch_execute("TRUNCATE items, habits, completions").await.expect("empties the tables");
        self.proxy.order(fault);
        // A service that was just started tries again soon.
        self.replica = stopped.start_again_from(self.source.clone());
        let load = self.start_load(round);
        println!("round {round}: {context}");
        let is_met = |replica: &Replica| replica.status.snapshot().last_error.is_some_and(|(met, _)| met == code);
        self.replica.wait_until(is_met).await;
        self.proxy.relent();
        load.stop().await;
        self.assert_equal(&format!("round {round}, {context}")).await;
        self
    }

    async fn assert_equal(&self, context: &str) {
        self.replica.catch_up(&self.client).await;
        assert_equal(&self.replica, &self.client, context).await;
        assert_eq!(self.proxy.too_early(), Vec::<String>::new(), "{context}");
    }

    /// The fault is a long silence, which a server's short timeout makes shorter.
    async fn survives_silence(context: &str, fault: Fault) {
        let scene = Self::open(&[("wal_sender_timeout", "3s")]).await;
        scene.survives(0, context, "PG-0111", fault).await.replica.stop().await;
    }
}

/// Strikes one message of this kind, after `skipped` others. Changes in parts of streamed transactions do not count:
/// they are looked at late, so other errors come first.
fn once(kind: u8, skipped: usize, strike: impl FnOnce(&Frame) -> Action + Send + 'static) -> Fault {
    let (mut strike, mut left, mut is_in_part) = (Some(strike), skipped, false);
    Box::new(move |frame| {
        let was_in_part = is_in_part;
        is_in_part = (was_in_part || frame.kind() == b'S') && frame.kind() != b'E';
        if frame.kind() != kind || (was_in_part && is_in_part) || strike.is_none() {
            return Action::Pass;
        }
        if left > 0 {
            left -= 1;
            return Action::Pass;
        }
        strike.take().map_or(Action::Pass, |strike| strike(frame))
    })
}

fn with_length(frame: &Frame, length: i32) -> Action {
    let mut bytes = frame.bytes.clone();
    bytes[1..5].copy_from_slice(&length.to_be_bytes());
    Action::Spoil(bytes)
}

fn length(frame: &Frame) -> i32 {
    i32::try_from(frame.bytes.len() - 1).expect("a short message")
}

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).expect("a short message");
    [&[tag][..], &length.to_be_bytes(), body].concat()
}

fn error(sqlstate: &str) -> Vec<u8> {
    message(b'E', format!("SFATAL\0VFATAL\0C{sqlstate}\0Mmade up by a test\0\0").as_bytes())
}

/// A keepalive that asks for an answer and says that the server has sent its WAL up to here.
fn keepalive(wal_end: u64) -> Vec<u8> {
    message(b'd', &[&b"k"[..], &wal_end.to_be_bytes(), &0_u64.to_be_bytes(), &[1]].concat())
}

fn wal_end(frame: &Frame) -> u64 {
    u64::from_be_bytes(frame.bytes[WAL_END_AT..WAL_END_AT + 8].try_into().expect("eight bytes"))
}

/// Faults after which the connection cannot be used: what, the code that says so, the fault.
fn endings() -> Vec<(&'static str, &'static str, Fault)> {
    let (whole, nothing) = (|frame: &Frame| Action::Cut(frame.bytes.clone()), |_: &Frame| Action::Cut(Vec::new()));
    let half = |frame: &Frame| Action::Cut(frame.bytes[..frame.bytes.len() / 2].to_vec());
    let of_kind = |kind: u8| {
        move |frame: &Frame| {
            let mut bytes = frame.bytes.clone();
            bytes[CHANGE_AT] = kind;
            Action::Spoil(bytes)
        }
    };
    let mut endings: Vec<(_, _, Fault)> = vec![
        ("cut in a message", "PG-0110", once(b'I', 2, half)),
        ("cut in the header of a message", "PG-0110", once(b'I', 3, |frame| Action::Cut(frame.bytes[..3].to_vec()))),
        ("cut after a Begin", "PG-0110", once(b'B', 2, whole)),
        ("cut in a transaction", "PG-0110", once(b'I', 2, whole)),
        ("cut before a Commit", "PG-0110", once(b'C', 2, nothing)),
        ("cut in a Commit", "PG-0110", once(b'C', 3, half)),
        ("cut after a Commit", "PG-0110", once(b'C', 2, whole)),
        ("cut after a StreamStart", "PG-0110", once(b'S', 0, whole)),
        ("cut after a StreamStop", "PG-0110", once(b'E', 0, whole)),
        ("cut before a StreamCommit", "PG-0110", once(b'c', 0, nothing)),
        ("a negative length", "PG-0112", once(b'I', 2, |frame| with_length(frame, -1))),
        ("a length below its own", "PG-0112", once(b'B', 2, |frame| with_length(frame, 3))),
        ("a huge length", "PG-0113", once(b'C', 2, |frame| with_length(frame, i32::MAX))),
        ("a length one too small", "PG-0112", once(b'I', 2, |frame| with_length(frame, length(frame) - 1))),
        ("a length one too large", "PG-0112", once(b'U', 2, |frame| with_length(frame, length(frame) + 1))),
        ("a Commit one byte short", "PG-0112", once(b'C', 2, |frame| with_length(frame, length(frame) - 1))),
        ("an unknown change", "PG-0112", once(b'I', 2, of_kind(b'?'))),
        ("a change taken for another", "PG-0112", once(b'U', 2, of_kind(b'T'))),
        ("an unknown part of the stream", "PG-0112", once(b'C', 2, |_| Action::Spoil(message(b'd', b"?what")))),
        ("an empty part of the stream", "PG-0112", once(b'C', 2, |_| Action::Spoil(message(b'd', b"")))),
        ("an unknown message", "PG-0112", once(b'B', 2, |_| Action::Spoil(message(b'!', b"what")))),
        ("the end of the stream in a transaction", "PG-0112", once(b'I', 2, |_| Action::Spoil(message(b'c', b"")))),
    ];
    for sqlstate in ["55000", "57P01", "53300"] {
        let refuse = move |_: &Frame| Action::Cut(error(sqlstate));
        // One that says that the slot is lost: everything is compared then.
        let refusal = if sqlstate == "55000" { "REPL-0202" } else { "PG-0109" };
        endings.push(("an error in place of the stream", refusal, once(b'W', 0, refuse)));
        endings.push(("an error in a transaction", "PG-0109", once(b'I', 2, refuse)));
        endings.push(("an error between transactions", "PG-0109", once(b'B', 2, refuse)));
    }
    endings
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_ends_badly_is_opened_again_and_nothing_is_lost() {
    let mut scene = Scene::open(&[]).await;
    for repetition in 0..number("KAIROS_FAULT_ROUNDS", 20).div_ceil(20) {
        for (number, (context, code, fault)) in (0..).zip(endings()) {
            scene = scene.survives(100 * repetition + number, context, code, fault).await;
        }
    }
    scene.replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_keepalive_in_a_transaction_acknowledges_nothing_of_it() {
    const TRANSACTIONS: usize = 30;
    let scene = Scene::open(&[]).await;
    let (heard, mut begun) = (scene.proxy.acknowledgements(), 0);
    let counter = scene.proxy.acknowledgement_counter();
    // Far ahead of all there is; a transaction is lost on the way once these are answered, however long that takes.
    let fault = move |frame: &Frame| match frame.kind() {
        b'B' if begun < TRANSACTIONS => {
            begun += 1;
            Action::Send(vec![frame.bytes.clone(), keepalive(wal_end(frame) + (1 << 30))])
        }
        b'C' if begun == TRANSACTIONS && counter() - heard + 1 >= TRANSACTIONS => {
            begun += 1;
            Action::Cut(Vec::new())
        }
        _ => Action::Pass,
    };
    let scene = scene.survives(0, "keepalives in transactions", "PG-0110", Box::new(fault)).await;
    let answers = scene.proxy.acknowledgements() - heard;
    // The last answer may be lost with the connection.
    assert!(answers + 1 >= TRANSACTIONS, "every keepalive asked for an answer: {answers}");
    scene.replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keepalives_that_ask_are_answered_each() {
    const EACH: usize = 5;
    let scene = Scene::open(&[]).await;
    let heard = scene.proxy.acknowledgements();
    let committed = scene.proxy.passed(b'C');
    scene.proxy.order(Box::new(|frame| match frame.kind() {
        b'C' => Action::Send([vec![frame.bytes.clone()], vec![keepalive(wal_end(frame)); EACH]].concat()),
        _ => Action::Pass,
    }));
    let load = scene.start_load(0);
    scene.replica.wait_until(|_| load.committed() >= 60).await;
    load.stop().await;
    scene.assert_equal("keepalives").await;
    let asked = EACH * (scene.proxy.passed(b'C') - committed);
    // The last of them may still be on its way.
    scene.replica.wait_until(|_| scene.proxy.acknowledgements() >= heard + asked).await;
    scene.replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_comes_byte_by_byte_is_read_all_the_same() {
    let scene = Scene::open(&[]).await;
    scene.proxy.order(Box::new(|frame| Action::Send(frame.bytes.iter().map(|byte| vec![*byte]).collect())));
    let kinds = b"BRIUDTMC";
    let before = kinds.map(|kind| scene.proxy.passed(kind));
    for statements in [
        "INSERT INTO items VALUES ('a', 'one', 'two'), ('b', NULL, '')",
        "BEGIN; UPDATE items SET title = 'three' WHERE id = 'a'; UPDATE items SET id = 'c' WHERE id = 'b'; COMMIT",
        "BEGIN; INSERT INTO habits VALUES ('h', 'ada'); INSERT INTO completions VALUES ('k', 'h'); COMMIT",
        "BEGIN; DELETE FROM items WHERE id = 'a'; SELECT pg_logical_emit_message(true, 'other', 'text'); COMMIT",
        "BEGIN; TRUNCATE completions; INSERT INTO completions VALUES ('l', 'h'); COMMIT",
    ] {
        scene.client.batch_execute(statements).await.expect(statements);
        scene.assert_equal(statements).await;
    }
    for (kind, before) in kinds.iter().zip(before) {
        assert!(scene.proxy.passed(*kind) > before, "a message of kind {}", char::from(*kind));
    }
    assert_eq!(scene.replica.status.snapshot().last_error, None);
    assert_eq!(scene.proxy.passed(b'W'), 1, "one stream for all of it");
    scene.replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_falls_silent_is_left() {
    Scene::survives_silence("silence in a transaction", once(b'I', 5, |_| Action::Silence)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_length_that_swallows_what_follows_is_taken_for_silence() {
    let fault = once(b'I', 5, |frame| with_length(frame, 512 << 20));
    Scene::survives_silence("a length of half a gigabyte", fault).await;
}
