//! How long a provider takes to answer.

use crate::Moment;
use std::time::Duration;

/// How fast what was measured is forgotten: after this time 37 % of it are left.
const DECAY: Duration = Duration::from_secs(10);
/// What was measured longer ago than this says nothing: the provider counts as unmeasured again.
const STALE: Duration = Duration::from_secs(60);
/// What a provider that was never measured is taken for while a first call is under way there.
const UNMEASURED: Duration = Duration::from_secs(1);
/// A failure counts as so much latency, which is forgotten within `PENALTY_DECAY`: where others answer within a
/// millisecond, who fails is spared for some seven seconds.
const PENALTY: Duration = Duration::from_secs(1);
const PENALTY_DECAY: Duration = Duration::from_secs(1);

/// A moving average of latency that rises to each peak at once, and falls again with time, whether calls are made or
/// not (the peak-EWMA of Finagle and linkerd). So a provider that becomes slow loses its calls within one of them, and is
/// tried again later.
#[derive(Clone, Debug, Default)]
pub struct Latency {
    measured: Option<Measured>,
    /// Seconds, as of `penalised`.
    penalty: f64,
    penalised: Moment,
}

#[derive(Clone, Copy, Debug)]
struct Measured {
    seconds: f64,
    at: Moment,
}

/// The part that is left of a value after `elapsed`.
fn left(elapsed: Duration, decay: Duration) -> f64 {
    (-elapsed.as_secs_f64() / decay.as_secs_f64()).exp()
}

impl Latency {
    fn present(&self, now: Moment) -> Option<Measured> {
        self.measured.filter(|measured| now.since(measured.at) < STALE)
    }

    /// An answer took `took`.
    pub fn observe(&mut self, now: Moment, took: Duration) {
        let took = took.as_secs_f64();
        let seconds = match self.present(now) {
            Some(before) if before.seconds > took => {
                let weight = left(now.since(before.at), DECAY);
                before.seconds * weight + took * (1.0 - weight)
            }
            Some(_) | None => took,
        };
        self.measured = Some(Measured { seconds, at: now });
    }

    /// A call was given up after `waited`: its answer would have taken at least that. Who was never heard of is not taken for
    /// quick because its callers are impatient.
    pub fn gave_up(&mut self, now: Moment, waited: Duration) {
        match self.average(now) {
            Some(known) if waited <= known => {}
            Some(_) => self.observe(now, waited),
            None => self.observe(now, waited.max(UNMEASURED)),
        }
    }

    /// A call failed.
    pub fn failed(&mut self, now: Moment) {
        (self.penalty, self.penalised) = (PENALTY.as_secs_f64(), now);
    }

    /// The average now; `None` if nothing is known of it.
    pub fn average(&self, now: Moment) -> Option<Duration> {
        let measured = self.present(now)?;
        Some(Duration::from_secs_f64(measured.seconds * left(now.since(measured.at), DECAY)))
    }

    /// What one more call costs where `in_flight` wait already. A provider that nothing is known of costs nothing for
    /// one call, and much for a second one: it is tried first, but not flooded.
    pub fn cost(&self, now: Moment, in_flight: usize) -> f64 {
        let seconds = match self.average(now) {
            Some(average) => average.as_secs_f64(),
            None if in_flight == 0 => 0.0,
            None => UNMEASURED.as_secs_f64(),
        };
        let penalty = self.penalty * left(now.since(self.penalised), PENALTY_DECAY);
        #[expect(clippy::cast_precision_loss, reason = "calls in flight are few")]
        let waiting = in_flight as f64 + 1.0;
        (seconds + penalty) * waiting
    }
}
