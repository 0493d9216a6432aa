//! Cuts a stream of bytes into lines.

use bytes::{Buf, BytesMut};

use super::frames::TooLong;

/// What arrived and is not a whole line yet.
#[derive(Debug)]
pub(super) struct LineBuffer {
    bytes: BytesMut,
    /// So much of `bytes` was searched for a line's end already.
    searched: usize,
    bytes_max: usize,
}

impl LineBuffer {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { bytes: BytesMut::new(), searched: 0, bytes_max }
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole line, without its end. A last line without an end is not whole: the stream was cut.
    pub(super) fn next(&mut self) -> Result<Option<BytesMut>, TooLong> {
        let unsearched = self.bytes.get(self.searched..).unwrap_or_default();
        match unsearched.iter().position(|byte| *byte == b'\n') {
            Some(position) if self.searched + position > self.bytes_max => Err(TooLong),
            Some(position) => {
                let line = self.bytes.split_to(self.searched + position);
                self.bytes.advance(1);
                self.searched = 0;
                Ok(Some(line))
            }
            None if self.bytes.len() > self.bytes_max => Err(TooLong),
            None => {
                self.searched = self.bytes.len();
                Ok(None)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lines(chunks: &[&[u8]], bytes_max: usize) -> Result<Vec<Vec<u8>>, TooLong> {
        let mut buffer = LineBuffer::new(bytes_max);
        let mut lines = Vec::new();
        for chunk in chunks {
            buffer.push(chunk);
            while let Some(line) = buffer.next()? {
                lines.push(line.to_vec());
            }
        }
        Ok(lines)
    }

    #[test]
    fn a_line_above_the_limit_is_refused_before_it_is_whole() {
        assert_eq!(lines(&[b"1234\n"], 4), Ok(vec![b"1234".to_vec()]));
        assert_eq!(lines(&[b"12345\n"], 4), Err(TooLong));
        assert_eq!(lines(&[b"123", b"45"], 4), Err(TooLong));
    }

    proptest! {
        #[test]
        fn lines_do_not_depend_on_how_bytes_arrive(text in "[a-c\n]{0,60}", size in 1_usize..9) {
            let chunks: Vec<&[u8]> = text.as_bytes().chunks(size).collect();
            prop_assert_eq!(lines(&chunks, 100), lines(&[text.as_bytes()], 100));
        }
    }
}
