//! Numbers as text, in the form JavaScript prints them: bucket names and row data depend on it.

use std::fmt::Write;

/// Appends `number` as ECMAScript's `Number.prototype.toString` prints it: shortest digits that read back the same,
/// plain up to 21 digits, an exponent beyond. Negative zero prints as `0`.
pub(crate) fn write_ecmascript(number: f64, out: &mut String) {
    if number.is_nan() {
        return out.push_str("NaN");
    }
    if number.is_infinite() {
        return out.push_str(if number > 0.0 { "Infinity" } else { "-Infinity" });
    }
    if number == 0.0 {
        return out.push('0');
    }
    // Rust's `{:e}` gives the same shortest digits; only their layout differs.
    let mut text = Scientific { bytes: [0; SCIENTIFIC_MAX], length: 0 };
    let _ = write!(text, "{:e}", number.abs());
    let (digits, exponent) = text.parts();
    if number < 0.0 {
        out.push('-');
    }
    layout(digits, exponent, out);
}

/// Longest text of `{:e}`: 17 digits, a dot, `e-308`.
const SCIENTIFIC_MAX: usize = 32;

/// A number as `d.ddde±x`, without a place on the heap.
struct Scientific {
    bytes: [u8; SCIENTIFIC_MAX],
    length: usize,
}

impl Write for Scientific {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let end = self.length + text.len();
        self.bytes.get_mut(self.length..end).ok_or(std::fmt::Error)?.copy_from_slice(text.as_bytes());
        self.length = end;
        Ok(())
    }
}

impl Scientific {
    /// The digits without their dot, and the exponent.
    fn parts(&mut self) -> (&str, i32) {
        let end = self.bytes[..self.length].iter().position(|byte| *byte == b'e').unwrap_or(self.length);
        let exponent = std::str::from_utf8(self.bytes.get(end + 1..self.length).unwrap_or_default());
        let exponent = exponent.ok().and_then(|text| text.parse().ok()).unwrap_or(0);
        // Only the first digit stands before the dot, if there is one.
        let has_dot = self.bytes[1] == b'.';
        if has_dot {
            self.bytes[1] = self.bytes[0];
        }
        let digits = &self.bytes[usize::from(has_dot)..end];
        (std::str::from_utf8(digits).unwrap_or_default(), exponent)
    }
}

/// Places `d.ddd × 10^exponent` as the specification of `Number::toString` says.
fn layout(digits: &str, exponent: i32, out: &mut String) {
    let count = digits.len();
    match usize::try_from(exponent) {
        Ok(exponent) if exponent <= 20 && count <= exponent + 1 => {
            out.push_str(digits);
            out.extend(std::iter::repeat_n('0', exponent + 1 - count));
        }
        Ok(exponent) if exponent <= 20 => {
            out.push_str(&digits[..=exponent]);
            out.push('.');
            out.push_str(&digits[exponent + 1..]);
        }
        Err(_) if exponent >= -6 => {
            out.push_str("0.");
            out.extend(std::iter::repeat_n('0', usize::try_from(-exponent - 1).unwrap_or(0)));
            out.push_str(digits);
        }
        _ => {
            out.push_str(&digits[..1]);
            if count > 1 {
                out.push('.');
                out.push_str(&digits[1..]);
            }
            out.push_str(if exponent < 0 { "e-" } else { "e+" });
            let _ = write!(out, "{}", exponent.unsigned_abs());
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ecmascript(number: f64) -> String {
        let mut text = String::new();
        write_ecmascript(number, &mut text);
        text
    }

    #[test]
    fn numbers_print_as_in_javascript() {
        for (number, text) in [
            (0.0, "0"),
            (-0.0, "0"),
            (1.0, "1"),
            (-1.5, "-1.5"),
            (0.1, "0.1"),
            (123_456_789_012_345_680_000.0, "123456789012345680000"),
            (1e21, "1e+21"),
            (1.5e300, "1.5e+300"),
            (1e-6, "0.000001"),
            (1e-7, "1e-7"),
            (1.25e-7, "1.25e-7"),
            (f64::MAX, "1.7976931348623157e+308"),
            (5e-324, "5e-324"),
            (f64::NAN, "NaN"),
            (f64::NEG_INFINITY, "-Infinity"),
        ] {
            assert_eq!(ecmascript(number), text);
        }
    }

    proptest! {
        #[test]
        fn printed_numbers_read_back_the_same(bits: u64) {
            let number = f64::from_bits(bits);
            prop_assume!(number.is_finite());
            let read: f64 = ecmascript(number).parse().unwrap();
            prop_assert!(read.to_bits() == number.to_bits() || number == 0.0, "negative zero has no text");
        }
    }
}
