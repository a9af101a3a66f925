//! How much nonsense of one peer is looked at. Signatures cost time and suspicions peace, so a peer that sends bad ones
//! without end gets less and less of both.

use crate::{Moment, NodeId, record::Hash};
use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

/// A state that was refused is not verified again for so long. What it lacked may come: a root, or room.
const REFUSED_PAUSE: Duration = Duration::from_secs(5);
/// Refused states that are remembered.
const REFUSED_LIMIT: usize = 1024;
/// What one refused state takes of a peer's patience.
const REFUSAL_COST: Duration = Duration::from_millis(50);
/// How much of that may be owed: about 500 refused states at once, and 20 a second after that.
const REFUSAL_DEBT: Duration = Duration::from_secs(25);
/// A peer's word against one member counts once in so long: as often as an honest one may give it.
const ACCUSED_PAUSE: Duration = Duration::from_secs(10);
/// Members that one peer may accuse in that time, or a quarter of all if that is more: so many hosts fail at once.
const ACCUSED_AT_ONCE: usize = 32;
/// Peers that are remembered with what they have sent.
const PEERS_LIMIT: usize = crate::membership::MAX_LIVES;

/// What peers have sent lately that was refused, or speaks against others.
#[derive(Debug, Default)]
pub(super) struct Patience {
    /// Refused states, and when they were verified last.
    refused: BTreeMap<Hash, Moment>,
    oldest: VecDeque<Hash>,
    /// Until when each peer is in debt.
    debts: BTreeMap<NodeId, Moment>,
    /// Whom each peer has accused, and when.
    accused: BTreeMap<NodeId, BTreeMap<NodeId, Moment>>,
}

impl Patience {
    /// Whether states of `peer` are not looked at for now.
    pub(super) fn is_spent(&self, now: Moment, peer: &NodeId) -> bool {
        self.debts.get(peer).is_some_and(|until| until.since(now) > REFUSAL_DEBT)
    }

    /// Whether this very state was refused just now.
    pub(super) fn knows(&self, now: Moment, state: &Hash) -> bool {
        self.refused.get(state).is_some_and(|at| now.since(*at) < REFUSED_PAUSE)
    }

    /// Nothing is remembered: no state needs its hash.
    pub(super) fn is_fresh(&self) -> bool {
        self.refused.is_empty()
    }

    /// A state of `peer` was refused. Returns whether it had been before.
    pub(super) fn refused(&mut self, now: Moment, peer: &NodeId, state: Hash) -> bool {
        if self.debts.len() < PEERS_LIMIT || self.debts.contains_key(peer) {
            let until = self.debts.entry(peer.clone()).or_default();
            *until = (*until).max(now) + REFUSAL_COST;
        }
        if self.refused.insert(state, now).is_some() {
            return true;
        }
        self.oldest.push_back(state);
        if self.oldest.len() > REFUSED_LIMIT
            && let Some(oldest) = self.oldest.pop_front()
        {
            self.refused.remove(&oldest);
        }
        false
    }

    /// What to make of `peer`'s word against `node`, with so many `members`.
    pub(super) fn accuses(&mut self, now: Moment, peer: &NodeId, node: &NodeId, members: usize) -> Accusing {
        if self.accused.len() >= PEERS_LIMIT && !self.accused.contains_key(peer) {
            return Accusing::TooMany;
        }
        let accused = self.accused.entry(peer.clone()).or_default();
        accused.retain(|_, at| now.since(*at) < ACCUSED_PAUSE);
        if accused.contains_key(node) {
            return Accusing::Again;
        }
        if accused.len() >= ACCUSED_AT_ONCE.max(members / 4) {
            return Accusing::TooMany;
        }
        accused.insert(node.clone(), now);
        Accusing::Heard
    }

    /// Forgets what no longer counts.
    pub(super) fn tidy(&mut self, now: Moment) {
        self.debts.retain(|_, until| *until > now);
        self.accused.retain(|_, accused| accused.values().any(|at| now.since(*at) < ACCUSED_PAUSE));
    }
}

/// What becomes of an accusation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Accusing {
    /// It counts.
    Heard,
    /// It was heard just now.
    Again,
    /// The peer accuses more members than fail at once.
    TooMany,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{at_ms, node};

    fn hash(number: u32) -> Hash {
        let mut hash = Hash::default();
        hash[..4].copy_from_slice(&number.to_be_bytes());
        hash
    }

    #[test]
    fn a_refused_state_is_looked_at_again_later_and_told_of_once() {
        let mut patience = Patience::default();
        assert!(patience.is_fresh());
        assert!(!patience.refused(at_ms(0), &node("a"), hash(1)));
        assert!(patience.knows(at_ms(4_999), &hash(1)));
        assert!(!patience.knows(at_ms(4_999), &hash(2)));
        assert!(!patience.knows(at_ms(5_000), &hash(1)));
        assert!(patience.refused(at_ms(5_000), &node("b"), hash(1)), "told of before");
    }

    #[test]
    fn who_sends_bad_states_without_end_is_not_listened_to_for_a_while() {
        let mut patience = Patience::default();
        let mut taken = 0;
        while !patience.is_spent(at_ms(0), &node("liar")) {
            patience.refused(at_ms(0), &node("liar"), hash(taken));
            taken += 1;
        }
        assert_eq!(taken, 501);
        assert!(!patience.is_spent(at_ms(0), &node("other")));
        assert!(!patience.is_spent(at_ms(60), &node("liar")), "twenty a second");
        for number in 0..10_000 {
            patience.refused(at_ms(0), &node("other"), hash(number));
        }
        assert_eq!((patience.refused.len(), patience.oldest.len()), (REFUSED_LIMIT, REFUSED_LIMIT));
        patience.tidy(at_ms(3_600_000));
        assert!(patience.debts.is_empty());
    }

    #[test]
    fn a_peer_accuses_each_member_once_in_a_while_and_not_all_of_them() {
        let mut patience = Patience::default();
        let (liar, victim) = (node("liar"), node("victim"));
        assert_eq!(patience.accuses(at_ms(0), &liar, &victim, 100), Accusing::Heard);
        assert_eq!(patience.accuses(at_ms(9_999), &liar, &victim, 100), Accusing::Again);
        assert_eq!(patience.accuses(at_ms(10_000), &liar, &victim, 100), Accusing::Heard);
        let heard = |patience: &mut Patience, members: usize| {
            let nodes = (0..members).map(|number| node(&format!("n{number}")));
            nodes
                .filter(|node| patience.accuses(at_ms(10_000), &liar, node, members) == Accusing::Heard)
                .count()
        };
        assert_eq!(heard(&mut patience, 100), 31);
        assert_eq!(heard(&mut patience, 1_000), 218, "up to a quarter of the cluster");
        assert_eq!(patience.accuses(at_ms(10_000), &node("other"), &victim, 100), Accusing::Heard);
        patience.tidy(at_ms(30_000));
        assert!(patience.accused.is_empty());
    }
}
