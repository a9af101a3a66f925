//! What foca knows, by node id. foca scans its members for each question; this answers at once, and is brought in line
//! whenever something may have changed.

use super::{Identity, Liveness};
use crate::{NodeId, tag::ByNode};
use foca::{Identity as _, Member};
use std::collections::BTreeSet;

/// Every life but our own, one per node.
#[derive(Default)]
pub(super) struct Mirror {
    /// In foca's order, which rarely changes: nothing is looked up for what is the same.
    lives: Vec<(Identity, Liveness)>,
    places: ByNode<usize>,
    /// Those that are alive or suspect.
    active: Vec<Identity>,
    changed: BTreeSet<NodeId>,
    /// How often the active lives have changed.
    version: u64,
}

impl Mirror {
    pub(super) fn lives(&self) -> impl Iterator<Item = (&Identity, Liveness)> {
        self.lives.iter().map(|(life, liveness)| (life, *liveness))
    }

    pub(super) fn get(&self, node: &NodeId) -> Option<(&Identity, Liveness)> {
        self.lives.get(*self.places.get(node)?).map(|(life, liveness)| (life, *liveness))
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

    /// Another number after each change of what [`Self::roll`] shows of others.
    pub(super) fn version(&self) -> u64 {
        self.version
    }

    /// Nodes of which something changed since the last call.
    pub(super) fn take_changed(&mut self) -> BTreeSet<NodeId> {
        std::mem::take(&mut self.changed)
    }

    /// Takes over all that foca knows.
    pub(super) fn reconcile<'a>(
        &mut self,
        own: &Identity,
        members: impl Iterator<Item = &'a Member<Identity>>,
    ) {
        let (mut count, mut places) = (0, Vec::new());
        let mut before = ByNode::default();
        for member in members.filter(|member| member.id().addr() != own.addr()) {
            let (life, liveness) = (member.id(), Liveness::from(member.state()));
            match self.lives.get_mut(count) {
                Some((known, state)) if known.is(life) && *state == liveness => {}
                Some(known) => {
                    let (life, liveness) = std::mem::replace(known, (life.clone(), liveness));
                    before.insert(life.node.clone(), (life, liveness));
                    places.push(count);
                }
                None => {
                    self.lives.push((life.clone(), liveness));
                    places.push(count);
                }
            }
            count += 1;
        }
        before
            .extend(self.lives.drain(count..).map(|(life, liveness)| (life.node.clone(), (life, liveness))));
        self.notice(&places, before);
    }

    /// Other lives than before stand at these places, among them some that stood elsewhere.
    fn notice(&mut self, places: &[usize], mut before: ByNode<(Identity, Liveness)>) {
        let mut any = false;
        for place in places {
            let Some((life, liveness)) = self.lives.get(*place) else { continue };
            self.places.insert(life.node.clone(), *place);
            if before.remove(&life.node).is_none_or(|(known, state)| !known.is(life) || state != *liveness) {
                self.changed.insert(life.node.clone());
                any = true;
            }
        }
        for node in before.into_keys() {
            self.places.remove(&node);
            self.changed.insert(node);
            any = true;
        }
        if any {
            self.version += 1;
            let active = self.lives.iter().filter(|(_, liveness)| *liveness != Liveness::Down);
            self.active = active.map(|(life, _)| life.clone()).collect();
        }
    }
}
