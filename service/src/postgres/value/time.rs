//! Dates and times, in the two forms clients may want.
//!
//! The legacy form keeps what Postgres prints, with `Z` for moments; ISO 8601 has a `T` and a fixed number of fraction
//! digits. Infinity becomes the end or beginning of the calendar; years clients cannot hold become NULL.

use std::iter;

use kairos_sync_rules::{Compatibility, SqlValue};

/// `2023-03-06`
const DATE_BYTES: usize = 10;
/// `15:47:00`
const CLOCK_BYTES: usize = 8;
/// Room for a moment.
const PRINTED_BYTES: usize = 32;
/// Postgres keeps microseconds.
const FRACTION_DIGITS: u8 = 6;

pub(super) fn date(text: &str) -> Option<SqlValue> {
    match text {
        "infinity" => Some(SqlValue::Text("9999-12-31".to_owned())),
        "-infinity" => Some(SqlValue::Text("0000-01-01".to_owned())),
        _ => None,
    }
}

pub(super) fn time_of_day(text: &str, compatibility: Compatibility) -> Option<SqlValue> {
    let clock = Clock::parse(text).filter(|_| compatibility.timestamps_iso8601)?;
    let mut printed = String::with_capacity(PRINTED_BYTES);
    clock.print(compatibility, &mut printed);
    Some(SqlValue::Text(printed))
}

pub(super) fn timestamp(text: &str, compatibility: Compatibility) -> Option<SqlValue> {
    let separator = separator(compatibility);
    match text {
        "infinity" | "-infinity" => return Some(SqlValue::Text(end_of_calendar(text, compatibility))),
        _ if text.ends_with("BC") => return Some(SqlValue::Null),
        _ => {}
    }
    // As printed is right in the legacy form.
    let (date, clock) = text.split_once(' ').filter(|_| compatibility.timestamps_iso8601)?;
    let clock = Clock::parse(clock)?;
    let mut printed = String::with_capacity(PRINTED_BYTES);
    printed.push_str(date);
    printed.push(separator);
    clock.print(compatibility, &mut printed);
    Some(SqlValue::Text(printed))
}

pub(super) fn timestamp_tz(text: &str, compatibility: Compatibility) -> SqlValue {
    if matches!(text, "infinity" | "-infinity") {
        return SqlValue::Text(end_of_calendar(text, compatibility) + "Z");
    }
    moment(text, compatibility).map_or(SqlValue::Null, SqlValue::Text)
}

fn separator(compatibility: Compatibility) -> char {
    if compatibility.timestamps_iso8601 { 'T' } else { ' ' }
}

fn end_of_calendar(text: &str, compatibility: Compatibility) -> String {
    let (date, hour, minute, second) =
        if text == "infinity" { ("9999-12-31", 23, 59, 59) } else { ("0000-01-01", 0, 0, 0) };
    let clock = Clock { seconds: hour * 3600 + minute * 60 + second, fraction: "" };
    let mut printed = date.to_owned();
    printed.push(separator(compatibility));
    clock.print(compatibility, &mut printed);
    printed
}

/// `2023-03-06 15:47:00.5+02` in UTC.
fn moment(text: &str, compatibility: Compatibility) -> Option<String> {
    let (date, rest) = text.split_at_checked(DATE_BYTES)?;
    let rest = rest.strip_prefix(' ')?;
    let sign = rest.bytes().position(|byte| matches!(byte, b'+' | b'-'))?;
    let (clock, zone) = rest.split_at(sign);
    let clock = Clock::parse(clock)?;
    let mut parts = zone[1..].splitn(3, ':').map(|part| number(part, 2));
    let mut next = || parts.next().unwrap_or(Some(0));
    let offset = next()? * 3600 + next()? * 60 + next()?;
    let offset = if zone.starts_with('-') { -offset } else { offset };
    let seconds = clock.seconds - offset;
    let (year, month, day) = shift_date(date, seconds.div_euclid(86_400))?;
    let clock = Clock { seconds: seconds.rem_euclid(86_400), ..clock };
    let mut printed = String::with_capacity(PRINTED_BYTES);
    push_digits(year, 4, &mut printed);
    printed.push('-');
    push_digits(month, 2, &mut printed);
    printed.push('-');
    push_digits(day, 2, &mut printed);
    printed.push(separator(compatibility));
    clock.print(compatibility, &mut printed);
    printed.push('Z');
    Some(printed)
}

/// Exactly `digits` decimal digits.
fn number(text: &str, digits: usize) -> Option<i64> {
    let push = |number, byte: u8| byte.is_ascii_digit().then(|| number * 10 + i64::from(byte - b'0'));
    if text.len() == digits { text.bytes().try_fold(0, push) } else { None }
}

/// Numbers of two digits with a separator between them: a date without its year, a time of day.
fn pairs<const COUNT: usize>(text: &str, separator: u8) -> Option<[i64; COUNT]> {
    let bytes = text.as_bytes();
    let is_separated = bytes.iter().skip(2).step_by(3).all(|byte| *byte == separator);
    if bytes.len() != 3 * COUNT - 1 || !is_separated {
        return None;
    }
    let mut numbers = [0; COUNT];
    for (at, found) in numbers.iter_mut().enumerate() {
        *found = number(text.get(3 * at..3 * at + 2)?, 2)?;
    }
    Some(numbers)
}

fn shift_date(date: &str, days: i64) -> Option<(i64, i64, i64)> {
    let (year, rest) = date.split_at_checked(4)?;
    let year = number(year, 4)?;
    let [month, day] = pairs(rest.strip_prefix('-')?, b'-')?;
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let shifted =
        if days == 0 { (year, month, day) } else { civil_from_days(days_from_civil(year, month, day) + days) };
    (0..=9999).contains(&shifted.0).then_some(shifted)
}

/// Days since 1970-01-01 in the Gregorian calendar; years begin in March here, so that leap days come last.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// The inverse of [`days_from_civil`].
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

/// A time of day: whole seconds, and the digits after the point.
#[derive(Debug, Clone, Copy)]
struct Clock<'a> {
    seconds: i64,
    fraction: &'a str,
}

impl<'a> Clock<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let (whole, rest) = text.split_at_checked(CLOCK_BYTES)?;
        let fraction = if rest.is_empty() { rest } else { rest.strip_prefix('.')? };
        let [hour, minute, second] = pairs(whole, b':')?;
        let valid = fraction.bytes().all(|byte| byte.is_ascii_digit()) && fraction.len() <= FRACTION_DIGITS.into();
        valid.then_some(Self { seconds: hour * 3600 + minute * 60 + second, fraction })
    }

    /// Digits of the fraction are cut or filled up, never rounded.
    fn print(&self, compatibility: Compatibility, out: &mut String) {
        push_digits(self.seconds / 3600, 2, out);
        out.push(':');
        push_digits(self.seconds / 60 % 60, 2, out);
        out.push(':');
        push_digits(self.seconds % 60, 2, out);
        let digits = if compatibility.timestamps_iso8601 {
            compatibility.timestamp_fraction_digits_max.unwrap_or(FRACTION_DIGITS).min(FRACTION_DIGITS).into()
        } else {
            self.fraction.len()
        };
        if digits > 0 {
            out.push('.');
            out.extend(self.fraction.chars().chain(iter::repeat('0')).take(digits));
        }
    }
}

/// Appends a number that has at most so many digits, with zeros in front. By hand, because every row may have some.
fn push_digits(number: i64, digits: u32, out: &mut String) {
    for place in (0..digits).rev() {
        let digit = number / 10_i64.pow(place) % 10;
        out.push(char::from(b'0' + digit.to_le_bytes()[0]));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::postgres::value::tests::LEGACY;

    const FIXED: Compatibility = Compatibility { timestamps_iso8601: true, ..LEGACY };

    fn text(text: &str) -> SqlValue {
        SqlValue::Text(text.to_owned())
    }

    #[test]
    fn moments_are_printed_in_utc() {
        for (printed, legacy, fixed) in [
            ("2023-03-06 15:47:00+02", "2023-03-06 13:47:00Z", "2023-03-06T13:47:00.000000Z"),
            ("2023-03-06 13:47:00.12345+00", "2023-03-06 13:47:00.12345Z", "2023-03-06T13:47:00.123450Z"),
            ("2024-02-29 23:30:00-05:30", "2024-03-01 05:00:00Z", "2024-03-01T05:00:00.000000Z"),
            ("2023-01-01 00:00:00+00:00:01", "2022-12-31 23:59:59Z", "2022-12-31T23:59:59.000000Z"),
            ("infinity", "9999-12-31 23:59:59Z", "9999-12-31T23:59:59.000000Z"),
            ("-infinity", "0000-01-01 00:00:00Z", "0000-01-01T00:00:00.000000Z"),
        ] {
            assert_eq!(timestamp_tz(printed, LEGACY), text(legacy));
            assert_eq!(timestamp_tz(printed, FIXED), text(fixed));
        }
        for printed in ["12023-03-06 15:47:00+00", "0044-03-15 12:00:00+00 BC", "9999-12-31 23:59:59-01", "now"] {
            assert_eq!(timestamp_tz(printed, FIXED), SqlValue::Null, "{printed}");
        }
    }

    #[test]
    fn local_times_keep_their_clock() {
        for (printed, fixed) in [
            ("2023-03-06 15:47:00", "2023-03-06T15:47:00.000000"),
            ("2023-03-06 15:47:00.1234", "2023-03-06T15:47:00.123400"),
            ("12023-03-06 15:47:00", "12023-03-06T15:47:00.000000"),
            ("infinity", "9999-12-31T23:59:59.000000"),
        ] {
            assert_eq!(timestamp(printed, FIXED), Some(text(fixed)));
        }
        assert_eq!(timestamp("2023-03-06 15:47:00.1234", LEGACY), None, "as printed");
        assert_eq!(timestamp("0044-03-15 12:00:00 BC", LEGACY), Some(SqlValue::Null));
    }

    #[test]
    fn fraction_digits_are_cut_not_rounded() {
        let digits = |max| Compatibility { timestamp_fraction_digits_max: Some(max), ..FIXED };
        assert_eq!(timestamp("2023-03-06 15:47:00.9999", digits(3)), Some(text("2023-03-06T15:47:00.999")));
        assert_eq!(timestamp("2023-03-06 15:47:00.9999", digits(0)), Some(text("2023-03-06T15:47:00")));
        assert_eq!(timestamp("2023-03-06 15:47:00.9999", digits(9)), Some(text("2023-03-06T15:47:00.999900")));
        assert_eq!(time_of_day("12:13:14.156789", FIXED), Some(text("12:13:14.156789")));
        assert_eq!(time_of_day("15:47:00", FIXED), Some(text("15:47:00.000000")));
        assert_eq!(time_of_day("15:47:00", LEGACY), None, "as printed");
    }

    proptest! {
        #[test]
        fn days_and_dates_are_inverse(days in -700_000i64..3_000_000) {
            let (year, month, day) = civil_from_days(days);
            prop_assert_eq!(days_from_civil(year, month, day), days);
        }
    }
}
