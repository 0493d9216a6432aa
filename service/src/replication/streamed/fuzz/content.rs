//! Tables, rows and changes, made up.

use bytes::Bytes;

use crate::{
    fuzz::Random,
    lsn::Lsn,
    postgres::pgoutput::{
        Delete, IdentitySetting, Insert, LogicalMessage, Message, OldTuple, Relation, RelationColumn, Truncate, Tuple,
        TupleValue, Update,
    },
};

/// A description that differs from all others of the table.
pub(super) fn relation(random: &mut Random, oid: u32) -> Relation {
    use IdentitySetting::{Default, Full, Index, Nothing};
    let column = |random: &mut Random, number: usize| RelationColumn {
        is_identity: random.chance(40),
        name: format!("column {number} {:x}", random.next()),
        type_oid: *random.pick(&[25, 23, 1184, 16_399]),
    };
    let columns = (0..random.below(6)).map(|number| column(random, number)).collect();
    let schema = random.text(&["public", "pg_catalog", "Schéma"]).to_owned();
    let identity = *random.pick(&[Default, Nothing, Full, Index]);
    Relation { oid, schema, name: format!("table {:x}", random.next()), identity, columns }
}

/// A change of one of these tables, or of several.
pub(super) fn change(random: &mut Random, tables: &[&Relation]) -> Message {
    let (relation, width) = {
        let table = random.pick(tables);
        (table.oid, table.columns.len())
    };
    match random.below(9) {
        0..=4 => Message::Insert(Insert { relation, new: tuple(random, width, false) }),
        5 | 6 => {
            let old = if random.chance(50) { None } else { Some(old(random, width)) };
            Message::Update(Update { relation, old, new: tuple(random, width, true) })
        }
        7 => Message::Delete(Delete { relation, old: old(random, width) }),
        _ => {
            let count = random.below(tables.len() + 1);
            Message::Truncate(Truncate { relations: tables.iter().take(count).map(|table| table.oid).collect() })
        }
    }
}

pub(super) fn logical_message(random: &mut Random, lsn: Lsn, is_transactional: bool) -> Message {
    let prefix = random.text(&["kairos", "other", ""]).to_owned();
    Message::Logical(LogicalMessage { is_transactional, lsn, prefix, content: text(random) })
}

fn old(random: &mut Random, width: usize) -> OldTuple {
    let tuple = tuple(random, width, false);
    if random.chance(50) { OldTuple::Key(tuple) } else { OldTuple::Full(tuple) }
}

fn tuple(random: &mut Random, width: usize, may_be_unchanged: bool) -> Tuple {
    let value = |random: &mut Random| match random.below(6) {
        0 => TupleValue::Null,
        1 if may_be_unchanged => TupleValue::Unchanged,
        _ => TupleValue::Text(text(random)),
    };
    Tuple((0..width).map(|_| value(random)).collect())
}

fn text(random: &mut Random) -> Bytes {
    let length = *random.pick(&[0, 1, 3, 20, 20, 300]);
    (0..length).map(|_| random.next().to_be_bytes()[0]).collect()
}
