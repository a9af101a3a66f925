//! Figures as short as they can be told apart.

use crate::output::{NOTHING, time};
use std::time::Duration;

/// Something a second: `0`, `0.4`, `12`, `3.4k`.
pub(super) fn rate(rate: Option<f64>) -> String {
    rate.map_or_else(|| NOTHING.to_owned(), |rate| scaled(rate, ""))
}

/// Bytes, or bytes a second: `0B`, `312B`, `1.2kB`.
pub(super) fn bytes(bytes: Option<f64>) -> String {
    bytes.map_or_else(|| NOTHING.to_owned(), |bytes| scaled(bytes, "B"))
}

/// How long something took: `0.02ms`, `0.4ms`, `12ms`, `1.3s`, `45s`, `2m`.
pub(super) fn duration(duration: Option<Duration>) -> String {
    let Some(duration) = duration else { return NOTHING.to_owned() };
    let (seconds, millis) = (duration.as_secs_f64(), duration.as_secs_f64() * 1e3);
    match seconds {
        ..0.0001 => format!("{millis:.2}ms"),
        0.0001..0.00995 => format!("{millis:.1}ms"),
        0.00995..0.9995 => format!("{millis:.0}ms"),
        0.9995..9.95 => format!("{seconds:.1}s"),
        _ => time::short(seconds.round() as u64),
    }
}

/// A share: `3%`.
pub(super) fn percent(share: Option<f64>) -> String {
    share.map_or_else(|| NOTHING.to_owned(), |share| format!("{:.0}%", share * 100.0))
}

fn scaled(number: f64, unit: &str) -> String {
    const STEP: f64 = 1_000.0;
    let (mut number, mut prefixes) = (number, ["", "k", "M", "G", "T"].into_iter());
    let mut prefix = prefixes.next().unwrap_or_default();
    while number >= STEP - 0.5 {
        let Some(next) = prefixes.next() else { break };
        (number, prefix) = (number / STEP, next);
    }
    // Bytes come whole.
    let whole = number >= 9.95 || (prefix.is_empty() && (!unit.is_empty() || number == 0.0));
    if whole { format!("{number:.0}{prefix}{unit}") } else { format!("{number:.1}{prefix}{unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_and_bytes_take_five_characters_at_most() {
        for (number, text) in [
            (0.0, "0"),
            (0.25, "0.2"),
            (9.94, "9.9"),
            (9.96, "10"),
            (999.4, "999"),
            (999.6, "1.0k"),
            (12_345.0, "12k"),
            (1.5e9, "1.5G"),
        ] {
            assert_eq!(rate(Some(number)), text);
        }
        for (number, text) in
            [(0.0, "0B"), (0.6, "1B"), (312.0, "312B"), (1_234.0, "1.2kB"), (21.3e6, "21MB")]
        {
            assert_eq!(bytes(Some(number)), text);
        }
        assert_eq!((rate(None), bytes(None)), ("-".to_owned(), "-".to_owned()));
    }

    #[test]
    fn durations_and_shares_read_as_people_say_them() {
        for (micros, text) in [
            (16, "0.02ms"),
            (448, "0.4ms"),
            (9_940, "9.9ms"),
            (12_288, "12ms"),
            (999_400, "999ms"),
            (1_310_720, "1.3s"),
            (45_000_000, "45s"),
            (130_000_000, "2m"),
        ] {
            assert_eq!(duration(Some(Duration::from_micros(micros))), text);
        }
        assert_eq!((percent(Some(0.034)), percent(None)), ("3%".to_owned(), "-".to_owned()));
    }
}
