//! Messages to bytes, as the Postgres manual describes them. Shares nothing with what reads them.

use bytes::BufMut;

use crate::postgres::pgoutput::{
    Commit, IdentitySetting, Message, OldTuple, Relation, StreamAbort, StreamCommit, Tuple, TupleValue,
};

/// Microseconds since 2000: nobody reads it.
pub(super) const CLOCK: i64 = 846_000_000_000_000;

/// A message of the wire protocol.
pub(super) fn frame(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut frame = vec![tag];
    frame.put_i32(i32::try_from(body.len() + 4).expect("a short message"));
    frame.put_slice(body);
    frame
}

/// A part of the stream.
pub(super) fn wal(lsn: u64, payload: &[u8]) -> Vec<u8> {
    let mut body = vec![b'w'];
    body.put_u64(lsn);
    body.put_u64(lsn);
    body.put_i64(CLOCK);
    body.put_slice(payload);
    frame(b'd', &body)
}

pub(super) fn keepalive(lsn: u64, is_urgent: bool) -> Vec<u8> {
    let mut body = vec![b'k'];
    body.put_u64(lsn);
    body.put_i64(CLOCK);
    body.put_u8(is_urgent.into());
    frame(b'd', &body)
}

/// The origin of a transaction.
pub(super) fn origin(name: &str) -> Vec<u8> {
    let mut bytes = vec![b'O'];
    bytes.put_u64(1);
    put_text(&mut bytes, name);
    bytes
}

/// A type that is not built in. Within a part it names the transaction.
pub(super) fn own_type(oid: u32, xid: Option<u32>) -> Vec<u8> {
    let mut bytes = vec![b'Y'];
    bytes.extend(xid.unwrap_or_default().to_be_bytes().into_iter().take(if xid.is_some() { 4 } else { 0 }));
    bytes.put_u32(oid);
    put_text(&mut bytes, "public");
    put_text(&mut bytes, "mood");
    bytes
}

/// A message of the publication. A change within a part names its transaction.
pub(super) fn message(message: &Message, xid: Option<u32>) -> Vec<u8> {
    let (kind, body) = body(message);
    let mut bytes = vec![kind];
    if let Some(xid) = xid {
        bytes.put_u32(xid);
    }
    bytes.put_slice(&body);
    bytes
}

fn body(message: &Message) -> (u8, Vec<u8>) {
    let mut body = Vec::new();
    let kind = match message {
        Message::Begin(begin) => {
            body.put_u64(begin.commit_lsn.get());
            body.put_i64(CLOCK);
            body.put_u32(begin.xid);
            b'B'
        }
        Message::Commit(commit) => {
            put_commit(&mut body, commit);
            b'C'
        }
        Message::Relation(relation) => {
            put_relation(&mut body, relation);
            b'R'
        }
        Message::Insert(insert) => {
            body.put_u32(insert.relation);
            put_tuple(&mut body, b'N', &insert.new);
            b'I'
        }
        Message::Update(update) => {
            body.put_u32(update.relation);
            if let Some(old) = &update.old {
                put_old(&mut body, old);
            }
            put_tuple(&mut body, b'N', &update.new);
            b'U'
        }
        Message::Delete(delete) => {
            body.put_u32(delete.relation);
            put_old(&mut body, &delete.old);
            b'D'
        }
        Message::Truncate(truncate) => {
            body.put_u32(u32::try_from(truncate.relations.len()).expect("few"));
            body.put_u8(3);
            truncate.relations.iter().for_each(|oid| body.put_u32(*oid));
            b'T'
        }
        Message::Logical(logical) => {
            body.put_u8(logical.is_transactional.into());
            body.put_u64(logical.lsn.get());
            put_text(&mut body, &logical.prefix);
            put_sized(&mut body, &logical.content);
            b'M'
        }
        Message::PartStart(start) => {
            body.put_u32(start.xid);
            body.put_u8(1);
            b'S'
        }
        Message::PartStop => b'E',
        Message::StreamCommit(StreamCommit { xid, commit }) => {
            body.put_u32(*xid);
            put_commit(&mut body, commit);
            b'c'
        }
        Message::StreamAbort(StreamAbort { xid, subxid }) => {
            body.put_u32(*xid);
            body.put_u32(*subxid);
            b'A'
        }
        Message::Streamed(_) | Message::Ignored => unreachable!("these are made in another way"),
    };
    (kind, body)
}

fn put_commit(body: &mut Vec<u8>, commit: &Commit) {
    body.put_u8(0);
    body.put_u64(commit.commit_lsn.get());
    body.put_u64(commit.end_lsn.get());
    body.put_i64(CLOCK);
}

fn put_relation(body: &mut Vec<u8>, relation: &Relation) {
    body.put_u32(relation.oid);
    put_text(body, if relation.schema == "pg_catalog" { "" } else { &relation.schema });
    put_text(body, &relation.name);
    body.put_u8(match relation.identity {
        IdentitySetting::Default => b'd',
        IdentitySetting::Nothing => b'n',
        IdentitySetting::Full => b'f',
        IdentitySetting::Index => b'i',
    });
    body.put_u16(u16::try_from(relation.columns.len()).expect("few"));
    for column in &relation.columns {
        body.put_u8(column.is_identity.into());
        put_text(body, &column.name);
        body.put_u32(column.type_oid);
        body.put_i32(-1);
    }
}

fn put_old(body: &mut Vec<u8>, old: &OldTuple) {
    match old {
        OldTuple::Key(tuple) => put_tuple(body, b'K', tuple),
        OldTuple::Full(tuple) => put_tuple(body, b'O', tuple),
    }
}

fn put_tuple(body: &mut Vec<u8>, marker: u8, Tuple(values): &Tuple) {
    body.put_u8(marker);
    body.put_u16(u16::try_from(values.len()).expect("few"));
    for value in values {
        match value {
            TupleValue::Null => body.put_u8(b'n'),
            TupleValue::Unchanged => body.put_u8(b'u'),
            TupleValue::Text(text) => {
                body.put_u8(b't');
                put_sized(body, text);
            }
        }
    }
}

fn put_text(body: &mut Vec<u8>, text: &str) {
    body.put_slice(text.as_bytes());
    body.put_u8(0);
}

fn put_sized(body: &mut Vec<u8>, bytes: &[u8]) {
    body.put_u32(u32::try_from(bytes.len()).expect("short"));
    body.put_slice(bytes);
}
