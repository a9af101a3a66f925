//! What foca knows, by node id. foca scans its members for each question; this answers at once, and is brought in line
//! whenever something may have changed.

use super::{Identity, Liveness};
use crate::{Epoch, NodeId};
use foca::Member;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

/// Every life but our own, one per node.
#[derive(Default)]
pub(super) struct Mirror {
    lives: BTreeMap<NodeId, (Identity, Liveness)>,
    /// Those that are alive or suspect.
    active: Vec<Identity>,
    changed: BTreeSet<NodeId>,
    /// What was seen last time, in foca's order, which rarely changes: nothing is looked up for what is the same.
    seen: Vec<Seen>,
}

#[derive(PartialEq, Eq)]
struct Seen {
    tag: u64,
    order: (Epoch, u64, u32),
    address: SocketAddr,
    liveness: Liveness,
}

impl Mirror {
    pub(super) fn lives(&self) -> impl Iterator<Item = (&Identity, Liveness)> {
        self.lives.values().map(|(life, liveness)| (life, *liveness))
    }

    pub(super) fn get(&self, node: &NodeId) -> Option<(&Identity, Liveness)> {
        self.lives.get(node).map(|(life, liveness)| (life, *liveness))
    }

    pub(super) fn active(&self) -> &[Identity] {
        &self.active
    }

    /// The active lives as text, one line each by node, and our own among them.
    pub(super) fn roll(&self, own: &Identity) -> String {
        use std::fmt::Write as _;
        let mut lives: Vec<&Identity> = self.active.iter().chain([own]).collect();
        lives.sort_by(|one, other| one.node.cmp(&other.node));
        lives.iter().fold(String::new(), |mut text, life| {
            let written = writeln!(text, "{} {} {}", life.node, life.epoch, life.generation);
            debug_assert!(written.is_ok(), "a String takes everything");
            text
        })
    }

    /// Nodes of which something changed since the last call.
    pub(super) fn take_changed(&mut self) -> BTreeSet<NodeId> {
        std::mem::take(&mut self.changed)
    }

    /// Takes over all that foca knows.
    pub(super) fn reconcile<'a>(
        &mut self,
        own: &NodeId,
        members: impl Iterator<Item = &'a Member<Identity>>,
    ) {
        let mut any = false;
        let mut count = 0;
        let mut present = Vec::new();
        for member in members.filter(|member| member.id().node != *own) {
            let (life, liveness) = (member.id(), Liveness::from(member.state()));
            present.push(&life.node);
            let seen = Seen { tag: life.node.tag(), order: life.order(), address: life.address, liveness };
            match self.seen.get_mut(count) {
                Some(before) if *before == seen => {
                    count += 1;
                    continue;
                }
                Some(before) => *before = seen,
                None => self.seen.push(seen),
            }
            count += 1;
            let known = self.lives.get(&life.node);
            // Lives are equal wherever they listen.
            if known.is_none_or(|(known, state)| {
                known != life || known.address != life.address || *state != liveness
            }) {
                self.lives.insert(life.node.clone(), (life.clone(), liveness));
                self.changed.insert(life.node.clone());
                any = true;
            }
        }
        self.seen.truncate(count);
        if count != self.lives.len() {
            let present: BTreeSet<&NodeId> = present.into_iter().collect();
            let gone = self.lives.extract_if(.., |node, _| !present.contains(node));
            self.changed.extend(gone.map(|(node, _)| node));
            any = true;
        }
        if any {
            let active = self.lives.values().filter(|(_, liveness)| *liveness != Liveness::Down);
            self.active = active.map(|(life, _)| life.clone()).collect();
        }
    }
}
