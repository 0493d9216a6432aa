//! Streams made from others by faults.

use super::encode::frame;
use crate::fuzz::Random;

/// Lengths and counts that lie.
const LIES: [i32; 10] = [0, 1, 3, 4, 5, -1, i32::MIN, i32::MAX, 1 << 20, 0x00FF_00FF];
/// Type byte and length.
const HEADER_BYTES: usize = 5;

/// Brings in a fault, or a few; gives the number of messages before the first of them.
pub(super) fn mutate(random: &mut Random, frames: &mut Vec<Vec<u8>>) -> usize {
    let mut intact = frames.len();
    for _ in 0..*random.pick(&[1, 1, 1, 2, 4]) {
        if frames.is_empty() {
            return 0;
        }
        intact = intact.min(one(random, frames));
    }
    intact
}

fn one(random: &mut Random, frames: &mut Vec<Vec<u8>>) -> usize {
    let (at, other) = (random.below(frames.len()), random.below(frames.len()));
    let length = frames[at].len();
    let place = random.below(length);
    match random.below(12) {
        0 | 1 => frames[at][place] ^= 1 << random.below(8),
        2 => frames[at][place..].fill(0),
        3 => frames[at].truncate(place),
        4 => {
            let cut = frames[at].get(HEADER_BYTES..place).unwrap_or_default().to_vec();
            frames[at] = frame(frames[at][0], &cut);
        }
        5 => overwrite(&mut frames[at], 1, &random.pick(&LIES).to_be_bytes()),
        6 => overwrite(&mut frames[at], place, &random.pick(&LIES).to_be_bytes()),
        7 => overwrite(&mut frames[at], place, &random.pick(&[0_u16, 1, u16::MAX, 0x7FFF]).to_be_bytes()),
        8 => {
            frames.swap(at, other);
            return at.min(other);
        }
        9 => {
            let doubled = frames[at].clone();
            frames.insert(at, doubled);
            return at + 1;
        }
        10 => drop(frames.remove(at)),
        _ => {
            let mut body = frames[at].get(HEADER_BYTES..place).unwrap_or_default().to_vec();
            let from = random.below(frames[other].len());
            body.extend_from_slice(&frames[other][from..]);
            frames[at] = frame(frames[at][0], &body);
        }
    }
    at
}

fn overwrite(bytes: &mut [u8], at: usize, with: &[u8]) {
    for (byte, new) in bytes.iter_mut().skip(at).zip(with) {
        *byte = *new;
    }
}
