//! What speaks for and against members: kept, within bounds, for those who ask why.

use super::{Engine, Event};
use crate::{
    Moment, NodeId,
    membership::{Liveness, Reason},
};
use p2p_proto::v1::MemberState;
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

/// Most pieces of evidence kept about one member: the newest.
pub const EVIDENCE_PER_MEMBER: usize = 16;
/// Most pieces of evidence kept in all: the newest.
pub const EVIDENCE_LIMIT: usize = 4096;

/// Why this node thinks what it thinks of a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// When this node came to know it, Unix ms.
    pub unix_ms: u64,
    /// About whom.
    pub node: NodeId,
    /// Its state before; `None` if nothing was known of it.
    pub from: Option<MemberState>,
    /// Its state since; the same as before if this only confirms it.
    pub to: MemberState,
    /// Why.
    pub reason: Reason,
}

/// The newest evidence, oldest first. A member that flaps loses its own oldest, not that of others.
#[derive(Debug, Default)]
pub(super) struct EvidenceLog {
    entries: BTreeMap<u64, Arc<Evidence>>,
    of: BTreeMap<NodeId, VecDeque<u64>>,
    next: u64,
}

impl EvidenceLog {
    fn add(&mut self, evidence: Arc<Evidence>) {
        let numbers = self.of.entry(evidence.node.clone()).or_default();
        if numbers.len() >= EVIDENCE_PER_MEMBER
            && let Some(oldest) = numbers.pop_front()
        {
            self.entries.remove(&oldest);
        }
        numbers.push_back(self.next);
        self.entries.insert(self.next, evidence);
        self.next += 1;
        if self.entries.len() > EVIDENCE_LIMIT
            && let Some((_, oldest)) = self.entries.pop_first()
            && let Some(numbers) = self.of.get_mut(&oldest.node)
        {
            numbers.pop_front();
            if numbers.is_empty() {
                self.of.remove(&oldest.node);
            }
        }
    }

    fn about(&self, node: &NodeId) -> Vec<Arc<Evidence>> {
        let numbers = self.of.get(node).into_iter().flatten();
        numbers.filter_map(|number| self.entries.get(number)).cloned().collect()
    }
}

impl Engine {
    /// Why this node thinks what it thinks of `node`, oldest first: at most [`EVIDENCE_PER_MEMBER`] pieces.
    pub fn evidence(&self, node: &NodeId) -> Vec<Arc<Evidence>> {
        self.evidence.about(node)
    }

    /// The same for all members: at most [`EVIDENCE_LIMIT`] pieces.
    pub fn timeline(&self) -> Vec<Arc<Evidence>> {
        self.evidence.entries.values().cloned().collect()
    }

    /// Keeps what failure detection has found since the last time.
    pub(super) fn keep_findings(&mut self, now: Moment, unix_ms: u64) {
        while let Some(finding) = self.membership.next_finding() {
            // Of an evicted member nothing more is to be said: it is shown as down until it is readmitted.
            if finding.node == self.own().node || self.is_banned(&finding.node) {
                continue;
            }
            let age = u64::try_from(now.since(finding.at).as_millis()).unwrap_or(u64::MAX);
            let has_left = self.members.get(&finding.node).is_some_and(|m| m.state == MemberState::Left);
            let state = |liveness| match liveness {
                Liveness::Alive => MemberState::Alive,
                Liveness::Suspect => MemberState::Suspect,
                Liveness::Down if has_left => MemberState::Left,
                Liveness::Down => MemberState::Down,
            };
            self.keep(Evidence {
                unix_ms: unix_ms.saturating_sub(age),
                from: finding.from.map(state),
                to: state(finding.to),
                node: finding.node,
                reason: finding.reason,
            });
        }
    }

    /// Keeps what records and revocations have changed, which failure detection does not know of: `changes` are
    /// those of the view.
    pub(super) fn keep_changes(
        &mut self,
        unix_ms: u64,
        changes: Vec<(NodeId, Option<MemberState>, MemberState)>,
    ) {
        for (node, from, to) in changes {
            let reason = match to {
                MemberState::Left => Reason::Leaving,
                MemberState::Down if self.is_banned(&node) => Reason::Evicted,
                MemberState::Down | MemberState::Alive | MemberState::Suspect | MemberState::Unspecified => {
                    continue;
                }
            };
            self.keep(Evidence { unix_ms, node, from, to, reason });
        }
    }

    fn keep(&mut self, evidence: Evidence) {
        let evidence = Arc::new(evidence);
        self.evidence.add(evidence.clone());
        self.note(Event::Evidence(evidence));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::node;

    fn about(name: &str, unix_ms: u64) -> Arc<Evidence> {
        let (from, to) = (Some(MemberState::Alive), MemberState::Suspect);
        Arc::new(Evidence { unix_ms, node: node(name), from, to, reason: Reason::Departed })
    }

    #[test]
    fn a_member_that_flaps_keeps_its_newest_and_takes_nothing_from_others() {
        let mut log = EvidenceLog::default();
        log.add(about("calm", 0));
        for at in 1..1_000 {
            log.add(about("flapping", at));
        }
        let newest: Vec<u64> = log.about(&node("flapping")).iter().map(|kept| kept.unix_ms).collect();
        assert_eq!(newest, Vec::from_iter(984..1_000));
        assert_eq!(log.about(&node("calm")).len(), 1);
        assert_eq!(log.entries.len(), 17);
    }

    #[test]
    fn what_is_kept_of_all_is_bounded() {
        let mut log = EvidenceLog::default();
        let count = 2 * EVIDENCE_LIMIT as u64;
        for at in 0..count {
            log.add(about(&format!("n{at}"), at));
        }
        assert_eq!((log.entries.len(), log.of.len()), (EVIDENCE_LIMIT, EVIDENCE_LIMIT));
        assert_eq!(log.about(&node("n0")), []);
        assert_eq!(log.about(&node(&format!("n{}", count - 1))).len(), 1);
    }
}
