//! The `grpc-timeout` header (gRPC over HTTP/2, "Requests").

use http::{HeaderName, HeaderValue};
use std::time::Duration;
use tokio::time::Instant;

/// How long the caller waits for its answer.
pub const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// Reads `grpc-timeout`: at most 8 digits and a unit.
pub fn grpc_timeout(value: &HeaderValue) -> Option<Duration> {
    let text = value.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(count * 3600),
        "M" => Duration::from_secs(count * 60),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    })
}

/// What is left until `deadline`, for the next hop.
pub fn timeout_header(deadline: Instant) -> HeaderValue {
    let left = deadline.saturating_duration_since(Instant::now());
    let text = match u32::try_from(left.as_micros()) {
        Ok(micros) if micros < 100_000_000 => format!("{micros}u"),
        Ok(_) | Err(_) => format!("{}m", left.as_millis().min(99_999_999)),
    };
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("0n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_reads_in_every_unit_and_refuses_the_rest() {
        let read = |text| grpc_timeout(&HeaderValue::from_static(text));
        assert_eq!(read("2H"), Some(Duration::from_secs(7200)));
        assert_eq!(read("99999999n"), Some(Duration::from_nanos(99_999_999)));
        assert_eq!(read("250m"), Some(Duration::from_millis(250)));
        for bad in ["", "S", "5", "-1S", "+1S", "1s", "123456789S", "1.5S", " 1S"] {
            assert_eq!(read(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn what_is_left_never_grows_on_the_way() {
        let deadline = Instant::now() + Duration::from_millis(1500);
        let left = grpc_timeout(&timeout_header(deadline)).expect("reads back");
        assert!(left <= Duration::from_millis(1500) && left > Duration::from_millis(1000));
        let far =
            grpc_timeout(&timeout_header(Instant::now() + Duration::from_secs(3600))).expect("reads back");
        assert!(far <= Duration::from_secs(3600) && far > Duration::from_secs(3590));
    }
}
