//! Who is evicted.

use crate::NodeId;
use p2p_proto::v1::NodeEviction;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug, Clone, PartialEq, Eq)]
struct Ban {
    counter: u64,
    readmitted: bool,
}

/// Of all evictions and readmissions: who is banned.
///
/// For each node and each coordinator the highest counter holds, and for each node the highest of all coordinators
/// that count; of equal ones the ban. A coordinator counts unless it is banned itself by one that counts: so a stolen
/// coordinator cannot go on evicting others once it is evicted. Coordinators that evict each other are banned all: only
/// somebody else, or the holder of the CA's key, can tell who was stolen.
#[derive(Debug, Clone, Default)]
pub struct Bans {
    /// By node, then by the coordinator that says it.
    said: BTreeMap<NodeId, BTreeMap<NodeId, Ban>>,
    banned: BTreeSet<NodeId>,
}

impl Bans {
    /// Takes what `signer` says of a node. Returns whether the set of the banned changed.
    pub fn apply(&mut self, signer: &NodeId, eviction: &NodeEviction) -> bool {
        let Ok(node) = eviction.node_id.parse::<NodeId>() else { return false };
        // Nobody has a say in their own case.
        if node == *signer {
            return false;
        }
        let ban = Ban { counter: eviction.counter, readmitted: eviction.readmitted };
        let by = self.said.entry(node).or_default();
        let rank = |ban: &Ban| (ban.counter, !ban.readmitted);
        if by.get(signer).is_some_and(|known| rank(known) >= rank(&ban)) {
            return false;
        }
        by.insert(signer.clone(), ban);
        let banned = self.decide();
        let changed = banned != self.banned;
        self.banned = banned;
        changed
    }

    /// The banned nodes.
    pub fn banned(&self) -> &BTreeSet<NodeId> {
        &self.banned
    }

    /// The counter that overrules everything said of `node` so far.
    pub fn next_counter(&self, node: &NodeId) -> u64 {
        let said = self.said.get(node).into_iter().flat_map(BTreeMap::values);
        said.map(|ban| ban.counter).max().unwrap_or(0).saturating_add(1)
    }

    /// Whether a newer word of the same coordinator makes this one void.
    pub fn is_overruled(&self, signer: &NodeId, eviction: &NodeEviction) -> bool {
        let Ok(node) = eviction.node_id.parse::<NodeId>() else { return false };
        let newest = self.said.get(&node).and_then(|by| by.get(signer));
        newest.is_some_and(|ban| ban.counter > eviction.counter)
    }

    /// Banned by the words of all coordinators but `mute`.
    fn banned_without(&self, node: &NodeId, mute: &BTreeSet<NodeId>) -> bool {
        let said = self.said.get(node).into_iter().flatten().filter(|(signer, _)| !mute.contains(*signer));
        let decisive = said.map(|(_, ban)| ban).max_by_key(|ban| (ban.counter, !ban.readmitted));
        decisive.is_some_and(|ban| !ban.readmitted)
    }

    fn decide(&self) -> BTreeSet<NodeId> {
        let coordinators: BTreeSet<NodeId> = self.said.values().flat_map(BTreeMap::keys).cloned().collect();
        // Those whom nobody bans count for certain; whom they ban does not. Repeated until nothing changes; what is
        // left bans each other in a circle, and each of them counts.
        let mut mute = BTreeSet::new();
        let mut certain = BTreeSet::new();
        loop {
            let open = |who: &&NodeId| !mute.contains(*who) && !certain.contains(*who);
            let safe: Vec<NodeId> = coordinators
                .iter()
                .filter(open)
                .filter(|who| !self.banned_without(who, &mute))
                .cloned()
                .collect();
            let uncertain: BTreeSet<NodeId> =
                coordinators.iter().filter(|who| !certain.contains(*who)).cloned().collect();
            let fallen: Vec<NodeId> = coordinators
                .iter()
                .filter(open)
                .filter(|who| self.banned_without(who, &uncertain))
                .cloned()
                .collect();
            if safe.is_empty() && fallen.is_empty() {
                break;
            }
            certain.extend(safe.into_iter().filter(|who| !fallen.contains(who)));
            mute.extend(fallen);
        }
        self.said.keys().filter(|node| self.banned_without(node, &mute)).cloned().collect()
    }
}
