//! The loop that drives the engine.

mod trust;

use super::{
    events::log,
    frame::Outgoing,
    handle::{BundleTaken, Command, DialFailure, Gossip, introduction},
    inbox::Inbox,
    keyring::NodeKeyring,
    link::{self, Introduction, Link},
    metrics::{FrameSize, GossipMetrics},
    outbox::Room,
    revoke::{Batches, Revoking},
};
use crate::{
    config::SeedAddress,
    identity::{Anchors, IdentityStore},
    peer::{DialError, PeerConnection, PeerPool, resolve},
    persist::EpochFile,
    telemetry::Metrics,
};
use p2p_core::{
    ClusterId, Epoch, Moment, NodeId,
    gossip::{Effect, Engine, EngineConfig, Event, Evidence, IntervalSettings, Peer, View},
    membership::Identity,
};
use p2p_proto::v1::{MemberState, gossip_message::Kind};
use rand::SeedableRng as _;
use std::{
    collections::{HashMap, HashSet, VecDeque},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use tokio::sync::{broadcast, mpsc, oneshot, watch};

/// Commands that may wait for the task. Readers of streams wait when it is full, which slows their peers.
const COMMANDS: usize = 1024;
/// Commands handled before timers get their turn.
const BATCH: usize = 256;
/// Frames kept for a peer while it is being dialled.
const PENDING: usize = 64;
/// Evidence that may wait for one who follows it; a slower reader is told how much it missed.
const EVIDENCE_QUEUE: usize = 1024;
/// Pause between warnings of frames that were refused.
const WARNING_PAUSE: Duration = Duration::from_secs(1);
/// Streams kept with one peer: one each way when both dial at once.
const LINKS_PER_PEER: usize = 3;

/// What gossip needs to start.
#[derive(Debug)]
pub struct GossipSetup {
    /// The cluster.
    pub cluster: ClusterId,
    /// This life of the node.
    pub own: Identity,
    /// Certificates.
    pub identity: Arc<IdentityStore>,
    /// The trust bundle in force.
    pub anchors: Arc<Anchors>,
    /// Connections to other nodes.
    pub pool: Arc<PeerPool>,
    /// Where to look for others.
    pub seeds: Vec<SeedAddress>,
    /// Pause between digest exchanges.
    pub interval: IntervalSettings,
    /// Above how many bytes a message is compressed, for peers that read that; `None` for never.
    pub compression: Option<usize>,
    /// Most peers with an open stream.
    pub links_max: usize,
    /// Where the epoch is kept.
    pub epoch_file: EpochFile,
    /// What is revoked, and where it is kept.
    pub revoking: Revoking,
}

/// Starts the task.
pub fn spawn(setup: GossipSetup, metrics: &Metrics) -> (Gossip, tokio::task::JoinHandle<()>) {
    let (commands, receiver) = mpsc::channel(COMMANDS);
    let (view_sender, view) = watch::channel(Arc::default());
    let (own_sender, own) = watch::channel(setup.own.clone());
    let metrics = metrics.register(GossipMetrics::register);
    let gossip = Gossip {
        commands: commands.clone(),
        view,
        own,
        cluster: setup.cluster.clone(),
        inbox: Inbox::new(commands.clone(), metrics.clone()),
        pool: setup.pool.clone(),
    };
    let config = EngineConfig { cluster: setup.cluster.clone(), interval: setup.interval };
    let keyring = Arc::new(NodeKeyring(setup.identity.clone()));
    let rng = rand::rngs::StdRng::from_rng(&mut rand::rng());
    let engine = Engine::new(config, setup.own.clone(), unix_ms(), keyring, rng);
    let mut task = Task {
        engine,
        start: Instant::now(),
        commands,
        inbox: gossip.inbox.clone(),
        view: view_sender,
        own: own_sender,
        links: HashMap::new(),
        dialling: HashMap::new(),
        seeds_running: false,
        complaints: HashSet::new(),
        estranged: HashSet::new(),
        used: 0,
        leaving: false,
        batches: Batches::default(),
        taking_bundle: false,
        bundle_refused: None,
        repair_at: Instant::now(),
        warned_at: None,
        evidence: broadcast::Sender::new(EVIDENCE_QUEUE),
        metrics,
        setup,
    };
    // Before the first call is served.
    task.load_revocations();
    (gossip, tokio::spawn(task.run(receiver)))
}

pub(super) fn unix_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

#[derive(Default)]
pub(super) struct PeerLinks {
    links: VecDeque<Link>,
    last_used: u64,
}

pub(super) struct Task {
    pub(super) engine: Engine,
    start: Instant,
    pub(super) setup: GossipSetup,
    pub(super) commands: mpsc::Sender<Command>,
    inbox: Inbox,
    view: watch::Sender<Arc<View>>,
    own: watch::Sender<Identity>,
    pub(super) links: HashMap<NodeId, PeerLinks>,
    /// Messages that wait for a dial in flight.
    dialling: HashMap<NodeId, VecDeque<Outgoing>>,
    seeds_running: bool,
    /// Seeds complained about once already, until one answers.
    complaints: HashSet<String>,
    /// Peers of which was said that they do not gossip with this node, until they do. As few as members.
    estranged: HashSet<NodeId>,
    used: u64,
    leaving: bool,
    pub(super) batches: Batches,
    /// Whether a trust bundle is being looked at.
    taking_bundle: bool,
    /// Why the last one was refused, if it was.
    bundle_refused: Option<String>,
    repair_at: Instant,
    /// When a frame that was refused was warned of last.
    warned_at: Option<Moment>,
    /// To those who follow what happens to members.
    evidence: broadcast::Sender<Arc<Evidence>>,
    metrics: GossipMetrics,
}

impl Task {
    async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let mut trust = self.setup.anchors.subscribe();
        loop {
            let deadline = self.engine.next_deadline();
            let deadline = self.tidy_deadline().map_or(deadline, |tidy| deadline.min(tidy));
            let wake = (self.start + deadline.elapsed()).min(self.repair_at);
            let command = tokio::select! {
                command = commands.recv() => command,
                changed = trust.changed() => {
                    // Never an error: the setup holds the other end.
                    if changed.is_ok() {
                        self.push_bundle();
                    }
                    None
                }
                () = tokio::time::sleep_until(wake.into()) => None,
            };
            let mut left = None;
            let mut next = command;
            for _ in 0..BATCH {
                let Some(command) = next else { break };
                left = self.handle(command).or(left);
                next = commands.try_recv().ok();
            }
            if let Some(command) = next {
                left = self.handle(command).or(left);
            }
            self.advance().await;
            if let Some(done) = left {
                self.links.clear();
                self.save_revocations().await;
                if done.send(()).is_err() {
                    tracing::debug!("nobody waits for the leave to finish");
                }
                return;
            }
        }
    }

    pub(super) fn now(&self) -> Moment {
        Moment::at(self.start.elapsed())
    }

    /// Does what is due and carries out what the engine asks for.
    async fn advance(&mut self) {
        let now = self.now();
        self.repair_bundle();
        self.engine.tick(now);
        self.tidy_revocations();
        self.engine.settle(now, unix_ms());
        while let Some(effect) = self.engine.next_effect() {
            match effect {
                Effect::Send { to, address, message } => self.send(to, address, message),
                Effect::DialSeeds => self.dial_seeds(),
                Effect::PersistEpoch(epoch) => self.persist(epoch).await,
                Effect::Revoked { segment, entries } => self.revoked(segment, &entries),
                Effect::Banned(banned) => self.banned(banned),
            }
        }
        self.give_receipts();
        while let Some(event) = self.engine.next_event() {
            self.metrics.event(&event);
            log(&event);
            if let Event::Evidence(evidence) = event
                && self.evidence.send(evidence).is_err()
            {
                tracing::trace!("nobody follows the members");
            }
        }
        let view = self.engine.view();
        if !Arc::ptr_eq(view, &self.view.borrow()) {
            self.metrics.view(view);
            self.view.send_replace(view.clone());
        }
        let own = self.engine.own();
        self.own.send_if_modified(|known| {
            let changed = known != own;
            known.clone_from(own);
            changed
        });
        self.metrics.interval(self.engine.interval(), self.engine.load());
        self.metrics.links.set(i64::try_from(self.links.len()).unwrap_or(i64::MAX));
    }

    /// Handles one command; returns the waiter when the task is to end.
    fn handle(&mut self, command: Command) -> Option<oneshot::Sender<()>> {
        let now = self.now();
        match command {
            Command::Linked(link) => self.linked(link),
            Command::Dialled { node, result } => self.dialled(&node, result),
            Command::SeedAnswered(connection) => self.seed_answered(connection),
            Command::SeedsDone => self.seeds_running = false,
            Command::BundleTaken(taken) => self.bundle_taken(&taken),
            Command::ReceivedUnknown => self.engine.received_elsewhere(),
            Command::Received { peer, message: Kind::TrustBundle(bundle), .. } => {
                self.engine.received_elsewhere();
                self.bundle_received(peer, bundle);
            }
            Command::Received { peer, message, .. } => {
                if let Err(error) = self.engine.receive(now, unix_ms(), &peer, message) {
                    self.metrics.refused(error.reason());
                    // All are counted; a peer that sends many must not fill the log.
                    let warned = self.warned_at.filter(|at| now.since(*at) < WARNING_PAUSE);
                    if warned.is_some() {
                        tracing::debug!(peer.id = %peer, %error, "gossip frame refused");
                    } else {
                        self.warned_at = Some(now);
                        tracing::warn!(peer.id = %peer, %error, "gossip frame refused");
                    }
                }
            }
            Command::Unlinked { peer, id, broke } => self.unlinked(&peer, id, broke),
            Command::Publish { records, done } => {
                answer(done, self.engine.publish(now, unix_ms(), *records));
            }
            Command::AnnounceLeaving { done } => {
                self.leaving = true;
                answer(done, self.engine.announce_leaving(now, unix_ms()));
            }
            Command::Revoke { what, done } => self.revoke(what, done),
            Command::Kept { made, waiters, result } => self.kept(made, waiters, result),
            Command::Enforce { peer, segments, done } => self.enforce(&peer, segments, done),
            Command::Why { node, done } => answer(done, self.engine.evidence(&node)),
            Command::Watch { done } => answer(done, (self.engine.timeline(), self.evidence.subscribe())),
            Command::Leave { done } => {
                self.leaving = true;
                self.engine.leave(now);
                return Some(done);
            }
        }
        None
    }

    fn linked(&mut self, link: Link) {
        let node = link.peer.identity.node.clone();
        if self.engine.is_banned(&node) {
            return;
        }
        tracing::debug!(peer.id = %node, peer.address = %link.peer.identity.address, "gossip stream open");
        self.estranged.remove(&node);
        self.make_room(&node);
        let peer = link.peer.clone();
        self.used += 1;
        let entry = self.links.entry(node.clone()).or_default();
        entry.last_used = self.used;
        // A new process of that node: streams to the one before are dead, or lead to a duplicate.
        let instance = link.peer.identity.instance;
        entry.links.retain(|older| older.peer.identity.instance == instance);
        entry.links.push_back(link);
        if entry.links.len() > LINKS_PER_PEER {
            entry.links.pop_front();
        }
        self.engine.connected(self.now(), &peer);
        for outgoing in self.dialling.remove(&node).unwrap_or_default() {
            self.send_linked(&node, outgoing);
        }
    }

    /// Closes the streams of the peer unused for longest when there are too many.
    fn make_room(&mut self, newcomer: &NodeId) {
        if self.links.len() < self.setup.links_max || self.links.contains_key(newcomer) {
            return;
        }
        let idle = self.links.iter().min_by_key(|(_, entry)| entry.last_used).map(|(node, _)| node.clone());
        if let Some(idle) = idle {
            self.links.remove(&idle);
        }
    }

    fn unlinked(&mut self, peer: &NodeId, id: u64, broke: bool) {
        let Some(entry) = self.links.get_mut(peer) else { return };
        entry.links.retain(|link| link.id != id);
        if !entry.links.is_empty() {
            return;
        }
        self.links.remove(peer);
        // A member's last stream broke: dial at once. If nobody listens there any more, that is evidence. Where the peer has
        // ended it, it makes room for others; who dials it again takes that room from one who does the same.
        let alive = self.engine.members().get(peer).filter(|member| broke && member.serves());
        if let Some(address) = alive.and_then(|member| member.address)
            && !self.leaving
        {
            self.start_dial(peer.clone(), address);
        }
    }

    fn send(&mut self, to: NodeId, address: SocketAddr, message: Kind) {
        let outgoing = Outgoing::of(message);
        if self.links.contains_key(&to) {
            self.send_linked(&to, outgoing);
        } else if let Some(waiting) = self.dialling.get_mut(&to) {
            if waiting.len() < PENDING {
                waiting.push_back(outgoing);
            } else {
                self.metrics.dropped.inc();
            }
        } else if address.port() == 0 || self.leaving {
            self.metrics.dropped.inc();
        } else {
            self.start_dial(to.clone(), address);
            self.dialling.entry(to).or_default().push_back(outgoing);
        }
    }

    /// Sends over a stream that is open, compressed if that is on and the peer reads it. In place: the largest
    /// message of the engine takes well below a millisecond.
    fn send_linked(&mut self, to: &NodeId, outgoing: Outgoing) {
        self.used += 1;
        let Some(entry) = self.links.get_mut(to) else { return };
        entry.last_used = self.used;
        // A stream may break before its link is stored; the next frame then dials anew.
        while entry.links.pop_back_if(|link| link.frames.is_closed()).is_some() {}
        let sent = match entry.links.back_mut().map(|link| (link.frames.room(Instant::now()), link)) {
            Some((Room::Free, link)) => {
                let word = outgoing.word;
                let frame = outgoing.seal(self.setup.compression.filter(|_| link.peer.lz4));
                self.metrics.frame("sent", word, &FrameSize::of(&frame));
                link.frames.send(frame)
            }
            Some((Room::Stalled, _)) => {
                tracing::warn!(peer.id = %to, "the peer has long stopped reading gossip; closing its connections");
                self.metrics.refused("stalled");
                entry.links.clear();
                // Their queues go with them.
                self.setup.revoking.table.live().close_of(to);
                false
            }
            Some((Room::Full, _)) | None => false,
        };
        if entry.links.is_empty() {
            self.links.remove(to);
        }
        if !sent {
            self.metrics.dropped.inc();
        }
    }

    fn introduction(&self, peer: &NodeId) -> Introduction {
        introduction(&self.setup.cluster, self.engine.own(), self.engine.known_epoch(peer))
    }

    fn start_dial(&mut self, node: NodeId, address: SocketAddr) {
        if self.dialling.contains_key(&node) {
            return;
        }
        self.dialling.insert(node.clone(), VecDeque::new());
        let introduction = self.introduction(&node);
        let (pool, commands, inbox) = (self.setup.pool.clone(), self.commands.clone(), self.inbox.clone());
        tokio::spawn(async move {
            let result = match pool.get(&node, address).await {
                Err(error) => Err(DialFailure::Dial(error)),
                Ok(connection) => {
                    link::open(connection, introduction, inbox).await.map_err(DialFailure::Link)
                }
            };
            if commands.send(Command::Dialled { node, result }).await.is_err() {
                tracing::debug!("gossip has stopped during a dial");
            }
        });
    }

    fn dialled(&mut self, node: &NodeId, result: Result<Link, DialFailure>) {
        match result {
            Ok(link) => self.linked(link),
            Err(failure) => {
                self.dialling.remove(node);
                // It answered, but will not gossip with us: that does not mend itself, so say it, once.
                match &failure {
                    DialFailure::Link(error) if self.estranged.insert(node.clone()) => {
                        tracing::warn!(peer.id = %node, %error, "the peer answers but does not gossip with this node");
                    }
                    DialFailure::Link(_) | DialFailure::Dial(_) => {
                        tracing::debug!(peer.id = %node, error = %failure, "peer not reached");
                    }
                }
                if let DialFailure::Dial(error) = failure
                    && matches!(*error, DialError::Refused { .. })
                {
                    self.engine.refused(self.now(), node);
                }
            }
        }
    }

    /// Dials every seed whose address is not a live member's.
    fn dial_seeds(&mut self) {
        if self.seeds_running || self.leaving || self.setup.seeds.is_empty() {
            return;
        }
        self.seeds_running = true;
        let members = self.engine.members().values();
        let reached: HashSet<SocketAddr> = members
            .filter(|member| member.state == MemberState::Alive)
            .filter_map(|member| member.address)
            .chain([self.engine.own().address])
            .collect();
        let (pool, commands, seeds) =
            (self.setup.pool.clone(), self.commands.clone(), self.setup.seeds.clone());
        let first_complaints: Vec<bool> =
            seeds.iter().map(|seed| self.complaints.insert(seed.to_string())).collect();
        tokio::spawn(async move {
            for (seed, first) in seeds.iter().zip(first_complaints) {
                for address in resolve(seed).await {
                    if reached.contains(&address) {
                        continue;
                    }
                    let command = match pool.get_any(address).await {
                        Ok(connection) => Command::SeedAnswered(connection),
                        Err(error) if first => {
                            tracing::warn!(seed = %seed, %error, "seed not reached; trying again");
                            continue;
                        }
                        Err(error) => {
                            tracing::debug!(seed = %seed, %error, "seed not reached");
                            continue;
                        }
                    };
                    if commands.send(command).await.is_err() {
                        return;
                    }
                }
            }
            if commands.send(Command::SeedsDone).await.is_err() {
                tracing::debug!("gossip has stopped while seeds were dialled");
            }
        });
    }

    fn seed_answered(&mut self, connection: PeerConnection) {
        let node = connection.node.clone();
        if node == self.engine.own().node {
            return;
        }
        self.complaints.clear();
        let known: Option<Peer> =
            self.links.get(&node).and_then(|entry| entry.links.back()).map(|link| link.peer.clone());
        match known {
            Some(peer) => self.engine.connected(self.now(), &peer),
            None => self.start_dial(node, connection.address),
        }
    }

    async fn persist(&mut self, epoch: Epoch) {
        if let Err(error) = self.setup.epoch_file.raise(epoch) {
            tracing::error!(%error, %epoch, "the new epoch could not be stored; a restart may have to raise it again");
        }
    }
}

fn answer<T>(to: oneshot::Sender<T>, value: T) {
    if to.send(value).is_err() {
        tracing::debug!("nobody waits for gossip's answer");
    }
}
