//! What foca knows, by node id. foca scans its members for each question; this answers at once, and is brought in line
//! whenever something may have changed.

use super::{Identity, Liveness};
use crate::NodeId;
use foca::Member;
use std::collections::{BTreeMap, BTreeSet};

/// Every life but our own, one per node.
#[derive(Default)]
pub(super) struct Mirror {
    lives: BTreeMap<NodeId, (Identity, Liveness)>,
    /// Those that are alive or suspect.
    active: Vec<Identity>,
    changed: BTreeSet<NodeId>,
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
        let before = self.changed.len();
        let (mut seen, mut any) = (0, false);
        let mut all = Vec::new();
        for member in members.filter(|member| member.id().node != *own) {
            let (life, liveness) = (member.id(), Liveness::from(member.state()));
            seen += 1;
            let known = self.lives.get(&life.node);
            // Lives are equal wherever they listen.
            if known.is_none_or(|(known, state)| {
                known != life || known.address != life.address || *state != liveness
            }) {
                self.lives.insert(life.node.clone(), (life.clone(), liveness));
                self.changed.insert(life.node.clone());
                any = true;
            }
            all.push(&life.node);
        }
        if seen != self.lives.len() {
            let all: BTreeSet<&NodeId> = all.into_iter().collect();
            let gone = self.lives.extract_if(.., |node, _| !all.contains(node));
            self.changed.extend(gone.map(|(node, _)| node));
            any = true;
        }
        if any || self.changed.len() != before {
            let active = self.lives.values().filter(|(_, liveness)| *liveness != Liveness::Down);
            self.active = active.map(|(life, _)| life.clone()).collect();
        }
    }
}
