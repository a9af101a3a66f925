//! The engine: membership, records and revocations of one node as one state machine.
//!
//! [`Engine`] takes frames, time and news of connections, and leaves [`Effect`]s to carry out and
//! [`Event`]s to log. The caller keeps one engine in one task:
//!
//! 1. Feed it: [`Engine::receive`], [`Engine::connected`], [`Engine::refused`], [`Engine::publish`] …
//! 2. [`Engine::tick`] when [`Engine::next_deadline`] is due.
//! 3. After either, [`Engine::settle`], then drain effects and events and take the [`View`] if it changed.
//!
//! How a change spreads: its owner signs a new state and pushes it at once to its neighbours, a few random members, each
//! of which passes on what was new to it ([`PUSH_DELAY`] apart). What pushes miss is repaired by exchanging digests with
//! a neighbour at the gossip interval, and with the first peer when joining.

mod accusation;
mod effect;
mod evidence;
mod hello;
mod interval;
mod members;
mod neighbours;
mod own;
mod patience;
mod revoke;
mod shape;
mod states;
#[cfg(test)]
mod tests;
mod view;

pub use effect::{Effect, Event, FrameError};
pub use evidence::{EVIDENCE_LIMIT, EVIDENCE_PER_MEMBER, Evidence};
pub use hello::{HelloMismatch, PROTOCOL_MAX, PROTOCOL_MIN, Peer, hello, negotiate};
pub use interval::IntervalSettings;
pub use shape::{MessageError, decode};
pub use view::{MemberView, View};

use interval::AdaptiveInterval;
use neighbours::Neighbours;

use crate::{
    ClusterId, Epoch, Moment, NodeId,
    membership::{Identity, Membership},
    record::{Keyring, OwnRecords, Store, Version},
    revocation::{Bans, Segments},
    tag::ByNode,
};
use p2p_proto::v1::{MemberState, gossip_message::Kind};
use rand::{
    SeedableRng,
    rngs::StdRng,
    seq::{IndexedRandom as _, IteratorRandom as _},
};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

/// How long changes are gathered before they are pushed.
pub const PUSH_DELAY: Duration = Duration::from_millis(20);
/// Pause between attempts to reach anybody while this node is alone.
const LONELY_PAUSE: Duration = Duration::from_secs(1);
/// Pause between dials of seeds that are not members, for ever: it heals any partition.
const SEED_PAUSE: Duration = Duration::from_secs(30);
/// Pause between asking members for records that have not arrived by themselves.
const MISSING_PAUSE: Duration = Duration::from_millis(500);
/// Most bytes of owner states in one message.
const CHUNK_BYTES: usize = 256 * 1024;
/// Most events and effects kept while nobody drains them.
const QUEUE_LIMIT: usize = 65_536;

/// Settings of an [`Engine`].
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// The cluster.
    pub cluster: ClusterId,
    /// Pause between digest exchanges.
    pub interval: IntervalSettings,
}

struct Tracked {
    state: MemberState,
    since_unix_ms: u64,
    changed: Moment,
}

/// One node's gossip. See the module.
pub struct Engine {
    config: EngineConfig,
    keyring: Arc<dyn Keyring + Send + Sync>,
    rng: StdRng,
    membership: Membership,
    store: Store,
    own: OwnRecords,
    sequence: u64,
    /// What this life has published last.
    own_state: Option<Version>,
    /// The newest state in this node's name that others have sent.
    own_heard: Option<Version>,
    /// Owners whose newest state is to be pushed, and who sent it here.
    unpushed: BTreeMap<NodeId, Option<NodeId>>,
    push_at: Option<Moment>,
    interval: AdaptiveInterval,
    exchange_at: Moment,
    seeds_at: Moment,
    missing_at: Moment,
    missing_asked: u32,
    neighbours: Neighbours,
    roll: Option<members::Roll>,
    /// To whom a list of members was sent, and when.
    listed: BTreeMap<NodeId, Moment>,
    first_seen: ByNode<Moment>,
    tracked: ByNode<Tracked>,
    members: BTreeMap<NodeId, MemberView>,
    /// Nodes whose place in `members` may have changed.
    dirty: BTreeSet<NodeId>,
    /// Owners that are kept out of sight, and until when.
    hidden: BTreeMap<NodeId, Moment>,
    /// The first of these.
    hidden_until: Option<Moment>,
    /// Active members whose present records are not here.
    lacking: BTreeSet<NodeId>,
    /// Our own life as `members` shows it.
    shown: Option<Identity>,
    purge_at: Moment,
    evidence: evidence::EvidenceLog,
    conflicts: VecDeque<Moment>,
    slowed_until: Moment,
    /// Highest epoch of this node that a peer's hello told.
    told_epoch: Option<Epoch>,
    /// From when on a later life of this node is believed that nobody has proved.
    believes_at: Moment,
    patience: patience::Patience,
    renewals: u64,
    revocations: Segments,
    bans: Bans,
    spread: revoke::Spread,
    effects: VecDeque<Effect>,
    events: VecDeque<Event>,
    view: Arc<View>,
    /// Whether `members` has changed since the view was made.
    outdated: bool,
}

impl Engine {
    /// The engine of the life `own`, alone and without records so far.
    pub fn new(
        config: EngineConfig,
        own: Identity,
        unix_ms: u64,
        keyring: Arc<dyn Keyring + Send + Sync>,
        mut rng: StdRng,
    ) -> Self {
        let membership_rng = StdRng::from_rng(&mut rng);
        Self {
            membership: Membership::new(own, unix_ms, membership_rng),
            store: Store::new(config.cluster.clone()),
            revocations: Segments::new(config.cluster.clone()),
            bans: Bans::default(),
            spread: revoke::Spread::default(),
            interval: AdaptiveInterval::new(config.interval),
            config,
            keyring,
            rng,
            own: OwnRecords::default(),
            sequence: 0,
            own_state: None,
            own_heard: None,
            unpushed: BTreeMap::new(),
            push_at: None,
            exchange_at: Moment::default(),
            seeds_at: Moment::default(),
            missing_at: Moment::default(),
            missing_asked: 0,
            neighbours: Neighbours::default(),
            roll: None,
            listed: BTreeMap::new(),
            first_seen: ByNode::default(),
            tracked: ByNode::default(),
            members: BTreeMap::new(),
            dirty: BTreeSet::new(),
            hidden: BTreeMap::new(),
            hidden_until: None,
            lacking: BTreeSet::new(),
            shown: None,
            purge_at: Moment::default(),
            evidence: evidence::EvidenceLog::default(),
            conflicts: VecDeque::new(),
            slowed_until: Moment::default(),
            told_epoch: None,
            believes_at: Moment::default(),
            patience: patience::Patience::default(),
            renewals: 0,
            effects: VecDeque::new(),
            events: VecDeque::new(),
            view: Arc::default(),
            outdated: false,
        }
    }

    /// The present life of this node.
    pub fn own(&self) -> &Identity {
        self.membership.own()
    }

    /// All members as of the last [`Self::settle`], this node included.
    pub fn members(&self) -> &BTreeMap<NodeId, MemberView> {
        &self.members
    }

    /// Whether [`Self::view`] would be another one than last time.
    pub fn view_changed(&self) -> bool {
        self.outdated
    }

    /// The same to be kept: another one after each change.
    pub fn view(&mut self) -> &Arc<View> {
        if std::mem::take(&mut self.outdated) {
            self.view = Arc::new(View { members: self.members.clone() });
        }
        &self.view
    }

    /// A hash of all records that are held, the same at nodes that hold the same.
    pub fn records_hash(&mut self) -> [u8; 16] {
        self.store.hash(self.keyring.as_ref())
    }

    /// The next thing to do.
    pub fn next_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// The next thing to log.
    pub fn next_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Pause between digest exchanges at present.
    pub fn interval(&self) -> Duration {
        self.interval.current()
    }

    /// Gossip frames received per second, as the interval goes by it.
    pub fn load(&self) -> f64 {
        self.interval.load()
    }

    /// Counts a received frame towards the load that never reaches [`Self::receive`]: a trust bundle, or a kind
    /// that only newer releases know.
    pub fn received_elsewhere(&mut self) {
        self.interval.count(None);
    }

    /// The highest epoch known of `node`, for the hello to it.
    pub fn known_epoch(&self, node: &NodeId) -> Option<Epoch> {
        let record = self.store.version(node).map(|(epoch, _)| epoch);
        let life = self.membership.get(node).map(|(life, _)| life.epoch);
        record.max(life)
    }

    /// When [`Self::tick`] must be called next.
    pub fn next_deadline(&self) -> Moment {
        let (missing, spread) = (self.missing_deadline(), self.spread.next_deadline());
        [self.membership.next_deadline(), self.push_at, missing, spread, self.hidden_until]
            .into_iter()
            .flatten()
            .chain([self.exchange_at, self.seeds_at])
            .chain((!self.membership.has_left()).then(|| self.interval.next_deadline()))
            .min()
            .unwrap_or_default()
    }

    /// A gossip stream with `peer` is open: announce ourselves and compare records.
    pub fn connected(&mut self, now: Moment, peer: &Peer) {
        if self.membership.has_left() || self.is_banned(&peer.identity.node) {
            return;
        }
        self.told_epoch = self.told_epoch.max(peer.known_epoch);
        let node = &peer.identity.node;
        let known = self.membership.get(node).is_some_and(|(life, _)| *life == peer.identity);
        if !known || !self.membership.is_active(node) {
            self.membership.announce(now, peer.identity.clone());
            let digest = Kind::Digest(self.store.opening(self.keyring.as_ref()));
            self.send(peer.identity.node.clone(), peer.identity.address, digest);
            self.send_list(&peer.identity);
            self.compare_revocations(&peer.identity.node);
            self.welcome(now, node);
        }
    }

    /// The node refuses connections: no process listens at its address.
    pub fn refused(&mut self, now: Moment, node: &NodeId) {
        self.membership.refused(now, node);
    }

    /// Takes one message from `peer`, the node that the connection's certificate names.
    pub fn receive(
        &mut self,
        now: Moment,
        unix_ms: u64,
        peer: &NodeId,
        message: Kind,
    ) -> Result<(), FrameError> {
        self.interval.count(Some(&message));
        if self.membership.has_left() {
            return Ok(());
        }
        if self.is_banned(peer) {
            return Err(FrameError::Evicted(peer.clone()));
        }
        match message {
            Kind::Membership(packet) => self.membership.receive(now, unix_ms, peer, &packet)?,
            Kind::MemberList(part) => self.membership.take_list(now, unix_ms, peer, &part)?,
            Kind::Accusation(accusation) => self.receive_accusation(now, peer, &accusation)?,
            Kind::States(states) => self.receive_states(now, unix_ms, peer, states)?,
            Kind::Digest(digest) => {
                let found = self.store.compare(&digest, self.keyring.as_ref());
                self.compare_members(now, peer, &digest);
                self.answer(peer, &Vec::from_iter(found.newer_here));
                self.request(peer, &Vec::from_iter(found.newer_there));
                self.send_ranges(peer, found.ranges);
            }
            Kind::StatesRequest(request) => {
                let owners: BTreeSet<NodeId> =
                    request.owners.iter().filter_map(|owner| owner.parse().ok()).collect();
                self.answer(peer, &Vec::from_iter(owners));
            }
            Kind::Revocations(segments) => self.receive_revocations(now, unix_ms, peer, segments),
            Kind::RevocationPositions(positions) => self.receive_positions(now, peer, &positions),
            Kind::Hello(_) => return Err(FrameError::Unexpected("hello")),
            // The caller's, who has the roots.
            Kind::TrustBundle(_) => return Err(FrameError::Unexpected("trust bundle")),
        }
        Ok(())
    }

    /// Does everything that is due at `now`.
    pub fn tick(&mut self, now: Moment) {
        self.membership.tick(now);
        self.interval.tick(now);
        self.spread_revocations(now);
        if self.push_at.is_some_and(|at| at <= now) {
            self.push();
        }
        if self.exchange_at <= now {
            self.exchange_at = now + self.interval.current();
            self.exchange();
        }
        if self.seeds_at <= now {
            self.look_for_others(now);
        }
        if self.missing_deadline().is_some_and(|at| at <= now) {
            self.missing_at = now + MISSING_PAUSE;
            self.ask_for_missing();
        }
        if self.hidden_until.is_some_and(|until| until <= now) {
            let shown = self.hidden.extract_if(.., |_, until| *until <= now);
            self.dirty.extend(shown.map(|(node, _)| node));
            self.hidden_until = self.hidden.values().min().copied();
        }
    }

    /// Up to `count` members that are active and not evicted.
    fn random_members(&mut self, count: usize) -> Vec<Identity> {
        let (active, banned) = (self.membership.active(), self.bans.banned());
        let sampled = active.sample(&mut self.rng, count + banned.len());
        sampled.filter(|life| !banned.contains(&life.node)).take(count).cloned().collect()
    }

    fn look_for_others(&mut self, now: Moment) {
        let lonely = self.membership.active_count() == 0;
        self.seeds_at = now + if lonely { LONELY_PAUSE } else { SEED_PAUSE };
        self.act(Effect::DialSeeds);
        if lonely {
            // foca is silent while it knows nobody alive; those it lost may be back.
            let lost: Vec<Identity> =
                self.membership.lives().map(|(life, _)| life.clone()).sample(&mut self.rng, 3);
            for life in lost {
                self.membership.announce(now, life);
            }
        }
    }

    fn address_of(&self, node: &NodeId) -> Option<SocketAddr> {
        self.membership.get(node).map(|(life, _)| life.address)
    }

    /// Sends to a node whose address failure detection knows, or that is connected: the address then only
    /// matters if the connection is lost.
    fn send_known(&mut self, to: &NodeId, message: Kind) {
        let unspecified = SocketAddr::from(([0, 0, 0, 0], 0));
        let address = self.address_of(to).unwrap_or(unspecified);
        self.send(to.clone(), address, message);
    }

    fn send(&mut self, to: NodeId, address: SocketAddr, message: Kind) {
        self.act(Effect::Send { to, address, message });
    }

    fn act(&mut self, effect: Effect) {
        if self.effects.len() < QUEUE_LIMIT {
            self.effects.push_back(effect);
        } else if self.events.back() != Some(&Event::Overflow) {
            self.note(Event::Overflow);
        }
    }

    fn note(&mut self, event: Event) {
        if self.events.len() < QUEUE_LIMIT {
            self.events.push_back(event);
        } else if let Some(last) = self.events.back_mut() {
            *last = Event::Overflow;
        }
    }

    /// Brings the view in line with membership and records. Call it after every input.
    pub fn settle(&mut self, now: Moment, unix_ms: u64) {
        self.defend_own_id(now, unix_ms);
        while let Some((to, packet)) = self.membership.next_packet() {
            self.send(to.node.clone(), to.address, Kind::Membership(packet));
        }
        self.send_accusations();
        if self.membership.renewals() > self.renewals {
            self.renewals = self.membership.renewals();
            self.note(Event::Renewed);
        }
        self.keep_findings(now, unix_ms);
        self.update_members(now, unix_ms);
        self.purge(now);
    }
}

/// To how many random members a change is pushed, each of which passes it on to as many, once. With
/// ln(n) + c of them, all of n hear of it with probability exp(-exp(-c)) (Eugster et al. 2004, "Epidemic
/// information dissemination in distributed systems"); log2(n) + 4 makes c about 4 or more: 98 % at n = 16,
/// 99.8 % at n = 1,000.
fn fan_out(members: usize) -> usize {
    members.max(1).ilog2() as usize + 4
}
