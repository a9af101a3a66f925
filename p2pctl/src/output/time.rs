//! Times as people read them.

use p2p_proto::Timestamp;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Seconds since 1970.
pub(crate) fn unix_now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    i64::try_from(now.as_secs()).unwrap_or(i64::MAX)
}

/// `12s ago` or `in 3649d`, as seen at `now`; empty if there is no time.
pub(crate) fn relative(time: Option<&Timestamp>, now: i64) -> String {
    let Some(time) = time else { return String::new() };
    let distance = short(time.seconds.abs_diff(now));
    if time.seconds > now { format!("in {distance}") } else { format!("{distance} ago") }
}

/// The largest unit that fits, rounded down: `59s`, `3m`, `23h`, `400d`.
pub(crate) fn short(seconds: u64) -> String {
    const MINUTE: u64 = 60;
    const HOUR: u64 = 60 * MINUTE;
    const DAY: u64 = 24 * HOUR;
    match seconds {
        0..MINUTE => format!("{seconds}s"),
        MINUTE..HOUR => format!("{}m", seconds / MINUTE),
        HOUR..DAY => format!("{}h", seconds / HOUR),
        DAY.. => format!("{}d", seconds / DAY),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_past_and_the_future_read_in_one_unit() {
        let at = |seconds| Timestamp { seconds, nanos: 0 };
        let now = 1_000_000;
        for (time, text) in [
            (now, "0s ago"),
            (now - 12, "12s ago"),
            (now - 3_599, "59m ago"),
            (now - 7_200, "2h ago"),
            (now - 400 * 86_400, "400d ago"),
            (now + 86_400 * 30, "in 30d"),
        ] {
            assert_eq!(relative(Some(&at(time)), now), text);
        }
        assert_eq!(relative(None, now), "");
    }
}
