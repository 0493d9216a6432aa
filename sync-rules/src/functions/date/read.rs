//! Text to moment.

use super::{DAY, HOUR, MINUTE, Moment, SECOND, days_since_1970};

/// Reads `YYYY-MM-DD`, or `YYYY-MM-DD[ T]hh:mm[:ss[.fff]]` with `Z`, `±hh:mm` or, for UTC, nothing. Years outside
/// 0..9999 are a sign and six digits. Other notations that some JavaScript engines read, such as `Jun 28 2023`, are no
/// dates here, and the year 0001 is not taken for 2001.
pub(super) fn read(text: &str) -> Option<Moment> {
    Reader(text.as_bytes()).moment()
}

/// What is left of the text.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn moment(mut self) -> Option<Moment> {
        let days = self.days()?;
        let milliseconds = match self.0 {
            [] | [b'Z' | b'z'] => 0,
            _ => self.time()?,
        };
        Moment::new(days * DAY + milliseconds)
    }

    fn days(&mut self) -> Option<i64> {
        let year = match self.take(b"+-") {
            None => self.number(4)?,
            Some(b'+') => self.number(6)?,
            Some(_) => Some(-self.number(6)?).filter(|year| *year != 0)?,
        };
        self.take(b"-")?;
        let month = self.number(2).filter(|month| (1..=12).contains(month))?;
        self.take(b"-")?;
        // JavaScript does not look how long the month is, so 30 February is a day in March.
        let day = self.number(2).filter(|day| (1..=31).contains(day))?;
        Some(days_since_1970(year, month, day))
    }

    /// Time and zone to the end of the text, in milliseconds to add to the date.
    fn time(mut self) -> Option<i64> {
        let is_spaced = self.take(b" Tt")? == b' ';
        let hour = self.number(2)?;
        self.take(b":")?;
        let minute = self.number(2).filter(|minute| *minute < 60)?;
        let mut time = hour * HOUR + minute * MINUTE;
        if self.take(b":").is_some() {
            time += self.number(2).filter(|second| *second < 60)? * SECOND;
            if self.take(b".").is_some() {
                time += self.fraction()?;
            }
        }
        // Midnight may be the 24th hour of the day before.
        if time > DAY {
            return None;
        }
        while is_spaced && self.take(b" ").is_some() {}
        let zone = self.zone()?;
        self.0.is_empty().then_some(time - zone)
    }

    /// Milliseconds ahead of UTC.
    fn zone(&mut self) -> Option<i64> {
        let sign = match self.take(b"Zz+-") {
            None | Some(b'Z' | b'z') => return Some(0),
            Some(b'-') => -1,
            Some(_) => 1,
        };
        let hour = self.number(2).filter(|hour| *hour < 24)?;
        self.take(b":")?;
        let minute = self.number(2).filter(|minute| *minute < 60)?;
        Some(sign * (hour * HOUR + minute * MINUTE))
    }

    /// One of these bytes, if it comes next.
    fn take(&mut self, accepted: &[u8]) -> Option<u8> {
        let (first, rest) = self.0.split_first().filter(|(first, _)| accepted.contains(first))?;
        self.0 = rest;
        Some(*first)
    }

    /// A number of exactly so many digits.
    fn number(&mut self, digits: usize) -> Option<i64> {
        (0..digits).try_fold(0, |number, _| Some(number * 10 + self.digit()?))
    }

    /// Milliseconds; further digits are cut off.
    fn fraction(&mut self) -> Option<i64> {
        let first = self.digit()?;
        let milliseconds = (0..2).fold(first, |number, _| number * 10 + self.digit().unwrap_or(0));
        while self.digit().is_some() {}
        Some(milliseconds)
    }

    fn digit(&mut self) -> Option<i64> {
        self.take(b"0123456789").map(|digit| i64::from(digit - b'0'))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::Precision, *};

    fn printed(date: &str) -> Option<String> {
        read(date).map(|moment| moment.to_text(Precision::Milliseconds))
    }

    #[test]
    fn date_text_without_a_zone_is_utc() {
        for (date, expected) in [
            ("2023-06-28", "2023-06-28 00:00:00.000"),
            ("2023-06-28Z", "2023-06-28 00:00:00.000"),
            ("2023-06-28 14:12", "2023-06-28 14:12:00.000"),
            ("2023-06-28T14:12Z", "2023-06-28 14:12:00.000"),
            ("2023-06-28 14:12:00.999", "2023-06-28 14:12:00.999"),
            ("2023-06-28t14:12:00.1z", "2023-06-28 14:12:00.100"),
            ("2023-06-28T14:12:00.1239999Z", "2023-06-28 14:12:00.123"),
            ("2023-06-28T14:12:00+02:00", "2023-06-28 12:12:00.000"),
            ("2023-06-28 23:59:59-00:01", "2023-06-29 00:00:59.000"),
            ("2023-06-28 14:12 +01:00", "2023-06-28 13:12:00.000"),
            ("2023-06-28T24:00:00", "2023-06-29 00:00:00.000"),
            ("2023-02-30", "2023-03-02 00:00:00.000"),
            ("2024-02-29", "2024-02-29 00:00:00.000"),
            ("0001-01-01", "0001-01-01 00:00:00.000"),
            ("0000-03-01", "0000-03-01 00:00:00.000"),
            ("-000001-12-31T00:00:00Z", "-1-12-31 00:00:00.000"),
            ("+012345-01-01T00:00:00Z", "+012345-01-01 00:00:00.000"),
            ("+275760-09-13", "+275760-09-13 00:00:00.000"),
        ] {
            assert_eq!(printed(date).as_deref(), Some(expected), "{date}");
        }
    }

    #[test]
    fn what_is_not_a_date_is_null() {
        for date in [
            "",
            "garbage",
            "14:12",
            "14:12:00",
            "2023-13-01",
            "2023-00-01",
            "2023-01-00",
            "2023-01-32",
            "2023-6-28",
            "2023-06-28T",
            "2023-06-28T14",
            "2023-06-28 25:00",
            "2023-06-28 14:60",
            "2023-06-28 14:12:60",
            "2023-06-28T24:00:01",
            "2023-06-28 14:12:00.",
            "2023-06-28T14:12:00 Z",
            "2023-06-28+02:00",
            "2023-06-28T14:12+24:00",
            "2023-06-28T14:12+01:60",
            "2023-06-28T14:12Zz",
            "-000000-01-01",
            "+275760-09-14",
            "-271821-04-19",
            "٢٠٢٣-06-28",
        ] {
            assert_eq!(read(date), None, "{date}");
        }
    }

    proptest! {
        #[test]
        fn what_datetime_prints_reads_as_the_same_moment(milliseconds in -62_167_219_200_000..253_402_300_800_000_i64) {
            let printed = Moment(milliseconds).to_text(Precision::Milliseconds);
            prop_assert_eq!(read(&printed), Some(Moment(milliseconds)));
        }

        #[test]
        fn no_text_panics(date in "[-+0-9TZ: .é]{0,30}") {
            let _ = read(&date);
        }
    }
}
