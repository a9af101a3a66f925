//! Who is suspected, by whom, and until when it may refute.

use super::{
    Identity,
    settings::{Patience, patience},
};
use crate::{id::NodeId, time::Moment};
use foca::{Member, State};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// A timer this late means that this node did not run: its process was stopped, or starved.
pub(super) const OVERSLEPT: Duration = Duration::from_millis(500);

pub(super) struct Suspicion {
    pub(super) identity: Identity,
    pub(super) incarnation: u16,
    pub(super) since: Moment,
    /// Members whose connections it refused, this node included: each as its own connection proves.
    pub(super) accusers: BTreeSet<NodeId>,
    patience: Patience,
    /// Time in which this node itself did not run, and so could not hear a refutation.
    slept: Duration,
}

impl Suspicion {
    fn until(&self) -> Moment {
        self.since + self.patience.of(self.accusers.len()) + self.slept
    }

    fn is_of(&self, member: &Member<Identity>) -> bool {
        self.identity == *member.id() && self.incarnation == member.incarnation()
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

    /// This node woke so late, [`OVERSLEPT`] or more: all suspects have as much more time, since their refutations may
    /// wait to be read.
    pub(super) fn woke(&mut self, late: Duration) {
        for suspicion in self.0.values_mut() {
            suspicion.slept += late;
        }
    }

    /// Counts `by` among those whom this life refuses. Whether that was news: one too many is not kept.
    pub(super) fn accuse(&mut self, life: &Identity, incarnation: u16, by: &NodeId) -> bool {
        let suspicion = self.0.get_mut(&life.node);
        suspicion
            .filter(|known| known.identity == *life && known.incarnation == incarnation)
            .filter(|known| known.accusers.len() < known.patience.accusers())
            .is_some_and(|known| known.accusers.insert(by.clone()))
    }

    /// The same as [`Self::watch`] for one member, active or not, of which there is news.
    pub(super) fn look_at(&mut self, now: Moment, count: usize, member: &Member<Identity>) {
        let (node, suspect) = (&member.id().node, member.state() == State::Suspect);
        if !suspect || self.0.get(node).is_some_and(|known| !known.is_of(member)) {
            self.0.remove(node);
        }
        if suspect {
            self.begin(now, count, member);
        }
    }

    fn begin(&mut self, now: Moment, count: usize, member: &Member<Identity>) {
        self.0.entry(member.id().node.clone()).or_insert_with(|| Suspicion {
            identity: member.id().clone(),
            incarnation: member.incarnation(),
            since: now,
            accusers: BTreeSet::new(),
            patience: patience(count + 1),
            slept: Duration::ZERO,
        });
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
        self.0.retain(|node, suspicion| suspects.get(node).is_some_and(|member| suspicion.is_of(member)));
        for member in suspects.into_values() {
            self.begin(now, count, member);
        }
    }
}
