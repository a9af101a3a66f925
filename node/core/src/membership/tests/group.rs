//! A few failure detectors in virtual time, one millisecond apart from each other.

use super::super::{Identity, Liveness, Membership};
use crate::{
    Moment, NodeId,
    testing::{START_MS, life, node},
};
use bytes::Bytes;
use rand::{SeedableRng, rngs::StdRng};
use std::{
    collections::{BTreeSet, VecDeque},
    time::Duration,
};

const LATENCY: Duration = Duration::from_millis(1);

pub(super) struct Group {
    pub(super) now: Moment,
    pub(super) nodes: Vec<Membership>,
    /// Neither heard nor hearing.
    pub(super) muted: BTreeSet<usize>,
    in_flight: VecDeque<(Moment, usize, Identity, Bytes)>,
}

/// The failure detector of a life, alone.
pub(super) fn alone(own: Identity) -> Membership {
    let rng = StdRng::seed_from_u64(u64::from(own.instance));
    Membership::new(own, START_MS, rng)
}

impl Group {
    /// n0, n1, …, all known to each other.
    pub(super) fn joined(count: u16) -> Self {
        let mut group = Self {
            now: Moment::default(),
            nodes: Vec::new(),
            muted: BTreeSet::new(),
            in_flight: VecDeque::new(),
        };
        for index in 0..count {
            group.join(life(&format!("n{index}"), 0, 1000 + index));
        }
        group.run(Duration::from_secs(2));
        let all = usize::from(count) - 1;
        assert!(group.nodes.iter().all(|node| node.active_count() == all), "all have joined");
        group
    }

    pub(super) fn join(&mut self, own: Identity) {
        let mut node = alone(own);
        if let Some(first) = self.nodes.first() {
            node.announce(self.now, first.own().clone());
        }
        self.nodes.push(node);
        self.collect();
    }

    /// What node `index` says of `name`.
    pub(super) fn sees(&self, index: usize, name: &str) -> Option<Liveness> {
        let name: NodeId = node(name);
        self.nodes[index].lives().find(|(life, _)| life.node == name).map(|(_, liveness)| liveness)
    }

    pub(super) fn renewals(&self) -> u64 {
        self.nodes.iter().map(Membership::renewals).sum()
    }

    pub(super) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.step(end) {}
        self.now = end;
    }

    /// Runs until `done`, at most for `limit`; returns how long that took.
    pub(super) fn until(&mut self, limit: Duration, done: impl Fn(&Self) -> bool) -> Duration {
        let started = self.now;
        while !done(self) {
            assert!(self.step(started + limit), "not within {limit:?}");
        }
        self.now.since(started)
    }

    /// Does what comes next, if that is before `end`.
    fn step(&mut self, end: Moment) -> bool {
        self.collect();
        let timer = self.nodes.iter().filter_map(Membership::next_deadline).min();
        let arrival = self.in_flight.front().map(|(at, ..)| *at);
        let Some(next) = [timer, arrival].into_iter().flatten().min().filter(|next| *next <= end) else {
            return false;
        };
        self.now = self.now.max(next);
        if arrival == Some(next) {
            if let Some((_, from, to, packet)) = self.in_flight.pop_front() {
                self.deliver(from, &to, &packet);
            }
        } else {
            for node in &mut self.nodes {
                node.tick(self.now);
            }
        }
        true
    }

    fn deliver(&mut self, from: usize, to: &Identity, packet: &[u8]) {
        let peer = self.nodes[from].own().node.clone();
        let proves = |life: &Identity| life.address == to.address && life.node == to.node;
        let target = self.nodes.iter().position(|node| proves(node.own()));
        if let Some(target) = target.filter(|target| !self.muted.contains(target)) {
            self.nodes[target].receive(self.now, START_MS, &peer, packet).expect("a good packet");
        }
    }

    /// Puts what all nodes want to send on its way.
    pub(super) fn collect(&mut self) {
        for (index, node) in self.nodes.iter_mut().enumerate() {
            while let Some((to, packet)) = node.next_packet() {
                if !self.muted.contains(&index) {
                    self.in_flight.push_back((self.now + LATENCY, index, to, packet));
                }
            }
        }
    }
}
