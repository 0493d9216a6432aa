//! Lines of COPY: what a server writes comes out as it went in, anything else does no harm.

use bytes::Bytes;

use super::{LineBuffer, fields};
use crate::fuzz::{Random, bounded, run};

type Row = Vec<Option<Vec<u8>>>;

/// Bytes that mean something, or once did.
const SIGNS: &[u8] = b"\\\t\n\rNbfnrtv.\x08\x0B\x0C\0\xFFx7";

fn value(random: &mut Random) -> Vec<u8> {
    let length = *random.pick(&[0, 1, 2, 5, 5, 40, 2000]);
    (0..length).map(|_| if random.chance(60) { *random.pick(SIGNS) } else { random.next().to_be_bytes()[0] }).collect()
}

fn rows(random: &mut Random) -> Vec<Row> {
    let width = 1 + random.below(6);
    let row =
        |random: &mut Random| (0..width).map(|_| if random.chance(20) { None } else { Some(value(random)) }).collect();
    (0..random.below(8)).map(|_| row(random)).collect()
}

/// As the manual of COPY describes the text format.
fn written(rows: &[Row]) -> Vec<u8> {
    let mut text = Vec::new();
    for row in rows {
        for (column, value) in row.iter().enumerate() {
            if column > 0 {
                text.push(b'\t');
            }
            let Some(value) = value else {
                text.extend_from_slice(b"\\N");
                continue;
            };
            for byte in value {
                match byte {
                    b'\\' => text.extend_from_slice(b"\\\\"),
                    0x08 => text.extend_from_slice(b"\\b"),
                    0x0B => text.extend_from_slice(b"\\v"),
                    0x0C => text.extend_from_slice(b"\\f"),
                    b'\t' => text.extend_from_slice(b"\\t"),
                    b'\n' => text.extend_from_slice(b"\\n"),
                    b'\r' => text.extend_from_slice(b"\\r"),
                    other => text.push(*other),
                }
            }
        }
        text.push(b'\n');
    }
    text
}

/// The rows in a text that comes in chunks.
fn read(text: &[u8], random: &mut Random) -> Vec<Row> {
    let chunk_bytes_max = *random.pick(&[1, 5, 100, text.len().max(1)]);
    bounded(text.len(), || {
        let (mut buffer, mut rows, mut rest) = (LineBuffer::default(), Vec::new(), text);
        while !rest.is_empty() {
            let (chunk, after) = rest.split_at((1 + random.below(chunk_bytes_max)).min(rest.len()));
            buffer.push(Bytes::copy_from_slice(chunk));
            while let Some(line) = buffer.next_line() {
                rows.push(fields(&line).map(|field| field.map(std::borrow::Cow::into_owned)).collect());
            }
            rest = after;
        }
        rows
    })
}

#[test]
fn rows_come_out_as_they_were_written() {
    let input = |random: &mut Random| written(&rows(random));
    run("copy", &input, &|text: &Vec<u8>, random| {
        let found = read(text, random);
        assert_eq!(written(&found), *text);
        true
    });
}

#[test]
fn lines_that_no_server_writes_do_no_harm() {
    let input = |random: &mut Random| {
        let mut text = written(&rows(random));
        for _ in 0..=random.below(8) {
            let at = random.below(text.len() + 1);
            match random.below(4) {
                0 => text.insert(at, *random.pick(SIGNS)),
                1 => text.truncate(at),
                2 if at < text.len() => text[at] ^= 1 << random.below(8),
                _ => drop(text.drain(at..(at + random.below(4)).min(text.len()))),
            }
        }
        text
    };
    run("copy-faults", &input, &|text: &Vec<u8>, random| {
        let found = read(text, random);
        assert_eq!(found.len(), text.split(|byte| *byte == b'\n').count() - 1, "a row for each whole line");
        true
    });
}
