//! The one place that reads a duration.

use std::time::Duration;

/// Longest duration that can be written: a hundred years, beyond which clocks may overflow.
pub const MAX_DURATION: Duration = Duration::from_hours(100 * 365 * 24);

/// Units and their length in milliseconds. `ms` stands before the units it ends like.
const UNITS: [(&str, u64); 5] =
    [("ms", 1), ("d", 24 * 60 * 60 * 1000), ("h", 60 * 60 * 1000), ("m", 60 * 1000), ("s", 1000)];

/// Why a text is not a duration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDuration {
    /// Not a whole number with or without a unit.
    #[error("a duration is a whole number of seconds, or one with a unit such as 250ms, 5s, 2m, 1h or 30d")]
    Form,
    /// Longer than [`MAX_DURATION`].
    #[error("a duration is at most 36500d")]
    TooLong,
}

/// Reads `5` (seconds), `250ms`, `5s`, `2m`, `1h` or `30d`. Signs, fractions, spaces and sums such as
/// `1h30m` are refused.
///
/// # Errors
///
/// [`InvalidDuration::Form`] for any other text, [`InvalidDuration::TooLong`] above [`MAX_DURATION`].
pub fn parse_duration(text: &str) -> Result<Duration, InvalidDuration> {
    let (digits, unit_ms) = UNITS
        .iter()
        .find_map(|(unit, ms)| text.strip_suffix(unit).map(|digits| (digits, *ms)))
        .unwrap_or((text, 1000));
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(InvalidDuration::Form);
    }
    // All digits: only a number too large for the type can fail from here on.
    digits
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(unit_ms))
        .map(Duration::from_millis)
        .filter(|duration| *duration <= MAX_DURATION)
        .ok_or(InvalidDuration::TooLong)
}

/// Writes a duration as [`parse_duration`] reads it, in the largest unit that divides it. What is finer
/// than a millisecond is cut off.
pub fn format_duration(duration: Duration) -> String {
    let ms = duration.as_millis();
    let divides = |unit_ms: u64| ms.is_multiple_of(u128::from(unit_ms));
    // Zero is divided by every unit; it reads best in seconds.
    let longest =
        UNITS.into_iter().filter(|(_, unit_ms)| divides(*unit_ms)).max_by_key(|(_, unit_ms)| *unit_ms);
    let (unit, unit_ms) = longest.filter(|_| ms != 0).unwrap_or(("s", 1000));
    format!("{}{unit}", ms / u128::from(unit_ms))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn seconds_need_no_unit_and_each_unit_is_read() {
        for (text, ms) in [
            ("0", 0),
            ("5", 5_000),
            ("250ms", 250),
            ("5s", 5_000),
            ("2m", 120_000),
            ("1h", 3_600_000),
            ("30d", 2_592_000_000),
            ("36500d", 3_153_600_000_000),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for text in ["", "s", "ms", "-1", "+1s", "1.5s", "1h30m", "5 s", " 5s", "5S", "5w", "٥s", "five"] {
            assert_eq!(parse_duration(text), Err(InvalidDuration::Form), "{text:?}");
        }
        for text in ["36501d", "99999999999999999999", "18446744073709551615d"] {
            assert_eq!(parse_duration(text), Err(InvalidDuration::TooLong), "{text}");
        }
    }

    #[test]
    fn the_largest_unit_that_divides_is_shown() {
        for text in ["0s", "250ms", "1500ms", "5s", "90s", "2m", "1h", "30d"] {
            assert_eq!(format_duration(parse_duration(text).unwrap()), text);
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(ms in 0..=3_153_600_000_000_u64) {
            let duration = Duration::from_millis(ms);
            prop_assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
        }

        #[test]
        fn no_text_panics(text in ".*") {
            prop_assert!(parse_duration(&text).is_err() || text.as_bytes()[0].is_ascii_digit());
        }
    }
}
