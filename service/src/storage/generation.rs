//! Names a store and its generations, so that a bucket name is never used again for another history.

use std::time::{SystemTime, UNIX_EPOCH};

/// Digits for the second of creation; enough until the year 2038, and wrapping after that is harmless.
const SECOND_DIGITS: usize = 6;
/// Random digits, for stores created within one second.
const RANDOM_DIGITS: usize = 4;

/// A fresh identity for a store: when it was created, and some chance. Lower case letters and digits, fixed length.
pub(super) fn creation_id() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    base36(seconds, SECOND_DIGITS) + &base36(rand::random(), RANDOM_DIGITS)
}

/// The prefix for bucket names. The id has a fixed length, so the generation needs no separator.
pub(super) fn bucket_prefix(creation_id: &str, generation: u64) -> String {
    format!("{creation_id}{generation}#")
}

/// The last `digits` digits of a number in base 36.
fn base36(mut number: u64, digits: usize) -> String {
    let mut text = vec![b'0'; digits];
    for digit in text.iter_mut().rev() {
        *digit = b"0123456789abcdefghijklmnopqrstuvwxyz"[(number % 36) as usize];
        number /= 36;
    }
    text.into_iter().map(char::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_their_last_digits() {
        assert_eq!(base36(0, 4), "0000");
        assert_eq!(base36(35, 2), "0z");
        assert_eq!(base36(36 * 36 + 1, 2), "01");
    }

    #[test]
    fn prefixes_are_short_and_differ_by_generation() {
        let id = creation_id();
        assert_eq!(id.len(), SECOND_DIGITS + RANDOM_DIGITS);
        assert_ne!(bucket_prefix(&id, 1), bucket_prefix(&id, 2));
        assert!(bucket_prefix(&id, 1).ends_with('#'));
    }
}
