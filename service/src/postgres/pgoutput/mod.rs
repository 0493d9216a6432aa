//! The messages of the `pgoutput` plugin, protocol version 2: bytes in, messages out.
//!
//! Values stay slices of the received message; nothing is copied. One file per kind of message, named as the Postgres
//! manual names them ("Logical Replication Message Formats").
//!
//! A transaction that is large is *streamed*: sent in parts while it still runs. Between [`Message::PartStart`] and
//! [`Message::PartStop`] every change names the (sub)transaction it belongs to and is left undecoded, because it may
//! wait long for a commit that may never come.
//!
//! **Invariants**
//!
//! - Pure, and no input panics: a malformed message is a [`Malformed`], which ends the connection.
//! - Knows no catalog: relations are the numbers Postgres gives them.
//!
//! Start reading at [`Decoder`].

mod reader;
mod relation;
mod row;
mod streamed;
mod transaction;

use bytes::{Buf, Bytes, BytesMut};

pub use reader::Malformed;
use reader::Reader;
pub use relation::{IdentitySetting, Relation, RelationColumn};
pub use row::{Delete, Insert, OldTuple, Truncate, Tuple, TupleValue, Update};
pub use streamed::{PartStart, StreamAbort, StreamCommit, StreamedChange};
#[cfg(test)]
pub(crate) use transaction::time_of;
pub use transaction::{Begin, Commit, LogicalMessage};

use crate::lsn::Lsn;

/// One message of the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// A transaction begins; what follows up to its commit belongs to it.
    Begin(Begin),
    /// The transaction is complete.
    Commit(Commit),
    /// Describes a table; sent before its first change, and again after its definition changed.
    Relation(Relation),
    /// A new row.
    Insert(Insert),
    /// A changed row.
    Update(Update),
    /// A removed row.
    Delete(Delete),
    /// Emptied tables.
    Truncate(Truncate),
    /// Something written by `pg_logical_emit_message`.
    Logical(LogicalMessage),
    /// A part of a streamed transaction begins.
    PartStart(PartStart),
    /// The part ends.
    PartStop,
    /// A change in a part.
    Streamed(StreamedChange),
    /// A streamed transaction is complete.
    StreamCommit(StreamCommit),
    /// A streamed transaction, or part of it, was rolled back.
    StreamAbort(StreamAbort),
    /// A custom type, or the origin of a change: neither changes what is done.
    Ignored,
}

/// Takes the messages of a stream apart, in their order.
#[derive(Debug, Default)]
pub struct Decoder {
    place: Place,
}

/// Where in the stream the next message stands.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Neither in a transaction nor in a part of one.
    #[default]
    Between,
    /// In a transaction, the commit of which is here.
    Transaction(Lsn),
    /// In a part of a streamed transaction.
    Part,
}

impl Place {
    /// Where the message after this one stands. A message that may not stand here shows that others are missing, and to
    /// go on would be to lose them.
    fn after(self, message: &Message) -> Result<Self, Malformed> {
        match (message, self) {
            (Message::Begin(begin), Self::Between) => Ok(Self::Transaction(begin.commit_lsn)),
            (Message::Commit(commit), Self::Transaction(begun)) if commit.commit_lsn == begun => Ok(Self::Between),
            (Message::PartStart(_), Self::Between) => Ok(Self::Part),
            (Message::PartStop, Self::Part) => Ok(Self::Between),
            _ if self.has_room_for(message) => Ok(self),
            _ => Err(Malformed),
        }
    }

    /// Whether the message may stand here and leads nowhere else.
    fn has_room_for(self, message: &Message) -> bool {
        match message {
            Message::Insert(_) | Message::Update(_) | Message::Delete(_) | Message::Truncate(_) => {
                matches!(self, Self::Transaction(_))
            }
            Message::Relation(_) | Message::Logical(_) => self != Self::Part,
            Message::StreamCommit(_) | Message::StreamAbort(_) => self == Self::Between,
            Message::Streamed(_) => self == Self::Part,
            Message::Ignored => true,
            Message::Begin(_) | Message::Commit(_) | Message::PartStart(_) | Message::PartStop => false,
        }
    }
}

impl Decoder {
    /// Decodes the next message.
    ///
    /// # Errors
    /// [`Malformed`] when it is not what the manual describes, or stands where it may not.
    pub fn decode(&mut self, message: BytesMut) -> Result<Message, Malformed> {
        let kind = message.first().copied().ok_or(Malformed)?;
        let is_change_in_part = self.place == Place::Part && b"RYIUDTM".contains(&kind);
        let decoded = if is_change_in_part { streamed(message)? } else { decode(message.freeze())? };
        self.place = self.place.after(&decoded)?;
        Ok(decoded)
    }
}

/// A change in a part: behind its kind it names its transaction; without that it is an ordinary one.
fn streamed(mut message: BytesMut) -> Result<Message, Malformed> {
    const XID_BYTES: usize = 4;
    let kind = message[0];
    let xid = message[1..].first_chunk().copied().map(u32::from_be_bytes).ok_or(Malformed)?;
    message.advance(XID_BYTES);
    message[0] = kind;
    Ok(Message::Streamed(StreamedChange { xid, change: message.freeze() }))
}

/// Decodes one message that is not in a part of a streamed transaction, or has been taken out of it.
///
/// # Errors
/// [`Malformed`] when it is not what the manual describes.
pub fn decode(message: Bytes) -> Result<Message, Malformed> {
    let mut reader = Reader::new(message);
    let decoded = match reader.u8()? {
        b'B' => Message::Begin(Begin::read(&mut reader)?),
        b'C' => Message::Commit(Commit::read(&mut reader)?),
        b'R' => Message::Relation(Relation::read(&mut reader)?),
        b'I' => Message::Insert(Insert::read(&mut reader)?),
        b'U' => Message::Update(Update::read(&mut reader)?),
        b'D' => Message::Delete(Delete::read(&mut reader)?),
        b'T' => Message::Truncate(Truncate::read(&mut reader)?),
        b'M' => Message::Logical(LogicalMessage::read(&mut reader)?),
        b'S' => Message::PartStart(PartStart::read(&mut reader)?),
        b'E' => Message::PartStop,
        b'c' => Message::StreamCommit(StreamCommit::read(&mut reader)?),
        b'A' => Message::StreamAbort(StreamAbort::read(&mut reader)?),
        b'Y' | b'O' => return Ok(Message::Ignored),
        _ => return Err(Malformed),
    };
    reader.end()?;
    Ok(decoded)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_update_keeps_null_and_unchanged_apart() {
        let bytes = Bytes::from_static(b"U\0\0\0\x07N\0\x03nut\0\0\0\x02hi");
        let expected = Update {
            relation: 7,
            old: None,
            new: Tuple(vec![TupleValue::Null, TupleValue::Unchanged, TupleValue::Text(Bytes::from_static(b"hi"))]),
        };
        assert_eq!(decode(bytes), Ok(Message::Update(expected)));
    }

    #[test]
    fn a_key_change_carries_the_old_key() {
        let bytes = Bytes::from_static(b"U\0\0\0\x07K\0\x01t\0\0\0\x011N\0\x01t\0\0\0\x012");
        let Ok(Message::Update(update)) = decode(bytes) else { panic!("an update") };
        assert_eq!(update.old, Some(OldTuple::Key(Tuple(vec![TupleValue::Text(Bytes::from_static(b"1"))]))));
    }

    #[test]
    fn a_message_with_anything_after_its_end_is_refused() {
        assert!(decode(Bytes::from_static(b"T\0\0\0\x01\0\0\0\0\x07")).is_ok());
        assert_eq!(decode(Bytes::from_static(b"T\0\0\0\x01\0\0\0\0\x07\0")), Err(Malformed));
    }

    #[test]
    fn changes_in_parts_name_their_transaction_and_are_ordinary_messages_otherwise() {
        let mut decoder = Decoder::default();
        let mut next = |bytes: &[u8]| decoder.decode(bytes.into());
        assert_eq!(next(b"S\0\0\0\x09\x01"), Ok(Message::PartStart(PartStart { xid: 9 })));
        let Ok(Message::Streamed(StreamedChange { xid: 10, change })) = next(b"T\0\0\0\x0a\0\0\0\x01\0\0\0\0\x07")
        else {
            panic!("a change of a subtransaction")
        };
        assert_eq!(decode(change), Ok(Message::Truncate(Truncate { relations: vec![7] })));
        assert_eq!(next(b"I\0\0"), Err(Malformed), "no room for a transaction");
        assert_eq!(next(b"E"), Ok(Message::PartStop));
        assert_eq!(next(b"E"), Err(Malformed), "none has begun");
        let abort = StreamAbort { xid: 9, subxid: 10 };
        assert_eq!(next(b"A\0\0\0\x09\0\0\0\x0a"), Ok(Message::StreamAbort(abort)));
    }

    #[test]
    fn messages_stand_only_where_they_may() {
        const BEGIN: &[u8] = b"B\0\0\0\0\0\0\0\x07\0\0\0\0\0\0\0\0\0\0\0\x01";
        const COMMIT: &[u8] = b"C\0\0\0\0\0\0\0\0\x07\0\0\0\0\0\0\0\x08\0\0\0\0\0\0\0\0";
        const OTHER_COMMIT: &[u8] = b"C\0\0\0\0\0\0\0\0\x08\0\0\0\0\0\0\0\x09\0\0\0\0\0\0\0\0";
        const CHANGE: &[u8] = b"T\0\0\0\x01\0\0\0\0\x07";
        const PARTS: [&[u8]; 3] = [b"S\0\0\0\x09\x01", b"E", b"A\0\0\0\x09\0\0\0\x09"];
        let [part, part_stop, abort] = PARTS;
        let is_read = |messages: &[&[u8]]| {
            let mut decoder = Decoder::default();
            messages.iter().all(|message| decoder.decode((*message).into()).is_ok())
        };
        assert!(is_read(&[BEGIN, CHANGE, COMMIT, part, part_stop, BEGIN, COMMIT, part, part_stop, abort]));
        for misplaced in [
            &[CHANGE][..],
            &[COMMIT],
            &[BEGIN, BEGIN],
            &[BEGIN, CHANGE, OTHER_COMMIT],
            &[BEGIN, COMMIT, COMMIT],
            &[BEGIN, part],
            &[BEGIN, abort],
            &[part, BEGIN],
            &[part, part],
            &[part, abort],
            &[part_stop],
        ] {
            assert!(!is_read(misplaced), "{misplaced:?}");
        }
    }

    proptest! {
        #[test]
        fn no_message_panics(
            messages in prop::collection::vec((prop::sample::select(b"BCRIUDTMYOSEcA?".to_vec()), any::<Vec<u8>>()), 1..4)
        ) {
            let mut decoder = Decoder::default();
            for (kind, body) in messages {
                let mut message = vec![kind];
                message.extend(body);
                let _ = decoder.decode(message.as_slice().into());
                let _ = decode(message.into());
            }
        }

        #[test]
        fn no_truncated_message_is_accepted(values in prop::collection::vec(prop::option::of("[a-z]{0,9}"), 1..6)) {
            let mut message = b"I\0\0\0\x01N".to_vec();
            message.extend(u16::try_from(values.len()).expect("few").to_be_bytes());
            for value in &values {
                match value {
                    None => message.push(b'n'),
                    Some(text) => {
                        message.push(b't');
                        message.extend(u32::try_from(text.len()).expect("short").to_be_bytes());
                        message.extend(text.as_bytes());
                    }
                }
            }
            prop_assert!(decode(message.clone().into()).is_ok());
            for length in 0..message.len() {
                prop_assert_eq!(decode(message[..length].to_vec().into()), Err(Malformed));
            }
        }
    }
}
