//! A stream of bytes to lines of the protocol, in either format.

use bytes::BytesMut;
use kairos_sync_protocol::line::SyncLine;

use super::{TransportError, documents::DocumentBuffer, lines::LineBuffer};
use crate::core::line;

/// A line, or what arrived of it, is longer than allowed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooLong;

/// What arrived of a stream and was not handed out yet.
#[derive(Debug)]
pub(super) struct Frames {
    buffer: Buffer,
    bytes_max: usize,
}

#[derive(Debug)]
enum Buffer {
    Lines(LineBuffer),
    Documents(DocumentBuffer),
}

impl Frames {
    /// Of newline-delimited JSON.
    pub(super) fn lines(bytes_max: usize) -> Self {
        Self { buffer: Buffer::Lines(LineBuffer::new(bytes_max)), bytes_max }
    }

    /// Of BSON.
    pub(super) fn documents(bytes_max: usize) -> Self {
        Self { buffer: Buffer::Documents(DocumentBuffer::new(bytes_max)), bytes_max }
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        match &mut self.buffer {
            Buffer::Lines(buffer) => buffer.push(bytes),
            Buffer::Documents(buffer) => buffer.push(bytes),
        }
    }

    /// The next whole line of a kind that is known, with its length in bytes. Nothing follows a line that is damaged: its
    /// end may be anywhere.
    pub(super) fn next(&mut self) -> Result<Option<(SyncLine, usize)>, TransportError> {
        while let Some(frame) =
            self.next_frame().map_err(|_| TransportError::LineTooLong { bytes_max: self.bytes_max })?
        {
            let (line, bytes) = match self.buffer {
                Buffer::Lines(_) => (line::parse_bytes(&frame)?, frame.len() + 1),
                Buffer::Documents(_) => (line::parse_bson(&frame)?, frame.len()),
            };
            if let Some(line) = line {
                return Ok(Some((line, bytes)));
            }
        }
        Ok(None)
    }

    fn next_frame(&mut self) -> Result<Option<BytesMut>, TooLong> {
        match &mut self.buffer {
            Buffer::Lines(buffer) => buffer.next(),
            Buffer::Documents(buffer) => buffer.next(),
        }
    }
}

#[cfg(test)]
mod tests {
    use kairos_sync_protocol::bson;
    use proptest::prelude::*;

    use super::*;

    fn lines() -> Vec<SyncLine> {
        let text = r#"{"data":{"bucket":"a","after":"0","has_more":false,"next_after":"1","data":[
            {"op_id":"1","op":"PUT","object_type":"t","object_id":"ü","checksum":5,"data":"{\"a\":\"\\n\"}"}]}}"#;
        let data = line::parse(text).unwrap().unwrap();
        vec![SyncLine::TokenExpiresIn(20), data, SyncLine::TokenExpiresIn(-1)]
    }

    fn encoded(documents: bool) -> Vec<u8> {
        let mut bytes = Vec::new();
        for line in lines() {
            if documents {
                bson::write_line(&line, &mut bytes);
            } else {
                bytes.extend(serde_json::to_vec(&line).unwrap());
                bytes.push(b'\n');
            }
        }
        bytes
    }

    fn read(documents: bool, chunks: &[&[u8]]) -> Result<Vec<SyncLine>, TransportError> {
        let mut frames = if documents { Frames::documents(10_000) } else { Frames::lines(10_000) };
        let mut lines = Vec::new();
        for chunk in chunks {
            frames.push(chunk);
            while let Some((line, _)) = frames.next()? {
                lines.push(line);
            }
        }
        Ok(lines)
    }

    #[test]
    fn a_stream_torn_anywhere_gives_the_same_lines() {
        for documents in [false, true] {
            let bytes = encoded(documents);
            for cut in 0..bytes.len() {
                let (head, tail) = bytes.split_at(cut);
                assert_eq!(read(documents, &[head, tail]).unwrap(), lines());
                let whole = read(documents, &[head]).unwrap();
                assert_eq!(whole, lines()[..whole.len()], "of a part only whole lines are handed out");
            }
        }
    }

    proptest! {
        /// Whatever is wrong with a stream, what comes before it is what was sent.
        #[test]
        fn damage_does_not_reach_back(documents: bool, place in 0_usize..400, flipped in 1_u8.., size in 1_usize..50) {
            let mut bytes = encoded(documents);
            let place = place % bytes.len();
            let intact = read(documents, &[&bytes[..place]]).unwrap();
            bytes[place] ^= flipped;
            let mut frames = if documents { Frames::documents(10_000) } else { Frames::lines(10_000) };
            let mut read = Vec::new();
            'stream: for chunk in bytes.chunks(size) {
                frames.push(chunk);
                loop {
                    match frames.next() {
                        Ok(Some((line, _))) => read.push(line),
                        Ok(None) => break,
                        Err(_) => break 'stream,
                    }
                }
            }
            prop_assert_eq!(&read[..intact.len()], intact);
        }
    }
}
