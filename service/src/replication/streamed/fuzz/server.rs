//! A made-up server: what it sends, and what must arrive of it.
//!
//! It keeps the promises of a real one: a table is described before its first change, to each streamed transaction
//! anew, and again after it was altered; what a rolled back transaction altered is as before.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    content,
    encode::{self, CLOCK},
};
use crate::{
    fuzz::Random,
    lsn::Lsn,
    postgres::pgoutput::{Begin, Commit, Message, PartStart, Relation, StreamAbort, StreamCommit, time_of},
};

/// Transactions that are streamed at a time.
const OPEN_MAX: usize = 4;
/// What the follower is to get.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Delivery {
    Message {
        message: Message,
        /// Descriptions that are in force, of the tables it names.
        described: Vec<Option<Relation>>,
    },
    Position {
        position: Lsn,
        is_urgent: bool,
    },
}

/// A message of the wire protocol, and what is to arrive once it has been read.
pub(super) struct Sent {
    pub(super) frame: Vec<u8>,
    pub(super) delivers: Vec<Delivery>,
}

/// Tables that a message names.
pub(super) fn tables_of(message: &Message) -> Vec<u32> {
    match message {
        Message::Insert(insert) => vec![insert.relation],
        Message::Update(update) => vec![update.relation],
        Message::Delete(delete) => vec![delete.relation],
        Message::Truncate(truncate) => truncate.relations.clone(),
        _ => Vec::new(),
    }
}

/// What is sent in `steps` steps.
pub(super) fn sent(random: &mut Random, steps: usize) -> Vec<Sent> {
    let tables = (0..3).map(|number| Table::described_as(content::relation(random, 16_400 + number))).collect();
    let mut server = Server { random, tables, open: BTreeMap::new(), xid: 700, lsn: 1 << 24, sent: Vec::new() };
    for _ in 0..steps {
        server.step();
    }
    server.sent
}

struct Table {
    description: Relation,
    is_described: bool,
    /// Streamed transactions that it was described to.
    described_to: BTreeSet<u32>,
}

impl Table {
    fn described_as(description: Relation) -> Self {
        Self { description, is_described: false, described_to: BTreeSet::new() }
    }
}

/// A streamed transaction that has not ended.
#[derive(Default)]
struct Open {
    /// Those that run or were released. A number that was rolled back does not come again.
    subtransactions: Vec<u32>,
    /// By subtransaction.
    changes: Vec<(u32, Delivery)>,
    /// Descriptions of tables before it altered them, and the subtransaction that did.
    altered: Vec<(u32, usize, Relation)>,
}

struct Server<'r> {
    random: &'r mut Random,
    tables: Vec<Table>,
    open: BTreeMap<u32, Open>,
    xid: u32,
    lsn: u64,
    sent: Vec<Sent>,
}

/// Where a change is made.
#[derive(Clone, Copy)]
enum Place {
    Whole,
    Part { xid: u32, subxid: u32 },
}

impl Place {
    /// As the message names it.
    fn named(self) -> Option<u32> {
        match self {
            Self::Whole => None,
            Self::Part { subxid, .. } => Some(subxid),
        }
    }
}

impl Server<'_> {
    fn step(&mut self) {
        match self.random.below(12) {
            0..=2 => self.whole_transaction(),
            3..=6 => self.part(),
            7 => self.stream_commit(),
            8 => self.stream_abort(),
            9 => self.keepalive(true),
            10 => {
                let message = content::logical_message(self.random, Lsn::new(self.lsn), false);
                self.send(&message, None, vec![Delivery::Message { message: message.clone(), described: vec![] }]);
            }
            // The publication has other columns of a table now, whoever is writing to it.
            _ => {
                let table = self.random.below(self.tables.len());
                self.describe_anew(table);
            }
        }
        if self.random.chance(10) {
            let aside = [encode::frame(b'N', b"SNOTICE\0Mnothing\0\0"), encode::frame(b'S', b"TimeZone\0UTC\0")];
            let frame = self.random.pick(&aside).clone();
            self.sent.push(Sent { frame, delivers: Vec::new() });
        }
    }

    fn send(&mut self, message: &Message, xid: Option<u32>, delivers: Vec<Delivery>) {
        let payload = encode::message(message, xid);
        self.send_payload(&payload, delivers);
    }

    fn send_payload(&mut self, payload: &[u8], delivers: Vec<Delivery>) {
        self.lsn += 64;
        self.sent.push(Sent { frame: encode::wal(self.lsn, payload), delivers });
    }

    fn keepalive(&mut self, is_between_parts: bool) {
        let is_urgent = self.random.chance(30);
        let position = Lsn::new(self.lsn);
        let delivers = if is_between_parts { vec![Delivery::Position { position, is_urgent }] } else { Vec::new() };
        self.sent.push(Sent { frame: encode::keepalive(self.lsn, is_urgent), delivers });
    }

    fn next_xid(&mut self) -> u32 {
        self.xid += 1;
        self.xid
    }

    fn next_commit(&mut self) -> Commit {
        self.lsn += 64;
        let (commit_lsn, end_lsn) = (Lsn::new(self.lsn), Lsn::new(self.lsn + 48));
        Commit { commit_lsn, end_lsn, committed_at: time_of(CLOCK) }
    }

    /// The transaction itself, a subtransaction of it, or a new one.
    fn subtransaction(&mut self, xid: u32) -> u32 {
        let new = self.next_xid();
        let known = &mut self.open.get_mut(&xid).expect("it is open").subtransactions;
        match self.random.below(3) {
            0 => xid,
            1 if !known.is_empty() => *self.random.pick(known),
            _ => {
                known.push(new);
                new
            }
        }
    }

    fn whole_transaction(&mut self) {
        let (xid, commit) = (self.next_xid(), self.next_commit());
        let begin = Message::Begin(Begin { commit_lsn: commit.commit_lsn, xid });
        self.send(&begin, None, vec![plain(begin.clone())]);
        if self.random.chance(10) {
            self.send_payload(&encode::origin("elsewhere"), Vec::new());
        }
        for _ in 0..self.random.below(5) {
            let delivery = self.describe_and_send(Place::Whole);
            self.sent.last_mut().expect("a change").delivers.push(delivery);
            if self.random.chance(5) {
                self.keepalive(true);
            }
        }
        let commit = Message::Commit(commit);
        self.send(&commit, None, vec![plain(commit.clone())]);
    }

    /// Sends a change, with the description it needs.
    fn describe_and_send(&mut self, place: Place) -> Delivery {
        let message = if self.random.chance(10) {
            content::logical_message(self.random, Lsn::new(self.lsn), true)
        } else {
            let tables: Vec<_> = self.tables.iter().map(|table| &table.description).collect();
            content::change(self.random, &tables)
        };
        for oid in tables_of(&message) {
            self.describe(self.table(oid), place);
        }
        self.send(&message, place.named(), Vec::new());
        let descriptions = tables_of(&message).into_iter().map(|oid| Some(self.description(oid))).collect();
        Delivery::Message { message, described: descriptions }
    }

    fn table(&self, oid: u32) -> usize {
        self.tables.iter().position(|table| table.description.oid == oid).expect("a table of ours")
    }

    fn description(&self, oid: u32) -> Relation {
        self.tables[self.table(oid)].description.clone()
    }

    fn describe(&mut self, table: usize, place: Place) {
        let known = &mut self.tables[table];
        let is_news = match place {
            Place::Whole => !std::mem::replace(&mut known.is_described, true),
            Place::Part { xid, .. } => known.described_to.insert(xid),
        };
        if is_news {
            let description = Message::Relation(known.description.clone());
            if self.random.chance(30) {
                self.send_payload(&encode::own_type(16_399, place.named()), Vec::new());
            }
            self.send(&description, place.named(), Vec::new());
        }
    }

    fn describe_anew(&mut self, table: usize) {
        let oid = self.tables[table].description.oid;
        self.tables[table] = Table::described_as(content::relation(self.random, oid));
    }

    fn part(&mut self) {
        let running: Vec<_> = self.open.keys().copied().collect();
        let xid = if running.is_empty() || (running.len() < OPEN_MAX && self.random.chance(40)) {
            self.next_xid()
        } else {
            *self.random.pick(&running)
        };
        self.open.entry(xid).or_default();
        self.send(&Message::PartStart(PartStart { xid }), None, Vec::new());
        if self.random.chance(10) {
            self.send_payload(&encode::origin("elsewhere"), Vec::new());
        }
        for _ in 0..self.random.below(7) {
            let subxid = self.subtransaction(xid);
            if self.random.chance(10) {
                self.alter_within(xid, subxid);
            }
            let delivery = self.describe_and_send(Place::Part { xid, subxid });
            self.open.get_mut(&xid).expect("it is open").changes.push((subxid, delivery));
            if self.random.chance(5) {
                self.keepalive(false);
            }
        }
        self.send(&Message::PartStop, None, Vec::new());
    }

    /// A transaction alters a table, which has it locked: nobody else is writing to it.
    fn alter_within(&mut self, xid: u32, subxid: u32) {
        let table = self.random.below(self.tables.len());
        let oid = self.tables[table].description.oid;
        let uses = |open: &Open| {
            open.altered.iter().any(|(_, altered, _)| *altered == table)
                || open.changes.iter().any(|(_, change)| match change {
                    Delivery::Message { message, .. } => tables_of(message).contains(&oid),
                    Delivery::Position { .. } => false,
                })
        };
        if self.open.iter().any(|(other, open)| *other != xid && uses(open)) {
            return;
        }
        let before = self.tables[table].description.clone();
        self.describe_anew(table);
        self.open.get_mut(&xid).expect("it is open").altered.push((subxid, table, before));
    }

    fn any_open(&mut self) -> Option<u32> {
        let running: Vec<_> = self.open.keys().copied().collect();
        if running.is_empty() { None } else { Some(*self.random.pick(&running)) }
    }

    fn stream_commit(&mut self) {
        let Some(xid) = self.any_open() else { return };
        let (open, commit) = (self.open.remove(&xid).expect("it is open"), self.next_commit());
        for table in &mut self.tables {
            table.is_described |= table.described_to.remove(&xid);
        }
        let begin = Message::Begin(Begin { commit_lsn: commit.commit_lsn, xid });
        let changes = open.changes.into_iter().map(|(_, change)| change);
        let delivers = [plain(begin)].into_iter().chain(changes).chain([plain(Message::Commit(commit.clone()))]);
        self.send(&Message::StreamCommit(StreamCommit { xid, commit }), None, delivers.collect());
    }

    fn stream_abort(&mut self) {
        let Some(xid) = self.any_open() else { return };
        let subtransactions = &self.open[&xid].subtransactions;
        let subxid = if subtransactions.is_empty() { xid } else { *self.random.pick(subtransactions) };
        let is_gone = |of: u32| subxid == xid || of == subxid;
        let open = self.open.get_mut(&xid).expect("it is open");
        open.subtransactions.retain(|of| !is_gone(*of));
        open.changes.retain(|(of, _)| !is_gone(*of));
        // Undone backwards. What is left was altered before it.
        let undone: Vec<_> = open.altered.extract_if(.., |(of, _, _)| is_gone(*of)).collect();
        for (_, table, before) in undone.into_iter().rev() {
            self.tables[table] = Table::described_as(before);
        }
        if subxid == xid {
            self.open.remove(&xid);
            for table in &mut self.tables {
                table.described_to.remove(&xid);
            }
        }
        self.send(&Message::StreamAbort(StreamAbort { xid, subxid }), None, Vec::new());
    }
}

fn plain(message: Message) -> Delivery {
    Delivery::Message { message, described: Vec::new() }
}
