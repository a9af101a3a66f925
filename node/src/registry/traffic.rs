//! What services of users had to do at this node, counted for `SystemService.GetMetrics`.

use super::rate_class;
use crate::limit::RateClass;
use p2p_core::{MethodPath, method::StreamingKind};
use p2p_proto::v1::DurationCount;
use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};
use tonic::Code;

/// Each octave of microseconds is cut into so many parts: what stands for a duration is at most a quarter longer.
const PARTS: usize = 4;
/// Log2 of the shortest duration that is told from shorter ones, in microseconds.
const FIRST_OCTAVE: u32 = 4;
/// The same of the longest, 71 minutes: unary calls that take longer count as that.
const LAST_OCTAVE: u32 = 31;
const BUCKETS: usize = 1 + (LAST_OCTAVE - FIRST_OCTAVE + 1) as usize * PARTS;

/// Calls that have ended.
#[derive(Debug)]
pub(super) struct Traffic {
    failed: AtomicU64,
    streams: AtomicU64,
    unary: [AtomicU64; BUCKETS],
}

/// How much passed since the node started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CallCounts {
    /// Calls that ended.
    pub ended: u64,
    /// Those with another status than OK.
    pub failed: u64,
    /// The unary ones by how long they took, shortest first.
    pub durations: Vec<DurationCount>,
}

impl Default for Traffic {
    fn default() -> Self {
        Self {
            failed: AtomicU64::new(0),
            streams: AtomicU64::new(0),
            unary: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }
}

impl Traffic {
    /// Whether calls of `method` are what users have the cluster for: those of their services, and of what they try it out
    /// with. Who looks at the cluster does not change what he sees.
    pub(super) fn counts(method: &MethodPath) -> bool {
        rate_class(method.service()) == RateClass::Grpc || method.as_str() == "p2p.v1.SystemService/Echo"
    }

    pub(super) fn ended(&self, streaming: StreamingKind, code: Code, duration: Duration) {
        let count = match streaming {
            StreamingKind::Unary => &self.unary[bucket(duration)],
            // How long they take says nothing of how well they fare.
            StreamingKind::Server
            | StreamingKind::Client
            | StreamingKind::Bidi
            | StreamingKind::Unspecified => &self.streams,
        };
        count.fetch_add(1, Ordering::Relaxed);
        if code != Code::Ok {
            self.failed.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn counts_now(&self) -> CallCounts {
        let durations: Vec<_> = self
            .unary
            .iter()
            .enumerate()
            .map(|(bucket, calls)| DurationCount {
                below_microseconds: bound(bucket),
                calls: calls.load(Ordering::Relaxed),
            })
            .filter(|count| count.calls > 0)
            .collect();
        let unary: u64 = durations.iter().map(|count| count.calls).sum();
        let ended = unary + self.streams.load(Ordering::Relaxed);
        CallCounts { ended, failed: self.failed.load(Ordering::Relaxed), durations }
    }
}

fn bucket(duration: Duration) -> usize {
    let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    let octave = micros.max(1).ilog2();
    if octave < FIRST_OCTAVE {
        return 0;
    }
    // The two bits below the highest one say which quarter.
    let part = usize::try_from((micros >> (octave - 2)) & 3).expect("two bits");
    (1 + (octave - FIRST_OCTAVE) as usize * PARTS + part).min(BUCKETS - 1)
}

/// What every duration of the bucket is shorter than, in microseconds.
fn bound(bucket: usize) -> u64 {
    let (octave, part) = (bucket / PARTS, bucket % PARTS);
    ((PARTS + part) as u64) << (octave + FIRST_OCTAVE as usize - 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_told_a_quarter_too_long_at_most() {
        assert_eq!((bound(0), bound(1), bound(4), bound(5)), (16, 20, 32, 40));
        for micros in [0, 1, 15, 16, 19, 20, 31, 32, 63, 64, 999, 1_000, 123_456_789, (1 << 32) - 1] {
            let bound = bound(bucket(Duration::from_micros(micros)));
            assert!(micros < bound, "{micros} in {bound}");
            assert!(micros < 16 || bound <= micros + micros / 4 + 1, "{micros} in {bound}");
        }
        for micros in [1 << 32, u64::MAX] {
            assert_eq!(bound(bucket(Duration::from_micros(micros))), 1 << 32);
        }
    }

    #[test]
    fn streams_count_but_have_no_duration() {
        let traffic = Traffic::default();
        traffic.ended(StreamingKind::Unary, Code::Ok, Duration::from_micros(17));
        traffic.ended(StreamingKind::Unary, Code::NotFound, Duration::from_micros(18));
        traffic.ended(StreamingKind::Bidi, Code::Unavailable, Duration::from_hours(1));
        let durations = vec![DurationCount { below_microseconds: 20, calls: 2 }];
        assert_eq!(traffic.counts_now(), CallCounts { ended: 3, failed: 2, durations });
    }

    #[test]
    fn calls_of_the_system_do_not_count_but_echo_does() {
        for (method, counts) in [
            ("shop.Orders/Get", true),
            ("p2p.v1.SystemService/Echo", true),
            ("p2p.v1.RpcService/Call", false),
            ("p2p.v1.SystemService/GetMetrics", false),
            ("grpc.health.v1.Health/Check", false),
        ] {
            assert_eq!(Traffic::counts(&method.parse().expect("a path")), counts, "{method}");
        }
    }
}
