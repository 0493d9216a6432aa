//! Streams of all kinds, from the socket to the follower.
//!
//! A made-up [`server`], with made-up [`content`], says what must arrive; [`mutate`] brings in faults. Whatever comes: no panic, no memory out of
//! proportion, whole transactions only, the error has a code, and nothing is delivered after it. What was sent before
//! the first fault is delivered as it was meant.

mod content;
mod encode;
mod mutate;
mod server;

use std::{collections::HashMap, convert::Infallible, future::pending, sync::LazyLock, time::Duration};

use tokio::{io::AsyncWriteExt, net::UnixStream, runtime, task::yield_now, time::timeout};

use self::server::{Delivery, Sent, tables_of};
use super::{Inbox, Incoming};
use crate::{
    fuzz::{Random, bounded, recorded, run},
    lsn::Lsn,
    metrics::Metrics,
    postgres::{
        pgoutput::{Commit, Message, PartStart, Relation, StreamCommit, time_of},
        wal_stream::{StreamLimits, WalStream, read_socket},
    },
    replication::status::ReplicationStatus,
};

/// Only a reader that hangs takes so long.
const DEADLINE: Duration = Duration::from_mins(1);

/// What is sent, and what must arrive.
struct Input {
    bytes: Vec<u8>,
    /// Of what was sent before the first fault.
    expected: Vec<Delivery>,
    has_fault: bool,
}

impl AsRef<[u8]> for Input {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Input {
    fn intact(sent: Vec<Sent>) -> Self {
        let bytes = sent.iter().flat_map(|sent| sent.frame.iter().copied()).collect();
        Self { bytes, expected: sent.into_iter().flat_map(|sent| sent.delivers).collect(), has_fault: false }
    }

    fn faulty(random: &mut Random, sent: Vec<Sent>) -> Self {
        let (mut frames, deliveries): (Vec<_>, Vec<_>) =
            sent.into_iter().map(|sent| (sent.frame, sent.delivers)).unzip();
        let intact = mutate::mutate(random, &mut frames);
        let expected = deliveries.into_iter().take(intact).flatten().collect();
        Self { bytes: frames.concat(), expected, has_fault: true }
    }
}

/// Sends the bytes in pieces and gives what arrives, and the code of the error in the end.
fn received(bytes: &[u8], random: &mut Random) -> (Vec<Delivery>, &'static str) {
    static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::new);
    LazyLock::force(&METRICS);
    let runtime = runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let limits = StreamLimits { messages: 1 + random.below(600), bytes: *random.pick(&[1, 40, 500, 1 << 20]) };
    let memory_max = *random.pick(&[0, 100, 1000, super::MEMORY_MAX]);
    let piece_bytes_max = *random.pick(&[1 + bytes.len() / 500, 100, 5000, 1 << 20]);
    let (status, folder) = (ReplicationStatus::default(), std::env::temp_dir());
    bounded(bytes.len(), || {
        runtime.block_on(async {
            let (mut ours, theirs) = UnixStream::pair().expect("a pair of sockets");
            let (WalStream { events, durable: _durable }, _handle) = read_socket(theirs, limits);
            let mut inbox = Inbox::new(events, &METRICS, &status, &folder);
            inbox.memory_max = memory_max;
            let received = async {
                tokio::select! {
                    received = drain(&mut inbox) => received,
                    never = send(&mut ours, bytes, piece_bytes_max, random) => match never {},
                }
            };
            timeout(DEADLINE, received).await.expect("it does not hang")
        })
    })
}

/// Sends the bytes in pieces, and their end.
async fn send(to: &mut UnixStream, mut bytes: &[u8], piece_bytes_max: usize, random: &mut Random) -> Infallible {
    while !bytes.is_empty() {
        let (piece, after) = bytes.split_at((1 + random.below(piece_bytes_max)).min(bytes.len()));
        if to.write_all(piece).await.is_err() {
            // The reader has left.
            break;
        }
        yield_now().await;
        bytes = after;
    }
    let _ = to.shutdown().await;
    pending().await
}

/// What arrives up to the error, and its code.
async fn drain(inbox: &mut Inbox<'_>) -> (Vec<Delivery>, &'static str) {
    let (mut delivered, mut described) = (Vec::new(), HashMap::<u32, Relation>::new());
    loop {
        match inbox.recv().await.expect("an error says why it ends") {
            Ok(Incoming::Message(Message::Relation(relation))) => drop(described.insert(relation.oid, relation)),
            Ok(Incoming::Message(message)) => {
                let described = tables_of(&message).iter().map(|oid| described.get(oid).cloned()).collect();
                delivered.push(Delivery::Message { message, described });
            }
            Ok(Incoming::Position { position, is_urgent }) => {
                delivered.push(Delivery::Position { position, is_urgent });
            }
            Ok(Incoming::Kept) => {}
            Err(error) => {
                assert!(inbox.recv().await.is_none(), "something comes after {error}");
                return (delivered, error.code());
            }
        }
    }
}

/// Whether transactions begin and end one after the other, and changes are in one.
fn assert_whole_transactions(delivered: &[Delivery]) {
    let mut within: Option<Lsn> = None;
    for delivery in delivered {
        let Delivery::Message { message, .. } = delivery else { continue };
        match message {
            Message::Begin(begin) => {
                assert_eq!(within, None, "{delivery:?}");
                within = Some(begin.commit_lsn);
            }
            Message::Commit(commit) => assert_eq!(within.take(), Some(commit.commit_lsn), "{delivery:?}"),
            Message::Insert(_) | Message::Update(_) | Message::Delete(_) | Message::Truncate(_) => {
                assert!(within.is_some(), "{delivery:?}");
            }
            Message::Logical(_) => {}
            other => panic!("the follower knows no {other:?}"),
        }
    }
}

/// Whether the stream was read to its end.
fn check(input: &Input, random: &mut Random) -> bool {
    let (delivered, code) = received(&input.bytes, random);
    assert_whole_transactions(&delivered);
    assert!(["PG-0109", "PG-0110", "PG-0112", "PG-0113"].contains(&code), "{code}");
    let differs = (0..input.expected.len()).find(|place| delivered.get(*place) != input.expected.get(*place));
    if let Some(place) = differs {
        let (found, expected) = (delivered.get(place), &input.expected[place]);
        panic!("{place} arrived, then comes {found:#?} in place of {expected:#?}; in the end {code}");
    }
    if !input.has_fault {
        assert_eq!((delivered.len(), code), (input.expected.len(), "PG-0110"), "the end of the connection");
    }
    code == "PG-0110"
}

#[test]
fn what_a_server_sends_arrives_as_it_was_meant() {
    let input = |random: &mut Random| {
        let steps = *random.pick(&[5, 30, 30, 100]);
        Input::intact(server::sent(random, steps))
    };
    run("stream", &input, &check);
}

#[test]
fn a_stream_with_faults_is_left_at_the_first() {
    let input = |random: &mut Random| {
        let steps = *random.pick(&[3, 10, 40]);
        let sent = server::sent(random, steps);
        Input::faulty(random, sent)
    };
    run("stream-faults", &input, &check);
}

/// Of many changes of one kind in a row only the first few.
fn thinned(payloads: &[Vec<u8>]) -> Vec<Sent> {
    const IN_A_ROW_MAX: usize = 5;
    let (mut last, mut in_a_row, mut sent) = (0, 0, Vec::new());
    for (lsn, payload) in (0..).zip(payloads) {
        in_a_row = if payload[0] == last { in_a_row + 1 } else { 1 };
        last = payload[0];
        if in_a_row <= IN_A_ROW_MAX {
            sent.push(Sent { frame: encode::wal(lsn, payload), delivers: Vec::new() });
        }
    }
    sent
}

#[test]
fn the_commit_of_a_transaction_of_which_nothing_came_is_refused() {
    let commit =
        |at| Commit { commit_lsn: Lsn::new(at), end_lsn: Lsn::new(at + 8), committed_at: time_of(encode::CLOCK) };
    let messages = [
        Message::PartStart(PartStart { xid: 9 }),
        Message::PartStop,
        Message::StreamCommit(StreamCommit { xid: 9, commit: commit(100) }),
        Message::StreamCommit(StreamCommit { xid: 9, commit: commit(200) }),
    ];
    let frames = messages.map(|message| encode::wal(100, &encode::message(&message, None)));
    let (delivered, code) = received(&frames.concat(), &mut Random::new(1));
    assert_eq!((delivered.len(), code), (2, "PG-0112"), "{delivered:?}");
}

#[test]
fn what_a_real_server_sends_is_read_and_its_faults_are_survived() {
    let payloads = runtime::Runtime::new().expect("a runtime").block_on(recorded());
    let count = |kinds: &[u8]| payloads.iter().filter(|payload| kinds.contains(&payload[0])).count();
    for kind in b"BCRIUDTMYOSEcA" {
        assert!(count(&[*kind]) > 0, "nothing of kind {} was recorded", char::from(*kind));
    }
    let whole: Vec<_> = (0..).zip(&payloads).flat_map(|(lsn, payload)| encode::wal(lsn, payload)).collect();
    for bytes in [whole, Input::intact(thinned(&payloads)).bytes] {
        let (delivered, code) = received(&bytes, &mut Random::new(1));
        assert_eq!(code, "PG-0110", "it is read to its end");
        assert_whole_transactions(&delivered);
        let is_commit =
            |delivery: &&Delivery| matches!(delivery, Delivery::Message { message: Message::Commit(_), .. });
        assert_eq!(delivered.iter().filter(is_commit).count(), count(b"Cc"));
    }
    run("stream-recorded", &|random| Input::faulty(random, thinned(&payloads)), &check);
}
