//! How points in time are printed: RFC 3339 in UTC, whole seconds.

use rustls_pki_types::UnixTime;
use std::time::Duration;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// `seconds` since 1970; what lies before is 1970.
pub(super) fn from_seconds(seconds: i64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(seconds.max(0).unsigned_abs()))
}

/// The same as the `time` crate has it; `None` beyond the year 9999.
pub(super) fn to_date(at: UnixTime) -> Option<OffsetDateTime> {
    i64::try_from(at.as_secs()).ok().and_then(|secs| OffsetDateTime::from_unix_timestamp(secs).ok())
}

/// `2035-01-31T12:00:00Z`.
pub(super) fn rfc3339(at: UnixTime) -> String {
    to_date(at)
        .and_then(|date| date.format(&Rfc3339).ok())
        .unwrap_or_else(|| format!("{} s after 1970", at.as_secs()))
}

/// Whole days from `now` to `then`, negative once `then` has passed.
pub(super) fn days_between(now: UnixTime, then: UnixTime) -> i64 {
    const DAY: i64 = 24 * 60 * 60;
    let seconds = |at: UnixTime| i64::try_from(at.as_secs()).unwrap_or(i64::MAX);
    (seconds(then).saturating_sub(seconds(now))).div_euclid(DAY)
}
