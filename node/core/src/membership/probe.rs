//! The probe in progress, as its packets and timers show it: foca does not say whom it probes or asks.

use super::Identity;
use crate::id::NodeId;
use foca::{Header, Message, Timer};

struct Current {
    target: Identity,
    number: u8,
    helpers: Vec<NodeId>,
    /// Whether the time of a direct answer has passed. foca gives up a probe that never got so far.
    indirect: bool,
    answered: bool,
}

/// How a probe ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Answered,
    Failed {
        target: Identity,
        /// Who was asked to probe it, too.
        helpers: Vec<NodeId>,
    },
}

/// See the module.
#[derive(Default)]
pub(super) struct Probe(Option<Current>);

impl Probe {
    /// This node sends a packet with this header.
    pub(super) fn sent(&mut self, header: &Header<Identity>) {
        match &header.message {
            Message::Ping(number) => {
                let (target, number) = (header.dst.clone(), *number);
                self.0 =
                    Some(Current { target, number, helpers: Vec::new(), indirect: false, answered: false });
            }
            Message::PingReq { target, probe_number } => {
                if let Some(current) = self.current(target, *probe_number) {
                    current.helpers.push(header.dst.node.clone());
                }
            }
            Message::Ack(_)
            | Message::IndirectPing { .. }
            | Message::IndirectAck { .. }
            | Message::ForwardedAck { .. }
            | Message::Announce
            | Message::Feed
            | Message::Gossip
            | Message::Broadcast
            | Message::TurnUndead => {}
        }
    }

    /// A packet with this header has come.
    pub(super) fn received(&mut self, header: &Header<Identity>) {
        match &header.message {
            Message::Ack(number) => {
                if let Some(current) = self.current(&header.src, *number) {
                    current.answered = true;
                }
            }
            Message::ForwardedAck { origin, probe_number } => {
                if let Some(current) = self.current(origin, *probe_number)
                    && current.helpers.contains(&header.src.node)
                {
                    current.answered = true;
                }
            }
            Message::Ping(_)
            | Message::PingReq { .. }
            | Message::IndirectPing { .. }
            | Message::IndirectAck { .. }
            | Message::Announce
            | Message::Feed
            | Message::Gossip
            | Message::Broadcast
            | Message::TurnUndead => {}
        }
    }

    fn current(&mut self, target: &Identity, number: u8) -> Option<&mut Current> {
        self.0.as_mut().filter(|current| current.target == *target && current.number == number)
    }

    /// A timer is about to be handled; takes the probe that it may end.
    pub(super) fn timer(&mut self, timer: &Timer<Identity>) -> Option<Ended> {
        match timer {
            Timer::SendIndirectProbe { probed_id, .. } => {
                if let Some(current) = self.0.as_mut().filter(|current| current.target == *probed_id) {
                    current.indirect = true;
                }
                None
            }
            Timer::ProbeRandomMember(_) => self.0.take().map(Ended),
            Timer::ChangeSuspectToDown { .. }
            | Timer::PeriodicAnnounce(_)
            | Timer::PeriodicAnnounceDown(_)
            | Timer::PeriodicGossip(_)
            | Timer::RemoveDown(_) => None,
        }
    }

    /// How a probe ended, after the timer was handled. A timer that foca passed over, because its connection
    /// state has passed, starts no other probe; then the one before goes on.
    pub(super) fn outcome(&mut self, ended: Ended) -> Option<Outcome> {
        let ended = ended.0;
        if self.0.is_none() {
            self.0 = Some(ended);
            return None;
        }
        if ended.answered {
            return Some(Outcome::Answered);
        }
        ended.indirect.then_some(Outcome::Failed { target: ended.target, helpers: ended.helpers })
    }

    /// Forgets the probe in progress.
    pub(super) fn clear(&mut self) {
        self.0 = None;
    }
}

/// A probe whose period may be over; see [`Probe::outcome`].
pub(super) struct Ended(Current);
