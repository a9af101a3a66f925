//! Sets of numbers, as disjoint ranges.

use p2p_proto::v1::RevocationRange;
use std::collections::BTreeMap;

/// Most ranges that are read of a message. What lies beyond counts as not held, and is sent once more.
const MAX_READ: usize = 8192;

/// A set of numbers, kept as ranges that neither touch nor overlap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranges(BTreeMap<u64, u64>);

impl Ranges {
    /// Adds `first` to `last`, both included.
    pub fn add(&mut self, mut first: u64, mut last: u64) {
        // Every range that overlaps the new one or touches it is swallowed by it.
        let touching: Vec<u64> = self
            .0
            .range(..=last.saturating_add(1))
            .rev()
            .take_while(|(_, end)| end.saturating_add(1) >= first)
            .map(|(start, _)| *start)
            .collect();
        for start in touching {
            if let Some(end) = self.0.remove(&start) {
                (first, last) = (first.min(start), last.max(end));
            }
        }
        self.0.insert(first, last);
    }

    /// Whether all of `first` to `last` is in the set.
    pub fn covers(&self, first: u64, last: u64) -> bool {
        self.0.range(..=first).next_back().is_some_and(|(_, end)| *end >= last)
    }

    /// The highest number in the set.
    pub fn highest(&self) -> Option<u64> {
        self.0.values().next_back().copied()
    }

    /// For a message.
    pub fn to_wire(&self) -> Vec<RevocationRange> {
        self.0.iter().map(|(first, last)| RevocationRange { first: *first, last: *last }).collect()
    }

    /// Of a message, whatever its order; empty ranges are passed over.
    pub fn from_wire(ranges: &[RevocationRange]) -> Self {
        let mut set = Self::default();
        for range in ranges.iter().take(MAX_READ).filter(|range| range.first <= range.last) {
            set.add(range.first, range.last);
        }
        set
    }
}
