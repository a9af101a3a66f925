//! Revocations in clusters of engines in virtual time.

use super::{Event, measured, net::Net, secs};
use crate::{
    ClusterId, Moment, NodeId, Role, SpiffeId,
    gossip::{FrameError, members::COMPARE_SOON},
    membership::Reason,
    revocation::EXPIRY_GRACE,
    testing::{START_MS, certificate, cluster, life, node, records},
};
use bytes::Bytes;
use p2p_proto::v1::{
    MemberState, NodeEviction, Revocation, RevocationSegments, gossip_message::Kind, revocation::What,
};
use std::collections::BTreeSet;

/// So many small segments are folded.
const FOLDED: usize = 64;

fn chain(name: &str) -> Vec<Bytes> {
    let cluster: ClusterId = cluster();
    vec![certificate(&SpiffeId::new(cluster, Role::Coordinator, node(name)).to_string(), &[])]
}

pub(super) fn token(id: &str) -> Revocation {
    let expires_at = START_MS / 1000 + 86_400;
    Revocation { expires_at, what: Some(What::Token(id.to_owned())) }
}

fn eviction(name: &str, counter: u64, readmitted: bool) -> Revocation {
    let at = START_MS / 1000;
    let node = NodeEviction { node_id: name.to_owned(), counter, readmitted, at };
    Revocation { expires_at: 0, what: Some(What::Node(node)) }
}

/// Process `index` revokes, as the coordinator of its name.
fn revoke(net: &mut Net, index: usize, entries: Vec<Revocation>) {
    let chain = chain(net.processes[index].node.as_str());
    net.with(index, |engine, now: Moment, unix_ms| {
        let made = engine.revoke(unix_ms, entries, &chain).expect("signed");
        engine.push_revocations(now, made);
    });
}

fn all_refuse(net: &Net, id: &str, but: usize) -> bool {
    net.running().all(|(index, process)| index == but || process.revoked.contains(id))
}

fn names(names: &[&str]) -> BTreeSet<NodeId> {
    names.iter().map(|name| node(name)).collect()
}

#[test]
fn a_revocation_reaches_all_within_a_second_also_over_a_bad_network() {
    for (loss, seed) in [(0.0, 1), (0.2, 2), (0.2, 3), (0.2, 4)] {
        let mut net = Net::joined(16, seed);
        net.run(secs(2));
        net.loss = loss;
        revoke(&mut net, 3, vec![token("t1")]);
        let time = net.until(secs(1), "revocation", |net| all_refuse(net, "t1", 3));
        measured(&format!("revocation at 16, {loss} lost"), time);
    }
}

/// Its number would be used again by a coordinator that crashes now.
#[test]
fn nobody_is_told_what_is_not_on_disk_yet() {
    let mut net = Net::joined(4, 5);
    revoke(&mut net, 0, vec![token("before")]);
    let written = chain("n0");
    let made = net.with(0, |engine, _, unix_ms| engine.revoke(unix_ms, vec![token("written")], &written));
    // Others compare what they hold all the time.
    net.run(secs(20));
    assert!(all_refuse(&net, "before", 0));
    assert!((1..4).all(|index| !net.processes[index].revoked.contains("written")));
    net.with(0, |engine, now, _| engine.push_revocations(now, made.expect("signed")));
    net.until(secs(1), "the rest", |net| all_refuse(net, "written", 0));
}

#[test]
fn a_node_that_joins_later_learns_all_that_is_revoked() {
    let mut net = Net::joined(4, 5);
    revoke(&mut net, 0, (0..2500).map(|number| token(&format!("t{number}"))).collect());
    net.until(secs(2), "revocations", |net| all_refuse(net, "t2499", 0));
    let late = net.start(life("late", 60_000, 2000));
    net.until(secs(3), "the late one", |net| net.processes[late].revoked.len() == 2500);
}

#[test]
fn an_evicted_node_is_shown_down_heard_no_more_and_comes_back_only_when_readmitted() {
    let mut net = Net::joined(5, 6);
    net.run(secs(2));
    let (n0, n4) = (node("n0"), node("n4"));
    revoke(&mut net, 0, vec![eviction("n4", 1, false)]);
    net.until(secs(1), "ban", |net| (0..4).all(|index| net.processes[index].banned == names(&["n4"])));
    for index in 0..4 {
        let member = &net.processes[index].engine.members()[&n4];
        assert!(member.evicted && !member.serves() && member.state == MemberState::Down, "{member:?}");
    }
    // It goes on publishing, and even a later life of it is not heard.
    net.with(4, |engine, now, unix_ms| {
        engine.publish(now, unix_ms, records(&node("n4"), &["evil.S"])).expect("its own engine takes it");
    });
    let refused = net.with(1, |engine, now, unix_ms| {
        engine.receive(now, unix_ms, &n4, Kind::RevocationPositions(Default::default()))
    });
    assert!(matches!(refused, Err(FrameError::Evicted(who)) if who == n4));
    net.run(secs(20));
    for index in 0..4 {
        let member = &net.processes[index].engine.members()[&n4];
        assert!(member.evicted && !member.records.services.keys().any(|name| name.as_str() == "evil.S"));
        let told = net.processes[index].engine.evidence(&n4);
        assert_eq!(told.last().map(|last| &last.reason), Some(&Reason::Evicted), "{told:?}");
    }
    let counter = net.with(0, |engine, _, _| engine.next_ban_counter(&n4));
    assert_eq!(counter, 2);
    revoke(&mut net, 0, vec![eviction("n4", counter, true)]);
    net.until(secs(40), "readmission", |net| net.all_see(&n4, MemberState::Alive));
    net.until(secs(40), "its records", |net| {
        let member = &net.processes[0].engine.members()[&n4];
        !member.evicted && member.serves() && member.records.services.len() == 1
    });
    assert!(net.processes[1].engine.members()[&n0].serves(), "nobody else was harmed");
}

/// What was told of it to those that had not heard of its readmission yet is not told twice.
#[test]
fn who_hears_of_a_readmission_compares_soon() {
    let mut net = Net::new(6);
    net.interval = secs(600);
    for index in 0..4 {
        net.start(life(&format!("n{index}"), 0, 1000 + index));
    }
    net.until(secs(60), "all join", Net::all_alive);
    revoke(&mut net, 0, vec![eviction("gone", 1, false)]);
    net.until(secs(1), "ban", |net| (0..4).all(|index| net.processes[index].banned == names(&["gone"])));
    net.run(secs(20));
    revoke(&mut net, 0, vec![eviction("gone", 2, true)]);
    for index in 1..4 {
        net.until(secs(1), "readmission", |net| net.processes[index].banned.is_empty());
        let now = net.now;
        let due = net.with(index, |engine, _, _| engine.exchange_at);
        assert!(due <= now + COMPARE_SOON, "n{index} compares at {due:?}, now is {now:?}");
    }
}

#[test]
fn a_coordinator_whose_state_was_set_back_loses_nothing() {
    let mut net = Net::joined(4, 7);
    revoke(&mut net, 0, vec![token("kept")]);
    let backup = net.with(0, |engine, _, _| engine.revocation_segments());
    revoke(&mut net, 0, vec![token("after-the-backup")]);
    net.until(secs(1), "revocations", |net| all_refuse(net, "after-the-backup", 0));
    net.crash(0);
    net.run(secs(15));
    // The backup is put back, and before it hears of anybody it revokes under a number that is used already.
    let restored = net.start(life("n0", 60_000, 1000));
    net.with(restored, |engine, now, unix_ms| {
        let mut own = records(&node("n0"), &["demo.S"]);
        own.node.certificate_chain = chain("n0");
        engine.publish(now, unix_ms, own).expect("its own records are good");
        for segment in &backup {
            engine.load_revocations((**segment).clone()).expect("its own");
        }
    });
    revoke(&mut net, restored, vec![token("new")]);
    // It has no seed; others find it by announcing themselves to those that are down.
    net.until(secs(60), "the new one at all", |net| all_refuse(net, "new", restored));
    net.until(secs(1), "the old one back", |net| {
        net.processes[restored].revoked.contains("after-the-backup")
    });
    let reissued = |event: &(Moment, Event)| event.1 == Event::RevocationsReissued;
    assert!(net.processes[restored].events.iter().any(reissued));
    // A node that starts with nothing gets all three.
    let late = net.start(life("late", 90_000, 2000));
    let all: BTreeSet<String> = ["kept", "after-the-backup", "new"].map(str::to_owned).into();
    net.until(secs(5), "all three", |net| net.processes[late].revoked == all);
}

#[test]
fn small_segments_are_folded_and_everybody_ends_with_the_same() {
    let mut net = Net::joined(4, 8);
    net.run(secs(1));
    for number in 0..200 {
        revoke(&mut net, 1, vec![token(&format!("t{number}"))]);
    }
    net.until(secs(3), "all", |net| all_refuse(net, "t199", 1));
    net.with(1, |engine, now, unix_ms| assert!(engine.tidy_revocations(now, unix_ms, Some(&chain("n1")))));
    let folded = |net: &Net| {
        net.running()
            .all(|(_, p)| p.engine.revocation_segments().len() == 1 && p.engine.revocation_count() == 200)
    };
    net.until(secs(3), "folded everywhere", folded);
    net.with(1, |engine, now, unix_ms| {
        assert!(!engine.tidy_revocations(now, unix_ms, Some(&chain("n1"))), "nothing is left to fold");
    });
}

#[test]
fn a_clock_that_has_jumped_ahead_forgets_nothing() {
    const YEAR_MS: u64 = 365 * 24 * 3600 * 1000;
    let mut net = Net::joined(2, 11);
    let expires_at = net.with(0, |_, _, unix_ms| unix_ms / 1000 + 60);
    let fleeting = |name: String| Revocation { expires_at, ..token(&name) };
    for number in 0..FOLDED {
        revoke(&mut net, 0, vec![fleeting(format!("t{number}"))]);
    }
    let last = format!("t{}", FOLDED - 1);
    net.until(secs(3), "all", |net| all_refuse(net, &last, 0));
    let tidy = |net: &mut Net, ahead_ms| {
        net.with(0, |engine, now, unix_ms| {
            engine.tidy_revocations(now, unix_ms + ahead_ms, Some(&chain("n0")))
        });
        net.with(0, |engine, _, _| engine.revocation_count())
    };
    // Before the jump, in it, where all are folded into one, and after it.
    assert_eq!([0, YEAR_MS, 0].map(|ahead_ms| tidy(&mut net, ahead_ms)), [FOLDED; 3]);
    net.run(secs(60) + EXPIRY_GRACE);
    assert_eq!(tidy(&mut net, 0), 0, "what expires in time is dropped");
}

#[test]
fn what_was_signed_while_the_clock_was_ahead_counts_everywhere_once_it_is_right() {
    const HOUR_MS: u64 = 3600 * 1000;
    for ahead_ms in [HOUR_MS, 40 * 24 * HOUR_MS] {
        let mut net = Net::joined(3, 12);
        net.with(0, |engine, now, unix_ms| {
            let made = engine.revoke(unix_ms + ahead_ms, vec![token("early")], &chain("n0"));
            engine.push_revocations(now, made.expect("signed"));
        });
        net.run(secs(5));
        assert!(!net.processes[1].revoked.contains("early"), "others refuse what is of the future");
        net.with(0, |engine, now, unix_ms| engine.tidy_revocations(now, unix_ms, Some(&chain("n0"))));
        revoke(&mut net, 0, vec![token("in-time")]);
        net.until(secs(3), "both", |net| all_refuse(net, "early", 0) && all_refuse(net, "in-time", 0));
    }
}

#[test]
fn revocations_of_a_worker_are_refused_and_told_of() {
    let mut net = Net::joined(3, 9);
    let worker = vec![certificate(&SpiffeId::new(cluster(), Role::Worker, node("n2")).to_string(), &[])];
    let forged = net.with(2, |engine, _, unix_ms| engine.revoke(unix_ms, vec![token("t")], &worker));
    let segments =
        forged.expect("it can sign what it likes").iter().map(|segment| (**segment).clone()).collect();
    net.with(0, |engine, now, unix_ms| {
        let message = Kind::Revocations(RevocationSegments { segments });
        engine.receive(now, unix_ms, &node("n2"), message).expect("a frame");
    });
    assert!(net.processes[0].revoked.is_empty());
    let refused = |event: &(Moment, Event)| matches!(event.1, Event::RevocationsRefused { .. });
    // The liar keeps them and offers them again and again: told once, and no storm.
    let before = net.messages;
    net.run(secs(30));
    assert_eq!(net.processes[0].events.iter().filter(|event| refused(event)).count(), 1);
    let messages = net.messages - before;
    assert!(messages < 3_000, "{messages} messages in 30 s");
}
