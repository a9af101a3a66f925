//! Clocks that differ.

use super::{Finding, survey::Clock};

/// Half of what access tokens forgive.
const APART_MAX_MS: i64 = 30_000;

/// The nodes whose clock is far from that of the node in the middle.
pub(super) fn apart(clocks: &[(&str, Clock)]) -> Vec<Finding> {
    let mut sorted: Vec<_> = clocks.iter().collect();
    sorted.sort_by_key(|(_, clock)| clock.ahead_ms);
    let Some((middle, reference)) = sorted.get(sorted.len().saturating_sub(1) / 2) else { return Vec::new() };
    let found = clocks.iter().filter_map(|(node, clock)| {
        let apart = clock.ahead_ms.saturating_sub(reference.ahead_ms);
        let certain =
            apart.saturating_abs().saturating_sub(clock.error_ms).saturating_sub(reference.error_ms);
        (certain > APART_MAX_MS).then(|| finding(node, middle, apart))
    });
    found.collect()
}

fn finding(node: &str, middle: &str, apart_ms: i64) -> Finding {
    let word = if apart_ms > 0 { "ahead of" } else { "behind" };
    Finding {
        check: "clock_skew".into(),
        subject: node.to_owned(),
        what: format!("its clock is {} s {word} that of {middle}", apart_ms.saturating_abs() / 1000),
        why: "beyond a minute, access tokens and new certificates are taken for expired or not yet valid; and logs of two \
              nodes cannot be put in order"
            .into(),
        mend: "on its host, `timedatectl set-ntp true`; `timedatectl` then shows whether the clock is synchronized".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_that_is_far_from_the_middle_is_found() {
        let clock = |ahead_ms, error_ms| Clock { ahead_ms, error_ms };
        let whats = |clocks: &[(&str, Clock)]| -> Vec<String> {
            apart(clocks)
                .into_iter()
                .map(|finding| format!("{}: {}", finding.subject, finding.what))
                .collect()
        };
        // All the same against this host's wrong clock.
        let hour = 3_600_000;
        assert_eq!(
            whats(&[("a", clock(hour + 5, 10)), ("b", clock(hour, 10)), ("c", clock(hour - 95_000, 10))]),
            ["c: its clock is 95 s behind that of b"]
        );
        assert_eq!(
            whats(&[("a", clock(0, 1)), ("b", clock(40_000, 1))]),
            ["b: its clock is 40 s ahead of that of a"]
        );
        assert_eq!(
            whats(&[("a", clock(0, 1)), ("b", clock(40_000, 12_000))]),
            [""; 0],
            "the answer took long"
        );
        assert_eq!(whats(&[("a", clock(hour, 1))]), [""; 0], "nobody to compare with");
        assert_eq!(whats(&[]), [""; 0]);
    }
}
