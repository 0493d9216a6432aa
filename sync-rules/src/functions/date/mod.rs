//! `unixepoch` and `datetime`: moments, to the millisecond, as numbers and as text.
//!
//! The calendar is the proleptic Gregorian one and the range that of JavaScript's dates, 100 million days around 1970.
//! There is no clock here: the language has no `now`.

use crate::{
    cast::{digit_count, to_real},
    value::SqlValue,
};

mod read;

const SECOND: i64 = 1000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
/// Farthest moment from 1970.
const MILLISECONDS_MAX: i64 = 100_000_000 * DAY;
/// The Julian day on which 1970 began.
const JULIAN_DAY_1970: f64 = 2_440_587.5;

/// `unixepoch(time[, modifier[, modifier]])`: seconds since 1970.
pub(super) fn unixepoch(time: &SqlValue, modifiers: [&SqlValue; 2]) -> SqlValue {
    match moment(time, modifiers) {
        None => SqlValue::Null,
        Some((Moment(milliseconds), Precision::Seconds)) => SqlValue::Integer(milliseconds.div_euclid(SECOND).into()),
        Some((Moment(milliseconds), Precision::Milliseconds)) => {
            SqlValue::Real(to_real(milliseconds.into()) / to_real(SECOND.into()))
        }
    }
}

/// `datetime(time[, modifier[, modifier]])`: `YYYY-MM-DD hh:mm:ss`, in UTC.
pub(super) fn datetime(time: &SqlValue, modifiers: [&SqlValue; 2]) -> SqlValue {
    moment(time, modifiers).map_or(SqlValue::Null, |(moment, precision)| SqlValue::Text(moment.to_text(precision)))
}

/// What a number means as a time.
#[derive(Clone, Copy)]
enum Numbers {
    JulianDay,
    Unix,
}

/// How much of a moment is shown.
#[derive(Clone, Copy)]
enum Precision {
    Seconds,
    Milliseconds,
}

fn moment(time: &SqlValue, modifiers: [&SqlValue; 2]) -> Option<(Moment, Precision)> {
    let (numbers, precision) = read_modifiers(modifiers)?;
    let number = |number: f64| match numbers {
        Numbers::JulianDay => Moment::of_julian_day(number),
        Numbers::Unix => Moment::of_real(number * to_real(SECOND.into())),
    };
    let moment = match time {
        SqlValue::Null | SqlValue::Blob(_) => None,
        SqlValue::Integer(value) => number(to_real(*value)),
        SqlValue::Real(value) => number(*value),
        // Text is never a number of seconds, whatever the modifier says.
        SqlValue::Text(text) if is_decimal(text) => Moment::of_julian_day(text.parse().ok()?),
        SqlValue::Text(text) => read::read(text),
    };
    Some((moment?, precision))
}

/// `None`: there is no such modifier.
fn read_modifiers([first, second]: [&SqlValue; 2]) -> Option<(Numbers, Precision)> {
    let is_subsec = |text: &str| matches!(text, "subsec" | "subsecond");
    match (first, second) {
        (SqlValue::Null, _) => Some((Numbers::JulianDay, Precision::Seconds)),
        (SqlValue::Text(first), _) if is_subsec(first) => Some((Numbers::JulianDay, Precision::Milliseconds)),
        (SqlValue::Text(first), SqlValue::Null) if first == "unixepoch" => Some((Numbers::Unix, Precision::Seconds)),
        (SqlValue::Text(first), SqlValue::Text(second)) if first == "unixepoch" && is_subsec(second) => {
            Some((Numbers::Unix, Precision::Milliseconds))
        }
        _ => None,
    }
}

/// Digits, and perhaps a fraction.
fn is_decimal(text: &str) -> bool {
    let is_digits = |text: &str| !text.is_empty() && digit_count(text) == text.len();
    text.split_once('.').map_or_else(|| is_digits(text), |(whole, fraction)| is_digits(whole) && is_digits(fraction))
}

/// Milliseconds since 1970, UTC, at most [`MILLISECONDS_MAX`] in either direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Moment(i64);

impl Moment {
    fn new(milliseconds: i64) -> Option<Self> {
        (-MILLISECONDS_MAX..=MILLISECONDS_MAX).contains(&milliseconds).then_some(Self(milliseconds))
    }

    /// What is less than a millisecond is cut off.
    #[expect(clippy::cast_possible_truncation, reason = "the cast saturates, and `new` checks the range")]
    fn of_real(milliseconds: f64) -> Option<Self> {
        if milliseconds.is_nan() { None } else { Self::new(milliseconds as i64) }
    }

    fn of_julian_day(day: f64) -> Option<Self> {
        Self::of_real((day - JULIAN_DAY_1970) * to_real(DAY.into()))
    }

    fn to_text(self, precision: Precision) -> String {
        let (year, month, day) = date_of(self.0.div_euclid(DAY));
        let time = self.0.rem_euclid(DAY);
        let (hour, minute, second) = (time / HOUR, time / MINUTE % 60, time / SECOND % 60);
        let year = match year {
            ..0 => year.to_string(),
            0..=9999 => format!("{year:04}"),
            _ => format!("+{year:06}"),
        };
        let text = format!("{year}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}");
        match precision {
            Precision::Seconds => text,
            Precision::Milliseconds => format!("{text}.{:03}", time % SECOND),
        }
    }
}

// Days are counted in eras of 400 years, after which the calendar repeats. Years begin in March here, so that the leap
// day comes last and the lengths of months follow a formula: month `m`, 0 for March, begins on day (153 m + 2) / 5.
const ERA_DAYS: i64 = 146_097;
/// Days from March of year 0 to January 1970.
const DAYS_TO_1970: i64 = 719_468;

/// Days since 1970. `day` may lie beyond the end of the month: 30 February is 1 or 2 March.
const fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * ERA_DAYS + year * 365 + year / 4 - year / 100 + day_of_year - DAYS_TO_1970
}

/// Year, month and day.
const fn date_of(days_since_1970: i64) -> (i64, i64, i64) {
    let days = days_since_1970 + DAYS_TO_1970;
    let (era, day) = (days.div_euclid(ERA_DAYS), days.rem_euclid(ERA_DAYS));
    // Without the leap days before it, every day is one of a year of 365.
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (year * 365 + year / 4 - year / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    (era * 400 + year + if month <= 2 { 1 } else { 0 }, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: &SqlValue = &SqlValue::Null;

    fn text(text: &str) -> SqlValue {
        SqlValue::Text(text.to_owned())
    }

    #[test]
    fn a_number_is_a_julian_day_unless_unixepoch_says_otherwise() {
        let (unix, subsec) = (text("unixepoch"), text("subsec"));
        for (time, julian, seconds) in [
            (SqlValue::Integer(1_687_961_520), None, Some((1_687_961_520, 1_687_961_520.0))),
            (SqlValue::Real(1_687_961_520.25), None, Some((1_687_961_520, 1_687_961_520.25))),
            (SqlValue::Real(2_460_124.5), Some(1_687_996_800), Some((2_460_124, 2_460_124.5))),
            (text("2460124.5"), Some(1_687_996_800), Some((1_687_996_800, 1_687_996_800.0))),
            (text("2440588"), Some(43_200), Some((43_200, 43_200.0))),
            (SqlValue::Integer(0), Some(-210_866_760_000), Some((0, 0.0))),
            (SqlValue::Real(-1.5), Some(-210_866_889_600), Some((-2, -1.5))),
            (SqlValue::Real(1e300), None, None),
            (SqlValue::Real(f64::NAN), None, None),
            (SqlValue::Integer(i128::MIN), None, None),
        ] {
            let integer = |seconds: Option<i128>| seconds.map_or(SqlValue::Null, SqlValue::Integer);
            let real = seconds.map_or(SqlValue::Null, |(_, real)| SqlValue::Real(real));
            assert_eq!(unixepoch(&time, [NONE; 2]), integer(julian), "{time:?}");
            assert_eq!(unixepoch(&time, [&unix, NONE]), integer(seconds.map(|seconds| seconds.0)), "{time:?}");
            assert_eq!(unixepoch(&time, [&unix, &subsec]), real, "{time:?}");
        }
    }

    #[test]
    fn seconds_are_rounded_down() {
        let before = text("1969-12-31T23:59:59.500Z");
        assert_eq!(unixepoch(&before, [NONE; 2]), SqlValue::Integer(-1));
        assert_eq!(unixepoch(&before, [&text("subsecond"), NONE]), SqlValue::Real(-0.5));
        assert_eq!(datetime(&before, [NONE; 2]), text("1969-12-31 23:59:59"));
        assert_eq!(
            datetime(&SqlValue::Integer(-62_135_596_801), [&text("unixepoch"), NONE]),
            text("0000-12-31 23:59:59")
        );
    }

    #[test]
    fn null_and_bytes_are_no_time() {
        assert_eq!(datetime(&SqlValue::Blob(b"2020-01-01".into()), [NONE; 2]), SqlValue::Null);
        assert_eq!(datetime(&SqlValue::Null, [NONE; 2]), SqlValue::Null);
    }

    #[test]
    fn an_unknown_modifier_gives_null() {
        let date = text("2023-06-28");
        let call = |first: &str, second: &SqlValue| datetime(&date, [&text(first), second]);
        assert_eq!(call("start of day", NONE), SqlValue::Null);
        assert_eq!(call("SUBSEC", NONE), SqlValue::Null);
        assert_eq!(call("unixepoch", &text("utc")), SqlValue::Null);
        assert_eq!(datetime(&date, [&SqlValue::Integer(1), NONE]), SqlValue::Null);
        assert_eq!(call("subsec", &text("utc")), text("2023-06-28 00:00:00.000"), "ignored after subsec");
        assert_eq!(call("unixepoch", &text("subsecond")), text("2023-06-28 00:00:00.000"));
    }

    #[test]
    fn every_day_of_two_eras_has_a_date_and_back() {
        for day in -ERA_DAYS..ERA_DAYS {
            let (year, month, day_of_month) = date_of(day);
            assert_eq!(days_since_1970(year, month, day_of_month), day);
        }
        assert_eq!(date_of(0), (1970, 1, 1));
        assert_eq!(date_of(-1), (1969, 12, 31));
    }
}
