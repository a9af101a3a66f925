//! The loop that drives the engine.

mod links;
mod seeds;
mod trust;

use super::{
    events::log,
    frame::Outgoing,
    handle::{BundleTaken, Command, Gossip},
    inbox::Inbox,
    keyring::NodeKeyring,
    metrics::GossipMetrics,
    revoke::{Batches, Revoking},
};
use crate::{
    config::SeedAddress,
    identity::{Anchors, IdentityStore},
    peer::PeerPool,
    persist::GossipFile,
    telemetry::Metrics,
};
use links::PeerLinks;
use p2p_core::{
    ClusterId, Epoch, Moment, NodeId,
    gossip::{Effect, Engine, EngineConfig, Event, Evidence, IntervalSettings, View},
    membership::Identity,
};
use p2p_proto::v1::gossip_message::Kind;
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
/// Pause between two views that others are shown: where many members change at once, those that follow the view do so
/// fewer times.
const VIEW_PAUSE: Duration = Duration::from_millis(20);
/// Commands handled before timers get their turn: all that wait, so that no probe fails whose answer is there.
const BATCH: usize = COMMANDS;
/// Evidence that may wait for one who follows it; a slower reader is told how much it missed.
const EVIDENCE_QUEUE: usize = 1024;
/// Pause between warnings of frames that were refused.
const WARNING_PAUSE: Duration = Duration::from_secs(1);

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
    /// Where members were before this start: dialled as seeds are while nobody else is known.
    pub remembered: Vec<SocketAddr>,
    /// Where the epoch is kept.
    pub file: Arc<GossipFile>,
    /// What is revoked, and where it is kept.
    pub revoking: Revoking,
}

/// Starts the task.
pub fn spawn(setup: GossipSetup, metrics: &Metrics) -> (Gossip, tokio::task::JoinHandle<()>) {
    let (commands, receiver) = mpsc::channel(COMMANDS);
    let (view_sender, view) = watch::channel(Arc::default());
    let (own_sender, own) = watch::channel(setup.own.clone());
    let (twin_sender, twin_noticed) = watch::channel(None);
    let metrics = metrics.register(GossipMetrics::register);
    let gossip = Gossip {
        commands: commands.clone(),
        view,
        own,
        cluster: setup.cluster.clone(),
        inbox: Inbox::new(commands.clone(), metrics.clone()),
        pool: setup.pool.clone(),
        twin_noticed,
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
        twin: twin_sender,
        links: HashMap::new(),
        dialling: HashMap::new(),
        seeds_running: false,
        complaints: HashSet::new(),
        estranged: HashSet::new(),
        idle_at: Instant::now(),
        show_at: Instant::now(),
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

pub(super) struct Task {
    pub(super) engine: Engine,
    start: Instant,
    pub(super) setup: GossipSetup,
    pub(super) commands: mpsc::Sender<Command>,
    inbox: Inbox,
    view: watch::Sender<Arc<View>>,
    own: watch::Sender<Identity>,
    /// When another holder of this node's id was noticed last.
    twin: watch::Sender<Option<SystemTime>>,
    links: HashMap<NodeId, PeerLinks>,
    /// Messages that wait for a dial in flight.
    dialling: HashMap<NodeId, VecDeque<Outgoing>>,
    seeds_running: bool,
    /// Seeds complained about once already, until one answers.
    complaints: HashSet<String>,
    /// Peers of which was said that they do not gossip with this node, until they do. As few as members.
    estranged: HashSet<NodeId>,
    idle_at: Instant,
    /// When the view may be shown again.
    show_at: Instant,
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
            let mut wake = (self.start + deadline.elapsed()).min(self.repair_at);
            if self.engine.view_changed() {
                wake = wake.min(self.show_at);
            }
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
        self.make_good();
        self.close_idle();
        while let Some(event) = self.engine.next_event() {
            self.metrics.event(&event);
            log(&event);
            if event == Event::DuplicateNode {
                self.twin.send_replace(Some(SystemTime::now()));
            }
            if let Event::Evidence(evidence) = event
                && self.evidence.send(evidence).is_err()
            {
                tracing::trace!("nobody follows the members");
            }
        }
        self.show();
        let own = self.engine.own();
        self.own.send_if_modified(|known| {
            let changed = known != own;
            known.clone_from(own);
            changed
        });
        self.metrics.interval(self.engine.interval(), self.engine.load());
        self.metrics.links.set(i64::try_from(self.links.len()).unwrap_or(i64::MAX));
    }

    /// Shows the view to others, if it is due.
    fn show(&mut self) {
        if Instant::now() < self.show_at || !self.engine.view_changed() {
            return;
        }
        self.show_at = Instant::now() + VIEW_PAUSE;
        let view = self.engine.view();
        self.metrics.view(view);
        self.view.send_replace(view.clone());
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
                self.heard(&peer);
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

    async fn persist(&mut self, epoch: Epoch) {
        if let Err(error) = self.setup.file.raise(epoch) {
            tracing::error!(%error, %epoch, "the new epoch could not be stored; a restart may have to raise it again");
        }
    }
}

fn answer<T>(to: oneshot::Sender<T>, value: T) {
    if to.send(value).is_err() {
        tracing::debug!("nobody waits for gossip's answer");
    }
}
