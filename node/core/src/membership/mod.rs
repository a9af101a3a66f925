//! Who is in the cluster and who is reachable: SWIM failure detection by `foca`, driven without I/O.
//!
//! [`Membership`] takes packets, the time and evidence from connections, and leaves packets to send in an
//! outbox. It owns foca's timers, and adds what foca leaves to its driver:
//!
//! - A packet is refused unless its source is the node that the connection proved.
//! - **Probes go to the active view**, not to anybody: `probe` says why.
//! - **Suspicion is timed here, by every node** that hears of it, instead of by the one that probed. foca's
//!   own `ChangeSuspectToDown` timer is dropped: in foca 2.0.0 it ends in a `TurnUndead` to the healthy
//!   member even when the suspicion was refuted in time.
//! - Updates are sent more often than `Config::new_lan` would: with its counts, clusters of 16 to 128 nodes
//!   measurably leave nodes behind.
//! - A refused dial makes its target suspect at once, and the members that were refused tell others: the more
//!   of them, the less time the suspect has (`settings` has the figures). Only those count whose own connections
//!   prove them.
//! - What a node sleeps through does not count: after a stall of its own, suspects have as much more time.
//! - **A suspect that talks is told that it is suspected**, so that it can refute. foca tells it only as long as
//!   the news is new; after an interruption of a few seconds nothing would be left to hear.
//! - **Later lives of this very node never reach foca**, which would declare them down in answer: two holders
//!   of one id would then kill each other as fast as the network carries it. [`Membership::usurper`] shows
//!   them, and the caller decides.
//! - A renewal answers `TurnUndead` at most once per [`RENEWAL_PAUSE`].
//!
//! Papers: SWIM (Das, Gupta, Motivala 2002) for probes, suspicion and dissemination by piggyback; Lifeguard
//! (Dadgar et al. 2018) for how confirmations shorten a suspicion. Lifeguard's local health multiplier is left out:
//! in ten minutes of 16 to 128 nodes, with stalls of 2 to 8 s or 5 % loss, longer delays of the own probes
//! prevented nothing.

mod doubt;
mod evidence;
mod identity;
mod mirror;
mod packet;
mod probe;
mod receive;
mod rtt;
mod settings;
mod spread;
mod suspicion;
#[cfg(test)]
mod tests;
mod timers;

pub use doubt::Accusation;
pub use evidence::{Finding, Reason};
pub use identity::{CodecError, Identity, Life};
pub use receive::PacketError;
pub use rtt::Rtt;
pub use settings::{MAX_PACKET, PROBE_PERIOD, suspicion_timeout};
pub use spread::MAX_LIST_PART;

use crate::{
    id::{Epoch, NodeId},
    tag::ByNode,
    time::Moment,
};
use bytes::Bytes;
use evidence::{Cause, Witness};
use foca::{AccumulatingRuntime, Foca, Message, NoCustomBroadcast, OwnedNotification, State, Timer};
use identity::WireCodec;
use mirror::Mirror;
use probe::{PROBE_SLACK, Prober};
use rand::{SeedableRng as _, rngs::StdRng};
use settings::config;
use std::{
    collections::{BTreeSet, VecDeque},
    time::Duration,
};
use suspicion::{OVERSLEPT, Suspicions};
use timers::Timers;

/// A refused dial is taken as evidence against one life of a member at most this often.
const EVIDENCE_PAUSE: Duration = Duration::from_secs(10);
/// Pause between two renewals that others ask for by `TurnUndead`. Where a later life of this node is known,
/// a renewal is refused again at once, and without a pause the two messages chase each other.
pub const RENEWAL_PAUSE: Duration = Duration::from_secs(1);
/// Most lives known, down ones included; lives of further nodes are passed over.
pub const MAX_LIVES: usize = 16_384;

/// What failure detection says of one member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Liveness {
    /// Answers, or nobody doubts it.
    Alive,
    /// Did not answer a probe, or refuses connections; has until the suspicion timeout to refute.
    Suspect,
    /// Declared down, or left.
    Down,
}

impl From<State> for Liveness {
    fn from(state: State) -> Self {
        match state {
            State::Alive => Self::Alive,
            State::Suspect => Self::Suspect,
            State::Down => Self::Down,
        }
    }
}

/// Failure detection of one node. See the module for what it adds to foca.
pub struct Membership {
    foca: Foca<Identity, WireCodec, StdRng, NoCustomBroadcast>,
    codec: WireCodec,
    runtime: AccumulatingRuntime<Identity>,
    timers: Timers,
    suspicions: Suspicions,
    witness: Witness,
    prober: Prober,
    evidence: ByNode<Moment>,
    rtts: ByNode<Rtt>,
    mirror: Mirror,
    /// Whether foca may know more than the mirror shows.
    dirty: bool,
    outbox: VecDeque<(Identity, Bytes)>,
    /// Who gets the gossip that foca addresses to anybody.
    neighbours: Vec<Identity>,
    /// Who gets it beside them.
    guests: Vec<Identity>,
    turn: usize,
    accusations: VecDeque<(Identity, Accusation)>,
    rng: StdRng,
    renewals: u64,
    renewed_at: Option<Moment>,
    usurper: Option<Identity>,
    held_until: Option<Moment>,
    max_lives: usize,
    left: bool,
}

impl Membership {
    /// Failure detection for the life `own`, alone so far. `unix_ms` bounds foreign epochs.
    pub fn new(own: Identity, unix_ms: u64, mut rng: StdRng) -> Self {
        let own_rng = StdRng::from_rng(&mut rng);
        let codec = WireCodec::new(unix_ms);
        Self {
            foca: Foca::new(own, config(1), rng, codec.clone()),
            codec,
            runtime: AccumulatingRuntime::new(),
            timers: Timers::default(),
            suspicions: Suspicions::default(),
            witness: Witness::default(),
            prober: Prober::default(),
            evidence: ByNode::default(),
            rtts: ByNode::default(),
            mirror: Mirror::default(),
            dirty: false,
            outbox: VecDeque::new(),
            neighbours: Vec::new(),
            guests: Vec::new(),
            turn: 0,
            accusations: VecDeque::new(),
            rng: own_rng,
            renewals: 0,
            renewed_at: None,
            usurper: None,
            held_until: None,
            max_lives: MAX_LIVES,
            left: false,
        }
    }

    /// The life of this node as it stands now (the generation grows when it is renewed).
    pub fn own(&self) -> &Identity {
        self.foca.identity()
    }

    /// How often this node had to renew its identity because others had declared it down.
    pub fn renewals(&self) -> u64 {
        self.renewals
    }

    /// Takes the next packet to send, and to whom.
    pub fn next_packet(&mut self) -> Option<(Identity, Bytes)> {
        self.outbox.pop_front()
    }

    /// Takes the next accusation to send, and to whom.
    pub fn next_accusation(&mut self) -> Option<(Identity, Accusation)> {
        self.accusations.pop_front()
    }

    /// Takes the next piece of evidence: what changed this node's mind about a member, or confirmed it.
    pub fn next_finding(&mut self) -> Option<Finding> {
        self.witness.next_finding()
    }

    /// Every life known of other nodes, one per node, down ones included.
    pub fn lives(&self) -> impl Iterator<Item = (&Identity, Liveness)> {
        self.mirror.lives()
    }

    /// The life known of another node.
    pub fn get(&self, node: &NodeId) -> Option<(&Identity, Liveness)> {
        self.mirror.get(node)
    }

    /// Nodes whose life, address or liveness changed since the last call.
    pub fn take_changed(&mut self) -> BTreeSet<NodeId> {
        self.mirror.take_changed()
    }

    /// Members other than this node that are alive or suspect; none once this node has left.
    pub fn active(&self) -> &[Identity] {
        if self.left { &[] } else { self.mirror.active() }
    }

    /// Whether the node is alive or suspect.
    pub fn is_active(&self, node: &NodeId) -> bool {
        !self.left && self.get(node).is_some_and(|(_, liveness)| liveness != Liveness::Down)
    }

    /// Number of active members, this node not counted.
    pub fn active_count(&self) -> usize {
        self.foca.num_members()
    }

    /// Round-trip time of the last answered probe of another node, now and later.
    pub fn rtt(&mut self, node: &NodeId) -> Rtt {
        self.rtts.entry(node.clone()).or_default().clone()
    }

    /// Whether a round-trip time is kept for `node`.
    #[cfg(test)]
    pub(crate) fn measures(&self, node: &NodeId) -> bool {
        self.rtts.contains_key(node)
    }

    /// Forgets that of a node that is shown no longer.
    pub fn forget_rtt(&mut self, node: &NodeId) {
        self.rtts.remove(node);
    }

    /// A later life of this very node that others know of: its disk or clock was set back, or another
    /// process holds the same certificate.
    pub fn usurper(&self) -> Option<&Identity> {
        self.usurper.as_ref().filter(|life| life.supersedes(self.own()))
    }

    /// Whether [`Self::leave`] was called.
    pub fn has_left(&self) -> bool {
        self.left
    }

    /// When [`Self::tick`] must be called next.
    pub fn next_deadline(&self) -> Option<Moment> {
        let due =
            [self.timers.next(), self.suspicions.next(), self.prober.next()].into_iter().flatten().min();
        due.map(|due| self.held_until.map_or(due, |until| due.max(until)))
    }

    /// Neither sends nor takes anything until `until`, and keeps all members as they are: while another
    /// process holds this node's id, others answer that one, and silence says nothing about them.
    pub fn hold(&mut self, until: Moment) {
        self.held_until = Some(until);
        self.outbox.clear();
        self.accusations.clear();
    }

    fn is_silent(&self, now: Moment) -> bool {
        self.left || self.held_until.is_some_and(|until| now < until)
    }

    /// Tells `life` that we are here; its answer is a list of members. Nothing retries a lost announce:
    /// callers repeat it until [`Self::active_count`] grows.
    pub fn announce(&mut self, now: Moment, life: Identity) {
        if self.is_silent(now) {
            return;
        }
        let result = self.foca.announce(life, &mut self.runtime);
        self.settle(now, result, &Cause::Upkeep);
    }

    /// Takes over as the life `own`, later than the present one.
    pub fn supersede(&mut self, now: Moment, own: Identity) {
        if self.left {
            return;
        }
        self.prober.clear();
        let result = self.foca.change_identity(own, &mut self.runtime);
        self.settle(now, result, &Cause::Upkeep);
        self.reconnect(now);
    }

    /// foca stops probing and gossiping when its identity changes, until somebody talks to the new one. If
    /// the few packets that tell of it are lost, nobody does; an empty update makes it go on at once.
    fn reconnect(&mut self, now: Moment) {
        let result = self.foca.apply_many(std::iter::empty(), true, &mut self.runtime);
        self.settle(now, result, &Cause::Upkeep);
    }

    /// Tells the cluster that this life ends. The instance answers nothing afterwards.
    pub fn leave(&mut self, now: Moment) {
        if !self.left {
            let result = self.foca.leave_cluster(&mut self.runtime);
            self.settle(now, result, &Cause::Upkeep);
            self.left = true;
            self.timers.clear();
            self.suspicions.clear();
            self.prober = Prober::default();
        }
    }

    /// Does everything that is due at `now`.
    pub fn tick(&mut self, now: Moment) {
        if self.is_silent(now) {
            return;
        }
        let late = self.next_deadline().map(|due| now.since(due)).unwrap_or_default();
        if late >= OVERSLEPT {
            self.suspicions.woke(late);
        }
        if late >= PROBE_SLACK {
            self.prober.clear();
        }
        if self.held_until.take().is_some() {
            self.suspicions.clear();
            self.prober.clear();
            self.watch(now);
        }
        while let Some(timer) = self.timers.pop_due(now) {
            self.handle_timer(now, timer);
        }
        self.probe(now);
        self.expire_suspicions(now);
    }

    fn handle_timer(&mut self, now: Moment, timer: Timer<Identity>) {
        let forgets = matches!(timer, Timer::RemoveDown(_));
        let result = self.foca.handle_timer(timer, &mut self.runtime);
        self.carry_on(now, result);
        if forgets {
            self.dirty = true;
            self.witness.retain(self.foca.iter_membership_state());
        }
        self.reconcile();
    }

    /// foca's errors here concern single packets or timers (an interrupted probe cycle after a pause, a
    /// timer of a connection state that has passed); the instance stays usable after each of them.
    fn carry_on(&mut self, now: Moment, _result: Result<(), foca::Error>) {
        self.drain(now);
    }

    /// The same after what may change members.
    fn settle(&mut self, now: Moment, result: Result<(), foca::Error>, cause: &Cause) {
        self.dirty = true;
        self.carry_on(now, result);
        self.witness.compare(now, cause, self.foca.iter_membership_state());
        self.watch(now);
    }

    /// Brings the mirror in line, if foca may know more.
    fn reconcile(&mut self) {
        if std::mem::take(&mut self.dirty) {
            let own = self.foca.identity().clone();
            self.mirror.reconcile(&own, self.foca.iter_membership_state());
        }
    }

    fn drain(&mut self, now: Moment) {
        let own = self.foca.identity().node.clone();
        while let Some((to, packet)) = self.runtime.to_send() {
            // foca announces itself to earlier lives of this very node as to any that are down.
            if to.node == own {
                continue;
            }
            let Ok(header) = self.codec.peek(&packet) else { continue };
            let (to, packet) = match header.message {
                Message::Gossip => self.readdress(to, packet),
                Message::Ack(_)
                | Message::Ping(_)
                | Message::PingReq { .. }
                | Message::IndirectPing { .. }
                | Message::IndirectAck { .. }
                | Message::ForwardedAck { .. }
                | Message::Announce
                | Message::Feed
                | Message::Broadcast
                | Message::TurnUndead => (to, packet),
            };
            self.outbox.push_back((to, packet));
        }
        while let Some((after, timer)) = self.runtime.to_schedule() {
            match timer {
                Timer::ChangeSuspectToDown { .. }
                | Timer::ProbeRandomMember(_)
                | Timer::SendIndirectProbe { .. } => {}
                Timer::PeriodicAnnounce(_)
                | Timer::PeriodicAnnounceDown(_)
                | Timer::PeriodicGossip(_)
                | Timer::RemoveDown(_) => self.timers.set(now + after, timer),
            }
        }
        self.timers.rest(now, self.foca.updates_backlog() == 0);
        let (mut resize, mut rejoined) = (false, false);
        while let Some(notification) = self.runtime.to_notify() {
            self.dirty = true;
            match notification {
                OwnedNotification::MemberUp(_) => resize = true,
                OwnedNotification::MemberDown(id) => {
                    resize = true;
                    self.rtts.remove(&id.node);
                    self.evidence.remove(&id.node);
                }
                OwnedNotification::Rejoin(_) => {
                    self.renewals += 1;
                    self.renewed_at = Some(now);
                    rejoined = true;
                }
                // A life replaced by a later one of the same node; `lives` shows the new one.
                OwnedNotification::Rename(..)
                | OwnedNotification::Active
                | OwnedNotification::Idle
                | OwnedNotification::Defunct => {}
            }
        }
        if resize {
            // Only counts and suspicion change, which foca allows at run time.
            if let Err(error) = self.foca.set_config(config(self.foca.num_members() + 1)) {
                debug_assert!(false, "foca refused a configuration: {error}");
            }
        }
        self.reconcile();
        self.schedule_probes(now);
        if rejoined {
            self.prober.clear();
            self.reconnect(now);
        }
    }
}

/// The epoch to take when somebody knows a later life of this node, `known`, than our own.
pub fn epoch_above(known: Epoch) -> Epoch {
    Epoch(known.0.saturating_add(1))
}
