//! Cuts a stream of bytes into documents, each of which begins with its length.

use bytes::BytesMut;

use super::frames::TooLong;

/// Bytes that say how long a document is.
const LENGTH_BYTES: usize = 4;

/// What arrived and is not a whole document yet.
#[derive(Debug)]
pub(super) struct DocumentBuffer {
    bytes: BytesMut,
    bytes_max: usize,
}

impl DocumentBuffer {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { bytes: BytesMut::new(), bytes_max }
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole document. One that is too long is refused before it has arrived. A length that is none gives what
    /// is no document, so that whoever reads it says so.
    pub(super) fn next(&mut self) -> Result<Option<BytesMut>, TooLong> {
        let Some(length) = self.bytes.first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
        let length = usize::try_from(i32::from_le_bytes(*length)).unwrap_or_default().max(LENGTH_BYTES);
        if length > self.bytes_max {
            return Err(TooLong);
        }
        Ok((self.bytes.len() >= length).then(|| self.bytes.split_to(length)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_above_the_limit_is_refused_before_it_arrives() {
        let mut buffer = DocumentBuffer::new(8);
        buffer.push(&[8, 0, 0, 0, 10, b'a', 0]);
        assert_eq!(buffer.next(), Ok(None));
        buffer.push(&[0, 9, 0]);
        assert_eq!(buffer.next().unwrap().unwrap().len(), 8);
        assert_eq!(buffer.next(), Ok(None));
        buffer.push(&[0, 0]);
        assert_eq!(buffer.next(), Err(TooLong));
    }

    #[test]
    fn a_length_that_is_none_does_not_stop_the_reader() {
        for length in [0_i32, 3, -1, i32::MIN] {
            let mut buffer = DocumentBuffer::new(8);
            buffer.push(&length.to_le_bytes());
            assert_eq!(buffer.next().unwrap().unwrap().len(), LENGTH_BYTES);
        }
    }
}
