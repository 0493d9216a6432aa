//! Blocks of many frames of zstd, put together to one frame (RFC 8878, 3.1.1).
//!
//! Several frames after each other are as good by the format, but Node.js reads the first alone of those that come in one
//! piece (seen with 24.21), and any proxy may join pieces. One frame is read whole by everybody.
//!
//! The blocks of a frame refer to none of another's but for one thing: a match may be as far back as one of the last three
//! was, and a frame begins as if these had been 1, 4 and 8 bytes (3.1.1.5). [`RESET`] makes them that again.

/// Magic number, no flags, and a window of 512 KiB (3.1.1.1.2): enough for all that is compressed at level 1.
pub(super) const HEADER: [u8; 6] = [0x28, 0xB5, 0x2F, 0xFD, 0x00, (WINDOW_LOG - 10) << 3];
/// An empty block, which is the last.
pub(super) const END: [u8; BLOCK_HEADER_BYTES] = [0x01, 0x00, 0x00];

const WINDOW_LOG: u8 = 19;
const BLOCK_HEADER_BYTES: usize = 3;
const BLOCK_BYTES_MAX: usize = 128 * 1024;
const CHECKSUM_BYTES: usize = 4;
/// As they stand in a block's header, behind the bit of the last one (3.1.1.2).
const LAST: u8 = 1;
const RAW: usize = 0;
const RUN: usize = 1;
const COMPRESSED: usize = 2;

/// Two blocks that say 17 spaces: one repeated 8 times; and three matches of 3 bytes without literals between them, from 8,
/// 4 and 1 bytes before, which are the last three then.
const RESET: [u8; 15] = [
    // The first: 8 times, not the last, a run.
    0x42, 0x00, 0x00, b' ', // The second: 8 bytes, not the last, compressed.
    0x44, 0x00, 0x00, // No literals; three sequences.
    0x00,
    0x03, // The code of literal lengths is always 0, that of match lengths too; those of offsets are in the usual table.
    0x44, 0x00, 0x00, // 3 and three bits, 2 and two bits, 2 and two bits, read from the end.
    0xB8, 0xDD, 0x4A,
];

/// Appends bytes as they are, in blocks.
pub(super) fn append_raw(plain: &[u8], out: &mut Vec<u8>) {
    for part in plain.chunks(BLOCK_BYTES_MAX) {
        let header = (part.len() << 3 | RAW << 1).to_le_bytes();
        out.extend_from_slice(&header[..BLOCK_HEADER_BYTES]);
        out.extend_from_slice(part);
    }
}

/// Appends the blocks of a frame, with white space before them if they need it. `None`, with `out` as it was, where it is no
/// frame, or one that needs a larger window or a dictionary.
pub(super) fn append_frame(frame: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let blocks = blocks(frame)?;
    out.reserve(RESET.len() + frame.len());
    if blocks.iter().any(|block| block.kind == COMPRESSED) {
        out.extend_from_slice(&RESET);
    }
    for Block { header: [first, others @ ..], body, .. } in blocks {
        out.push(first & !LAST);
        out.extend_from_slice(&others);
        out.extend_from_slice(body);
    }
    Some(())
}

struct Block<'a> {
    header: [u8; BLOCK_HEADER_BYTES],
    kind: usize,
    body: &'a [u8],
}

fn blocks(frame: &[u8]) -> Option<Vec<Block<'_>>> {
    let (mut rest, has_checksum) = skip_header(frame)?;
    let mut blocks = Vec::new();
    loop {
        let (header, after) = rest.split_first_chunk::<BLOCK_HEADER_BYTES>()?;
        let [low, middle, high] = header.map(usize::from);
        let (kind, size) = (low >> 1 & 3, (high << 16 | middle << 8 | low) >> 3);
        let bytes = match kind {
            RAW | COMPRESSED => size,
            RUN => 1,
            _ => return None,
        };
        let (body, after) = after.split_at_checked(bytes)?;
        rest = after;
        blocks.push(Block { header: *header, kind, body });
        if header[0] & LAST != 0 {
            break;
        }
    }
    let checksum_bytes = if has_checksum { CHECKSUM_BYTES } else { 0 };
    (rest.len() == checksum_bytes).then_some(blocks)
}

/// What follows the header of a frame (3.1.1.1) whose window is not too large, and whether a checksum is at its end.
fn skip_header(frame: &[u8]) -> Option<(&[u8], bool)> {
    let (&descriptor, rest) = frame.strip_prefix(&HEADER[..4])?.split_first()?;
    let (is_one_segment, has_checksum) = (descriptor & 0x20 != 0, descriptor & 4 != 0);
    // A dictionary, or what may mean something one day.
    if descriptor & 0x0B != 0 {
        return None;
    }
    let (window, rest) =
        if is_one_segment { (0, rest) } else { rest.split_first().map(|(byte, rest)| (*byte, rest))? };
    let length_bytes = match descriptor >> 6 {
        0 => usize::from(is_one_segment),
        power => 1 << power,
    };
    let (length, rest) = rest.split_at_checked(length_bytes)?;
    let mut wide = [0; 8];
    wide[..length_bytes].copy_from_slice(length);
    // That of two bytes begins at 256, which makes no difference here.
    let is_short = !is_one_segment || u64::from_le_bytes(wide) <= 1 << WINDOW_LOG;
    (is_short && window <= HEADER[5]).then_some((rest, has_checksum))
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use proptest::prelude::*;

    use super::*;

    fn frame(plain: &[u8], level: i32, checksum: bool) -> Vec<u8> {
        let mut compressor = zstd::bulk::Compressor::new(level).unwrap();
        compressor.include_checksum(checksum).unwrap();
        compressor.compress(plain).unwrap()
    }

    fn stream(parts: &[u8]) -> Vec<u8> {
        [&HEADER[..], parts, &END].concat()
    }

    /// What can be had of a frame that has not ended.
    fn beginning(stream: &[u8]) -> Vec<u8> {
        let mut decoder = zstd::Decoder::new(stream).unwrap();
        let (mut plain, mut buffer) = (Vec::new(), [0; 1000]);
        while let Ok(count @ 1..) = decoder.read(&mut buffer) {
            plain.extend_from_slice(&buffer[..count]);
        }
        plain
    }

    /// Without the white space that was put in: nothing else has any.
    fn without_space(plain: &[u8]) -> Vec<u8> {
        plain.iter().copied().filter(|byte| *byte != b' ').collect()
    }

    /// Text that leans on the offsets a frame begins with.
    fn text() -> impl Strategy<Value = Vec<u8>> {
        let period = prop_oneof![Just(1_usize), Just(4), Just(8), 1..40_usize];
        (period, "[a-z]{40}", "[a-e]{0,600}", 0..400_usize).prop_map(|(period, unit, rest, count)| {
            let repeated = unit.bytes().take(period).cycle().take(count);
            repeated.chain(rest.bytes()).collect()
        })
    }

    proptest! {
        #[test]
        fn frames_of_all_kinds_become_one(
            parts in prop::collection::vec((text(), 1..=19_i32, any::<bool>(), any::<bool>()), 0..8),
        ) {
            let (mut blocks, mut expected) = (Vec::new(), Vec::new());
            for (plain, level, checksum, as_it_is) in &parts {
                if *as_it_is {
                    append_raw(plain, &mut blocks);
                } else {
                    append_frame(&frame(plain, *level, *checksum), &mut blocks).unwrap();
                }
                expected.extend_from_slice(plain);
                let so_far = beginning(&[&HEADER[..], &blocks].concat());
                prop_assert_eq!(without_space(&so_far), &expected[..], "all that was sent can be read");
            }
            prop_assert_eq!(without_space(&zstd::decode_all(&stream(&blocks)[..]).unwrap()), expected);
        }

        #[test]
        fn bytes_that_are_no_frame_are_refused(mut bytes: Vec<u8>, cut in any::<prop::sample::Index>()) {
            let mut out = b"before".to_vec();
            let _ = append_frame(&bytes, &mut out);
            bytes.splice(0..0, HEADER);
            let _ = append_frame(&bytes, &mut out);
            let whole = frame(&bytes, 1, true);
            let mut out = b"before".to_vec();
            prop_assert!(append_frame(&whole[..cut.index(whole.len())], &mut out).is_none());
            prop_assert!(append_frame(&[&whole[..], &whole].concat(), &mut out).is_none());
            prop_assert_eq!(out, b"before");
        }
    }

    #[test]
    fn long_pieces_are_several_blocks() {
        let long: Vec<u8> = (0..200_000_u32).flat_map(|n| n.to_string().into_bytes()).collect();
        let (mut blocks, mut expected) = (Vec::new(), Vec::new());
        for level in [1, 3] {
            append_raw(&long, &mut blocks);
            append_frame(&frame(&long[..400_000], level, true), &mut blocks).unwrap();
            expected.extend_from_slice(&[&long[..], &long[..400_000]].concat());
        }
        assert_eq!(without_space(&zstd::decode_all(&stream(&blocks)[..]).unwrap()), expected);
    }

    #[test]
    fn what_needs_a_larger_window_is_refused() {
        let long: Vec<u8> = (0..2_000_000_u32).flat_map(u32::to_le_bytes).collect();
        assert!(append_frame(&frame(&long, 1, true), &mut Vec::new()).is_some());
        assert!(append_frame(&frame(&long, 19, true), &mut Vec::new()).is_none());
        assert!(append_frame(&frame(&long[..600_000], 19, true), &mut Vec::new()).is_none());
    }
}
