//! Numbers as text, in the form JavaScript prints them: bucket names and row data depend on it.

/// Appends `number` as ECMAScript's `Number.prototype.toString` prints it: shortest digits that read back the same,
/// plain up to 21 digits, an exponent beyond. Negative zero prints as `0`.
pub(crate) fn write_ecmascript(number: f64, out: &mut String) {
    out.push_str(ryu_js::Buffer::new().format(number));
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
