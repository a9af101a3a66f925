//! Whom this node probes, and what came of it.
//!
//! One member of the active view each [`PROBE_PERIOD`], each once before any twice. foca would probe anybody: n nodes then hold
//! n² connections open, each with its handshakes and pings, and everybody dials everybody while a cluster starts. Views are
//! uniform samples, so each member is in about as many views as its own has places, and somebody probes it every second, as in
//! SWIM; as Rapid (Suresh et al. 2018) found, a few standing observers notice a crash as well as random ones. A member that is in
//! nobody's view (one of 60,000 at 128 members, with log2(n) + 4 places) is noticed when views change, and by the connections that
//! it had opened itself.
//!
//! The packets are foca's own, which answers them and passes indirect ones on.

use super::{
    Identity, Membership, PROBE_PERIOD,
    evidence::Reason,
    packet::Packet,
    settings::{HELPERS, PROBE_RTT},
};
use crate::{id::NodeId, time::Moment};
use foca::{Header, Member, Message, State};
use rand::{
    RngExt as _,
    seq::{IndexedRandom as _, SliceRandom as _},
};
use std::time::Duration;

/// How long a node that has met others waits with its first probe: it has connections to open and records to check, and where
/// many nodes start at once, they are as busy. Refused dials count from the start.
const WARM_UP: Duration = Duration::from_secs(3);

/// A node that wakes so late is busy, or its machine is: it keeps what it thinks of the member that it is probing to itself,
/// since the answer may wait to be read.
pub(super) const PROBE_SLACK: Duration = Duration::from_millis(100);

#[derive(Clone)]
struct Current {
    target: Identity,
    /// The incarnation that does not answer; a higher one has spoken meanwhile.
    incarnation: u16,
    number: u8,
    sent: Moment,
    /// Who was asked to probe it, too, once the time of a direct answer had passed.
    helpers: Option<Vec<Identity>>,
    answered: bool,
}

/// The probe in progress, and whose turn it is.
#[derive(Default)]
pub(super) struct Prober {
    current: Option<Current>,
    /// Who comes next, last first; filled up once all have had their turn.
    round: Vec<NodeId>,
    number: u8,
    next_at: Option<Moment>,
}

impl Prober {
    /// When the next step is due.
    pub(super) fn next(&self) -> Option<Moment> {
        let waiting = self.current.as_ref().filter(|probe| !probe.answered && probe.helpers.is_none());
        waiting.map(|probe| probe.sent + PROBE_RTT).into_iter().chain(self.next_at).min()
    }

    /// Looks at a packet that has come; how long the answer took if it is the direct one.
    pub(super) fn received(&mut self, now: Moment, header: &Header<Identity>) -> Option<Duration> {
        let current = self.current.as_mut()?;
        match &header.message {
            Message::Ack(number) if *number == current.number && header.src == current.target => {
                current.answered = true;
                Some(now.since(current.sent))
            }
            Message::ForwardedAck { origin, probe_number } => {
                let asked = current.helpers.iter().flatten().any(|helper| *helper == header.src);
                current.answered |= asked && *probe_number == current.number && *origin == current.target;
                None
            }
            Message::Ack(_)
            | Message::Ping(_)
            | Message::PingReq { .. }
            | Message::IndirectPing { .. }
            | Message::IndirectAck { .. }
            | Message::Announce
            | Message::Feed
            | Message::Gossip
            | Message::Broadcast
            | Message::TurnUndead => None,
        }
    }

    /// Forgets the probe in progress: silence says nothing of its target.
    pub(super) fn clear(&mut self) {
        self.current = None;
    }
}

impl Membership {
    /// Starts to probe a while after there is somebody, at a random moment of the period.
    pub(super) fn schedule_probes(&mut self, now: Moment) {
        if self.active().is_empty() {
            self.prober = Prober::default();
        } else if self.prober.next_at.is_none() {
            self.prober.next_at = Some(now + WARM_UP + PROBE_PERIOD.mul_f64(self.rng.random()));
        }
    }

    /// Does what is due of the probe in progress, and starts the next one.
    pub(super) fn probe(&mut self, now: Moment) {
        if self.prober.next().is_none_or(|due| due > now) {
            return;
        }
        if self.prober.next_at.is_none_or(|at| at > now) {
            self.ask_helpers();
            return;
        }
        self.prober.next_at = Some(now + PROBE_PERIOD);
        if let Some(Current { target, incarnation, helpers: Some(helpers), answered: false, .. }) =
            self.prober.current.take()
        {
            let helpers = helpers.into_iter().map(|helper| helper.node.clone()).collect();
            self.probe_failed(now, &target, incarnation, helpers);
        }
        if let Some(target) = self.next_target() {
            self.prober.number = self.prober.number.wrapping_add(1);
            let number = self.prober.number;
            self.write_to(target.id(), Message::Ping(number), Vec::new());
            self.prober.current = Some(Current {
                target: target.id().clone(),
                incarnation: target.incarnation(),
                number,
                sent: now,
                helpers: None,
                answered: false,
            });
        }
    }

    fn next_target(&mut self) -> Option<Member<Identity>> {
        if self.prober.round.is_empty() {
            self.prober.round = self.observed().iter().map(|life| life.node.clone()).collect();
            self.prober.round.shuffle(&mut self.rng);
        }
        while let Some(node) = self.prober.round.pop() {
            // Who has left the view since has its observers elsewhere.
            let observed = self.observed().iter().any(|life| life.node == node);
            let member = self.foca.iter_members().find(|member| member.id().node == node);
            if let Some(member) = member.filter(|_| observed) {
                return Some(member.clone());
            }
        }
        None
    }

    /// Whom this node probes: its active view, or everybody as long as it has none.
    fn observed(&self) -> &[Identity] {
        if self.neighbours.is_empty() { self.active() } else { &self.neighbours }
    }

    fn ask_helpers(&mut self) {
        let Some(Current { target, number, .. }) = self.prober.current.clone() else { return };
        let observed = self.observed().iter().filter(|life| life.node != target.node).cloned();
        let others: Vec<Identity> = observed.collect();
        let helpers: Vec<Identity> = others.sample(&mut self.rng, HELPERS).cloned().collect();
        for helper in &helpers {
            let request = Message::PingReq { target: target.clone(), probe_number: number };
            self.write_to(helper, request, Vec::new());
        }
        if let Some(current) = &mut self.prober.current {
            current.helpers = Some(helpers);
        }
    }

    fn probe_failed(&mut self, now: Moment, target: &Identity, incarnation: u16, helpers: Vec<NodeId>) {
        let same = |member: &&Member<Identity>| member.id() == target && member.incarnation() == incarnation;
        let Some(state) = self.foca.iter_members().find(same).map(Member::state) else { return };
        let reason = Reason::ProbeFailed { last_rtt: self.rtt(&target.node).get(), helpers };
        if state == State::Suspect {
            self.witness.confirm(now, &target.node, reason);
        } else {
            self.suspect(now, Member::new(target.clone(), incarnation, State::Suspect), reason);
        }
    }

    /// Sends a packet that foca did not make.
    pub(super) fn write_to(
        &mut self,
        to: &Identity,
        message: Message<Identity>,
        members: Vec<Member<Identity>>,
    ) {
        let header = Header {
            src: self.foca.identity().clone(),
            // The lowest, which overrides nothing that others know of us.
            src_incarnation: 0,
            dst: to.clone(),
            message,
        };
        match (Packet { header, members }).write(&mut self.codec) {
            Ok(packet) => self.outbox.push_back((to.clone(), packet)),
            Err(error) => debug_assert!(false, "a packet was not encoded: {error}"),
        }
    }
}
