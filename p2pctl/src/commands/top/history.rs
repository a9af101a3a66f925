//! What a node told of itself lately, and the rates that follow from it.

use p2p_proto::v1::{DurationCount, GetMetricsResponse};
use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

/// How many answers of a node are kept; rates are those between the first and the last of them.
const SAMPLES: usize = 6;
/// How many rates of calls are kept for the curve.
const CURVE: usize = 40;

#[derive(Clone, Debug)]
struct Sample {
    at: Instant,
    metrics: GetMetricsResponse,
}

/// The latest answers of one node.
#[derive(Clone, Debug, Default)]
pub(super) struct History {
    samples: VecDeque<Sample>,
    rates: Rates,
    curve: VecDeque<f64>,
}

/// What follows from the answers that are kept; unknown before the second, and of what the node's release does not tell.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Rates {
    /// Calls that ended, a second.
    pub(super) calls: Option<f64>,
    /// Those of them that ended with another status than OK.
    pub(super) errors: Option<f64>,
    /// What half of the unary calls, and 99 of 100, took at most. Unknown without calls.
    pub(super) p50: Option<Duration>,
    pub(super) p99: Option<Duration>,
    /// Bytes of gossip a second.
    pub(super) sent: Option<f64>,
    pub(super) received: Option<f64>,
    /// Share of one core that the process used.
    pub(super) cpu: Option<f64>,
    /// The time that they are of.
    pub(super) over: Option<Duration>,
}

impl Rates {
    /// Bytes of gossip a second, both ways.
    pub(super) fn gossip(&self) -> Option<f64> {
        Some(self.sent? + self.received?)
    }
}

impl History {
    /// Takes an answer; those of an earlier start of the node are forgotten.
    pub(super) fn push(&mut self, at: Instant, metrics: GetMetricsResponse) {
        if self.latest().is_some_and(|latest| metrics.uptime_seconds < latest.uptime_seconds) {
            *self = Self::default();
        }
        let sample = Sample { at, metrics };
        if let Some(calls) = self.samples.back().and_then(|last| rates(last, &sample).calls) {
            self.curve.push_back(calls);
        }
        self.samples.push_back(sample);
        if self.samples.len() > SAMPLES {
            self.samples.pop_front();
        }
        if self.curve.len() > CURVE {
            self.curve.pop_front();
        }
        if let (Some(first), Some(last)) = (self.samples.front(), self.samples.back()) {
            self.rates = rates(first, last);
        }
    }

    /// The latest answer.
    pub(super) fn latest(&self) -> Option<&GetMetricsResponse> {
        self.samples.back().map(|sample| &sample.metrics)
    }

    pub(super) fn rates(&self) -> Rates {
        self.rates
    }

    /// Calls a second between each two answers, oldest first.
    pub(super) fn curve(&self) -> impl Iterator<Item = f64> {
        self.curve.iter().copied()
    }
}

fn rates(first: &Sample, last: &Sample) -> Rates {
    let over = last.at.saturating_duration_since(first.at);
    if over.is_zero() {
        return Rates::default();
    }
    let seconds = over.as_secs_f64();
    let cpu = (last.metrics.process_cpu_seconds - first.metrics.process_cpu_seconds).max(0.0) / seconds;
    let known = Rates { cpu: Some(cpu), over: Some(over), ..Rates::default() };
    let (Some(before), Some(now)) = (&first.metrics.traffic, &last.metrics.traffic) else { return known };
    // Counts of several moments of one answer: one may be a call behind another.
    let rate = |before: u64, now: u64| Some(now.saturating_sub(before) as f64 / seconds);
    let durations = between(&before.unary_durations, &now.unary_durations);
    Rates {
        calls: rate(before.calls, now.calls),
        errors: rate(before.calls_failed, now.calls_failed),
        p50: quantile(&durations, 0.5),
        p99: quantile(&durations, 0.99),
        sent: rate(before.gossip_sent_bytes, now.gossip_sent_bytes),
        received: rate(before.gossip_received_bytes, now.gossip_received_bytes),
        ..known
    }
}

/// Calls by how long they took, by the bound in microseconds.
fn between(before: &[DurationCount], now: &[DurationCount]) -> BTreeMap<u64, u64> {
    let mut calls: BTreeMap<u64, u64> =
        now.iter().map(|count| (count.below_microseconds, count.calls)).collect();
    for count in before {
        if let Some(calls) = calls.get_mut(&count.below_microseconds) {
            *calls = calls.saturating_sub(count.calls);
        }
    }
    calls
}

fn quantile(durations: &BTreeMap<u64, u64>, share: f64) -> Option<Duration> {
    let calls: u64 = durations.values().sum();
    let rank = (calls as f64 * share).ceil() as u64;
    let mut seen = 0;
    let bound = durations.iter().find(|(_, calls)| {
        seen += **calls;
        seen > 0 && seen >= rank
    });
    bound.map(|(below, _)| Duration::from_micros(*below))
}

#[cfg(test)]
mod tests {
    use super::*;
    use p2p_proto::v1::NodeTraffic;

    fn answer(uptime: u64, calls: u64, durations: &[(u64, u64)]) -> GetMetricsResponse {
        let unary_durations = durations
            .iter()
            .map(|&(below_microseconds, calls)| DurationCount { below_microseconds, calls })
            .collect();
        let traffic = NodeTraffic {
            calls,
            calls_failed: calls / 10,
            unary_durations,
            gossip_sent_bytes: uptime * 100,
            ..NodeTraffic::default()
        };
        GetMetricsResponse { uptime_seconds: uptime, traffic: Some(traffic), ..GetMetricsResponse::default() }
    }

    fn history(answers: &[(u64, GetMetricsResponse)]) -> History {
        let (start, mut history) = (Instant::now(), History::default());
        for (second, metrics) in answers {
            history.push(start + Duration::from_secs(*second), metrics.clone());
        }
        history
    }

    #[test]
    fn one_answer_gives_no_rate() {
        assert_eq!(history(&[(0, answer(1, 50, &[(20, 50)]))]).rates(), Rates::default());
    }

    #[test]
    fn rates_are_those_between_the_first_and_the_last_answer_kept() {
        let first = answer(10, 100, &[(20, 100)]);
        let rates = history(&[
            (0, first.clone()),
            (1, first),
            (2, answer(12, 300, &[(20, 290), (40, 8), (1_280, 2)])),
        ])
        .rates();
        assert_eq!((rates.calls, rates.errors, rates.sent), (Some(100.0), Some(10.0), Some(100.0)));
        assert_eq!(rates.over, Some(Duration::from_secs(2)));
        // 190, 8 and 2 of 200 calls.
        assert_eq!(rates.p50, Some(Duration::from_micros(20)));
        assert_eq!(rates.p99, Some(Duration::from_micros(40)));
    }

    #[test]
    fn what_is_kept_is_bounded_and_old_answers_do_not_count() {
        let answers: Vec<_> = (0..200).map(|n| (n, answer(n, n.min(100), &[]))).collect();
        let history = history(&answers);
        assert_eq!((history.samples.len(), history.curve.len()), (SAMPLES, CURVE));
        assert_eq!(history.rates().calls, Some(0.0));
    }

    #[test]
    fn a_restart_begins_anew() {
        let mut answers =
            vec![(0, answer(100, 1_000, &[])), (2, answer(102, 2_000, &[])), (4, answer(1, 3, &[]))];
        assert_eq!(history(&answers).rates().calls, None);
        answers.push((6, answer(3, 5, &[])));
        assert_eq!(history(&answers).rates().calls, Some(1.0));
    }

    #[test]
    fn a_release_that_tells_nothing_of_calls_has_no_rates_of_them() {
        let silent = GetMetricsResponse { process_cpu_seconds: 1.0, ..GetMetricsResponse::default() };
        let later = GetMetricsResponse { process_cpu_seconds: 2.0, ..GetMetricsResponse::default() };
        let rates = history(&[(0, silent), (4, later)]).rates();
        assert_eq!((rates.calls, rates.gossip(), rates.cpu), (None, None, Some(0.25)));
    }

    #[test]
    fn quantiles_of_few_calls_are_the_longest_and_of_none_unknown() {
        assert_eq!(quantile(&BTreeMap::new(), 0.99), None);
        assert_eq!(quantile(&[(20, 0)].into(), 0.99), None);
        let two = [(20, 1), (640, 1)].into();
        assert_eq!(quantile(&two, 0.99), Some(Duration::from_micros(640)));
        assert_eq!(quantile(&two, 0.5), Some(Duration::from_micros(20)));
    }
}
