//! Comparing who is a member: what gossip of changes has missed, and what it never told a newcomer.

use super::{Engine, Kind};
use crate::{Moment, NodeId, membership::Identity};
use bytes::Bytes;
use p2p_proto::v1::Digest;
use std::time::Duration;

/// After a change of members one more comparison follows so soon.
pub(super) const COMPARE_SOON: Duration = Duration::from_secs(1);

/// A peer that asks is not sent the list again within this time.
const LIST_PAUSE: Duration = Duration::from_millis(500);

/// The hash of the members at one version of them.
pub(super) struct Roll {
    version: u64,
    own: Identity,
    hash: Bytes,
}

impl Engine {
    /// The hash of the members that this node knows.
    pub(super) fn roll_hash(&mut self) -> Bytes {
        let (version, own) = self.membership.roll_version();
        if let Some(roll) = self.roll.as_ref().filter(|roll| roll.version == version && roll.own == *own) {
            return roll.hash.clone();
        }
        let hash = Bytes::copy_from_slice(&self.keyring.digest(self.membership.roll().as_bytes())[..16]);
        self.roll = Some(Roll { version, own: own.clone(), hash: hash.clone() });
        hash
    }

    pub(super) fn send_list(&mut self, to: &Identity) {
        for part in self.membership.list_for(to) {
            self.send(to.node.clone(), to.address, Kind::MemberList(part));
        }
    }

    /// Sends the list of members to a peer that has another; the peer, if it has more, sends its own after that.
    pub(super) fn compare_members(&mut self, now: Moment, peer: &NodeId, theirs: &Digest) {
        // A list costs more than the question.
        self.listed.retain(|_, at| now.since(*at) < LIST_PAUSE);
        if theirs.members.len() != 16 || (!theirs.answer && self.listed.contains_key(peer)) {
            return;
        }
        let members = self.roll_hash();
        let Some(life) = self.membership.get(peer).map(|(life, _)| life.clone()) else { return };
        if members == theirs.members {
            return;
        }
        self.send_list(&life);
        if !theirs.answer {
            self.listed.insert(peer.clone(), now);
            let answer = Digest { members, answer: true, ..Digest::default() };
            self.send(life.node.clone(), life.address, Kind::Digest(answer));
        }
    }

    /// Something about members has changed: others may know more of it.
    pub(super) fn compare_soon(&mut self, now: Moment) {
        self.exchange_at = self.exchange_at.min(now + COMPARE_SOON);
    }
}
