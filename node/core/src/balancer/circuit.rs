//! Whether a provider is tried at all.
//!
//! ```text
//!           5 failures in a row, or half of at least 20 calls within 10 s
//!   closed ──────────────────────────────────────────────────────────────► open, 5 s
//!      ▲                                                                    │ ▲
//!      │ it succeeds                                              time is up│ │ it fails: twice as long, at most 60 s
//!      └──────────────────────────── half-open: one call at a time ◄────────┘─┘
//! ```

use super::Gate;
use crate::Moment;
use std::time::Duration;

/// Failures in a row that open a circuit.
const IN_A_ROW: u32 = 5;
/// The time over which successes and failures are counted.
const WINDOW: Duration = Duration::from_secs(10);
/// Calls in it below which the share of failures says nothing.
const ENOUGH: u32 = 20;
/// How long a provider is ejected for the first time; each time again in a row twice as long.
const SHORTEST: Duration = Duration::from_secs(5);
/// The longest.
const LONGEST: Duration = Duration::from_secs(60);
/// After so long a trial that has not ended holds nobody back: it may be a call that waits for its own caller.
const TRIAL_MAX: Duration = Duration::from_secs(10);
/// After so long without an ejection the next one counts as the first.
const FORGIVEN: Duration = Duration::from_secs(60);

/// How a call ended, as far as it speaks for or against its provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was answered: errors of the method itself, too.
    Answered,
    /// The provider was not reached, broke off, or says that it is unavailable.
    Failed,
    /// It says nothing: the caller turned away, or its deadline was too short.
    Unknown,
}

/// A circuit as people see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CircuitState {
    /// Calls go there.
    Closed,
    /// None do.
    Open {
        /// For how long yet.
        left: Duration,
    },
    /// One at a time does, to see whether it is well again.
    HalfOpen,
}

/// The circuit of one provider.
#[derive(Clone, Debug, Default)]
pub struct Circuit {
    open: Option<Open>,
    /// Ejections in a row.
    ejections: u32,
    closed_at: Moment,
    failures_in_a_row: u32,
    window: Window,
}

#[derive(Clone, Copy, Debug)]
struct Open {
    until: Moment,
    /// Calls under way that were begun while it was open.
    trials: u32,
    /// When the last of them began.
    tried_at: Moment,
}

#[derive(Clone, Copy, Debug, Default)]
struct Window {
    began: Moment,
    calls: u32,
    failed: u32,
}

impl Window {
    fn count(&mut self, now: Moment, failed: bool) {
        if now.since(self.began) >= WINDOW {
            *self = Self { began: now, ..Self::default() };
        }
        self.calls = self.calls.saturating_add(1);
        self.failed = self.failed.saturating_add(u32::from(failed));
    }

    fn is_bad(&self) -> bool {
        self.calls >= ENOUGH && self.failed >= self.calls.div_ceil(2)
    }
}

impl Circuit {
    /// Its state.
    pub fn state(&self, now: Moment) -> CircuitState {
        match self.open {
            None => CircuitState::Closed,
            Some(open) if now < open.until => CircuitState::Open { left: open.until.since(now) },
            Some(_) => CircuitState::HalfOpen,
        }
    }

    /// Whether a call may go there.
    pub fn gate(&self, now: Moment) -> Gate {
        match (self.open, self.state(now)) {
            (None, _) | (_, CircuitState::Closed) => Gate::Free,
            (_, CircuitState::Open { left }) => Gate::Shut { left },
            (Some(open), CircuitState::HalfOpen) => {
                let busy = open.trials > 0 && now.since(open.tried_at) < TRIAL_MAX;
                if busy { Gate::Shut { left: Duration::ZERO } } else { Gate::Trial }
            }
        }
    }

    /// A call begins; says whether it is a trial, which [`Self::ended`] must be told.
    pub fn begin(&mut self, now: Moment) -> bool {
        match &mut self.open {
            None => false,
            Some(open) => {
                (open.trials, open.tried_at) = (open.trials.saturating_add(1), now);
                true
            }
        }
    }

    /// A call has ended. Says whether its provider is ejected for it.
    pub fn ended(&mut self, now: Moment, trial: bool, outcome: Outcome) -> bool {
        if let Some(open) = &mut self.open {
            if !trial {
                // Begun before: it says nothing that is not known.
                return false;
            }
            open.trials = open.trials.saturating_sub(1);
            return match outcome {
                Outcome::Unknown => false,
                Outcome::Failed => self.eject(now),
                Outcome::Answered => {
                    (self.open, self.closed_at) = (None, now);
                    (self.failures_in_a_row, self.window) = (0, Window::default());
                    false
                }
            };
        }
        match outcome {
            Outcome::Unknown => false,
            Outcome::Answered => {
                self.failures_in_a_row = 0;
                self.window.count(now, false);
                false
            }
            Outcome::Failed => {
                self.failures_in_a_row += 1;
                self.window.count(now, true);
                if self.failures_in_a_row < IN_A_ROW && !self.window.is_bad() {
                    return false;
                }
                if now.since(self.closed_at) >= FORGIVEN {
                    self.ejections = 0;
                }
                self.eject(now)
            }
        }
    }

    fn eject(&mut self, now: Moment) -> bool {
        let pause = SHORTEST.saturating_mul(1 << self.ejections.min(4)).min(LONGEST);
        self.ejections = self.ejections.saturating_add(1);
        let (trials, tried_at) = self.open.map_or((0, now), |open| (open.trials, open.tried_at));
        self.open = Some(Open { until: now + pause, trials, tried_at });
        true
    }
}
