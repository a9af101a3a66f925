//! A network of engines in virtual time: one seeded generator, one ordered queue, no clock. The same seed
//! gives the same run, and a failing test prints its seed.

use super::super::{Effect, Engine, EngineConfig, Event, IntervalSettings, hello, negotiate};
use crate::{
    Epoch, Moment, NodeId,
    membership::Identity,
    testing::{START_MS, TestKeyring, cluster, life, records},
};
use p2p_proto::v1::{MemberState, gossip_message::Kind, revocation::What};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

/// One way through the network.
const LATENCY: Duration = Duration::from_millis(2);
/// More inputs than this at one moment are a loop that does not let time pass.
const INPUTS_PER_MOMENT: usize = 20_000;

/// One started process of a node.
pub(super) struct Process {
    pub(super) engine: Engine,
    pub(super) node: NodeId,
    address: SocketAddr,
    running: bool,
    /// Processes on other islands do not hear each other.
    pub(super) island: u8,
    /// Open connections by the node id that the certificate at the other end proves.
    open: BTreeMap<NodeId, usize>,
    pub(super) persisted: Vec<Epoch>,
    pub(super) events: Vec<(Moment, Event)>,
    /// Token ids that it was told to refuse.
    pub(super) revoked: BTreeSet<String>,
    pub(super) banned: BTreeSet<NodeId>,
}

#[derive(Debug)]
enum Input {
    Message { from: usize, to: usize, message: Kind },
    Connected { from: usize, to: usize },
    Refused { by: usize, node: NodeId },
}

pub(super) struct Net {
    pub(super) now: Moment,
    pub(super) processes: Vec<Process>,
    /// Share of messages that are lost.
    pub(super) loss: f64,
    /// Whether dials of a dead address are refused at once, or never answered.
    pub(super) refuses: bool,
    /// Pause between digest exchanges of the nodes started from now on.
    pub(super) interval: Duration,
    /// Messages sent so far.
    pub(super) messages: u64,
    seed: u64,
    rng: StdRng,
    queue: BTreeMap<(Moment, u64), Input>,
    sequence: u64,
}

impl Drop for Net {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the network's seed was {}, its time {:?}", self.seed, self.now.elapsed());
        }
    }
}

impl Net {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            now: Moment::default(),
            processes: Vec::new(),
            loss: 0.0,
            refuses: true,
            interval: Duration::from_secs(1),
            messages: 0,
            seed,
            rng: StdRng::seed_from_u64(seed),
            queue: BTreeMap::new(),
            sequence: 0,
        }
    }

    /// `count` nodes n0, n1, …, started at once with n0 as everybody's seed.
    pub(super) fn of(count: u16, seed: u64) -> Self {
        let mut net = Self::new(seed);
        for index in 0..count {
            net.start(life(&format!("n{index}"), 0, 1000 + index));
        }
        net
    }

    /// The same, once all see all alive.
    pub(super) fn joined(count: u16, seed: u64) -> Self {
        let mut net = Self::of(count, seed);
        net.until(Duration::from_secs(60), "all join", Self::all_alive);
        net
    }

    pub(super) fn start(&mut self, own: Identity) -> usize {
        let rng = StdRng::from_rng(&mut self.rng);
        let (node, address) = (own.node.clone(), own.address);
        let config = EngineConfig { cluster: cluster(), interval: IntervalSettings::fixed(self.interval) };
        let engine = Engine::new(config, own, self.unix_ms(), Arc::new(TestKeyring::of(&node)), rng);
        self.processes.push(Process {
            engine,
            address,
            running: true,
            island: 0,
            open: BTreeMap::new(),
            persisted: Vec::new(),
            events: Vec::new(),
            revoked: BTreeSet::new(),
            banned: BTreeSet::new(),
            node: node.clone(),
        });
        let index = self.processes.len() - 1;
        let unix_ms = self.unix_ms();
        let published = self.processes[index].engine.publish(self.now, unix_ms, records(&node, &["demo.S"]));
        published.expect("own records are good");
        self.settle(index);
        index
    }

    /// The process ends without a word. If its host lives, its connections break, and who had one dials at once.
    pub(super) fn crash(&mut self, index: usize) {
        self.processes[index].running = false;
        let node = self.processes[index].node.clone();
        let linked: Vec<usize> = self
            .running()
            .filter(|(_, process)| process.open.get(&node) == Some(&index))
            .map(|(by, _)| by)
            .collect();
        let broken = if self.refuses { linked } else { Vec::new() };
        for by in broken {
            self.enqueue(Input::Refused { by, node: node.clone() });
        }
    }

    /// Gives engine `index` an input of the test's own.
    pub(super) fn with<R>(&mut self, index: usize, input: impl FnOnce(&mut Engine, Moment, u64) -> R) -> R {
        let (now, unix_ms) = (self.now, self.unix_ms());
        let result = input(&mut self.processes[index].engine, now, unix_ms);
        self.settle(index);
        result
    }

    pub(super) fn unix_ms(&self) -> u64 {
        START_MS + u64::try_from(self.now.elapsed().as_millis()).expect("a short test")
    }

    pub(super) fn running(&self) -> impl Iterator<Item = (usize, &Process)> {
        self.processes.iter().enumerate().filter(|(_, process)| process.running)
    }

    /// What process `index` sees of `node`.
    pub(super) fn state(&self, index: usize, node: &NodeId) -> Option<MemberState> {
        self.processes[index].engine.members().get(node).map(|member| member.state)
    }

    pub(super) fn all_alive(&self) -> bool {
        let nodes: BTreeSet<&NodeId> = self.running().map(|(_, process)| &process.node).collect();
        self.running().all(|(index, process)| {
            let members = process.engine.members();
            nodes
                .iter()
                .all(|node| self.state(index, node) == Some(MemberState::Alive) && members[*node].current)
        })
    }

    /// Whether all running processes but those of `node` itself see it in `state`.
    pub(super) fn all_see(&self, node: &NodeId, state: MemberState) -> bool {
        self.running()
            .filter(|(_, process)| process.node != *node)
            .all(|(index, _)| self.state(index, node) == Some(state))
    }

    /// Everything that happened, in order.
    pub(super) fn log(&self) -> Vec<String> {
        let mut log: Vec<_> = self
            .processes
            .iter()
            .enumerate()
            .flat_map(|(index, p)| p.events.iter().map(move |(at, event)| (*at, index, event)))
            .map(|(at, index, event)| (at, format!("{:?} {index} {event:?}", at.elapsed())))
            .collect();
        log.sort();
        log.into_iter().map(|(_, line)| line).collect()
    }

    /// Runs until `done`, and returns how long that took. Panics after `limit`.
    pub(super) fn until(&mut self, limit: Duration, what: &str, done: impl Fn(&Self) -> bool) -> Duration {
        let started = self.now;
        while !done(self) {
            assert!(self.now.since(started) < limit, "{what}: not within {limit:?}");
            self.step();
        }
        self.now.since(started)
    }

    pub(super) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.step();
        }
    }

    /// Lets time pass to the next moment at which something happens, and does all of it.
    fn step(&mut self) {
        let deadlines = self.running().map(|(_, process)| process.engine.next_deadline()).min();
        let arrival = self.queue.keys().next().map(|(at, _)| *at);
        let next = [deadlines, arrival].into_iter().flatten().min().expect("an engine always has a deadline");
        self.now = self.now.max(next);
        for _ in 0..INPUTS_PER_MOMENT {
            if let Some(entry) = self.queue.first_entry()
                && entry.key().0 <= self.now
            {
                let input = entry.remove();
                self.deliver(input);
            } else if let Some(index) = self.overdue() {
                let now = self.now;
                self.processes[index].engine.tick(now);
                self.settle(index);
            } else {
                return;
            }
        }
        panic!("the engines spin: they never let time pass");
    }

    fn overdue(&self) -> Option<usize> {
        self.running().find(|(_, process)| process.engine.next_deadline() <= self.now).map(|(index, _)| index)
    }

    fn deliver(&mut self, input: Input) {
        let (now, unix_ms) = (self.now, self.unix_ms());
        match input {
            Input::Message { from, to, message } => {
                if self.hears(from, to) {
                    let peer = self.processes[from].node.clone();
                    // A packet may be refused: of a life that has passed meanwhile, for instance.
                    if let Err(error) = self.processes[to].engine.receive(now, unix_ms, &peer, message) {
                        assert!(!error.to_string().is_empty());
                    }
                    self.settle(to);
                }
            }
            Input::Connected { from, to } => {
                if self.hears(from, to) {
                    self.meet(from, to);
                    self.meet(to, from);
                }
            }
            Input::Refused { by, node } => {
                if self.processes[by].running {
                    self.processes[by].engine.refused(now, &node);
                    self.settle(by);
                }
            }
        }
    }

    /// `own` reads the hello of `other`.
    fn meet(&mut self, own: usize, other: usize) {
        let (here, there) = (&self.processes[own], &self.processes[other]);
        let theirs = hello(&cluster(), there.engine.own(), there.engine.known_epoch(&here.node));
        if let Ok(peer) = negotiate(&cluster(), &here.node, &there.node, &theirs) {
            let (node, own_node) = (there.node.clone(), here.node.clone());
            // One connection for each node id: a later one replaces, and closes, the one before.
            let before = self.processes[own].open.insert(node, other);
            if let Some(before) = before.filter(|before| *before != other) {
                self.processes[before].open.remove(&own_node);
            }
            self.processes[own].engine.connected(self.now, &peer);
            self.settle(own);
        }
    }

    fn hears(&self, from: usize, to: usize) -> bool {
        let (from, to) = (&self.processes[from], &self.processes[to]);
        from.running && to.running && from.island == to.island
    }

    fn settle(&mut self, index: usize) {
        let (now, unix_ms) = (self.now, self.unix_ms());
        self.processes[index].engine.settle(now, unix_ms);
        while let Some(event) = self.processes[index].engine.next_event() {
            self.processes[index].events.push((now, event));
        }
        while let Some(effect) = self.processes[index].engine.next_effect() {
            match effect {
                Effect::Send { to, address, message } => self.send(index, &to, address, message),
                Effect::DialSeeds => {
                    let seed = ([127, 0, 0, 1], 1000).into();
                    if self.processes[index].address != seed
                        && let Some(to) = self.listener(seed)
                    {
                        self.enqueue(Input::Connected { from: index, to });
                    }
                }
                Effect::PersistEpoch(epoch) => self.processes[index].persisted.push(epoch),
                Effect::Revoked { entries, .. } => {
                    let tokens = entries.into_iter().filter_map(|entry| match entry.what {
                        Some(What::Token(id)) => Some(id),
                        Some(What::Subject(_) | What::Node(_)) | None => None,
                    });
                    self.processes[index].revoked.extend(tokens);
                }
                Effect::Banned(banned) => self.processes[index].banned = banned,
            }
        }
    }

    fn listener(&self, address: SocketAddr) -> Option<usize> {
        self.running().find(|(_, process)| process.address == address).map(|(index, _)| index)
    }

    /// Sends over the open connection, or dials.
    fn send(&mut self, from: usize, to: &NodeId, address: SocketAddr, message: Kind) {
        self.messages += 1;
        assert_ne!(*to, self.processes[from].node, "an engine sends to itself");
        let open = self.processes[from].open.get(to).copied().filter(|to| self.processes[*to].running);
        let target = match (open, self.listener(address)) {
            (Some(open), _) => open,
            (None, Some(dialled)) if self.processes[dialled].node == *to => {
                self.enqueue(Input::Connected { from, to: dialled });
                dialled
            }
            (None, _) => {
                if self.refuses && !address.ip().is_unspecified() {
                    self.enqueue(Input::Refused { by: from, node: to.clone() });
                }
                return;
            }
        };
        if self.loss == 0.0 || !self.rng.random_bool(self.loss) {
            self.enqueue(Input::Message { from, to: target, message });
        }
    }

    fn enqueue(&mut self, input: Input) {
        self.sequence += 1;
        self.queue.insert((self.now + LATENCY, self.sequence), input);
    }
}
