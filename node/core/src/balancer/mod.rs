//! Which provider takes a call.
//!
//! | file | what it holds |
//! |---|---|
//! | `mod` | the choice: power of two choices, around providers whose circuit is open |
//! | `latency` | how long a provider takes to answer: a peak-sensitive moving average |
//! | `circuit` | whether a provider is tried at all: outlier ejection |
//!
//! Of two random candidates the one that costs less is tried, which keeps the longest queue exponentially shorter than
//! one random choice does (Mitzenmacher 2001, "The Power of Two Choices"). What a candidate costs is its latency times
//! the calls that wait for it. A choice looks at two candidates, however many there are; only where it meets one that
//! is shut it looks at all.

mod circuit;
mod latency;
#[cfg(test)]
mod tests;

pub use circuit::{Circuit, CircuitState, Outcome};
pub use latency::Latency;

use rand::{Rng, RngExt as _};
use std::{cmp::Reverse, time::Duration};

/// What one provider looks like at the moment of a choice.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// What a call to it costs: less is better.
    pub cost: f64,
    /// What its circuit says.
    pub gate: Gate,
}

/// Whether a provider takes a call now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// It does.
    Free,
    /// It was ejected, and the next call tries whether it is well again.
    Trial,
    /// It is ejected.
    Shut {
        /// For how long yet; zero while a trial is under way.
        left: Duration,
    },
}

/// The providers of a method, by their place in a list of which the first `near` are preferred.
#[derive(Clone, Copy, Debug)]
pub struct Providers<'a> {
    /// How many there are.
    pub count: usize,
    /// How many of them, the first, are near.
    pub near: usize,
    /// Those that this call has tried already.
    pub tried: &'a [usize],
}

impl Providers<'_> {
    fn untried(&self, range: std::ops::Range<usize>) -> usize {
        range.len() - (0..self.tried.len()).filter(|&at| self.is_first(at, &range)).count()
    }

    /// Whether `tried[at]` lies in the range, and is named there for the first time.
    fn is_first(&self, at: usize, range: &std::ops::Range<usize>) -> bool {
        range.contains(&self.tried[at]) && !self.tried[..at].contains(&self.tried[at])
    }

    /// The first untried of a range at or after `index`, going round. There is one.
    fn next(&self, range: &std::ops::Range<usize>, mut index: usize) -> usize {
        while self.tried.contains(&index) {
            index = if index + 1 < range.end { index + 1 } else { range.start };
        }
        index
    }

    /// The untried number `nth` of a range; there are more.
    fn nth(&self, range: &std::ops::Range<usize>, nth: usize) -> usize {
        if self.tried.is_empty() {
            return range.start + nth;
        }
        range
            .clone()
            .filter(|index| !self.tried.contains(index))
            .nth(nth)
            .unwrap_or_else(|| self.next(range, range.start))
    }

    /// Chooses one that was not tried; `None` if all were. `look` says how one stands.
    ///
    /// Who is [`Gate::Shut`] is passed over, but of all providers at most half: so where all fail, most are tried as if
    /// there were no circuits, and those that are well never take everybody's calls. Near ones come first as long as
    /// one of them may be tried, and who is due for a trial before others. If only shut ones are left, the one that is
    /// so for the shortest time yet is better than none.
    pub fn choose(&self, mut look: impl FnMut(usize) -> Candidate, rng: &mut impl Rng) -> Option<usize> {
        let (near, far) = (0..self.near.min(self.count), self.near.min(self.count)..self.count);
        let range = if self.untried(near.clone()) > 0 { near } else { far };
        let count = self.untried(range.clone());
        let first = match count {
            0 => return None,
            1 => self.nth(&range, 0),
            _ => {
                let first = rng.random_range(0..count);
                let second = (first + rng.random_range(1..count)) % count;
                let (first, second) = (self.nth(&range, first), self.nth(&range, second));
                match (look(first), look(second)) {
                    (Candidate { gate: Gate::Trial, .. }, _) => return Some(first),
                    (_, Candidate { gate: Gate::Trial, .. }) => return Some(second),
                    (
                        Candidate { gate: Gate::Free, cost: one },
                        Candidate { gate: Gate::Free, cost: other },
                    ) => {
                        return Some(if other < one { second } else { first });
                    }
                    (Candidate { gate: Gate::Shut { .. }, .. }, _)
                    | (_, Candidate { gate: Gate::Shut { .. }, .. }) => {
                        return self.choose_around(look, rng);
                    }
                }
            }
        };
        match look(first).gate {
            Gate::Free | Gate::Trial => Some(first),
            Gate::Shut { .. } => self.choose_around(look, rng),
        }
    }

    /// The same, looking at all.
    #[cold]
    fn choose_around(&self, look: impl FnMut(usize) -> Candidate, rng: &mut impl Rng) -> Option<usize> {
        let all: Vec<Candidate> = (0..self.count).map(look).collect();
        let left = |index: usize| match all[index].gate {
            Gate::Shut { left } => Some(left),
            Gate::Free | Gate::Trial => None,
        };
        let mut shut: Vec<usize> = (0..self.count).filter(|&index| left(index).is_some()).collect();
        // Those that are shut for longest are passed over.
        shut.sort_by_key(|&index| Reverse(left(index)));
        shut.truncate(self.count / 2);
        let open = |index: &usize| !self.tried.contains(index) && !shut.contains(index);
        let mut eligible: Vec<usize> = (0..self.near.min(self.count)).filter(open).collect();
        if eligible.is_empty() {
            eligible = (self.near.min(self.count)..self.count).filter(open).collect();
        }
        if let Some(&due) = eligible.iter().find(|&&index| all[index].gate == Gate::Trial) {
            return Some(due);
        }
        match eligible.len() {
            0 => shut.into_iter().rev().find(|index| !self.tried.contains(index)),
            1 => Some(eligible[0]),
            count => {
                let first = rng.random_range(0..count);
                let second = (first + rng.random_range(1..count)) % count;
                let (first, second) = (eligible[first], eligible[second]);
                Some(if all[second].cost < all[first].cost { second } else { first })
            }
        }
    }
}
