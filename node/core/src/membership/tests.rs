//! Failure detection by itself: suspicion, evidence, leaving and coming back.

mod accusations;
mod crowd;
mod group;
mod measure;
mod packets;

use super::{EVIDENCE_PAUSE, Liveness, RENEWAL_PAUSE, epoch_above, suspicion_timeout};
use crate::{
    Epoch,
    testing::{life, node},
};
use group::Group;
use std::time::Duration;

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

#[test]
fn small_clusters_notice_who_falls_silent_and_who_returns() {
    for count in 2..=4 {
        let mut group = Group::joined(count);
        group.muted.insert(1);
        let others = move |group: &Group, liveness| {
            (0..usize::from(count)).filter(|index| *index != 1).all(|i| group.sees(i, "n1") == Some(liveness))
        };
        group.until(secs(12), |group| others(group, Liveness::Down));
        group.run(secs(20));
        group.muted.clear();
        // Whoever counts as down is called every 20 s, once somebody is alive; the engine calls before that.
        let first = group.nodes[0].own().clone();
        group.nodes[1].announce(group.now, first);
        group.until(secs(60), |group| {
            others(group, Liveness::Alive) && group.nodes[1].active_count() == usize::from(count) - 1
        });
        assert!(group.nodes[1].renewals() >= 1, "a life that was down returns as a later one");
    }
}

/// foca 2.0.0 by itself sends `TurnUndead` when the suspicion runs out, although it was refuted.
#[test]
fn a_suspicion_refuted_in_time_ends_neither_in_down_nor_in_a_renewal() {
    for count in 2..=4 {
        let mut group = Group::joined(count);
        group.muted.insert(1);
        group.until(secs(4), |group| group.sees(0, "n1") == Some(Liveness::Suspect));
        group.muted.clear();
        group.until(secs(3), |group| group.sees(0, "n1") == Some(Liveness::Alive));
        for _ in 0..200 {
            group.run(Duration::from_millis(100));
            let down = (0..usize::from(count))
                .flat_map(|by| (0..count).map(move |of| (by, of)))
                .filter(|(by, of)| group.sees(*by, &format!("n{of}")) == Some(Liveness::Down));
            assert_eq!(down.collect::<Vec<_>>(), []);
        }
        assert_eq!(group.renewals(), 0);
    }
}

#[test]
fn a_suspect_that_stays_silent_is_down_after_the_timeout_at_every_node() {
    let mut group = Group::joined(8);
    group.muted.insert(5);
    let at_all = |group: &Group, liveness| (0..8).all(|i| i == 5 || group.sees(i, "n5") == Some(liveness));
    group.until(secs(4), |group| (0..8).any(|i| i != 5 && group.sees(i, "n5") == Some(Liveness::Suspect)));
    let suspected = group.now;
    group.until(secs(2), |group| at_all(group, Liveness::Suspect));
    group.until(secs(12), |group| (0..8).any(|i| i != 5 && group.sees(i, "n5") == Some(Liveness::Down)));
    assert!(group.now.since(suspected) >= suspicion_timeout(8), "nobody gives up before");
    group.until(secs(1), |group| at_all(group, Liveness::Down));
    assert_eq!(suspicion_timeout(8), secs(7));
    assert_eq!(suspicion_timeout(1_000), secs(10));
}

#[test]
fn a_node_that_stalls_itself_lets_a_suspect_refute_when_it_wakes() {
    let mut group = Group::joined(4);
    let now = group.now;
    group.nodes[0].refused(now, &node("n1"));
    assert_eq!(group.sees(0, "n1"), Some(Liveness::Suspect));
    // It sleeps through the refutation and its own timers, and its timers come first when it wakes.
    let awake = now + secs(30);
    group.nodes[0].tick(awake);
    assert_eq!(group.sees(0, "n1"), Some(Liveness::Suspect));
    for tenth in 1..=30 {
        group.nodes[0].tick(awake + Duration::from_millis(100) * tenth);
    }
    assert_eq!(group.sees(0, "n1"), Some(Liveness::Down), "but not for ever");
}

#[test]
fn every_node_times_a_suspicion_also_when_the_one_that_raised_it_dies() {
    let mut group = Group::joined(6);
    group.muted.insert(5);
    group.until(secs(4), |group| (0..5).all(|i| group.sees(i, "n5") == Some(Liveness::Suspect)));
    group.muted.extend([0, 1, 2]);
    group.until(suspicion_timeout(6) + secs(1), |group| {
        (3..5).all(|i| group.sees(i, "n5") == Some(Liveness::Down))
    });
}

#[test]
fn a_refused_dial_makes_suspect_at_once_and_once_per_pause() {
    let mut group = Group::joined(3);
    let refuse = |group: &mut Group| {
        group.nodes[0].refused(group.now, &node("n1"));
        group.sees(0, "n1")
    };
    assert_eq!(refuse(&mut group), Some(Liveness::Suspect));
    group.until(secs(2), |group| group.sees(0, "n1") == Some(Liveness::Alive));
    assert_eq!(refuse(&mut group), Some(Liveness::Alive), "within the pause");
    group.run(EVIDENCE_PAUSE);
    assert_eq!(refuse(&mut group), Some(Liveness::Suspect), "after the pause");
    assert!(group.nodes[0].evidence.len() <= 2);
    group.nodes[0].refused(group.now, &node("stranger"));
    assert!(group.nodes[0].evidence.len() <= 2, "of strangers nothing is kept");
}

#[test]
fn who_leaves_is_down_at_once_and_answers_nothing() {
    let mut group = Group::joined(4);
    let (now, first) = (group.now, group.nodes[0].own().clone());
    group.nodes[2].leave(now);
    group.until(secs(1), |group| [0, 1, 3].iter().all(|i| group.sees(*i, "n2") == Some(Liveness::Down)));
    assert!(group.nodes[2].has_left());
    for _ in 0..100 {
        group.run(Duration::from_millis(500));
        assert!(group.nodes[2].next_packet().is_none());
    }
    let now = group.now;
    group.nodes[2].announce(now, first);
    group.nodes[2].refused(now, &node("n0"));
    group.nodes[2].supersede(now, life("n2", 9, 1002));
    group.nodes[2].leave(now);
    group.nodes[2].tick(now);
    assert!(group.nodes[2].next_packet().is_none());
    assert_eq!(group.nodes[2].next_deadline(), None);
    assert_eq!(group.nodes[2].active().len(), 0);
    assert_eq!(group.sees(0, "n2"), Some(Liveness::Down), "and it does not come back");
}

#[test]
fn a_later_life_at_another_address_replaces_the_one_before() {
    let mut group = Group::joined(4);
    group.muted.insert(3);
    group.join(life("n3", 50, 2003));
    group.until(secs(2), |group| {
        (0..3).all(|i| group.nodes[i].active().iter().any(|life| life.address.port() == 2003))
    });
    group.run(secs(30));
    for index in 0..3 {
        let lives: Vec<_> = group.nodes[index].lives().filter(|(life, _)| life.node == node("n3")).collect();
        assert_eq!(lives, [(&life("n3", 50, 2003), Liveness::Alive)], "one life per node");
    }
    // The process of the earlier life wakes up, and cannot disturb the later one.
    group.muted.clear();
    group.run(secs(30));
    assert!((0..3).all(|i| group.sees(i, "n3") == Some(Liveness::Alive)));
    assert_eq!(group.nodes[4].renewals(), 0);
}

#[test]
fn renewals_are_limited_while_others_know_a_later_life() {
    let mut group = Group::joined(3);
    group.join(life("n1", 50, 2001));
    group.run(secs(20));
    let limit = 20_000 / RENEWAL_PAUSE.as_millis() + 1;
    assert!(u128::from(group.nodes[1].renewals()) <= limit, "{} renewals", group.nodes[1].renewals());
}

#[test]
fn a_node_that_learns_of_its_later_life_may_supersede_it() {
    let mut group = Group::joined(3);
    let usurper = life("n1", 50, 2001);
    group.nodes[1].usurper = Some(usurper.clone());
    assert_eq!(group.nodes[1].usurper(), Some(&usurper));
    let epoch = epoch_above(usurper.epoch);
    let now = group.now;
    group.nodes[1].supersede(now, super::Life { epoch, ..life("n1", 0, 1001).into() }.into());
    assert_eq!(group.nodes[1].usurper(), None);
    group.until(secs(1), |group| {
        [0, 2].iter().all(|i| group.nodes[*i].active().iter().any(|life| life.epoch == epoch))
    });
    assert_eq!(epoch_above(Epoch(u64::MAX)), Epoch(u64::MAX));
}

#[test]
fn a_new_identity_probes_again_even_if_nobody_heard_of_it() {
    let mut group = Group::joined(3);
    group.muted.insert(1);
    let now = group.now;
    group.nodes[1].supersede(now, life("n1", 70, 1001));
    group.run(Duration::from_millis(50));
    group.muted.clear();
    group.until(secs(2), |group| {
        [0, 2].iter().all(|i| group.nodes[*i].active().iter().any(|known| *known == life("n1", 70, 1001)))
    });
}

#[test]
fn who_is_held_is_silent_and_declares_nobody_down_because_of_it() {
    let mut group = Group::joined(4);
    let until = group.now + secs(30);
    group.nodes[1].hold(until);
    for _ in 0..60 {
        assert_eq!(group.nodes[1].active_count(), 3);
        assert!(group.nodes[1].next_packet().is_none());
        assert!(group.nodes[1].next_deadline() >= Some(until));
        group.run(Duration::from_millis(490));
    }
    assert_eq!(group.sees(0, "n1"), Some(Liveness::Down));
    group.run(secs(40));
    assert!((0..4).all(|i| group.nodes[i].active_count() == 3), "all are together again");
}

#[test]
fn what_is_kept_about_members_does_not_outgrow_them() {
    let mut group = Group::joined(4);
    for round in 0..30 {
        group.muted.insert(3);
        let now = group.now;
        group.nodes[0].refused(now, &node("n2"));
        group.run(secs(10));
        group.muted.clear();
        let (first, now) = (group.nodes[0].own().clone(), group.now);
        group.nodes[3].announce(now, first);
        group.run(secs(6));
        let kept = &group.nodes[0];
        assert!(kept.rtts.len() <= 3 && kept.evidence.len() <= 3, "round {round}");
        assert!(kept.suspicions.0.len() <= 3 && kept.outbox.is_empty());
        // foca's own timers, and one for each life declared down, for a day.
        assert!(
            kept.timers.heap.len() <= 16 + 4 * round,
            "{} timers in round {round}",
            kept.timers.heap.len()
        );
    }
    assert!(group.nodes[0].rtt(&node("n1")).get().is_some());
}
