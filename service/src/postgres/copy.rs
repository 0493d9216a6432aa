//! Reading a whole table by `COPY … TO STDOUT` in its text form.

use std::borrow::Cow;

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt};
use memchr::memchr;
use tokio_postgres::Client;

use crate::postgres::{
    catalog::Table,
    error::PgError,
    walsender::{quote_identifier, quote_literal},
};

/// What to read a table's rows from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heap {
    /// Pages of a heap: the table's own or a partition's; its name, quoted for SQL.
    Own(String),
    /// The table with all its partitions, at once.
    Whole,
}

/// The statement that copies the published columns and rows of a table: those in the pages from `first` up to but
/// without `end`, where `u32::MAX` stands for all that follow; of them, if `identities` are given, those that have these
/// values in the identifying columns.
pub fn copy_statement(table: &Table, heap: &Heap, first: u32, end: u32, identities: &[Vec<Bytes>]) -> String {
    let columns: Vec<_> = table.columns.iter().map(|column| quote_identifier(&column.name)).collect();
    let mut conditions: Vec<_> = table.row_filter.iter().map(|filter| format!("({filter})")).collect();
    if !identities.is_empty() {
        let names: Vec<_> = table.identity_columns().into_iter().map(|position| columns[position].as_str()).collect();
        let literals = |identity: &Vec<Bytes>| {
            let values: Vec<_> = identity.iter().map(|value| quote_literal(&String::from_utf8_lossy(value))).collect();
            format!("({})", values.join(", "))
        };
        let wanted: Vec<_> = identities.iter().map(literals).collect();
        conditions.push(format!("({}) IN ({})", names.join(", "), wanted.join(", ")));
    }
    let from = match heap {
        Heap::Own(name) => {
            if first > 0 {
                conditions.push(format!("ctid >= '({first},0)'"));
            }
            if end < u32::MAX {
                conditions.push(format!("ctid < '({end},0)'"));
            }
            // Rows of inheritance children are changes of the child in the stream.
            format!("ONLY {name}")
        }
        Heap::Whole => table.sql_name(),
    };
    let filter = if conditions.is_empty() { String::new() } else { format!(" WHERE {}", conditions.join(" AND ")) };
    format!("COPY (SELECT {} FROM {from}{filter}) TO STDOUT", columns.join(", "))
}

/// Starts a copy by a statement of [`copy_statement`]; yields one line per row, without its end, to be taken apart by
/// [`fields`].
///
/// # Errors
/// [`PgError`], also from the stream.
pub async fn copy_lines(
    client: &Client,
    statement: &str,
) -> Result<impl Stream<Item = Result<Bytes, PgError>> + use<>, PgError> {
    let chunks = Box::pin(client.copy_out(statement).await?);
    Ok(futures_util::stream::unfold((chunks, LineBuffer::default()), |(mut chunks, mut buffer)| async {
        loop {
            if let Some(line) = buffer.next_line() {
                return Some((Ok(line), (chunks, buffer)));
            }
            match chunks.next().await? {
                Ok(chunk) => buffer.push(chunk),
                Err(error) => return Some((Err(error.into()), (chunks, buffer))),
            }
        }
    }))
}

/// Cuts chunks into lines. Servers send a line per chunk, but the protocol does not promise it.
#[derive(Debug, Default)]
struct LineBuffer {
    chunk: Bytes,
    partial: BytesMut,
}

impl LineBuffer {
    fn push(&mut self, chunk: Bytes) {
        self.chunk = chunk;
    }

    fn next_line(&mut self) -> Option<Bytes> {
        let Some(end) = memchr(b'\n', &self.chunk) else {
            self.partial.extend_from_slice(&std::mem::take(&mut self.chunk));
            return None;
        };
        let line = if end + 1 == self.chunk.len() {
            let mut line = std::mem::take(&mut self.chunk);
            line.truncate(end);
            line
        } else {
            let line = self.chunk.split_to(end);
            bytes::Buf::advance(&mut self.chunk, 1);
            line
        };
        if self.partial.is_empty() {
            return Some(line);
        }
        self.partial.extend_from_slice(&line);
        Some(self.partial.split().freeze())
    }
}

/// The values of a line: `None` is NULL.
pub fn fields(line: &[u8]) -> impl Iterator<Item = Option<Cow<'_, [u8]>>> {
    let mut rest = Some(line);
    // Most lines have none, and then no field needs to be looked through.
    let has_escapes = memchr(b'\\', line).is_some();
    std::iter::from_fn(move || {
        let fields = rest?;
        let (field, following) = match memchr(b'\t', fields) {
            Some(end) => (&fields[..end], Some(&fields[end + 1..])),
            None => (fields, None),
        };
        rest = following;
        Some(match field {
            _ if !has_escapes => Some(Cow::Borrowed(field)),
            b"\\N" => None,
            _ => Some(unescape(field)),
        })
    })
}

fn unescape(field: &[u8]) -> Cow<'_, [u8]> {
    let Some(first) = memchr(b'\\', field) else {
        return Cow::Borrowed(field);
    };
    let mut plain = field[..first].to_vec();
    let mut bytes = field[first..].iter().copied();
    while let Some(byte) = bytes.next() {
        if byte != b'\\' {
            plain.push(byte);
            continue;
        }
        // Postgres writes these and nothing else; a backslash at the end is kept as it is.
        plain.push(match bytes.next() {
            Some(b'b') => 0x08,
            Some(b'f') => 0x0C,
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b't') => b'\t',
            Some(b'v') => 0x0B,
            Some(other) => other,
            None => b'\\',
        });
    }
    Cow::Owned(plain)
}

#[cfg(test)]
mod fuzz;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn values(line: &str) -> Vec<Option<String>> {
        let text = |field: Cow<'_, [u8]>| String::from_utf8(field.into_owned()).expect("text");
        fields(line.as_bytes()).map(|field| field.map(text)).collect()
    }

    #[test]
    fn null_and_the_empty_text_differ() {
        assert_eq!(values("1\t\\N\t\t\\\\N"), [Some("1"), None, Some(""), Some("\\N")].map(|v| v.map(str::to_owned)));
    }

    #[test]
    fn escapes_are_undone() {
        assert_eq!(values(r"a\tb\nc\\d\re\bf\fg\vh"), [Some("a\tb\nc\\d\re\u{8}f\u{c}g\u{b}h".to_owned())]);
    }

    #[test]
    fn lines_may_be_cut_anywhere() {
        let text = b"one\ntwo\n\nthree\n";
        for size in 1..text.len() {
            let mut buffer = LineBuffer::default();
            let mut lines = Vec::new();
            for chunk in text.chunks(size) {
                buffer.push(Bytes::copy_from_slice(chunk));
                lines.extend(std::iter::from_fn(|| buffer.next_line()));
            }
            assert_eq!(lines, ["one", "two", "", "three"], "in chunks of {size}");
        }
    }

    proptest! {
        #[test]
        fn no_line_panics(line: Vec<u8>) {
            let _ = fields(&line).count();
        }
    }
}
