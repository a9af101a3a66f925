//! How records spread: pushed when they are new, compared with a neighbour, asked for where they are missing.

use super::{CHUNK_BYTES, Engine, Event, FrameError, PUSH_DELAY};
use crate::{
    Moment, NodeId,
    record::{Hash, Heading, MAX_RANGES, Merge, Refusal, hash_of},
};
use p2p_proto::v1::{Digest, DigestRange, OwnerState, OwnerStates, StatesRequest, gossip_message::Kind};
use prost::Message as _;
use rand::seq::{IndexedRandom as _, IteratorRandom as _};

/// Most owners asked for at once that have not arrived by themselves.
const MISSING_AT_ONCE: usize = 8;
/// Most owners that a neighbour is asked for at once.
const MISSING_ASKED: usize = 256;
/// Each so many-th time the owners themselves are asked.
const MISSING_FROM_OWNERS: u32 = 10;
/// States of one answer that are passed on like pushed ones; of more, none is.
const REPAIRED_PASSED_ON: usize = 4;
/// After so many refused states the rest of a message is not looked at.
pub(super) const REFUSED_OF_ONE: usize = 64;
/// Most ranges of a digest in one message.
const RANGES_PER_MESSAGE: usize = MAX_RANGES;

impl Engine {
    /// # Errors
    ///
    /// When this peer's states were refused so often that they are not looked at for now.
    pub(super) fn receive_states(
        &mut self,
        now: Moment,
        unix_ms: u64,
        peer: &NodeId,
        states: OwnerStates,
    ) -> Result<(), FrameError> {
        // A few that were missing are news that a push has lost; many are a snapshot, which the others have.
        let pass_on = !states.answer || states.states.len() <= REPAIRED_PASSED_ON;
        let mut refused = 0;
        for state in states.states {
            if self.patience.is_spent(now, peer) {
                return Err(FrameError::Flood { peer: peer.clone(), what: "bad records" });
            }
            if !self.patience.is_fresh() && self.patience.knows(now, &self.hash_of(&state)) {
                continue;
            }
            match self.merge_state(state.clone(), unix_ms) {
                Ok(Merge::Known(_)) => {}
                Ok(Merge::New(owner)) => {
                    if owner == self.own().node {
                        self.own_heard = self.store.full_version(&owner);
                    }
                    if let Some(stored) = self.store.get(&owner)
                        && !stored.view.not_granted.is_empty()
                    {
                        let services = stored.view.not_granted.clone();
                        self.note(Event::NotGranted { owner: owner.clone(), services });
                    }
                    self.seen(now, &owner);
                    self.dirty.insert(owner.clone());
                    if pass_on {
                        self.unpushed.insert(owner, Some(peer.clone()));
                        self.push_at.get_or_insert(now + PUSH_DELAY);
                    }
                }
                Err(refusal) => {
                    let again = self.patience.refused(now, peer, self.hash_of(&state));
                    self.note(Event::Refused { from: peer.clone(), refusal, again });
                    refused += 1;
                    if refused >= REFUSED_OF_ONE {
                        break;
                    }
                }
            }
        }
        Ok(())
    }

    /// Of all of a state, unlike the hash that comparisons go by: its signature or records may be another's.
    fn hash_of(&self, state: &OwnerState) -> Hash {
        hash_of(&state.encode_to_vec(), self.keyring.as_ref())
    }

    /// Records of an owner have come; if of a start that failure detection does not know yet, it will in a moment.
    pub(super) fn seen(&mut self, now: Moment, owner: &NodeId) {
        let started = self.store.get(owner).map(|owner| owner.epoch);
        let known = self.membership.get(owner).map(|(life, _)| life.epoch);
        let first = self.first_seen.entry(owner.clone()).or_insert(now);
        if known < started {
            *first = now;
        }
    }

    pub(super) fn merge_state(&mut self, state: OwnerState, unix_ms: u64) -> Result<Merge, Refusal> {
        let heading = Heading::peek(&state, &self.config.cluster)?;
        if self.is_banned(&heading.owner) {
            return Err(Refusal::Evicted { owner: heading.owner });
        }
        self.store.take(heading, state, unix_ms, self.keyring.as_ref())
    }

    /// Pushes what is new to neighbours and guests, and not to the one it came from.
    pub(super) fn push(&mut self) {
        self.push_at = None;
        let unpushed = std::mem::take(&mut self.unpushed);
        for target in self.neighbours().into_iter().chain(self.guests()) {
            let owners: Vec<NodeId> = unpushed
                .iter()
                .filter(|(owner, from)| from.as_ref() != Some(&target.node) && **owner != target.node)
                .map(|(owner, _)| owner.clone())
                .collect();
            self.send_states(&target.node, &owners, false);
        }
    }

    pub(super) fn exchange(&mut self) {
        if let Some(peer) = self.neighbours().choose(&mut self.rng).cloned() {
            let members = self.roll_hash();
            let digest = Digest { members, ..self.store.digest(self.keyring.as_ref()) };
            self.send(peer.node.clone(), peer.address, Kind::Digest(digest));
            if !self.revocations.is_empty() {
                self.send_positions(&peer.node, true);
            }
        }
    }

    /// Asks for the records of active members that have not come by themselves: a neighbour for all, and now and then some
    /// of the owners. At random, so that a few that never answer do not keep the others waiting.
    pub(super) fn ask_for_missing(&mut self) {
        let missing = self.lacking.iter().cloned().sample(&mut self.rng, MISSING_ASKED);
        for node in &missing {
            self.store.readmit(node);
        }
        self.missing_asked += 1;
        match self.neighbours().choose(&mut self.rng).cloned() {
            Some(neighbour) if !self.missing_asked.is_multiple_of(MISSING_FROM_OWNERS) => {
                self.request(&neighbour.node, &missing);
            }
            Some(_) | None => {
                for node in missing.iter().take(MISSING_AT_ONCE) {
                    self.request(node, std::slice::from_ref(node));
                }
            }
        }
    }

    pub(super) fn missing_deadline(&self) -> Option<Moment> {
        (!self.lacking.is_empty()).then_some(self.missing_at)
    }

    pub(super) fn answer(&mut self, to: &NodeId, owners: &[NodeId]) {
        self.send_states(to, owners, true);
    }

    pub(super) fn send_states(&mut self, to: &NodeId, owners: &[NodeId], answer: bool) {
        let new = || OwnerStates { answer, ..OwnerStates::default() };
        let mut chunk = new();
        let mut bytes = 0;
        let mut chunks = Vec::new();
        for owner in owners.iter().filter_map(|owner| self.store.get(owner)) {
            let size = owner.state.encoded_len();
            if bytes + size > CHUNK_BYTES && !chunk.states.is_empty() {
                chunks.push(std::mem::replace(&mut chunk, new()));
                bytes = 0;
            }
            bytes += size;
            chunk.states.push((*owner.state).clone());
        }
        if !chunk.states.is_empty() {
            chunks.push(chunk);
        }
        for chunk in chunks {
            self.send_known(to, Kind::States(chunk));
        }
    }

    pub(super) fn send_ranges(&mut self, to: &NodeId, ranges: Vec<DigestRange>) {
        let mut ranges = ranges.into_iter().peekable();
        while ranges.peek().is_some() {
            let ranges = ranges.by_ref().take(RANGES_PER_MESSAGE).collect();
            self.send_known(to, Kind::Digest(Digest { ranges, ..Digest::default() }));
        }
    }

    pub(super) fn request(&mut self, from: &NodeId, owners: &[NodeId]) {
        if !owners.is_empty() {
            let owners = owners.iter().map(NodeId::to_string).collect();
            self.send_known(from, Kind::StatesRequest(StatesRequest { owners }));
        }
    }
}
