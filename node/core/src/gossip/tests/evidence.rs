//! Why a member is in its state, as those who ask are told.

use super::{net::Net, secs};
use crate::{
    membership::{Reason, suspicion_timeout},
    testing::{START_MS, life, node},
};
use p2p_proto::v1::MemberState::{Alive, Down, Left, Suspect};

/// The chain of evidence about `name` at process `index`, from the last time on that it was alive.
fn chain(net: &Net, index: usize, name: &str) -> Vec<(u64, Option<i32>, i32, Reason)> {
    let all = net.processes[index].engine.evidence(&node(name));
    let start = all.iter().rposition(|kept| kept.from == Some(Alive)).unwrap_or(0);
    let state = |kept: &super::super::Evidence| {
        (kept.unix_ms, kept.from.map(i32::from), i32::from(kept.to), kept.reason.clone())
    };
    all[start..].iter().map(|kept| state(kept)).collect()
}

fn is_hearsay(reason: &Reason) -> bool {
    matches!(reason, Reason::Rumour { by } if *by != node("n5"))
}

#[test]
fn a_member_that_falls_silent_is_down_by_a_probe_or_a_rumour_and_time() {
    let mut net = Net::joined(8, 20);
    net.refuses = false;
    net.run(secs(10));
    let crashed_at = net.unix_ms();
    net.crash(5);
    net.until(secs(15), "failure", |net| net.all_see(&node("n5"), Down));
    let mut probed = 0;
    for index in (0..8).filter(|index| *index != 5) {
        let chain = chain(&net, index, "n5");
        let (first, last) = (&chain[0], chain.last().expect("evidence"));
        assert!(first.0 > crashed_at && first.0 <= last.0, "{chain:?}");
        assert_eq!((first.1, first.2), (Some(Alive.into()), Suspect.into()), "{chain:?}");
        if let Reason::ProbeFailed { last_rtt, helpers } = &first.3 {
            probed += 1;
            assert!(last_rtt.is_some() && helpers.len() == 3, "{chain:?}");
            assert!(!helpers.contains(&node("n5")), "{chain:?}");
        } else {
            assert!(is_hearsay(&first.3), "{chain:?}");
        }
        assert_eq!(last.2, i32::from(Down), "{chain:?}");
        if let Reason::RanOut { after, .. } = &last.3 {
            assert!(*after >= suspicion_timeout(8), "{chain:?}");
        } else {
            assert!(is_hearsay(&last.3), "{chain:?}");
        }
    }
    assert!(probed > 0, "somebody found out");
    let reported: Vec<_> = net.processes[0].engine.timeline();
    assert!(reported.windows(2).all(|pair| pair[0].unix_ms <= pair[1].unix_ms), "oldest first");
}

#[test]
fn a_refused_dial_and_its_refutation_are_told() {
    let mut net = Net::joined(4, 21);
    net.run(secs(3));
    net.with(0, |engine, now, _| engine.refused(now, &node("n2")));
    net.until(secs(3), "refutation", |net| net.state(0, &node("n2")) == Some(Alive));
    let chain = chain(&net, 0, "n2");
    let address = life("n2", 0, 1002).address;
    assert_eq!(chain[0].3, Reason::Refused { address });
    let refuted = &chain[1];
    assert_eq!((refuted.1, refuted.2), (Some(Suspect.into()), Alive.into()));
    assert!(matches!(refuted.3, Reason::Refuted { incarnation: 1, .. }), "{chain:?}");
}

#[test]
fn a_return_and_a_departure_are_told() {
    let mut net = Net::joined(4, 22);
    let first = &net.processes[0].engine.evidence(&node("n3"))[0];
    assert_eq!((first.from, first.to), (None, Alive));
    assert!(matches!(first.reason, Reason::Joined { .. }), "{first:?}");

    net.crash(3);
    net.run(secs(10));
    let back = net.start(life("n3", 90_000, 2003));
    net.until(secs(5), "return", Net::all_alive);
    let epoch = life("n3", 90_000, 2003).epoch;
    let told = net.processes[0].engine.evidence(&node("n3"));
    let last = told.last().expect("evidence");
    assert_eq!((last.from, last.to), (Some(Down), Alive));
    assert!(
        matches!(&last.reason, Reason::NewLife { epoch: e, generation: 0, .. } if *e == epoch),
        "{last:?}"
    );

    net.with(back, |engine, now, unix_ms| engine.announce_leaving(now, unix_ms).expect("good"));
    net.until(secs(2), "leaving", |net| net.all_see(&node("n3"), Left));
    net.with(back, |engine, now, _| engine.leave(now));
    net.run(secs(2));
    let told = net.processes[0].engine.evidence(&node("n3"));
    let reasons: Vec<_> = told.iter().skip_while(|kept| kept.reason != Reason::Leaving).collect();
    assert_eq!((reasons[0].from, reasons[0].to), (Some(Alive), Left));
    assert!(reasons.iter().all(|kept| kept.to == Left), "it stays so: {reasons:?}");
    assert!(told.iter().all(|kept| kept.unix_ms >= START_MS));
    let itself = net.processes[back].engine.evidence(&node("n3"));
    assert!(
        itself.iter().all(|kept| kept.reason == Reason::Leaving),
        "of itself it says no more: {itself:?}"
    );
}
