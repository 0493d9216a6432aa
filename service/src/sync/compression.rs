//! Compression of responses in segments that stand for themselves.
//!
//! A stream is a series of segments, each compressed without knowledge of the others, so that the same bytes can be sent
//! to any number of clients, and no connection keeps the state of a compressor. Both formats allow it: gzip's deflate
//! blocks end at a byte and may refer to nothing before them (RFC 1951, 3.2.3), and so do zstd's but for little
//! ([`zstd_blocks`]). What was sent can be decompressed at once.
//!
//! To make up for that little takes white space. Where it may not stand, in BSON, a segment of zstd is a frame by itself,
//! and goes as a piece of its own: frames follow one another (RFC 8878, 3), but not all decoders know.

use std::cell::RefCell;

use bytes::Bytes;
use flate2::{Compress, Crc, FlushCompress};

use super::zstd_blocks;

/// Fast: a stream is compressed while somebody waits for it.
const ZSTD_LEVEL: i32 = 1;
const DEFLATE_LEVEL: u32 = 1;
/// Less than this is sent as it is: what zstd would spare is some dozen bytes.
const COMPRESSED_BYTES_MIN: usize = 256;

/// RFC 1952, 2.3: deflate, no name, no time, an unknown system.
const GZIP_HEADER: [u8; 10] = [0x1F, 0x8B, 8, 0, 0, 0, 0, 0, 0, 0xFF];
/// A last deflate block with nothing in it.
const DEFLATE_END: [u8; 2] = [3, 0];

/// How a response is compressed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Compression {
    /// Not at all.
    #[default]
    Identity,
    /// `Content-Encoding: gzip`.
    Gzip,
    /// `Content-Encoding: zstd`, with white space between what is sent.
    Zstd,
    /// The same without.
    ZstdFrames,
}

impl Compression {
    /// Its name in HTTP.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Gzip => "gzip",
            Self::Zstd | Self::ZstdFrames => "zstd",
        }
    }
}

/// Bytes that were compressed by themselves.
#[derive(Debug)]
pub struct Segment {
    /// As they are sent.
    bytes: Bytes,
    /// How many they were before.
    plain_length: usize,
    /// Their checksum where the format has one over all of a stream.
    crc: Crc,
}

impl Segment {
    /// Compresses `plain`.
    pub fn new(plain: Bytes, compression: Compression) -> Self {
        let plain_length = plain.len();
        let mut crc = Crc::new();
        let bytes = match compression {
            Compression::Identity => plain,
            Compression::Gzip => {
                crc.update(&plain);
                deflate(&plain)
            }
            Compression::Zstd => {
                let mut blocks = ZstdBlocks::default();
                blocks.push(&plain);
                return blocks.finish();
            }
            Compression::ZstdFrames => zstd(&plain).into(),
        };
        Self { bytes, plain_length, crc }
    }

    /// Bytes as they are sent.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Bytes before compression.
    pub const fn plain_length(&self) -> usize {
        self.plain_length
    }
}

/// Puts a segment of [`Compression::Zstd`] together from bytes, and from frames of what is compressed already.
#[derive(Debug, Default)]
pub struct ZstdBlocks {
    bytes: Vec<u8>,
    plain_length: usize,
}

impl ZstdBlocks {
    /// Appends bytes.
    pub fn push(&mut self, plain: &[u8]) {
        self.plain_length += plain.len();
        if plain.len() < COMPRESSED_BYTES_MIN || zstd_blocks::append_frame(&zstd(plain), &mut self.bytes).is_none() {
            zstd_blocks::append_raw(plain, &mut self.bytes);
        }
    }

    /// Appends `plain_length` bytes that are a frame already. `None`, with nothing appended, where it cannot be taken as it
    /// is.
    pub fn push_frame(&mut self, frame: &[u8], plain_length: usize) -> Option<()> {
        zstd_blocks::append_frame(frame, &mut self.bytes)?;
        self.plain_length += plain_length;
        Some(())
    }

    /// The segment.
    pub fn finish(self) -> Segment {
        Segment { bytes: self.bytes.into(), plain_length: self.plain_length, crc: Crc::new() }
    }
}

fn deflate(plain: &[u8]) -> Bytes {
    thread_local! {
        static DEFLATER: RefCell<Compress> = RefCell::new(Compress::new(flate2::Compression::new(DEFLATE_LEVEL), false));
    }
    DEFLATER.with_borrow_mut(|deflater| {
        deflater.reset();
        let mut out = Vec::with_capacity(plain.len() / 4 + 64);
        let mut rest = plain;
        loop {
            let before = deflater.total_in();
            deflater.compress_vec(rest, &mut out, FlushCompress::Full).expect("any bytes can be deflated");
            let taken = usize::try_from(deflater.total_in() - before).expect("no more than there was");
            rest = &rest[taken..];
            // All is out once there was room left for more.
            if rest.is_empty() && out.len() < out.capacity() {
                break Bytes::from(out);
            }
            out.reserve(out.capacity().max(64));
        }
    })
}

fn zstd(plain: &[u8]) -> Vec<u8> {
    thread_local! {
        static COMPRESSOR: RefCell<zstd::bulk::Compressor<'static>> =
            RefCell::new(zstd::bulk::Compressor::new(ZSTD_LEVEL).expect("the level exists"));
    }
    COMPRESSOR.with_borrow_mut(|compressor| compressor.compress(plain).expect("any bytes can be compressed"))
}

/// Puts segments together to one stream.
#[derive(Debug)]
pub struct SegmentStream {
    compression: Compression,
    crc: Crc,
    begun: bool,
}

impl SegmentStream {
    /// A stream without content.
    pub fn new(compression: Compression) -> Self {
        Self { compression, crc: Crc::new(), begun: false }
    }

    /// A segment for this stream.
    pub fn segment(&self, plain: Bytes) -> Segment {
        Segment::new(plain, self.compression)
    }

    /// What must be sent before the next segment's bytes. All segments must be of the stream's compression.
    pub fn push(&mut self, segment: &Segment) -> Bytes {
        let header = self.begin();
        if self.compression == Compression::Gzip {
            self.crc.combine(&segment.crc);
        }
        header
    }

    fn begin(&mut self) -> Bytes {
        let is_first = !std::mem::replace(&mut self.begun, true);
        match self.compression {
            Compression::Gzip if is_first => Bytes::from_static(&GZIP_HEADER),
            Compression::Zstd if is_first => Bytes::from_static(&zstd_blocks::HEADER),
            _ => Bytes::new(),
        }
    }

    /// What ends the stream.
    pub fn finish(mut self) -> Bytes {
        match self.compression {
            Compression::Gzip => {
                let header = self.begin();
                // Checksum and length of all, the latter modulo 2^32.
                let trailer = [self.crc.sum().to_le_bytes(), self.crc.amount().to_le_bytes()].concat();
                [&header[..], &DEFLATE_END, &trailer].concat().into()
            }
            Compression::Zstd => [&self.begin()[..], &zstd_blocks::END].concat().into(),
            // Even nothing is a frame.
            Compression::ZstdFrames if !self.begun => zstd(&[]).into(),
            Compression::ZstdFrames | Compression::Identity => Bytes::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use proptest::prelude::*;

    use super::*;

    /// The stream of these parts, and how much of it there was after each.
    fn stream(parts: &[Vec<u8>], compression: Compression) -> (Vec<u8>, Vec<usize>) {
        let (mut out, mut lengths) = (Vec::new(), Vec::new());
        let mut stream = SegmentStream::new(compression);
        for part in parts {
            let segment = Segment::new(Bytes::copy_from_slice(part), compression);
            assert_eq!(segment.plain_length(), part.len());
            out.extend_from_slice(&stream.push(&segment));
            out.extend_from_slice(segment.bytes());
            lengths.push(out.len());
        }
        out.extend_from_slice(&stream.finish());
        (out, lengths)
    }

    fn gunzip(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
        let mut plain = Vec::new();
        flate2::read::GzDecoder::new(bytes).read_to_end(&mut plain)?;
        Ok(plain)
    }

    /// What can be had from the beginning of a stream.
    fn gunzip_part(bytes: &[u8]) -> Vec<u8> {
        let mut decoder = flate2::read::GzDecoder::new(bytes);
        let (mut plain, mut buffer) = (Vec::new(), [0; 1000]);
        while let Ok(count @ 1..) = decoder.read(&mut buffer) {
            plain.extend_from_slice(&buffer[..count]);
        }
        plain
    }

    /// Of lines of JSON.
    fn values(lines: &[u8]) -> Vec<Vec<u8>> {
        lines.split_inclusive(|byte| *byte == b'\n').map(|line| serde_json::from_slice(line).unwrap()).collect()
    }

    proptest! {
        #[test]
        fn every_segment_can_be_read_when_it_came(
            parts in prop::collection::vec(prop_oneof![prop::collection::vec(any::<u8>(), 0..3000), "[a-c]{0,9000}".prop_map(String::into_bytes)], 0..6),
        ) {
            let (gzip, lengths) = stream(&parts, Compression::Gzip);
            prop_assert_eq!(gunzip(&gzip).unwrap(), parts.concat());
            for (index, length) in lengths.iter().enumerate() {
                prop_assert_eq!(gunzip_part(&gzip[..*length]), parts[..=index].concat());
            }
            let (zstd, lengths) = stream(&parts, Compression::ZstdFrames);
            prop_assert_eq!(zstd::decode_all(&zstd[..]).unwrap(), parts.concat());
            for (index, length) in lengths.iter().enumerate() {
                prop_assert_eq!(zstd::decode_all(&zstd[..*length]).unwrap(), parts[..=index].concat());
            }
            let lines: Vec<_> = parts.iter().map(|part| format!("{part:?}\n").into_bytes()).collect();
            let (zstd, lengths) = stream(&lines, Compression::Zstd);
            prop_assert_eq!(values(&zstd::decode_all(&zstd[..]).unwrap()), &parts[..]);
            for (index, length) in lengths.iter().enumerate() {
                let ended = [&zstd[..*length], &zstd_blocks::END].concat();
                prop_assert_eq!(values(&zstd::decode_all(&ended[..]).unwrap()), &parts[..=index]);
            }
            prop_assert_eq!(stream(&parts, Compression::Identity).0, parts.concat());
        }
    }

    #[test]
    fn frames_of_others_are_a_part_of_a_segment() {
        let mut segment = ZstdBlocks::default();
        segment.push(b"[");
        assert!(segment.push_frame(&zstd(b"1,2"), 3).is_some());
        segment.push(b",");
        assert!(segment.push_frame(b"no frame", 8).is_none());
        let long = vec!["\"many\""; 100].join(",");
        assert!(segment.push_frame(&zstd(long.as_bytes()), long.len()).is_some());
        segment.push(b"]");
        let (segment, mut stream) = (segment.finish(), SegmentStream::new(Compression::Zstd));
        let sent = [&stream.push(&segment)[..], segment.bytes(), &stream.finish()].concat();
        let plain = zstd::decode_all(&sent[..]).unwrap();
        let text = format!("[1,2,{long}]");
        assert_eq!(segment.plain_length(), text.len());
        let [got, expected] =
            [&plain[..], text.as_bytes()].map(|json| serde_json::from_slice::<Vec<serde_json::Value>>(json).unwrap());
        assert_eq!(got, expected);
    }

    #[test]
    fn a_large_segment_is_compressed_whole() {
        let part: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
        let (gzip, _) = stream(&[part.clone(), part.clone()], Compression::Gzip);
        assert_eq!(gunzip(&gzip).unwrap(), [part.clone(), part].concat());
    }

    #[test]
    fn a_falsified_stream_is_noticed() {
        let (mut gzip, _) = stream(&[b"some bytes".to_vec()], Compression::Gzip);
        let checksum = gzip.len() - 8;
        gzip[checksum] ^= 1;
        assert!(gunzip(&gzip).is_err());
    }
}
