//! How a member comes to be suspect, and down.

use super::{
    EVIDENCE_PAUSE, Identity, Membership,
    evidence::{Cause, Reason},
};
use crate::{id::NodeId, time::Moment};
use foca::{Member, Message, State};
use rand::seq::IteratorRandom as _;

/// How many members one that was refused tells directly.
const ACCUSATION_FAN_OUT: usize = 4;

/// A member refused a connection: what the one that was refused tells others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accusation {
    /// The life that is to blame.
    pub life: Identity,
    /// The incarnation in which it is suspected; a higher one has refuted it.
    pub incarnation: u16,
}

impl Membership {
    /// The peer refuses connections at its address: no process listens there. An alive member becomes
    /// suspect at once; it may refute as usual.
    pub fn refused(&mut self, now: Moment, node: &NodeId) {
        let active = self.foca.iter_members().find(|member| member.id().node == *node);
        let Some((life, incarnation, state)) = active.map(|m| (m.id().clone(), m.incarnation(), m.state()))
        else {
            return;
        };
        if self.is_silent(now) {
            return;
        }
        if self.evidence.get(node).is_some_and(|last| now.since(*last) < EVIDENCE_PAUSE) {
            return;
        }
        self.evidence.insert(node.clone(), now);
        let reason = Reason::Refused { address: life.address };
        if state == State::Suspect {
            self.witness.confirm(now, node, reason);
        } else {
            self.suspect(now, Member::new(life.clone(), incarnation, State::Suspect), reason);
        }
        let own = self.own().node.clone();
        if self.suspicions.accuse(&life, incarnation, &own) {
            self.accuse(&Accusation { life, incarnation });
        }
    }

    /// `peer`, an active member, says that a member has refused its connection. What others say that a third one
    /// says does not count: only who connects itself is an accuser of its own.
    pub fn accused(&mut self, now: Moment, peer: &NodeId, accusation: &Accusation) {
        let Accusation { life, incarnation } = accusation;
        let is_active = |node: &NodeId| self.foca.iter_members().find(|member| member.id().node == *node);
        let Some(member) = is_active(&life.node) else { return };
        let speaks_of_it = member.id() == life && member.incarnation() == *incarnation;
        if self.is_silent(now) || !speaks_of_it || life.node == *peer || is_active(peer).is_none() {
            return;
        }
        let reason = Reason::RefusedOther { by: peer.clone(), address: life.address };
        if member.state() == State::Alive {
            self.suspect(now, Member::new(life.clone(), *incarnation, State::Suspect), reason);
            self.suspicions.accuse(life, *incarnation, peer);
        } else if self.suspicions.accuse(life, *incarnation, peer) {
            self.witness.confirm(now, &life.node, reason);
        }
    }

    /// Ends the present life of a member that is evicted: nobody looks after it any more. If it is let in again, it comes as
    /// another life, and not as what it was.
    pub fn expel(&mut self, now: Moment, node: &NodeId) {
        let active = self.foca.iter_members().find(|member| member.id().node == *node);
        if let Some((life, incarnation)) = active.map(|member| (member.id().clone(), member.incarnation())) {
            let down = Member::new(life, incarnation, State::Down);
            let result = self.foca.apply_many([down].into_iter(), true, &mut self.runtime);
            self.settle(now, result, &Cause::Upkeep);
        }
    }

    pub(super) fn suspect(&mut self, now: Moment, suspect: Member<Identity>, reason: Reason) {
        let result = self.foca.apply_many([suspect].into_iter(), true, &mut self.runtime);
        self.settle(now, result, &Cause::Own(reason));
    }

    /// Tells a few members that this node was refused. Each that tells as many reaches enough, and the first
    /// whose patience ends tells all.
    fn accuse(&mut self, accusation: &Accusation) {
        let others = self.foca.iter_members().map(Member::id).filter(|id| id.node != accusation.life.node);
        let told: Vec<Identity> = others.cloned().sample(&mut self.rng, ACCUSATION_FAN_OUT);
        self.accusations.extend(told.into_iter().map(|to| (to, accusation.clone())));
    }

    pub(super) fn watch(&mut self, now: Moment) {
        self.suspicions.watch(now, self.foca.num_members(), self.foca.iter_members());
    }

    pub(super) fn expire_suspicions(&mut self, now: Moment) {
        for suspicion in self.suspicions.take_due(now) {
            let accusers = suspicion.accusers.len();
            let reason = Reason::RanOut { after: now.since(suspicion.since), accusers };
            let down = Member::new(suspicion.identity, suspicion.incarnation, State::Down);
            let result = self.foca.apply_many([down].into_iter(), true, &mut self.runtime);
            self.settle(now, result, &Cause::Own(reason));
        }
    }

    /// Lets a suspect that has just talked know, by the same words that others hear.
    pub(super) fn tell_suspect(&mut self, life: Identity) {
        let Some(suspicion) = self.suspicions.of(&life) else {
            return;
        };
        let suspect = Member::new(life.clone(), suspicion.incarnation, State::Suspect);
        self.write_to(&life, Message::Gossip, vec![suspect]);
    }
}
