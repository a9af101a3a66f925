//! Who cannot reach whom, as each node sees it itself.

use super::Finding;
use p2p_proto::v1::Leg;
use std::collections::BTreeMap;

/// What one node sees of the others.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen<'a> {
    pub(super) by: &'a str,
    /// Members that do not answer it, or that it does not take for alive.
    pub(super) legs: &'a [Leg],
}

/// One finding for each member that somebody does not reach.
pub(super) fn broken(seen: &[Seen<'_>]) -> Vec<Finding> {
    let mut members: BTreeMap<&str, Vec<(&str, &Leg)>> = BTreeMap::new();
    for Seen { by, legs } in seen {
        for leg in *legs {
            members.entry(&leg.node_id).or_default().push((by, leg));
        }
    }
    let found = members.into_iter().flat_map(|(member, legs)| {
        let (silent, held): (Vec<_>, Vec<_>) = legs.into_iter().partition(|(_, leg)| !leg.reason.is_empty());
        let others: Vec<&str> = seen
            .iter()
            .map(|seen| seen.by)
            .filter(|by| *by != member && !silent.iter().any(|(silent, _)| silent == by))
            .collect();
        [unreached(member, &silent, &others), held_for_dead(member, &held)].into_iter().flatten()
    });
    found.collect()
}

fn unreached(member: &str, silent: &[(&str, &Leg)], reach: &[&str]) -> Option<Finding> {
    let (_, leg) = silent.first()?;
    let (address, reason) = (&leg.address, &leg.reason);
    let by = names(silent);
    let (what, why, mend) = if reach.is_empty() {
        (
            format!("no node that was asked ({by}) reaches it at {address}: {reason}"),
            "what only it provides cannot be called",
            format!(
                "start it, with `systemctl start p2p-node` on its host; if it is gone for good, `p2pctl cluster evict {member}`"
            ),
        )
    } else {
        (
            format!("{by} cannot reach it at {address} ({reason}); {} can", reach.join(", ")),
            "calls that enter at one and go to the other fail; and where more such legs break, each side takes the other for \
             dead",
            format!(
                "on the host of {}, `nc -vz {}`: look at firewalls and routes between both, or set advertise_addresses of \
                 {member} to an address that all reach",
                silent.first().map_or("", |(by, _)| by),
                address.rsplit_once(':').map_or(address.clone(), |(host, port)| {
                    format!("{} {port}", host.trim_matches(['[', ']']))
                })
            ),
        )
    };
    Some(Finding { check: "unreachable_leg".into(), subject: member.to_owned(), what, why: why.into(), mend })
}

fn held_for_dead(member: &str, held: &[(&str, &Leg)]) -> Option<Finding> {
    let (by, leg) = held.first()?;
    Some(Finding {
        check: "unreachable_leg".into(),
        subject: member.to_owned(),
        what: format!("it answers {}, which take it for {} all the same", names(held), leg.state().word()),
        why: "calls that enter there are not given to it".into(),
        mend: format!(
            "`p2pctl cluster why {member}` at {by} tells on what grounds; it passes by itself when both exchange again"
        ),
    })
}

fn names(legs: &[(&str, &Leg)]) -> String {
    legs.iter().map(|(by, _)| *by).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use p2p_proto::v1::MemberState;

    fn leg(node: &str, reason: &str, state: MemberState) -> Leg {
        Leg {
            node_id: node.into(),
            address: "10.0.0.7:8001".into(),
            state: state.into(),
            reason: reason.into(),
        }
    }

    #[test]
    fn it_is_told_who_cannot_reach_whom_and_who_can() {
        let timed_out = || leg("w-1", "no answer in time", MemberState::Alive);
        let (c, w2, w3) = ([timed_out()], [timed_out()], []);
        let seen = |by, legs| Seen { by, legs };
        let found = broken(&[seen("c", &c), seen("w-1", &[]), seen("w-2", &w2), seen("w-3", &w3)]);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].what, "c, w-2 cannot reach it at 10.0.0.7:8001 (no answer in time); w-3 can");
        assert!(found[0].mend.contains("on the host of c, `nc -vz 10.0.0.7 8001`"), "{}", found[0].mend);

        let found = broken(&[seen("c", &c), seen("w-2", &w2)]);
        assert_eq!(
            found[0].what,
            "no node that was asked (c, w-2) reaches it at 10.0.0.7:8001: no answer in time"
        );
        assert!(found[0].mend.contains("cluster evict w-1"));
        assert!(broken(&[seen("c", &[])]).is_empty());
    }

    #[test]
    fn who_answers_and_is_taken_for_dead_is_told_of() {
        let legs = [leg("w-1", "", MemberState::Down)];
        let found = broken(&[Seen { by: "c", legs: &legs }]);
        assert_eq!(found[0].what, "it answers c, which take it for down all the same");
    }
}
