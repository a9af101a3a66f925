//! Taking the packets of others: what is refused before foca sees it, and what its members have to say of this very node.

use super::{CodecError, Identity, Liveness, Membership, RENEWAL_PAUSE, evidence::Cause, packet::Packet};
use crate::{id::NodeId, time::Moment};
use foca::{Header, Identity as _, Member, Message, State};
use std::collections::BTreeSet;

/// Why a packet was refused. Nothing has changed when it was.
#[derive(Debug, thiserror::Error)]
pub enum PacketError {
    /// The packet cannot be decoded.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// The packet claims another source than the connection's.
    #[error("{peer} sent a membership packet in the name of {claimed}")]
    ForeignSource {
        /// Whom the certificate names.
        peer: NodeId,
        /// Whom the packet names.
        claimed: NodeId,
    },
    /// Too large, with trailing bytes, from an unknown node while the member list is full, or refused by
    /// foca, which has then taken the piggybacked members but not the message.
    #[error("membership packet refused: {0}")]
    Refused(String),
}

impl Membership {
    /// Takes one packet from `peer`, the node that the connection's certificate names.
    pub fn receive(
        &mut self,
        now: Moment,
        unix_ms: u64,
        peer: &NodeId,
        packet: &[u8],
    ) -> Result<(), PacketError> {
        if self.is_silent(now) {
            return Ok(());
        }
        self.codec.set_clock(unix_ms);
        let read = Packet::read(&mut self.codec, packet)?;
        let Header { src, src_incarnation, message, .. } = read.header.clone();
        if src.node != *peer {
            return Err(PacketError::ForeignSource { peer: peer.clone(), claimed: src.node.clone() });
        }
        let full = self.foca.iter_membership_state().len() >= self.max_lives;
        if full && !self.knows(peer) {
            return Err(PacketError::Refused("the member list is full".into()));
        }
        if matches!(message, Message::TurnUndead) && !self.may_renew(now) {
            return Ok(());
        }
        if let Some(rtt) = self.prober.received(now, &read.header) {
            self.rtts.entry(peer.clone()).or_default().set(rtt);
        }
        // Of a packet without news, from somebody known, foca learns nothing.
        let known =
            self.get(peer).is_some_and(|(life, liveness)| *life == src && liveness == Liveness::Alive);
        let may_change = !known || !read.members.is_empty() || matches!(message, Message::TurnUndead);
        self.look_for_usurper(&read.members);
        let own = self.foca.identity();
        let source = Member::new(src.clone(), src_incarnation, State::Alive);
        let told = read.members.iter().chain([&source]).filter(|update| update.id().node != own.node);
        let news: BTreeSet<u64> =
            told.filter(|update| self.witness.is_news(update)).map(|update| update.id().addr()).collect();
        let taken = read.retain(&mut self.codec, packet, |member| {
            let id = member.id();
            if id.node == own.node {
                return !id.supersedes(own);
            }
            !full || self.foca.iter_membership_state().any(|known| known.id().node == id.node)
        })?;
        self.dirty |= may_change;
        let result = self.foca.handle_data(&taken, &mut self.runtime);
        self.drain(now);
        if !news.is_empty() {
            // Of the others nothing has changed: where half of a large cluster falls away, there are many.
            let members: Vec<_> =
                self.foca.iter_membership_state().filter(|known| news.contains(&known.id().addr())).collect();
            let count = self.foca.num_members();
            members.iter().for_each(|member| self.suspicions.look_at(now, count, member));
            self.witness.compare(now, &Cause::Packet(peer.clone()), members.into_iter());
        }
        self.tell_suspect(src);
        result.map_err(|error| PacketError::Refused(error.to_string()))
    }

    fn knows(&self, node: &NodeId) -> bool {
        self.foca.iter_membership_state().any(|known| known.id().node == *node)
    }

    /// Where a later life of this node is known, only the caller can end the conflict.
    fn may_renew(&self, now: Moment) -> bool {
        self.usurper().is_none() && self.renewed_at.is_none_or(|last| now.since(last) >= RENEWAL_PAUSE)
    }

    pub(super) fn look_for_usurper(&mut self, members: &[Member<Identity>]) {
        let own = self.own();
        let lives = members.iter().map(Member::id).filter(|life| life.node == own.node);
        let latest = lives.chain(self.usurper()).max_by_key(|life| life.order());
        self.usurper = latest.filter(|life| life.supersedes(own)).cloned();
    }
}
