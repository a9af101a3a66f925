//! Why failure detection thinks what it thinks: what each input has changed, and on whose word.

use super::{Identity, Liveness};
use crate::{Epoch, id::NodeId, tag::ByNode, time::Moment};
use foca::{Member, State};
use std::{
    collections::{BTreeSet, VecDeque},
    fmt,
    net::SocketAddr,
    time::Duration,
};

/// Most findings kept while nobody takes them; the oldest make room.
const FINDINGS_LIMIT: usize = 4096;

/// What speaks for or against a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It was heard of for the first time.
    Joined {
        /// Who told: itself, or another member.
        by: NodeId,
    },
    /// It answered neither this node's probe nor those of others on its behalf.
    ProbeFailed {
        /// How long the last probe that it did answer had taken.
        last_rtt: Option<Duration>,
        /// Who was asked to probe it, too; none if nobody else was there.
        helpers: Vec<NodeId>,
    },
    /// Its host refused a connection from this node: no process listens there.
    Refused {
        /// Where.
        address: SocketAddr,
    },
    /// Its host refused a connection from another member.
    RefusedOther {
        /// Who was refused, as its own connection proves.
        by: NodeId,
        /// Where.
        address: SocketAddr,
    },
    /// Another member says so.
    Rumour {
        /// Whose packet told it.
        by: NodeId,
    },
    /// It did not refute the suspicion in time.
    RanOut {
        /// How long it had.
        after: Duration,
        /// How many members it had refused, as they told this node themselves; this node included.
        accusers: usize,
    },
    /// It refuted a suspicion, by a higher incarnation.
    Refuted {
        /// Which.
        incarnation: u16,
        /// Who told: itself, or another member.
        by: NodeId,
    },
    /// It came back: restarted, or renewed after it was declared down.
    NewLife {
        /// Of this start.
        epoch: Epoch,
        /// Renewals within it.
        generation: u64,
        /// Who told: itself, or another member.
        by: NodeId,
    },
    /// It said itself that it leaves.
    Departed,
    /// Its own signed record says that it is shutting down.
    Leaving,
    /// A coordinator has banned it.
    Evicted,
}

impl Reason {
    /// The word in JSON.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Joined { .. } => "joined",
            Self::ProbeFailed { .. } => "probe_failed",
            Self::Refused { .. } => "refused",
            Self::RefusedOther { .. } => "refused_other",
            Self::Rumour { .. } => "rumour",
            Self::RanOut { .. } => "ran_out",
            Self::Refuted { .. } => "refuted",
            Self::NewLife { .. } => "new_life",
            Self::Departed => "departed",
            Self::Leaving => "leaving",
            Self::Evicted => "evicted",
        }
    }

    /// The other node on whose word this rests, if any.
    pub fn by(&self) -> Option<&NodeId> {
        match self {
            Self::Joined { by }
            | Self::RefusedOther { by, .. }
            | Self::Rumour { by }
            | Self::Refuted { by, .. }
            | Self::NewLife { by, .. } => Some(by),
            Self::ProbeFailed { .. }
            | Self::Refused { .. }
            | Self::RanOut { .. }
            | Self::Departed
            | Self::Leaving
            | Self::Evicted => None,
        }
    }
}

/// `w1`, `w1 and w2`, `w1, w2 and w3`.
fn listed(nodes: &[NodeId]) -> String {
    let names: Vec<&str> = nodes.iter().map(NodeId::as_str).collect();
    match names.as_slice() {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Joined { by } => write!(f, "first heard of, from {by}"),
            Self::ProbeFailed { last_rtt, helpers } => {
                f.write_str("it did not answer this node's probe")?;
                match helpers.as_slice() {
                    [] => f.write_str(", and nobody else could be asked")?,
                    [one] => write!(f, ", nor that of {one}")?,
                    more => write!(f, ", nor those of {}", listed(more))?,
                }
                match last_rtt {
                    Some(rtt) => write!(f, "; its last answer took {:.1} ms", rtt.as_secs_f64() * 1e3),
                    None => f.write_str("; it has never answered one"),
                }
            }
            Self::Refused { address } => write!(f, "{address} refuses connections: no process listens there"),
            Self::RefusedOther { by, address } => write!(f, "{address} refuses connections from {by}, too"),
            Self::Rumour { by } => write!(f, "{by} says so"),
            Self::RanOut { after, accusers } => {
                write!(f, "it did not refute the suspicion within {:.1} s", after.as_secs_f64())?;
                match accusers {
                    0 => Ok(()),
                    1 => f.write_str("; it refused 1 member"),
                    more => write!(f, "; it refused {more} members or more"),
                }
            }
            Self::Refuted { incarnation, by } => {
                write!(f, "it refuted the suspicion (incarnation {incarnation}), heard from {by}")
            }
            Self::NewLife { epoch, generation, by } => {
                write!(
                    f,
                    "it came back as a new life (epoch {epoch}, generation {generation}), heard from {by}"
                )
            }
            Self::Departed => f.write_str("it said that it leaves"),
            Self::Leaving => f.write_str("its signed record says that it is shutting down"),
            Self::Evicted => f.write_str("a coordinator has banned it"),
        }
    }
}

/// One piece of evidence, at the moment it came up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// When.
    pub at: Moment,
    /// About whom.
    pub node: NodeId,
    /// What failure detection thought of it before; `None` if it knew nothing of it.
    pub from: Option<Liveness>,
    /// What it thinks of it since; the same as before if this only confirms it.
    pub to: Liveness,
    /// Why.
    pub reason: Reason,
}

/// What an input to foca was, for the reason of what it changes.
#[derive(Clone, Debug)]
pub(super) enum Cause {
    /// A packet of this peer.
    Packet(NodeId),
    /// Something that this node found out itself.
    Own(Reason),
    /// A timer that only tidies up, or a change of this node's own identity.
    Upkeep,
}

struct Known {
    identity: Identity,
    incarnation: u16,
    state: State,
}

impl Known {
    fn is(&self, member: &Member<Identity>) -> bool {
        self.state == member.state()
            && self.incarnation == member.incarnation()
            && self.identity == *member.id()
    }
}

/// Compares what foca thinks of others before and after each input.
#[derive(Default)]
pub(super) struct Witness {
    known: ByNode<Known>,
    findings: VecDeque<Finding>,
}

impl Witness {
    /// Whether `update` says something else than what is known: only then can it change anything.
    pub(super) fn is_news(&self, update: &Member<Identity>) -> bool {
        self.known.get(&update.id().node).is_none_or(|known| !known.is(update))
    }

    /// Notes what `cause` has changed among `members`, which are as foca has them now.
    pub(super) fn compare<'a>(
        &mut self,
        now: Moment,
        cause: &Cause,
        members: impl Iterator<Item = &'a Member<Identity>>,
    ) {
        for member in members {
            let id = member.id();
            let before = self.known.get(&id.node);
            if before.is_some_and(|before| before.is(member)) {
                continue;
            }
            let reason = match cause {
                Cause::Packet(by) => Some(told(by, before, member)),
                Cause::Own(reason) => Some(reason.clone()),
                Cause::Upkeep => None,
            };
            let from = before.map(|before| before.state.into());
            let known =
                Known { identity: id.clone(), incarnation: member.incarnation(), state: member.state() };
            self.known.insert(id.node.clone(), known);
            if let Some(reason) = reason {
                self.note(now, id.node.clone(), from, member.state().into(), reason);
            }
        }
    }

    /// Evidence that agrees with what is thought of `node` already.
    pub(super) fn confirm(&mut self, now: Moment, node: &NodeId, reason: Reason) {
        if let Some(state) = self.known.get(node).map(|known| known.state.into()) {
            self.note(now, node.clone(), Some(state), state, reason);
        }
    }

    fn note(&mut self, at: Moment, node: NodeId, from: Option<Liveness>, to: Liveness, reason: Reason) {
        if self.findings.len() >= FINDINGS_LIMIT {
            self.findings.pop_front();
        }
        self.findings.push_back(Finding { at, node, from, to, reason });
    }

    /// Forgets whom foca has forgotten.
    pub(super) fn retain<'a>(&mut self, members: impl Iterator<Item = &'a Member<Identity>>) {
        let kept: BTreeSet<&NodeId> = members.map(|member| &member.id().node).collect();
        self.known.retain(|node, _| kept.contains(node));
    }

    pub(super) fn next_finding(&mut self) -> Option<Finding> {
        self.findings.pop_front()
    }
}

/// The reason of a change that a packet of `by` brought.
fn told(by: &NodeId, before: Option<&Known>, after: &Member<Identity>) -> Reason {
    let id = after.id();
    let by = by.clone();
    let Some(before) = before else {
        return Reason::Joined { by };
    };
    match after.state() {
        State::Down if by == id.node => Reason::Departed,
        State::Suspect | State::Down => Reason::Rumour { by },
        State::Alive if before.identity == *id => Reason::Refuted { incarnation: after.incarnation(), by },
        State::Alive => Reason::NewLife { epoch: id.epoch, generation: id.generation, by },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::node;

    #[test]
    fn reasons_read_as_sentences() {
        let by = node("w2");
        for (reason, text) in [
            (
                Reason::ProbeFailed {
                    last_rtt: Some(Duration::from_micros(420)),
                    helpers: vec![node("w1"), node("w2"), node("w3")],
                },
                "it did not answer this node's probe, nor those of w1, w2 and w3; its last answer took 0.4 ms",
            ),
            (
                Reason::ProbeFailed { last_rtt: None, helpers: vec![] },
                "it did not answer this node's probe, and nobody else could be asked; it has never answered one",
            ),
            (
                Reason::Refused { address: ([10, 0, 0, 3], 8001).into() },
                "10.0.0.3:8001 refuses connections: no process listens there",
            ),
            (Reason::Rumour { by: by.clone() }, "w2 says so"),
            (
                Reason::RanOut { after: Duration::from_millis(3_040), accusers: 2 },
                "it did not refute the suspicion within 3.0 s; it refused 2 members or more",
            ),
            (
                Reason::NewLife { epoch: Epoch(7), generation: 1, by },
                "it came back as a new life (epoch 7, generation 1), heard from w2",
            ),
        ] {
            assert_eq!(reason.to_string(), text);
        }
    }

    #[test]
    fn findings_that_nobody_takes_are_bounded() {
        let mut witness = Witness::default();
        let member = Member::alive(crate::testing::life("n1", 0, 1));
        witness.compare(Moment::default(), &Cause::Packet(node("n2")), [member].iter());
        for _ in 0..2 * FINDINGS_LIMIT {
            witness.confirm(Moment::default(), &node("n1"), Reason::Departed);
        }
        assert_eq!(witness.findings.len(), FINDINGS_LIMIT);
        witness.confirm(Moment::default(), &node("stranger"), Reason::Departed);
        assert_eq!(witness.findings.back().map(|last| &last.node), Some(&node("n1")));
    }
}
