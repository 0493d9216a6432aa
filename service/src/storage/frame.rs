//! Compressed bytes: frames of zstd, each with its length and a checksum (RFC 8878, 3.1.1).

use std::{
    cell::RefCell,
    io::{self, Cursor},
    mem,
};

use zstd::{
    bulk::{Compressor, Decompressor},
    zstd_safe,
};

/// Fast and already small: column names repeat in every operation.
const COMPRESSION_LEVEL: i32 = 1;

thread_local! {
    /// Their tables take longer to make than a small frame to compress. They are some hundred KiB, and only the threads
    /// that compress have those of the first.
    static COMPRESSOR: RefCell<Option<Compressor<'static>>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

/// Appends the frame of `content` to `out`.
pub(super) fn compress_onto(content: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    COMPRESSOR.with_borrow_mut(|compressor| {
        let compressor = match compressor {
            Some(compressor) => compressor,
            none => none.insert(new_compressor()?),
        };
        out.reserve(zstd_safe::compress_bound(content.len()));
        append(out, |end| compressor.compress_to_buffer(content, end))?;
        Ok(())
    })
}

fn new_compressor() -> io::Result<Compressor<'static>> {
    let mut compressor = Compressor::new(COMPRESSION_LEVEL)?;
    compressor.include_checksum(true)?;
    Ok(compressor)
}

/// Appends the content of a frame to `out`. `None`, with `out` as it was, if it is damaged or not `length` bytes.
pub(super) fn decompress_onto(frame: &[u8], length: usize, out: &mut Vec<u8>) -> Option<()> {
    // Before memory is taken.
    let announced = zstd_safe::get_frame_content_size(frame).ok()??;
    if usize::try_from(announced) != Ok(length) {
        return None;
    }
    let start = out.len();
    out.reserve(length);
    let written = DECOMPRESSOR.with_borrow_mut(|decompressor| {
        let decompressor = match decompressor {
            Some(decompressor) => decompressor,
            none => none.insert(Decompressor::new()?),
        };
        append(out, |end| decompressor.decompress_to_buffer(frame, end))
    });
    if written.is_ok_and(|written| written == length) {
        return Some(());
    }
    out.truncate(start);
    None
}

/// Has `write` write behind what is in `out`, into the room that is reserved there.
fn append(out: &mut Vec<u8>, write: impl FnOnce(&mut Cursor<Vec<u8>>) -> io::Result<usize>) -> io::Result<usize> {
    let mut end = Cursor::new(mem::take(out));
    end.set_position(end.get_ref().len() as u64);
    let written = write(&mut end);
    *out = end.into_inner();
    written
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn content_comes_back_behind_what_was_there(content: Vec<u8>, before: Vec<u8>) {
            let mut frame = before.clone();
            compress_onto(&content, &mut frame).unwrap();
            let mut out = before.clone();
            decompress_onto(&frame[before.len()..], content.len(), &mut out).unwrap();
            prop_assert_eq!(out, [before, content].concat());
        }

        #[test]
        fn what_is_damaged_leaves_nothing(content: Vec<u8>, at in any::<prop::sample::Index>(), bit in 0..8_u8) {
            let mut frame = Vec::new();
            compress_onto(&content, &mut frame).unwrap();
            prop_assert!(decompress_onto(&frame, content.len() + 1, &mut Vec::new()).is_none());
            let at = at.index(frame.len());
            frame[at] ^= 1 << bit;
            let mut out = b"before".to_vec();
            // A flip in a field that nobody reads may leave the content whole.
            let is_whole = decompress_onto(&frame, content.len(), &mut out).is_some();
            let expected = if is_whole { [b"before", &content[..]].concat() } else { b"before".to_vec() };
            prop_assert_eq!(out, expected);
        }

        #[test]
        fn no_bytes_make_it_panic(frame: Vec<u8>, length in 0..1000_usize) {
            let _ = decompress_onto(&frame, length, &mut Vec::new());
        }
    }
}
