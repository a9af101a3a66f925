//! foca's timers, in the order in which they are due.

use super::{Identity, settings::GOSSIP_PERIOD};
use crate::time::Moment;
use foca::Timer;
use std::{cmp::Reverse, collections::BinaryHeap};

pub(super) struct Due {
    at: Moment,
    sequence: u64,
    timer: Timer<Identity>,
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.sequence) == (other.at, other.sequence)
    }
}
impl Eq for Due {}
impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.sequence).cmp(&(other.at, other.sequence))
    }
}

/// Timers that have not fired. Those due at one moment fire in the order in which they were set.
#[derive(Default)]
pub(super) struct Timers {
    pub(super) heap: BinaryHeap<Reverse<Due>>,
    sequence: u64,
    /// The timer of periodic gossip while there is nothing to gossip about: it would wake the node five times a second.
    resting: Option<(Moment, Timer<Identity>)>,
}

impl Timers {
    pub(super) fn set(&mut self, at: Moment, timer: Timer<Identity>) {
        if matches!(timer, Timer::PeriodicGossip(_)) {
            self.resting = Some((at, timer));
        } else {
            self.push(at, timer);
        }
    }

    fn push(&mut self, at: Moment, timer: Timer<Identity>) {
        self.sequence += 1;
        self.heap.push(Reverse(Due { at, sequence: self.sequence, timer }));
    }

    /// Whether there is nothing to gossip about. When there is again, it goes on in the same rhythm as before.
    pub(super) fn rest(&mut self, now: Moment, rests: bool) {
        if !rests && let Some((at, timer)) = self.resting.take() {
            let missed = now.since(at).as_nanos().div_ceil(GOSSIP_PERIOD.as_nanos());
            let missed = u32::try_from(missed).unwrap_or(u32::MAX);
            self.push(at + GOSSIP_PERIOD.saturating_mul(missed), timer);
        }
    }

    pub(super) fn next(&self) -> Option<Moment> {
        self.heap.peek().map(|Reverse(due)| due.at)
    }

    /// Takes the next timer if it is due.
    pub(super) fn pop_due(&mut self, now: Moment) -> Option<Timer<Identity>> {
        if self.next().is_none_or(|at| at > now) {
            return None;
        }
        self.heap.pop().map(|Reverse(due)| due.timer)
    }

    pub(super) fn clear(&mut self) {
        self.heap.clear();
        self.resting = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn gossip_rests_while_there_is_no_news_and_then_keeps_its_rhythm() {
        let ms = |ms| Moment::at(Duration::from_millis(ms));
        let mut timers = Timers::default();
        timers.set(ms(250), Timer::PeriodicGossip(0));
        timers.rest(ms(50), true);
        assert_eq!(timers.next(), None, "nothing wakes the node");
        timers.rest(ms(900), false);
        assert_eq!(timers.next(), Some(ms(1_050)));
        assert!(timers.pop_due(ms(1_050)).is_some());
        timers.set(ms(1_250), Timer::PeriodicGossip(0));
        timers.rest(ms(1_050), false);
        assert_eq!(timers.next(), Some(ms(1_250)), "there is more news");
    }
}
