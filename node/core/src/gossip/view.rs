//! The cluster as this node sees it: a snapshot, replaced whole at every change.

use super::{Engine, Event, MISSING_PAUSE, Tracked};
use crate::{
    Epoch, Moment, NodeId, Role,
    membership::{Liveness, Rtt},
    record::RecordView,
};
use p2p_proto::v1::MemberState;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

/// How long an owner that failure detection has not mentioned stays out of sight: it may be about to join.
const UNSEEN_GRACE: Duration = Duration::from_secs(10);
/// Owners gone for longer are forgotten.
const PURGE_AFTER: Duration = Duration::from_secs(24 * 60 * 60);
/// How often it is looked for such.
const PURGE_PAUSE: Duration = Duration::from_secs(60);

/// A member of the cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct MemberView {
    /// Its state.
    pub state: MemberState,
    /// When this node saw it enter that state, Unix ms.
    pub since_unix_ms: u64,
    /// Its present start.
    pub epoch: Epoch,
    /// Whether its records are those of its present start and it is not leaving: it may be given calls
    /// while it is alive.
    pub current: bool,
    /// Where its present start accepts connections; `None` while failure detection does not know that start.
    pub address: Option<SocketAddr>,
    /// Round-trip time of the last answered probe.
    pub rtt: Rtt,
    /// What it publishes.
    pub records: Arc<RecordView>,
    /// Whether a coordinator has banned it from the cluster.
    pub evicted: bool,
}

impl MemberView {
    /// The role that its certificate grants.
    pub fn role(&self) -> Role {
        self.records.signer.id.role
    }

    /// Whether it may be given calls.
    pub fn serves(&self) -> bool {
        self.current && self.state == MemberState::Alive
    }
}

/// All members, this node included.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct View {
    /// Members by node id.
    pub members: BTreeMap<NodeId, MemberView>,
}

impl View {
    /// How many members are in `state`.
    pub fn count(&self, state: MemberState) -> usize {
        self.members.values().filter(|member| member.state == state).count()
    }
}

impl Engine {
    /// Brings `members` in line with membership, which decides who is seen and in which state, and with the store, which
    /// holds what they publish; of those nodes only of which something has changed.
    pub(super) fn update_members(&mut self, now: Moment, unix_ms: u64) {
        self.dirty.append(&mut self.membership.take_changed());
        if self.shown.as_ref() != Some(self.own()) {
            self.shown = Some(self.own().clone());
            self.dirty.insert(self.own().node.clone());
        }
        let nobody_lacked = self.lacking.is_empty();
        let looks = !self.dirty.is_empty() || self.rotates(now);
        let members = self.neighbours.count();
        for node in std::mem::take(&mut self.dirty) {
            if self.is_banned(&node) {
                self.membership.expel(now, &node);
            }
            self.look_at_neighbour(&node);
            let member = self.look_at(now, unix_ms, &node);
            let changed = match &member {
                Some(member) => self.members.get(&node) != Some(member),
                None => self.members.contains_key(&node),
            };
            if changed {
                self.outdated = true;
                match member {
                    Some(member) => drop(self.members.insert(node, member)),
                    None => drop(self.members.remove(&node)),
                }
            }
        }
        if looks {
            self.keep_neighbours(now);
        }
        if self.neighbours.count() > members {
            self.compare_soon(now);
        }
        if nobody_lacked && !self.lacking.is_empty() {
            // They are most likely on their way.
            self.missing_at = now + MISSING_PAUSE;
        }
    }

    fn look_at(&mut self, now: Moment, unix_ms: u64, node: &NodeId) -> Option<MemberView> {
        let own = self.own();
        let is_own = *node == own.node;
        let life = match is_own {
            true => Some((own.clone(), Liveness::Alive)),
            false => self.membership.get(node).map(|(life, liveness)| (life.clone(), liveness)),
        };
        let evicted = self.is_banned(node);
        let owner = self.store.get(node);
        // An earlier life says nothing about the one whose records are here.
        let life = life.filter(|(life, _)| owner.is_none_or(|owner| life.epoch >= owner.epoch));
        let newer_life = |epoch| life.as_ref().is_some_and(|(life, _)| life.epoch > epoch);
        let lacks = !is_own
            && !evicted
            && self.membership.is_active(node)
            && owner.is_none_or(|owner| newer_life(owner.epoch));
        match lacks {
            true => self.lacking.insert(node.clone()),
            false => self.lacking.remove(node),
        };
        let owner = self.store.get(node)?;
        let state = match &life {
            _ if evicted => MemberState::Down,
            _ if owner.view.node.leaving && !newer_life(owner.epoch) => MemberState::Left,
            Some((_, Liveness::Alive)) => MemberState::Alive,
            Some((_, Liveness::Suspect)) => MemberState::Suspect,
            Some((_, Liveness::Down)) => MemberState::Down,
            None => match self.first_seen.get(node).map(|at| *at + UNSEEN_GRACE).filter(|until| now < *until)
            {
                Some(until) => {
                    self.hidden.insert(node.clone(), until);
                    self.hidden_until = Some(self.hidden_until.map_or(until, |first| first.min(until)));
                    // A node that was gone is so until it is there.
                    self.tracked.get(node).map(|before| before.state)?
                }
                None => MemberState::Down,
            },
        };
        let before = self.tracked.get(node).filter(|before| before.state == state);
        let since_unix_ms = before.map_or(unix_ms, |before| before.since_unix_ms);
        let epoch = life.as_ref().map_or(owner.epoch, |(life, _)| life.epoch.max(owner.epoch));
        let member = MemberView {
            state,
            since_unix_ms,
            epoch,
            current: owner.epoch == epoch && !owner.view.node.leaving && !evicted,
            address: life.filter(|(life, _)| life.epoch == epoch).map(|(life, _)| life.address),
            rtt: Rtt::default(),
            records: owner.view.clone(),
            evicted,
        };
        if before.is_none() {
            let tracked = Tracked { state, since_unix_ms: unix_ms, changed: now };
            let from = self.tracked.insert(node.clone(), tracked).map(|before| before.state);
            self.keep_changes(unix_ms, vec![(node.clone(), from, state)]);
            self.note(Event::Member { node: node.clone(), from, to: state });
        }
        Some(MemberView { rtt: self.membership.rtt(node), ..member })
    }

    pub(super) fn purge(&mut self, now: Moment) {
        if now < self.purge_at {
            return;
        }
        self.purge_at = now + PURGE_PAUSE;
        self.patience.tidy(now);
        let gone: Vec<NodeId> = self
            .tracked
            .iter()
            .filter(|(_, tracked)| match tracked.state {
                MemberState::Down | MemberState::Left => now.since(tracked.changed) > PURGE_AFTER,
                MemberState::Alive | MemberState::Suspect | MemberState::Unspecified => false,
            })
            .map(|(node, _)| node.clone())
            .collect();
        // In an order that is the same in each run.
        for node in BTreeSet::from_iter(gone) {
            self.store.purge(&node, self.keyring.as_ref());
            self.membership.forget_rtt(&node);
            self.tracked.remove(&node);
            self.first_seen.remove(&node);
            self.members.remove(&node);
            self.outdated = true;
            self.dirty.insert(node);
        }
    }
}
