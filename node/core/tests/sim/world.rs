//! Processes that run engines in virtual time: one seeded generator, one ordered queue, no clock. The same seed gives
//! the same run, event by event; [`World::fingerprint`] tells two runs apart. What lies between them is `links`.

use crate::{
    keyring::{Opened, SimKeyring, cluster, records},
    links::{Links, Traffic},
    queue::Queue,
    tail::{Happening, Tail},
    view::{Tally, number},
};
use p2p_core::{
    Epoch, Moment, NodeId,
    gossip::{Effect, Engine, EngineConfig, IntervalSettings, hello, negotiate},
    membership::{Identity, Life},
};
use p2p_proto::v1::{GossipMessage, MemberState, gossip_message::Kind};
use prost::Message as _;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use std::{collections::HashMap, net::SocketAddr, sync::Arc, time::Duration};

/// The wall clock when virtual time starts.
pub const START_MS: u64 = 1_800_000_000_000;
/// More inputs to one node at one moment are a loop that does not let time pass.
const INPUTS_PER_MOMENT: u32 = 100_000;

/// One started process.
pub struct Process {
    pub engine: Engine,
    pub node: NodeId,
    pub address: SocketAddr,
    pub running: bool,
    /// Whether its host answers for it when it has stopped: dials are refused instead of timing out.
    pub refuses: bool,
    /// Processes on other islands are not reached.
    pub island: u8,
    /// Until when it does nothing; what arrives waits.
    pub stalled: Moment,
    /// How wrong its wall clock is, ms.
    pub clock: i64,
    pub sent: Traffic,
    wake: Option<Moment>,
    inputs: (Moment, u32),
}

#[derive(Clone)]
enum Input {
    Wake,
    Message { from: usize, message: Box<Kind> },
    Connected { with: usize },
    Refused { node: NodeId },
}

pub struct World {
    pub now: Moment,
    pub processes: Vec<Process>,
    pub links: Links,
    /// Pause between exchanges of the nodes started from now on.
    pub interval: Duration,
    pub services: usize,
    pub tally: Tally,
    seed: u64,
    rng: StdRng,
    queue: Queue<(usize, Input)>,
    opened: Arc<Opened>,
    listeners: HashMap<SocketAddr, usize>,
    pub(super) fingerprint: u64,
    pub(super) tail: Tail,
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("seed {}, at {:?}; the last events:\n{}", self.seed, self.now.elapsed(), self.tail);
        }
    }
}

fn word(kind: &Kind) -> (&'static str, u64) {
    match kind {
        Kind::Hello(_) => ("hello", 1),
        Kind::Membership(_) => ("membership", 2),
        Kind::States(_) => ("states", 3),
        Kind::Digest(_) => ("digest", 4),
        Kind::StatesRequest(_) => ("states request", 5),
        Kind::Revocations(_) => ("revocations", 6),
        Kind::RevocationPositions(_) => ("positions", 7),
        Kind::TrustBundle(_) => ("trust bundle", 8),
        Kind::Accusation(_) => ("accusation", 9),
        Kind::MemberList(_) => ("member list", 10),
    }
}

impl World {
    pub fn new(seed: u64) -> Self {
        Self {
            now: Moment::default(),
            processes: Vec::new(),
            links: Links::new(),
            interval: Duration::from_secs(5),
            services: 1,
            tally: Tally::default(),
            seed,
            rng: StdRng::seed_from_u64(seed),
            queue: Queue::new(),
            opened: Arc::default(),
            listeners: HashMap::new(),
            fingerprint: 0,
            tail: Tail::default(),
        }
    }

    /// `count` nodes, started at once, with the first as everybody's seed.
    pub fn of(count: usize, seed: u64) -> Self {
        let mut world = Self::new(seed);
        for _ in 0..count {
            world.start_new();
        }
        world
    }

    pub fn rng(&mut self) -> &mut StdRng {
        &mut self.rng
    }

    /// Starts one more node.
    pub fn start_new(&mut self) -> usize {
        let number = self.processes.len();
        let address = SocketAddr::from(([10, 0, (number / 250) as u8, (number % 250) as u8 + 1], 7946));
        let own: Identity = Life {
            node: format!("n{number}").parse().expect("a node id"),
            epoch: Epoch(self.unix_ms(0)),
            generation: 0,
            instance: number as u32,
            address,
        }
        .into();
        let (engine, node) = (self.engine(&own), own.node.clone());
        self.processes.push(Process {
            engine,
            node,
            address,
            running: true,
            refuses: true,
            island: 0,
            stalled: Moment::default(),
            clock: 0,
            sent: Traffic::default(),
            wake: None,
            inputs: (Moment::default(), 0),
        });
        self.listeners.insert(address, number);
        self.publish(number, 0);
        number
    }

    fn engine(&mut self, own: &Identity) -> Engine {
        let config = EngineConfig { cluster: cluster(), interval: IntervalSettings::fixed(self.interval) };
        let keyring = Arc::new(SimKeyring { own: own.node.clone(), opened: self.opened.clone() });
        let rng = StdRng::from_rng(&mut self.rng);
        Engine::new(config, own.clone(), self.unix_ms(0), keyring, rng)
    }

    /// Starts a node that was stopped once more, with nothing but its epoch.
    pub fn restart(&mut self, index: usize) {
        let process = &self.processes[index];
        let epoch = process.engine.own().epoch.0 + 1;
        let own: Identity = Life {
            node: process.node.clone(),
            epoch: Epoch(epoch.max(self.unix_ms(process.clock))),
            generation: 0,
            instance: self.rng.random(),
            address: process.address,
        }
        .into();
        let engine = self.engine(&own);
        let process = &mut self.processes[index];
        (process.engine, process.running, process.wake) = (engine, true, None);
        self.note(Happening::Act(format!("n{index} starts again")));
        self.publish(index, 0);
    }

    /// Kills a node's process; its host refuses connections afterwards, or is gone as well.
    pub fn crash(&mut self, index: usize, refuses: bool) {
        let process = &mut self.processes[index];
        (process.running, process.refuses) = (false, refuses);
        let node = process.node.clone();
        self.note(Happening::Act(format!("n{index} crashes")));
        // Whoever has a connection sees it break, dials, and is refused.
        let peers: Vec<usize> =
            (0..self.processes.len()).filter(|peer| self.links.is_open(*peer, index)).collect();
        for peer in peers {
            self.links.close(peer, index);
            if refuses {
                let trip = self.there_and_back();
                self.enqueue(self.now + trip, peer, Input::Refused { node: node.clone() });
            }
        }
    }

    /// Publishes the node's records with a version.
    pub fn publish(&mut self, index: usize, version: u64) {
        let records = records(&self.processes[index].node, self.services, version);
        self.with(index, |engine, now, unix_ms| {
            engine.publish(now, unix_ms, records).expect("own records are good");
        });
    }

    /// Gives a node an input of the test's own.
    pub fn with<R>(&mut self, index: usize, input: impl FnOnce(&mut Engine, Moment, u64) -> R) -> R {
        let (now, unix_ms) = (self.now, self.unix_ms(self.processes[index].clock));
        let result = input(&mut self.processes[index].engine, now, unix_ms);
        self.settle(index);
        result
    }

    fn unix_ms(&self, clock: i64) -> u64 {
        let elapsed = u64::try_from(self.now.elapsed().as_millis()).expect("a short run");
        (START_MS + elapsed).saturating_add_signed(clock)
    }

    /// Runs until `done`, looked at each `step`, and returns how long that took; `None` after `limit`.
    pub fn until(
        &mut self,
        limit: Duration,
        step: Duration,
        mut done: impl FnMut(&mut Self) -> bool,
    ) -> Option<Duration> {
        let started = self.now;
        loop {
            if done(self) {
                return Some(self.now.since(started));
            }
            if self.now.since(started) >= limit {
                return None;
            }
            self.run(step);
        }
    }

    /// Lets `time` pass.
    pub fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some((at, (to, input))) = self.queue.pop(end) {
            self.now = self.now.max(at);
            self.deliver(to, input);
        }
        self.now = end;
    }

    fn deliver(&mut self, to: usize, input: Input) {
        let process = &mut self.processes[to];
        if process.stalled > self.now {
            let until = process.stalled;
            // It finds everything that has come in the meantime, in order.
            return self.enqueue(until, to, input);
        }
        if let Input::Wake = input {
            process.wake = None;
        }
        if !process.running {
            return;
        }
        let (now, unix_ms) = (self.now, self.unix_ms(self.processes[to].clock));
        self.count_input(to);
        match input {
            Input::Wake => {
                let engine = &mut self.processes[to].engine;
                if engine.next_deadline() <= now {
                    engine.tick(now);
                }
            }
            Input::Message { from, message } => {
                let peer = self.processes[from].node.clone();
                let (kind, code) = word(&message);
                self.mark(code, from, to);
                self.note(Happening::Message { kind, from, to });
                if self.processes[to].engine.receive(now, unix_ms, &peer, *message).is_err() {
                    self.tally.refused += 1;
                }
            }
            Input::Connected { with } => {
                self.mark(20, with, to);
                self.note(Happening::Met { own: to, other: with });
                self.meet(to, with);
            }
            Input::Refused { node } => {
                self.mark(21, to, to);
                self.processes[to].engine.refused(now, &node);
                self.note(Happening::Refused { own: to, by: node });
            }
        }
        self.settle(to);
    }

    fn count_input(&mut self, to: usize) {
        let inputs = &mut self.processes[to].inputs;
        *inputs = if inputs.0 == self.now { (self.now, inputs.1 + 1) } else { (self.now, 1) };
        assert!(inputs.1 < INPUTS_PER_MOMENT, "n{to} spins: it does not let time pass");
    }

    /// `own` reads the hello of `other`.
    fn meet(&mut self, own: usize, other: usize) {
        let (here, there) = (&self.processes[own], &self.processes[other]);
        let theirs = hello(&cluster(), there.engine.own(), there.engine.known_epoch(&here.node));
        let peer = negotiate(&cluster(), &here.node, &there.node, &theirs).expect("of one release");
        let now = self.now;
        self.processes[own].engine.connected(now, &peer);
    }

    fn settle(&mut self, index: usize) {
        let (now, unix_ms) = (self.now, self.unix_ms(self.processes[index].clock));
        self.processes[index].engine.settle(now, unix_ms);
        let mut quiet = true;
        while let Some(event) = self.processes[index].engine.next_event() {
            quiet = false;
            self.happened(index, event);
        }
        while let Some(effect) = self.processes[index].engine.next_effect() {
            match effect {
                Effect::Send { to, address, message } => self.send(index, &to, address, message),
                Effect::DialSeeds => self.dial_seeds(index),
                Effect::PersistEpoch(_) | Effect::Revoked { .. } | Effect::Banned(_) => {}
            }
        }
        let process = &mut self.processes[index];
        if !quiet {
            let own = process.engine.members().get(&process.node);
            let epoch = process.engine.own().epoch;
            assert!(
                own.is_some_and(|own| own.state == MemberState::Alive && own.epoch == epoch),
                "n{index} sees itself as {own:?}"
            );
        }
        let deadline = process.engine.next_deadline();
        if process.wake.is_none_or(|wake| deadline < wake) {
            process.wake = Some(deadline);
            self.enqueue(deadline, index, Input::Wake);
        }
    }

    fn dial_seeds(&mut self, index: usize) {
        let seed = self.processes[0].address;
        if index != 0 && self.can_reach(index, 0) && self.listeners.contains_key(&seed) {
            self.dial(index, 0);
        }
    }

    fn can_reach(&self, from: usize, to: usize) -> bool {
        let (from, to) = (&self.processes[from], &self.processes[to]);
        from.running && to.running && from.island == to.island
    }

    fn there_and_back(&mut self) -> Duration {
        self.links.trip(&mut self.rng) + self.links.trip(&mut self.rng)
    }

    /// Opens a connection, unless there is one. The first frames arrive behind the handshake.
    fn dial(&mut self, from: usize, to: usize) {
        if self.links.is_open(from, to) {
            return;
        }
        self.tally.dials += 1;
        let ready = self.links.open(self.now, from, to, &mut self.rng);
        self.enqueue(ready, from, Input::Connected { with: to });
        self.enqueue(ready, to, Input::Connected { with: from });
    }

    /// Sends over the open connection, or dials.
    fn send(&mut self, from: usize, to: &NodeId, address: SocketAddr, message: Kind) {
        assert_ne!(*to, self.processes[from].node, "an engine sends to itself");
        let message = GossipMessage { kind: Some(message) };
        let sent = &mut self.processes[from].sent;
        sent.frames += 1;
        sent.bytes += message.encoded_len() as u64;
        let number = number(to);
        if !self.links.is_open(from, number) {
            // Nobody knows the address of a node that only answered.
            let target = self.listeners.get(&address).copied().filter(|target| *target == number);
            let Some(target) = target else { return };
            let there = &self.processes[target];
            if !there.running && there.refuses && there.island == self.processes[from].island {
                let trip = self.there_and_back();
                return self.enqueue(self.now + trip, from, Input::Refused { node: to.clone() });
            }
            if !self.can_reach(from, target) {
                return;
            }
            self.dial(from, target);
        }
        if !self.can_reach(from, number) {
            // It waits for an acknowledgement that does not come.
            return self.links.close(from, number);
        }
        let (Some(kind), Some(arrival)) =
            (message.kind, self.links.carry(self.now, from, number, &mut self.rng))
        else {
            return;
        };
        let input = Input::Message { from, message: Box::new(kind) };
        if arrival.twice {
            self.enqueue(arrival.at, number, input.clone());
        }
        self.enqueue(arrival.at, number, input);
    }

    fn enqueue(&mut self, at: Moment, to: usize, input: Input) {
        self.queue.push(at, (to, input));
    }
}
