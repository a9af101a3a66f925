//! The cluster as this node sees it: a snapshot, replaced whole at every change.

use super::{Engine, Event, Tracked};
use crate::{
    Epoch, Moment, NodeId, Role,
    membership::{Identity, Liveness},
    record::RecordView,
};
use p2p_proto::v1::MemberState;
use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

/// How long an owner that failure detection has not mentioned stays out of sight: it may be about to join.
const UNSEEN_GRACE: Duration = Duration::from_secs(10);
/// Owners gone for longer are forgotten.
const PURGE_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

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
    pub rtt: Option<Duration>,
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
    /// Membership decides who is seen and in which state, the store what it publishes.
    pub(super) fn build_view(&mut self, now: Moment, unix_ms: u64) -> View {
        let lives: BTreeMap<&NodeId, (&Identity, Liveness)> =
            self.membership.lives().map(|(life, liveness)| (&life.node, (life, liveness))).collect();
        let own = self.membership.own();
        let mut members = BTreeMap::new();
        let mut changes = Vec::new();
        for (node, owner) in self.store.owners() {
            let life =
                if *node == own.node { Some((own, Liveness::Alive)) } else { lives.get(node).copied() };
            let newer_life = life.is_some_and(|(life, _)| life.epoch > owner.epoch);
            let evicted = self.is_banned(node);
            let state = match life {
                _ if evicted => MemberState::Down,
                _ if owner.view.node.leaving && !newer_life => MemberState::Left,
                Some((_, Liveness::Alive)) => MemberState::Alive,
                Some((_, Liveness::Suspect)) => MemberState::Suspect,
                Some((_, Liveness::Down)) => MemberState::Down,
                None if self.first_seen.get(node).is_none_or(|at| now.since(*at) >= UNSEEN_GRACE) => {
                    MemberState::Down
                }
                None => continue,
            };
            let before = self.tracked.get(node);
            if before.is_none_or(|before| before.state != state) {
                changes.push((node.clone(), before.map(|before| before.state), state));
            }
            let since_unix_ms =
                before.filter(|before| before.state == state).map_or(unix_ms, |before| before.since_unix_ms);
            let epoch = life.map_or(owner.epoch, |(life, _)| life.epoch.max(owner.epoch));
            let member = MemberView {
                state,
                since_unix_ms,
                epoch,
                current: owner.epoch == epoch && !owner.view.node.leaving && !evicted,
                address: life.filter(|(life, _)| life.epoch == epoch).map(|(life, _)| life.address),
                rtt: self.membership.rtt(node),
                records: owner.view.clone(),
                evicted,
            };
            members.insert(node.clone(), member);
        }
        self.keep_changes(unix_ms, changes.clone());
        for (node, from, to) in changes {
            self.tracked.insert(node.clone(), Tracked { state: to, since_unix_ms: unix_ms, changed: now });
            self.note(Event::Member { node, from, to });
        }
        View { members }
    }

    pub(super) fn purge(&mut self, now: Moment) {
        let gone: Vec<NodeId> = self
            .tracked
            .iter()
            .filter(|(_, tracked)| match tracked.state {
                MemberState::Down | MemberState::Left => now.since(tracked.changed) > PURGE_AFTER,
                MemberState::Alive | MemberState::Suspect | MemberState::Unspecified => false,
            })
            .map(|(node, _)| node.clone())
            .collect();
        for node in gone {
            self.store.purge(&node);
            self.tracked.remove(&node);
            self.first_seen.remove(&node);
        }
    }
}
