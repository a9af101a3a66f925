//! The active view: the few members with which a node keeps in touch.
//!
//! News, comparisons and probes go to them only, so that n nodes keep n log n connections and not n². They are a uniform
//! sample of the members, as many as [`fan_out`] says: whoever joins takes the place of one of them with the probability
//! that a fresh sample would hold it (reservoir sampling, Vitter 1985). Chosen as they come, those who joined first
//! would be everybody's choice, and the last nobody's. A directed random graph of that degree reaches all with the
//! probability that a push to as many fresh random members has; one neighbour is replaced every [`ROTATE_PAUSE`], so that
//! no unlucky draw lasts.

use super::{Engine, fan_out};
use crate::{Moment, NodeId, membership::Identity};
use rand::{RngExt as _, seq::IndexedRandom as _};
use std::{
    collections::{BTreeSet, VecDeque},
    time::Duration,
};

/// How often one is replaced.
const ROTATE_PAUSE: Duration = Duration::from_secs(120);
/// How often newcomers take places. While a cluster starts, each place changes hands many times over; who has lost it
/// again within this time was never dialled.
const REDRAW_PAUSE: Duration = Duration::from_secs(3);
/// How long who has just connected is told of news, too: until it has places, nobody may think of it.
const GUEST_TIME: Duration = Duration::from_secs(10);
/// Most guests, the last ones to come.
const GUESTS: usize = 4;

#[derive(Debug, Default)]
pub(super) struct Neighbours {
    chosen: Vec<NodeId>,
    /// The sample as it stands, which takes over at `redraw_at`.
    drawn: Vec<NodeId>,
    redraw_at: Moment,
    /// Who has just connected, and until when it is a guest.
    guests: VecDeque<(NodeId, Moment)>,
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

    /// Those who are told of news beside the neighbours.
    pub(super) fn guests(&self) -> Vec<Identity> {
        let Neighbours { chosen, guests, .. } = &self.neighbours;
        let guests = guests.iter().filter(|(node, _)| !chosen.contains(node));
        guests.filter_map(|(node, _)| self.membership.get(node).map(|(life, _)| life.clone())).collect()
    }

    /// `node` has connected.
    pub(super) fn welcome(&mut self, now: Moment, node: &NodeId) {
        let guests = &mut self.neighbours.guests;
        guests.retain(|(guest, _)| guest != node);
        guests.push_back((node.clone(), now + GUEST_TIME));
        if guests.len() > GUESTS {
            guests.pop_front();
        }
        self.dirty.insert(node.clone());
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
                self.neighbours.drawn.retain(|drawn| drawn != node);
            }
            (true, true) | (false, false) => {}
        }
    }

    fn consider(&mut self, node: &NodeId) {
        let (met, wanted) = (self.neighbours.met.len(), fan_out(self.neighbours.met.len()));
        let Neighbours { chosen, drawn, .. } = &mut self.neighbours;
        if chosen.len() < wanted {
            chosen.push(node.clone());
        }
        if drawn.len() < wanted {
            drawn.push(node.clone());
        } else if let Some(place) = drawn.get_mut(self.rng.random_range(0..met)) {
            *place = node.clone();
        }
    }

    /// Whether the view changes now, though no member has.
    pub(super) fn rotates(&self, now: Moment) -> bool {
        let Neighbours { chosen, drawn, redraw_at, rotate_at, guests, .. } = &self.neighbours;
        let guest_leaves = guests.front().is_some_and(|(_, until)| now >= *until);
        guest_leaves || now >= *rotate_at || (now >= *redraw_at && chosen != drawn)
    }

    /// Fills up what is missing, and replaces one now and then.
    pub(super) fn keep_neighbours(&mut self, now: Moment) {
        let wanted = fan_out(self.neighbours.met.len());
        if now >= self.neighbours.rotate_at {
            self.neighbours.rotate_at = now + ROTATE_PAUSE;
            if self.neighbours.drawn.len() >= wanted {
                let gone = self.rng.random_range(0..self.neighbours.drawn.len());
                self.neighbours.drawn.swap_remove(gone);
            }
        }
        if self.neighbours.drawn.len() < wanted.min(self.neighbours.met.len()) {
            let (active, met) = (self.membership.active(), &self.neighbours.met);
            // Enough that those which cannot be taken do not matter.
            let some = active.sample(&mut self.rng, 2 * wanted + self.bans.banned().len());
            let drawn = &mut self.neighbours.drawn;
            for life in some.filter(|life| met.contains(&life.node)) {
                if drawn.len() < wanted && !drawn.contains(&life.node) {
                    drawn.push(life.node.clone());
                }
            }
        }
        let Neighbours { chosen, drawn, redraw_at, guests, .. } = &mut self.neighbours;
        guests.retain(|(_, until)| now < *until);
        if now >= *redraw_at && chosen != drawn {
            *redraw_at = now + REDRAW_PAUSE;
            chosen.clone_from(drawn);
        }
        let (neighbours, guests) = (self.neighbours(), self.guests());
        self.membership.set_neighbours(neighbours, guests);
    }
}
