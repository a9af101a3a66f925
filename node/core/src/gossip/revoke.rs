//! Revocations: taken from others, signed here, and spread until everybody has them.
//!
//! New ones are pushed like records. Each push is answered with what the receiver holds; who does not answer, or
//! still lacks some, is asked again every [`ANSWER_PAUSE`]. Shortly after a push one more random member is asked what
//! it holds, so that chance leaves nobody waiting for the next interval.

use super::{CHUNK_BYTES, Effect, Engine, Event, PUSH_DELAY, fan_out};
use crate::{
    Moment, NodeId,
    revocation::{SegmentRefusal, has_expired},
};
use bytes::Bytes;
use p2p_proto::v1::{
    Revocation, RevocationPositions, RevocationSegment, RevocationSegments, gossip_message::Kind,
    revocation::What,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

/// How long a member may take to say what it holds.
const ANSWER_PAUSE: Duration = Duration::from_millis(400);
/// How often a member is asked before the next exchange is left to find out.
const MAX_ASKED: u32 = 10;
/// How many peers a node asks, after its start, for the revocations in its own name: its state may have been set back.
const OWN_ASKED: u32 = 3;
/// Refused segments that are remembered, so that each is told once.
const REFUSED_TOLD: usize = 1024;
/// Pause between a push and the question to one more member.
const EXTRA_PAUSE: Duration = Duration::from_millis(200);

/// What is on its way to others.
#[derive(Debug, Default)]
pub(super) struct Spread {
    /// Segments to be pushed, and who sent them here.
    unpushed: Vec<(Arc<RevocationSegment>, Option<NodeId>)>,
    push_at: Option<Moment>,
    /// Signatures of segments of this coordinator that are not on its disk yet. Nobody is told of them: after a crash their
    /// numbers would be used again.
    unkept: BTreeSet<Bytes>,
    extra_at: Option<Moment>,
    /// A moment, and what the wall clock showed then, in seconds.
    clock: Option<(Moment, u64)>,
    /// Members that have not said yet that they hold what they were sent: when to ask, and how often it was done.
    unanswered: BTreeMap<NodeId, (Moment, u32)>,
    /// Peers that were asked for all that they hold, until one has answered.
    comparing: BTreeSet<NodeId>,
    /// Whether one has.
    compared: bool,
    /// How many peers were asked for all in our own name.
    own_asked: u32,
    /// What was refused and told: hash of the signature, and why.
    refused: BTreeSet<([u8; 32], &'static str)>,
    /// Whether the last segments had one among them that was refused.
    refusing: bool,
}

impl Spread {
    pub(super) fn next_deadline(&self) -> Option<Moment> {
        let asked = self.unanswered.values().map(|(at, _)| *at).min();
        [self.push_at, self.extra_at, asked].into_iter().flatten().min()
    }
}

impl Engine {
    /// Whether a coordinator has banned the node.
    pub fn is_banned(&self, node: &NodeId) -> bool {
        self.bans.banned().contains(node)
    }

    /// Every node that coordinators have banned.
    pub fn banned(&self) -> &BTreeSet<NodeId> {
        self.bans.banned()
    }

    /// The counter of an eviction or readmission that overrules all before.
    pub fn next_ban_counter(&self, node: &NodeId) -> u64 {
        self.bans.next_counter(node)
    }

    /// All segments: what a node keeps on its disk.
    pub fn revocation_segments(&self) -> Vec<Arc<RevocationSegment>> {
        self.revocations.iter().cloned().collect()
    }

    /// Revocations that are kept.
    pub fn revocation_count(&self) -> usize {
        self.revocations.entries()
    }

    /// What this node has seen of every log, for its disk.
    pub fn revocation_positions(&self) -> RevocationPositions {
        self.revocations.positions(false)
    }

    /// Whether a peer has told all that it holds since this node started, and all of it was taken.
    pub fn has_compared_revocations(&self) -> bool {
        self.spread.compared
    }

    /// Takes back what [`Self::revocation_positions`] said; before the segments.
    pub fn load_revocation_positions(&mut self, positions: &RevocationPositions) {
        self.revocations.load_positions(positions);
    }

    /// Takes back a segment that this node had verified and kept on its disk. Returns what it revokes.
    pub fn load_revocations(
        &mut self,
        segment: RevocationSegment,
    ) -> Result<Vec<Revocation>, SegmentRefusal> {
        let signer = self.signer(&segment);
        let entries = self.revocations.load(segment)?.unwrap_or_default();
        if let Some(signer) = signer {
            self.apply_bans(&signer, &entries);
        }
        Ok(entries)
    }

    /// Signs `entries` as this coordinator's and keeps them. They spread once [`Self::push_revocations`] is told that
    /// they are on disk. `chain` is the certificate chain of the keyring's key.
    pub fn revoke(
        &mut self,
        unix_ms: u64,
        entries: Vec<Revocation>,
        chain: &[Bytes],
    ) -> Result<Vec<Arc<RevocationSegment>>, SegmentRefusal> {
        let own = self.own().node.clone();
        let made = self.revocations.append(&own, entries.clone(), unix_ms, self.keyring.as_ref(), chain)?;
        self.apply_bans(&own, &entries);
        self.spread.unkept.extend(made.iter().map(|segment| segment.signature.clone()));
        Ok(made)
    }

    /// Sends segments of this node to others.
    pub fn push_revocations(&mut self, now: Moment, segments: Vec<Arc<RevocationSegment>>) {
        if segments.is_empty() {
            return;
        }
        for segment in &segments {
            self.spread.unkept.remove(&segment.signature);
        }
        self.spread.unpushed.extend(segments.into_iter().map(|segment| (segment, None)));
        self.spread.push_at.get_or_insert(now);
    }

    /// The time up to which this node knows that time has passed: the wall clock's `unix_s`, unless that has jumped ahead
    /// since this was first asked. What expired by a clock that is put right later would be forgotten for good, here and,
    /// folded and signed by a coordinator, everywhere. A clock that was put right by a jump ahead only has things kept
    /// longer, until the next start.
    pub fn lived_until(&mut self, now: Moment, unix_s: u64) -> u64 {
        let (since, then) = *self.spread.clock.get_or_insert((now, unix_s));
        unix_s.min(then.saturating_add(now.since(since).as_secs()))
    }

    /// Drops what has expired and, at a coordinator, folds its small segments, and signs anew what others would refuse: what
    /// was signed with another certificate, or while the clock was ahead. Call it every half minute or so, and
    /// write all segments to disk if it returns true.
    pub fn tidy_revocations(&mut self, now: Moment, unix_ms: u64, chain: Option<&[Bytes]>) -> bool {
        let unix_s = self.lived_until(now, unix_ms / 1000);
        let mut changed = self.revocations.expire(unix_s);
        let Some(chain) = chain else { return changed };
        let own = self.own().node.clone();
        if self.revocations.is_ahead(&own, unix_ms) {
            self.reissue(now, unix_ms);
            changed = true;
        }
        match self.revocations.sign_anew(&own, unix_ms, self.keyring.as_ref(), chain) {
            Ok(made) => {
                changed |= !made.is_empty();
                self.push_revocations(now, made);
            }
            Err(refusal) => self.note(Event::RevocationsRefused { from: own, refusal }),
        }
        let (own, bans) = (self.own().node.clone(), self.bans.clone());
        let is_void = |entry: &Revocation| {
            has_expired(entry.expires_at, unix_s)
                || matches!(&entry.what, Some(What::Node(node)) if bans.is_overruled(&own, node))
        };
        match self.revocations.fold(&own, unix_ms, self.keyring.as_ref(), chain, &is_void) {
            Ok(made) => {
                changed |= !made.is_empty();
                self.push_revocations(now, made);
            }
            Err(refusal) => self.note(Event::RevocationsRefused { from: own, refusal }),
        }
        changed
    }

    /// Takes segments that must be in force when this returns; used for evictions, which wait for it. Returns whether
    /// all are.
    pub fn enforce(
        &mut self,
        now: Moment,
        unix_ms: u64,
        peer: &NodeId,
        segments: RevocationSegments,
    ) -> bool {
        self.spread.refusing = false;
        for segment in segments.segments {
            self.merge_revocations(now, unix_ms, peer, segment);
        }
        !self.spread.refusing
    }

    pub(super) fn receive_revocations(
        &mut self,
        now: Moment,
        unix_ms: u64,
        peer: &NodeId,
        segments: RevocationSegments,
    ) {
        // Who is told what we hold sends what we lack: after a refusal that would go round and round.
        if self.enforce(now, unix_ms, peer, segments) {
            self.send_positions(peer, false);
        }
    }

    fn merge_revocations(&mut self, now: Moment, unix_ms: u64, peer: &NodeId, segment: RevocationSegment) {
        // Before the merge, which may replace what was signed here by what was signed under the same numbers elsewhere.
        // And only for what this coordinator has signed itself: anybody can send nonsense in its name.
        if self.revocations.contradicts(&self.own().node, &segment, unix_ms / 1000)
            && self.revocations.is_genuine(&segment, unix_ms / 1000, self.keyring.as_ref())
        {
            self.reissue(now, unix_ms);
        }
        let shared_hash = self.keyring.digest(&segment.signature);
        let shared = Arc::new(segment.clone());
        match self.revocations.merge(segment, unix_ms / 1000, self.keyring.as_ref()) {
            Ok(Some((heading, entries))) => {
                if self.apply_bans(&heading.signer, &entries) {
                    // What others told of it meanwhile was refused here, and is not told twice.
                    self.compare_soon(now);
                }
                self.spread.unpushed.push((shared.clone(), Some(peer.clone())));
                self.spread.push_at.get_or_insert(now + PUSH_DELAY);
                self.act(Effect::Revoked { segment: shared, entries });
            }
            // Its own signer tells us other words than those that we have of it: it may have lost some.
            Ok(None) if self.signer(&shared).as_ref() == Some(peer) => {
                let instead = self.revocations.instead_of(&shared);
                self.send_segments(peer, instead);
            }
            Ok(None) => {}
            Err(refusal) => {
                self.spread.refusing = true;
                self.spread.comparing.remove(peer);
                // The same comes again from everybody who holds it; once is enough to tell.
                if self.spread.refused.len() >= REFUSED_TOLD {
                    self.spread.refused.clear();
                }
                if self.spread.refused.insert((shared_hash, refusal.reason())) {
                    self.note(Event::RevocationsRefused { from: peer.clone(), refusal });
                }
            }
        }
    }

    /// Somebody holds other words of ours under numbers that we have used, too. Each side would keep what it knows for
    /// ever, so all of ours are signed again, under new numbers.
    fn reissue(&mut self, now: Moment, unix_ms: u64) {
        let own = self.own().node.clone();
        let Some(chain) = self.own_chain() else { return };
        match self.revocations.reopen(&own, unix_ms, self.keyring.as_ref(), &chain) {
            Ok(made) => {
                for segment in &made {
                    self.act(Effect::Revoked { segment: segment.clone(), entries: Vec::new() });
                }
                self.push_revocations(now, made);
                self.note(Event::RevocationsReissued);
            }
            Err(refusal) => self.note(Event::RevocationsRefused { from: own, refusal }),
        }
    }

    fn own_chain(&self) -> Option<Vec<Bytes>> {
        self.store.get(&self.own().node).map(|owner| owner.view.node.certificate_chain.clone())
    }

    fn signer(&self, segment: &RevocationSegment) -> Option<NodeId> {
        let body = <p2p_proto::v1::RevocationBody as prost::Message>::decode(&*segment.body).ok()?;
        body.signer.parse().ok()
    }

    /// Returns whether somebody is evicted no longer.
    fn apply_bans(&mut self, signer: &NodeId, entries: &[Revocation]) -> bool {
        let own = self.own().node.clone();
        let (mut changed, before) = (false, self.is_banned(&own));
        let banned_before = self.bans.banned().clone();
        for entry in entries {
            if let Some(What::Node(eviction)) = &entry.what {
                changed |= self.bans.apply(signer, eviction);
            }
        }
        if !changed {
            return false;
        }
        let banned: BTreeSet<NodeId> = self.bans.banned().clone();
        let changed = banned_before.symmetric_difference(&banned).cloned();
        self.dirty.extend(changed);
        let readmits = banned_before.difference(&banned).next().is_some();
        self.store.set_banned(banned.clone(), self.keyring.as_ref());
        match (before, banned.contains(&own)) {
            (false, true) => self.note(Event::Evicted),
            (true, false) => self.note(Event::Readmitted),
            (false, false) | (true, true) => {}
        }
        self.act(Effect::Banned(banned));
        readmits
    }

    pub(super) fn receive_positions(&mut self, now: Moment, peer: &NodeId, theirs: &RevocationPositions) {
        // What we lacked came before its answer, over the same stream.
        if !theirs.reply_wanted && self.spread.comparing.remove(peer) {
            self.spread.compared = true;
            self.spread.comparing.clear();
        }
        let mut lacking = self.revocations.lacking(theirs);
        lacking.retain(|segment| !self.spread.unkept.contains(&segment.signature));
        match (lacking.is_empty(), self.spread.unanswered.get_mut(peer)) {
            (true, _) => drop(self.spread.unanswered.remove(peer)),
            (false, Some((at, _))) => *at = now + ANSWER_PAUSE,
            (false, None) => {}
        }
        self.send_segments(peer, lacking);
        if theirs.reply_wanted {
            self.send_positions(peer, false);
        }
    }

    /// Compares with a peer that has just been met.
    pub(super) fn compare_revocations(&mut self, peer: &NodeId) {
        let mut positions = self.revocations.positions(true);
        if !self.spread.compared {
            self.spread.comparing.insert(peer.clone());
        }
        if self.spread.own_asked < OWN_ASKED {
            self.spread.own_asked += 1;
            // As if there were none, so that the peer sends all that it has.
            let own = self.own().node.as_str();
            positions.logs.retain(|log| log.signer != own);
        }
        self.send_known(peer, Kind::RevocationPositions(positions));
    }

    pub(super) fn send_positions(&mut self, to: &NodeId, reply_wanted: bool) {
        self.send_known(to, Kind::RevocationPositions(self.revocations.positions(reply_wanted)));
    }

    fn send_segments(&mut self, to: &NodeId, segments: Vec<Arc<RevocationSegment>>) {
        let mut chunk = RevocationSegments::default();
        let mut bytes = 0;
        for segment in segments {
            let size = prost::Message::encoded_len(&*segment);
            if bytes + size > CHUNK_BYTES && !chunk.segments.is_empty() {
                self.send_known(to, Kind::Revocations(std::mem::take(&mut chunk)));
                bytes = 0;
            }
            bytes += size;
            chunk.segments.push((*segment).clone());
        }
        if !chunk.segments.is_empty() {
            self.send_known(to, Kind::Revocations(chunk));
        }
    }

    /// Does what is due of spreading revocations.
    pub(super) fn spread_revocations(&mut self, now: Moment) {
        if self.spread.push_at.is_some_and(|at| at <= now) {
            self.push_segments(now);
        }
        if self.spread.extra_at.is_some_and(|at| at <= now) {
            self.spread.extra_at = None;
            if let Some(peer) = self.random_members(1).pop() {
                self.send_positions(&peer.node, true);
            }
        }
        let due: Vec<NodeId> = self
            .spread
            .unanswered
            .iter()
            .filter(|(_, (at, _))| *at <= now)
            .map(|(node, _)| node.clone())
            .collect();
        for node in due {
            let active = self.membership.is_active(&node) && !self.is_banned(&node);
            match self.spread.unanswered.get_mut(&node) {
                Some((at, asked)) if active && *asked < MAX_ASKED => {
                    (*at, *asked) = (now + ANSWER_PAUSE, *asked + 1);
                    self.send_positions(&node, true);
                }
                Some(_) | None => drop(self.spread.unanswered.remove(&node)),
            }
        }
    }

    fn push_segments(&mut self, now: Moment) {
        self.spread.push_at = None;
        self.spread.extra_at = Some(now + EXTRA_PAUSE);
        let unpushed = std::mem::take(&mut self.spread.unpushed);
        let count = fan_out(self.membership.active_count());
        for target in self.random_members(count) {
            let segments = unpushed.iter().filter(|(_, from)| from.as_ref() != Some(&target.node));
            let segments: Vec<_> = segments.map(|(segment, _)| segment.clone()).collect();
            if !segments.is_empty() {
                self.spread.unanswered.insert(target.node.clone(), (now + ANSWER_PAUSE, 0));
                self.send_segments(&target.node, segments);
            }
        }
    }
}
