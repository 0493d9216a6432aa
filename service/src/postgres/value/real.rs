//! Numbers as JSON text.

/// The shortest decimal that reads back as the same number, in the form ECMAScript writes it, with `.0` where it would
/// otherwise look like an integer. JSON has no word for NaN and the infinities: they become `null`.
pub(super) fn to_json(number: f64) -> String {
    if !number.is_finite() {
        return "null".to_owned();
    }
    if number == 0.0 {
        return "0.0".to_owned();
    }
    let scientific = format!("{:e}", number.abs());
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let digits = mantissa.replace('.', "");
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let count = i32::try_from(digits.len()).unwrap_or(i32::MAX);
    let sign = if number < 0.0 { "-" } else { "" };
    let zeros = |count: i32| "0".repeat(usize::try_from(count).unwrap_or(0));
    let split = |at: i32| digits.split_at(usize::try_from(at).unwrap_or(0));
    let text = match exponent {
        0..=20 if count <= exponent + 1 => format!("{digits}{}.0", zeros(exponent + 1 - count)),
        0..=20 => {
            let (whole, fraction) = split(exponent + 1);
            format!("{whole}.{fraction}")
        }
        -6..=-1 => format!("0.{}{digits}", zeros(-exponent - 1)),
        _ => {
            let (first, rest) = split(1);
            let point = if rest.is_empty() { "" } else { "." };
            format!("{first}{point}{rest}e{exponent:+}")
        }
    };
    format!("{sign}{text}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_look_as_ecmascript_writes_them() {
        for (number, expected) in [
            (314.0, "314.0"),
            (2.75, "2.75"),
            (1e21, "1e+21"),
            (1.5e21, "1.5e+21"),
            (1e20, "100000000000000000000.0"),
            (1e-7, "1e-7"),
            (1e-6, "0.000001"),
            (-0.25, "-0.25"),
            (-0.0, "0.0"),
            (f64::NAN, "null"),
            (f64::INFINITY, "null"),
        ] {
            assert_eq!(to_json(number), expected);
        }
    }

    proptest! {
        #[test]
        fn numbers_read_back_as_they_were(number in any::<f64>().prop_filter("finite", |number| number.is_finite())) {
            prop_assert_eq!(to_json(number).parse::<f64>(), Ok(number));
        }
    }
}
