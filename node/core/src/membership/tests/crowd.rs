//! Many failure detectors in virtual time, with loss, crashes and stalls: one seeded generator, one ordered queue.

use super::super::{Accusation, Identity, Liveness, Membership, evidence::Cause};
use crate::{
    Moment, NodeId,
    testing::{START_MS, life},
};
use bytes::Bytes;
use foca::Member;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, VecDeque},
    time::Duration,
};

const LATENCY: Duration = Duration::from_millis(2);
/// Peers that a node has connections with.
const LINKS: f64 = 256.0;

/// What a crowd is subjected to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Weather {
    /// Share of packets that are lost.
    pub(super) loss: f64,
    /// Whether connections to a dead process are refused (its host lives), or never answered.
    pub(super) refuses: bool,
    /// How many nodes, the last ones, stall for 2 to 8 s every 10 to 20 s.
    pub(super) slow: usize,
}

#[derive(Debug)]
enum Input {
    Tick(usize),
    Packet { from: usize, to: usize, packet: Bytes },
    Accusation { from: usize, to: usize, accusation: Accusation },
    Refused { by: usize, node: usize },
    Stall(usize),
    Wake(usize),
}

struct Node {
    membership: Membership,
    running: bool,
    /// What has come while it stalls: its host takes it in.
    waiting: Option<VecDeque<Input>>,
    /// The moment of the next `Tick` in the queue.
    tick_at: Option<Moment>,
}

/// A state of `of` that `by` came to think of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Change {
    pub(super) at: Moment,
    pub(super) by: usize,
    pub(super) of: usize,
    pub(super) to: Liveness,
}

pub(super) struct Crowd {
    pub(super) now: Moment,
    weather: Weather,
    nodes: Vec<Node>,
    index: BTreeMap<NodeId, usize>,
    rng: StdRng,
    queue: BinaryHeap<Reverse<(Moment, u64)>>,
    inputs: BTreeMap<u64, Input>,
    sequence: u64,
    pub(super) packets: u64,
    pub(super) changes: Vec<Change>,
}

impl Crowd {
    /// `count` nodes that all know each other.
    pub(super) fn of(count: usize, seed: u64, weather: Weather) -> Self {
        let lives: Vec<Identity> =
            (0..count).map(|i| life(&format!("n{i}"), 0, u16::try_from(i).expect("few") + 1000)).collect();
        let mut crowd = Self {
            now: Moment::default(),
            weather,
            nodes: Vec::new(),
            index: lives.iter().enumerate().map(|(i, life)| (life.node.clone(), i)).collect(),
            rng: StdRng::seed_from_u64(seed),
            queue: BinaryHeap::new(),
            inputs: BTreeMap::new(),
            sequence: 0,
            packets: 0,
            changes: Vec::new(),
        };
        for (index, own) in lives.iter().enumerate() {
            let rng = StdRng::from_rng(&mut crowd.rng);
            let mut membership = Membership::new(own.clone(), START_MS, rng);
            let others = lives.iter().filter(|life| life.node != own.node).cloned();
            // Periods out of step.
            let at = Duration::from_millis(crowd.rng.random_range(0..1000));
            membership.meet(Moment::at(at), others);
            crowd.nodes.push(Node { membership, running: true, waiting: None, tick_at: None });
            crowd.settle(index);
        }
        for slow in count - weather.slow..count {
            let at = Duration::from_millis(crowd.rng.random_range(5_000..15_000));
            crowd.enqueue(at, Input::Stall(slow));
        }
        crowd.run(Duration::from_secs(3));
        crowd.changes.clear();
        crowd
    }

    /// The process of a node ends without a word. If its host lives, connections to it break, and who had one
    /// dials at once.
    pub(super) fn crash(&mut self, index: usize) {
        self.nodes[index].running = false;
        if self.weather.refuses {
            let connected = (LINKS / self.nodes.len() as f64).min(1.0);
            for by in (0..self.nodes.len()).filter(|by| *by != index) {
                if !self.rng.random_bool(connected) {
                    continue;
                }
                self.enqueue(LATENCY, Input::Refused { by, node: index });
            }
        }
    }

    /// A node that lives refuses connections of `accusers` others all the same: a firewall, say.
    pub(super) fn refuse(&mut self, node: usize, accusers: usize) {
        for by in (0..self.nodes.len()).filter(|by| *by != node).take(accusers) {
            self.enqueue(LATENCY, Input::Refused { by, node });
        }
    }

    pub(super) fn sees(&self, by: usize, of: usize) -> Option<Liveness> {
        let name = self.nodes[of].membership.own().node.clone();
        self.nodes[by].membership.lives().find(|(life, _)| life.node == name).map(|(_, liveness)| liveness)
    }

    pub(super) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.queue.peek().is_some_and(|Reverse((at, _))| *at <= end) {
            self.step();
        }
        self.now = end;
    }

    fn step(&mut self) {
        let Some(Reverse((at, number))) = self.queue.pop() else { return };
        self.now = at;
        let Some(input) = self.inputs.remove(&number) else { return };
        self.handle(input);
    }

    fn handle(&mut self, input: Input) {
        let target = match input {
            Input::Tick(index) | Input::Stall(index) | Input::Wake(index) => index,
            Input::Packet { to, .. } | Input::Accusation { to, .. } => to,
            Input::Refused { by, .. } => by,
        };
        if !self.nodes[target].running {
            return;
        }
        let wakes = matches!(input, Input::Wake(_));
        if let Some(waiting) = self.nodes[target].waiting.as_mut().filter(|_| !wakes) {
            waiting.push_back(input);
            return;
        }
        let now = self.now;
        match input {
            Input::Tick(index) => {
                let node = &mut self.nodes[index];
                if node.tick_at.is_some_and(|at| at <= now) {
                    node.tick_at = None;
                    node.membership.tick(now);
                }
            }
            Input::Packet { from, to, packet } => {
                let peer = self.nodes[from].membership.own().node.clone();
                self.nodes[to].membership.receive(now, START_MS, &peer, &packet).expect("a good packet");
            }
            Input::Accusation { from, to, accusation } => {
                let peer = self.nodes[from].membership.own().node.clone();
                self.nodes[to].membership.accused(now, &peer, &accusation);
            }
            Input::Refused { by, node } => {
                let node = self.nodes[node].membership.own().node.clone();
                self.nodes[by].membership.refused(now, &node);
            }
            Input::Stall(index) => {
                self.nodes[index].waiting = Some(VecDeque::new());
                let time = Duration::from_millis(self.rng.random_range(2_000..=8_000));
                self.enqueue(time, Input::Wake(index));
                return;
            }
            Input::Wake(index) => {
                let waiting = self.nodes[index].waiting.take().unwrap_or_default();
                let time = Duration::from_millis(self.rng.random_range(10_000..=20_000));
                self.enqueue(time, Input::Stall(index));
                // Its reader and its timers share one loop, which handles what has come first.
                for input in waiting {
                    self.handle(input);
                }
            }
        }
        self.settle(target);
    }

    fn settle(&mut self, index: usize) {
        let now = self.now;
        while let Some(finding) = self.nodes[index].membership.next_finding() {
            if finding.from != Some(finding.to) {
                let of = self.index[&finding.node];
                self.changes.push(Change { at: now, by: index, of, to: finding.to });
            }
        }
        while let Some((to, packet)) = self.nodes[index].membership.next_packet() {
            self.packets += 1;
            let to = self.index[&to.node];
            if !self.nodes[to].running && self.weather.refuses {
                self.enqueue(LATENCY, Input::Refused { by: index, node: to });
            } else if self.weather.loss == 0.0 || !self.rng.random_bool(self.weather.loss) {
                self.enqueue(LATENCY, Input::Packet { from: index, to, packet });
            }
        }
        while let Some((to, accusation)) = self.nodes[index].membership.next_accusation() {
            self.packets += 1;
            let to = self.index[&to.node];
            if self.weather.loss == 0.0 || !self.rng.random_bool(self.weather.loss) {
                self.enqueue(LATENCY, Input::Accusation { from: index, to, accusation });
            }
        }
        let next = self.nodes[index].membership.next_deadline();
        let node = &mut self.nodes[index];
        if let Some(next) = next
            && node.tick_at.is_none_or(|at| next < at)
        {
            node.tick_at = Some(next);
            self.enqueue(next.since(now), Input::Tick(index));
        }
    }

    fn enqueue(&mut self, after: Duration, input: Input) {
        self.sequence += 1;
        self.queue.push(Reverse((self.now + after, self.sequence)));
        self.inputs.insert(self.sequence, input);
    }
}

impl Membership {
    /// Takes `others` as alive, as if it had always known them.
    fn meet(&mut self, now: Moment, others: impl Iterator<Item = Identity>) {
        let result = self.foca.apply_many(others.map(Member::alive), false, &mut self.runtime);
        self.settle(now, result, &Cause::Upkeep);
    }
}
