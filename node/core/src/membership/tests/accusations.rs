//! How much the word of those counts that were refused.

use super::{
    super::{Accusation, Liveness, Membership, Reason, settings::patience},
    group::Group,
    secs,
};
use crate::{
    Moment,
    testing::{life, node},
};
use std::time::Duration;

/// n0 of eight, told by `accusers` that n7 has refused them; n7 is mute.
fn accused(accusers: &[&str]) -> (Group, Moment) {
    let mut group = Group::joined(8);
    group.muted.extend(1..8);
    let at = group.now;
    for by in accusers {
        group.nodes[0].accused(at, &node(by), &accusation());
    }
    (group, at)
}

fn accusation() -> Accusation {
    Accusation { life: life("n7", 0, 1007), incarnation: 0 }
}

fn time_to_down(accusers: &[&str]) -> Duration {
    let (mut group, at) = accused(accusers);
    assert_eq!(group.sees(0, "n7"), Some(Liveness::Suspect), "{accusers:?}");
    group.until(secs(20), |group| group.sees(0, "n7") == Some(Liveness::Down));
    group.now.since(at)
}

#[test]
fn the_more_members_are_refused_the_sooner_a_suspect_is_down() {
    let patience = patience(8);
    let times: Vec<Duration> = [
        &["n1"][..],
        &["n1", "n2"],
        &["n1", "n2", "n3"],
        &["n1", "n2", "n3", "n4"],
        &["n1", "n2", "n3", "n4", "n5"],
    ]
    .map(time_to_down)
    .into();
    assert_eq!(times, [1, 2, 3, 4, 4].map(|accusers| patience.of(accusers)));
    assert!(times.windows(2).all(|pair| pair[0] >= pair[1]), "{times:?}");
    assert_eq!((times[0], times[3]), (secs(3), Duration::from_millis(1_500)));
}

#[test]
fn one_member_that_lies_often_counts_once() {
    let liar = ["n1"; 50];
    assert_eq!(time_to_down(&liar), time_to_down(&["n1"]));
}

#[test]
fn strangers_the_accused_itself_and_words_about_another_life_do_not_count() {
    let (group, _) = accused(&["n7", "stranger"]);
    assert_eq!(group.sees(0, "n7"), Some(Liveness::Alive));
    let mut group = group;
    let at = group.now;
    for wrong in [
        Accusation { incarnation: 1, ..accusation() },
        Accusation { life: life("n7", 9, 1007), ..accusation() },
        Accusation { life: life("n9", 0, 1009), ..accusation() },
    ] {
        group.nodes[0].accused(at, &node("n1"), &wrong);
    }
    assert_eq!(group.sees(0, "n7"), Some(Liveness::Alive));
}

#[test]
fn who_is_refused_tells_a_few_and_they_say_who_told_them() {
    let mut group = Group::joined(8);
    let now = group.now;
    group.nodes[1].refused(now, &node("n7"));
    let told: Vec<_> = std::iter::from_fn(|| group.nodes[1].next_accusation()).collect();
    assert_eq!(told.len(), 4);
    assert!(told.iter().all(|(to, said)| to.node != node("n7") && *said == accusation()), "{told:?}");
    let findings = |of: &mut Membership| -> Vec<Reason> {
        std::iter::from_fn(|| of.next_finding()).map(|finding| finding.reason).collect()
    };
    findings(&mut group.nodes[0]);
    for _ in 0..2 {
        group.nodes[0].accused(now, &node("n1"), &accusation());
    }
    let address = life("n7", 0, 1007).address;
    assert_eq!(findings(&mut group.nodes[0]), [Reason::RefusedOther { by: node("n1"), address }]);
}

#[test]
fn a_living_member_that_all_accuse_refutes_in_time() {
    let mut group = Group::joined(8);
    let now = group.now;
    for by in 1..7 {
        group.nodes[by].refused(now, &node("n7"));
        group.nodes[0].accused(now, &node(&format!("n{by}")), &accusation());
    }
    assert_eq!(group.sees(0, "n7"), Some(Liveness::Suspect));
    for _ in 0..100 {
        group.run(Duration::from_millis(100));
        assert!((0..7).all(|by| group.sees(by, "n7") != Some(Liveness::Down)));
    }
    assert!((0..7).all(|by| group.sees(by, "n7") == Some(Liveness::Alive)));
}

#[test]
fn patience_in_the_smallest_clusters_needs_no_more_accusers_than_there_are() {
    assert_eq!((patience(2).of(0), patience(2).of(1), patience(2).of(9)), (secs(7), secs(3), secs(3)));
    assert_eq!(patience(3).of(2), Duration::from_millis(1_500));
    assert_eq!((patience(128).of(1), patience(128).of(4)), (secs(5), Duration::from_millis(2_500)));
}
