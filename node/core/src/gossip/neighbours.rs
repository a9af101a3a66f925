//! The active view: the few members with which a node keeps in touch.
//!
//! News and comparisons go to them only, so they take n log n connections and not n squared; what probes open comes on top. They are a uniform
//! sample of the members, as many as [`fan_out`] says: whoever joins takes the place of one of them with the probability
//! that a fresh sample would hold it (reservoir sampling, Vitter 1985). Chosen as they come, those who joined first
//! would be everybody's choice, and the last nobody's. A directed random graph of that degree reaches all with the
//! probability that a push to as many fresh random members has; one neighbour is replaced every [`ROTATE_PAUSE`], so that
//! no unlucky draw lasts.

use super::{Engine, fan_out};
use crate::{Moment, NodeId, membership::Identity};
use rand::{RngExt as _, seq::IndexedRandom as _};
use std::{collections::BTreeSet, time::Duration};

/// How often one is replaced.
const ROTATE_PAUSE: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub(super) struct Neighbours {
    chosen: Vec<NodeId>,
    /// All members that have had their chance.
    met: BTreeSet<NodeId>,
    rotate_at: Moment,
}

impl Neighbours {
    /// How many members there are.
    pub(super) fn count(&self) -> usize {
        self.met.len()
    }
}

impl Engine {
    /// The members to be told of news, by their present lives.
    pub(super) fn neighbours(&self) -> Vec<Identity> {
        if self.membership.has_left() {
            return Vec::new();
        }
        let chosen = self.neighbours.chosen.iter();
        chosen.filter_map(|node| self.membership.get(node).map(|(life, _)| life.clone())).collect()
    }

    /// A member has appeared, gone or changed.
    pub(super) fn look_at_neighbour(&mut self, node: &NodeId) {
        let takes_part = self.membership.is_active(node) && !self.is_banned(node);
        match (takes_part, self.neighbours.met.contains(node)) {
            (true, false) => {
                self.neighbours.met.insert(node.clone());
                self.consider(node);
            }
            (false, true) => {
                self.neighbours.met.remove(node);
                self.neighbours.chosen.retain(|chosen| chosen != node);
            }
            (true, true) | (false, false) => {}
        }
    }

    fn consider(&mut self, node: &NodeId) {
        let (met, wanted) = (self.neighbours.met.len(), fan_out(self.neighbours.met.len()));
        let chosen = &mut self.neighbours.chosen;
        if chosen.len() < wanted {
            chosen.push(node.clone());
        } else {
            let place = self.rng.random_range(0..met);
            if let Some(chosen) = chosen.get_mut(place) {
                *chosen = node.clone();
            }
        }
    }

    pub(super) fn rotates(&self, now: Moment) -> bool {
        now >= self.neighbours.rotate_at
    }

    /// Fills up what is missing, and replaces one now and then.
    pub(super) fn keep_neighbours(&mut self, now: Moment) {
        let wanted = fan_out(self.neighbours.met.len());
        if self.rotates(now) {
            self.neighbours.rotate_at = now + ROTATE_PAUSE;
            if self.neighbours.chosen.len() >= wanted {
                let gone = self.rng.random_range(0..self.neighbours.chosen.len());
                self.neighbours.chosen.swap_remove(gone);
            }
        }
        if self.neighbours.chosen.len() < wanted.min(self.neighbours.met.len()) {
            let (active, met) = (self.membership.active(), &self.neighbours.met);
            // Enough that those which cannot be taken do not matter.
            let some = active.sample(&mut self.rng, 2 * wanted + self.bans.banned().len());
            for life in some.filter(|life| met.contains(&life.node)) {
                if self.neighbours.chosen.len() < wanted && !self.neighbours.chosen.contains(&life.node) {
                    self.neighbours.chosen.push(life.node.clone());
                }
            }
        }
        let lives = self.neighbours();
        self.membership.set_neighbours(lives);
    }
}
