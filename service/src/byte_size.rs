//! Numbers of bytes, as people read them.

use std::fmt;

/// Prints whole units, rounded down: `3 GB`, `512 kB`, `7 bytes`. Each is 1024 of the one below.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByteSize(pub u64);

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(&str, u32); 3] = [("GB", 30), ("MB", 20), ("kB", 10)];
        let unit = UNITS.into_iter().find(|(_, shift)| self.0 >> shift > 0);
        let (unit, shift) = unit.unwrap_or(("bytes", 0));
        write!(f, "{} {unit}", self.0 >> shift)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_whole_unit_is_printed() {
        let texts = [0, 1023, 1024, (1 << 20) - 1, 20 << 20, (7 << 30) + 1].map(|number| ByteSize(number).to_string());
        assert_eq!(texts, ["0 bytes", "1023 bytes", "1 kB", "1023 kB", "20 MB", "7 GB"]);
    }
}
