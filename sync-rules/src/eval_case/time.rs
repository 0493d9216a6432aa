//! Date-times and times of day as text.

use crate::Compatibility;

/// A date-time or a time of day, as a source connector knows it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Moment<'v> {
    /// `2024-01-02T03:04:05.678Z` or `03:04:05.678`.
    pub iso: &'v str,
    /// Digits of a second's fraction the source type has.
    pub digits: usize,
    /// As many are printed unless the rules say otherwise.
    pub default_digits: usize,
    /// The text without `timestamps_iso8601`, where it is not `iso` with a space.
    pub legacy: Option<&'v str>,
}

/// Digits of a second's fraction at a named precision.
pub(super) fn digits(precision: &str) -> Option<usize> {
    match precision {
        "seconds" => Some(0),
        "milliseconds" => Some(3),
        "microseconds" => Some(6),
        "nanoseconds" => Some(9),
        _ => None,
    }
}

impl Moment<'_> {
    /// The text that the options of the rules ask for. Fractions are cut, never rounded.
    pub(super) fn text(&self, options: Compatibility) -> String {
        if !options.timestamps_iso8601 {
            return self.legacy.map_or_else(|| self.iso.replacen('T', " ", 1), str::to_owned);
        }
        let digits = options.timestamp_fraction_digits_max.map_or(self.default_digits, usize::from).min(self.digits);
        // The date before the `T` has hyphens too; the zone is looked for behind it.
        let clock = self.iso.find('T').map_or(0, |at| at + 1);
        let zone = self.iso[clock..].find(['Z', 'z', '+', '-']).map_or(self.iso.len(), |at| clock + at);
        let (seconds, zone) = self.iso.split_at(zone);
        let (seconds, fraction) = seconds.split_once('.').unwrap_or((seconds, ""));
        if digits == 0 {
            return format!("{seconds}{zone}");
        }
        let fraction: String = fraction.chars().chain(std::iter::repeat('0')).take(digits).collect();
        format!("{seconds}.{fraction}{zone}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(iso: &str, digits: usize, default_digits: usize, max: Option<u8>) -> String {
        let options =
            Compatibility { timestamps_iso8601: true, custom_postgres_types: true, timestamp_fraction_digits_max: max };
        Moment { iso, digits, default_digits, legacy: None }.text(options)
    }

    #[test]
    fn fractions_are_cut_or_filled_to_the_precision() {
        assert_eq!(text("2024-01-02T03:04:05.678", 6, 6, None), "2024-01-02T03:04:05.678000");
        assert_eq!(text("2024-01-02T03:04:05.6789Z", 6, 3, None), "2024-01-02T03:04:05.678Z");
        assert_eq!(text("2024-01-02T03:04:05Z", 3, 3, Some(9)), "2024-01-02T03:04:05.000Z", "no more than the source");
        assert_eq!(text("03:04:05.999999", 6, 6, Some(3)), "03:04:05.999", "cut, not rounded");
    }

    #[test]
    fn whole_seconds_have_no_dot() {
        assert_eq!(text("2024-01-02T03:04:05.678Z", 6, 6, Some(0)), "2024-01-02T03:04:05Z");
    }

    #[test]
    fn the_zone_stays() {
        assert_eq!(text("2024-01-02T03:04:05.5-03:30", 3, 3, None), "2024-01-02T03:04:05.500-03:30");
    }

    #[test]
    fn the_legacy_form_has_a_space_and_keeps_its_fraction() {
        let options = Compatibility {
            timestamps_iso8601: false,
            custom_postgres_types: false,
            timestamp_fraction_digits_max: None,
        };
        let moment = Moment { iso: "2024-01-02T03:04:05.1", digits: 6, default_digits: 6, legacy: None };
        assert_eq!(moment.text(options), "2024-01-02 03:04:05.1");
        assert_eq!(Moment { legacy: Some("then"), ..moment }.text(options), "then");
    }
}
