//! To whom news of members goes, and what a node that was just met is told.

use super::{Identity, Liveness, MAX_PACKET, Membership, PacketError, evidence::Cause, packet::Packet};
use crate::{id::NodeId, time::Moment};
use bytes::Bytes;
use foca::{Header, Member, Message, State};

/// Most members in one part of a list.
const LIST_PART: usize = 512;
/// Members in a packet that contradicts a list: as many as fit whatever their names.
const CONTRADICTIONS: usize = 8;
/// Packets that contradict one part of a list. What is left is said when members are compared again.
const MAX_CONTRADICTING: usize = 8;
/// Largest part of a list, in bytes.
pub const MAX_LIST_PART: usize = 128 * 1024;

impl Membership {
    /// News goes to these from now on, instead of to anybody: each new connection costs a handshake at both ends, and
    /// a few that stay carry it as far. Probes go to neighbours, too, but not to guests.
    pub fn set_neighbours(&mut self, neighbours: Vec<Identity>, guests: Vec<Identity>) {
        self.neighbours = neighbours;
        self.guests = guests;
    }

    /// foca chooses whom it gossips to at random; neighbours and guests get it in turn.
    pub(super) fn readdress(&mut self, to: Identity, packet: Bytes) -> (Identity, Bytes) {
        self.turn = self.turn.checked_add(1).unwrap_or_default();
        let audience = self.neighbours.len() + self.guests.len();
        let next = self
            .turn
            .checked_rem(audience)
            .and_then(|turn| self.neighbours.iter().chain(&self.guests).nth(turn));
        let Some(neighbour) = next.cloned() else { return (to, packet) };
        let readdressed = Packet::read(&mut self.codec, &packet).ok().and_then(|mut read| {
            read.header.dst = neighbour.clone();
            read.write(&mut self.codec).ok()
        });
        match readdressed {
            // foca has filled it up for a shorter name.
            Some(packet) if packet.len() <= MAX_PACKET => (neighbour, packet),
            Some(_) | None => (to, packet),
        }
    }

    /// All active members as text, this node included: equal where two nodes know the same.
    pub fn roll(&self) -> String {
        self.mirror.roll(self.own())
    }

    /// Changes whenever [`Self::roll`] may say something else.
    pub fn roll_version(&self) -> (u64, &Identity) {
        (self.mirror.version(), self.own())
    }

    /// Every active member but `to`, in as many parts as it takes. foca answers a newcomer with one packet, some 40
    /// members, and leaves the rest to chance.
    pub fn list_for(&mut self, to: &Identity) -> Vec<Bytes> {
        let header = Header {
            src: self.foca.identity().clone(),
            // The lowest, which overrides nothing that is known of us.
            src_incarnation: 0,
            dst: to.clone(),
            message: Message::Gossip,
        };
        let members: Vec<_> = self.foca.iter_members().filter(|member| member.id().node != to.node).collect();
        let parts = members.chunks(LIST_PART).map(|part| {
            let members = part.iter().map(|member| (*member).clone()).collect();
            (Packet { header: header.clone(), members }).write(&mut self.codec)
        });
        parts.filter_map(Result::ok).collect()
    }

    /// Takes a part of another's list. It is old news, and not passed on. Whoever lists a life that is down here has missed
    /// that it ended, and is told so: a life that is down stays so, and nothing else might ever tell the peer.
    pub fn take_list(
        &mut self,
        now: Moment,
        unix_ms: u64,
        peer: &NodeId,
        part: &[u8],
    ) -> Result<(), PacketError> {
        if self.is_silent(now) {
            return Ok(());
        }
        self.codec.set_clock(unix_ms);
        let read = Packet::read_up_to(&mut self.codec, part, MAX_LIST_PART)?;
        let src = &read.header.src;
        if src.node != *peer {
            return Err(PacketError::ForeignSource { peer: peer.clone(), claimed: src.node.clone() });
        }
        self.look_for_usurper(&read.members);
        let own = self.foca.identity().node.clone();
        let ended: Vec<_> = read.members.iter().filter_map(|listed| self.end_of(listed)).collect();
        let room = self.max_lives.saturating_sub(self.foca.iter_membership_state().len());
        // What is known already comes by gossip, with everything that it brings about.
        let is_news = |life: &Identity| {
            self.get(&life.node)
                .is_none_or(|(known, liveness)| liveness == Liveness::Down || life.supersedes(known))
        };
        let new: Vec<_> = read
            .members
            .into_iter()
            .filter(|member| member.state() != State::Down && member.id().node != own && is_news(member.id()))
            .take(room.min(2 * LIST_PART))
            .collect();
        let result = self.foca.apply_many(new.into_iter(), false, &mut self.runtime);
        self.settle(now, result, &Cause::Packet(peer.clone()));
        for packet in ended.chunks(CONTRADICTIONS).take(MAX_CONTRADICTING) {
            self.write_to(src, Message::Gossip, packet.to_vec());
        }
        Ok(())
    }

    /// The end of what others take for an active member, if it is known here.
    fn end_of(&self, listed: &Member<Identity>) -> Option<Member<Identity>> {
        let (life, liveness) = self.get(&listed.id().node)?;
        let ended =
            liveness == Liveness::Down && listed.state() != State::Down && !listed.id().supersedes(life);
        ended.then(|| Member::new(life.clone(), listed.incarnation(), State::Down))
    }
}
