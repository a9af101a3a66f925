//! Who is suspected, by whom, and until when it may refute.

use super::{
    Identity,
    settings::{Patience, patience},
};
use crate::{id::NodeId, time::Moment};
use foca::{Member, State};
use std::collections::{BTreeMap, BTreeSet};

pub(super) struct Suspicion {
    pub(super) identity: Identity,
    pub(super) incarnation: u16,
    pub(super) since: Moment,
    /// Members whose connections it refused, this node included: each as its own connection proves.
    pub(super) accusers: BTreeSet<NodeId>,
    patience: Patience,
}

impl Suspicion {
    fn until(&self) -> Moment {
        self.since + self.patience.of(self.accusers.len())
    }
}

/// Running suspicions, one per node.
#[derive(Default)]
pub(super) struct Suspicions(pub(super) BTreeMap<NodeId, Suspicion>);

impl Suspicions {
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// When the next one runs out.
    pub(super) fn next(&self) -> Option<Moment> {
        self.0.values().map(Suspicion::until).min()
    }

    /// The suspicion of this very life.
    pub(super) fn of(&self, life: &Identity) -> Option<&Suspicion> {
        self.0.get(&life.node).filter(|known| known.identity == *life)
    }

    /// Takes those that have run out without a refutation.
    pub(super) fn take_due(&mut self, now: Moment) -> Vec<Suspicion> {
        self.0
            .extract_if(.., |_, suspicion| suspicion.until() <= now)
            .map(|(_, suspicion)| suspicion)
            .collect()
    }

    /// Counts `by` among those whom this life refuses. Whether that was news: one too many is not kept.
    pub(super) fn accuse(&mut self, life: &Identity, incarnation: u16, by: &NodeId) -> bool {
        let suspicion = self.0.get_mut(&life.node);
        suspicion
            .filter(|known| known.identity == *life && known.incarnation == incarnation)
            .filter(|known| known.accusers.len() < known.patience.accusers())
            .is_some_and(|known| known.accusers.insert(by.clone()))
    }

    /// Starts the clock of new suspicions and forgets those that were refuted. `members` are all active
    /// ones but this node.
    pub(super) fn watch<'a>(
        &mut self,
        now: Moment,
        count: usize,
        members: impl Iterator<Item = &'a Member<Identity>>,
    ) {
        let suspects: BTreeMap<&NodeId, &Member<Identity>> = members
            .filter(|member| member.state() == State::Suspect)
            .map(|member| (&member.id().node, member))
            .collect();
        self.0.retain(|node, suspicion| {
            suspects.get(node).is_some_and(|member| {
                *member.id() == suspicion.identity && member.incarnation() == suspicion.incarnation
            })
        });
        for (node, member) in suspects {
            self.0.entry(node.clone()).or_insert_with(|| Suspicion {
                identity: member.id().clone(),
                incarnation: member.incarnation(),
                since: now,
                accusers: BTreeSet::new(),
                patience: patience(count + 1),
            });
        }
    }
}
