//! Clusters of engines in virtual time.

mod accusation;
mod evidence;
mod input;
mod net;
mod revoke;

use super::Event;
use crate::{
    Epoch,
    membership::epoch_above,
    testing::{START_MS, life, node, records},
};
use net::Net;
use p2p_proto::v1::MemberState;
use std::time::Duration;

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// Measured times, shown with `cargo test -- --nocapture`.
fn measured(what: &str, time: Duration) {
    println!("{what}: {time:?}");
}

fn downs(net: &Net) -> Vec<String> {
    net.log().into_iter().filter(|line| line.contains("to: Down")).collect()
}

#[test]
fn sixteen_nodes_join_through_one_seed_within_two_seconds() {
    for seed in 0..5 {
        let mut net = Net::of(16, seed);
        measured("join of 16", net.until(secs(2), "join", Net::all_alive));
    }
}

#[test]
fn small_clusters_join_and_notice_a_crash() {
    for count in 2..=4 {
        let mut net = Net::of(count, u64::from(count));
        net.until(secs(2), "join", Net::all_alive);
        net.crash(1);
        net.until(secs(12), "failure", |net| net.all_see(&node("n1"), MemberState::Down));
    }
}

#[test]
fn a_change_reaches_all_within_a_second() {
    for seed in 0..5 {
        let mut net = Net::joined(16, seed);
        net.run(secs(2));
        net.with(5, |engine, now, unix_ms| {
            engine.publish(now, unix_ms, records(&node("n5"), &["demo.S", "new.S"])).expect("good");
        });
        let arrived = |net: &Net| {
            let n5 = node("n5");
            net.running().all(|(_, p)| p.engine.members()[&n5].records.services.len() == 2)
        };
        measured("update at 16", net.until(secs(1), "update", arrived));
    }
}

#[test]
fn a_leaving_node_is_seen_as_left_and_stays_so() {
    let mut net = Net::joined(16, 1);
    net.with(3, |engine, now, unix_ms| {
        let mut changed = engine.own.clone();
        engine.announce_leaving(now, unix_ms).expect("good");
        // A service stops with its node, and that is published, too.
        changed.services.clear();
        engine.publish(now, unix_ms, changed).expect("good");
    });
    measured("leave", net.until(secs(2), "leave", |net| net.all_see(&node("n3"), MemberState::Left)));
    net.with(3, |engine, now, _| engine.leave(now));
    net.run(Duration::from_millis(100));
    let sent_as_left = net.messages;
    for index in (0..16).filter(|index| *index != 3) {
        net.crash(index);
    }
    net.run(secs(20));
    assert_eq!(net.messages, sent_as_left, "a node that has left is silent");
}

#[test]
fn a_departure_alone_is_seen_as_down_at_once() {
    let mut net = Net::joined(16, 2);
    net.with(3, |engine, now, _| engine.leave(now));
    net.until(secs(2), "leave", |net| net.all_see(&node("n3"), MemberState::Down));
    net.run(secs(60));
    assert!(net.all_see(&node("n3"), MemberState::Down), "and it does not come back");
}

#[test]
fn a_crashed_node_is_down_everywhere_soon_and_sooner_if_its_host_refuses() {
    for (refuses, seed) in [(true, 0), (true, 1), (true, 2), (false, 3), (false, 4), (false, 5)] {
        let mut net = Net::joined(16, seed);
        net.refuses = refuses;
        net.run(secs(3));
        net.crash(7);
        let limit = if refuses { secs(3) } else { secs(15) };
        let time = net.until(limit, "failure", |net| net.all_see(&node("n7"), MemberState::Down));
        measured(if refuses { "failure, dials refused" } else { "failure, dials unanswered" }, time);
        let others = downs(&net).into_iter().filter(|line| !line.contains("node: \"n7\""));
        assert_eq!(others.collect::<Vec<_>>(), Vec::<String>::new());
    }
}

#[test]
fn a_partition_of_a_minute_heals() {
    for seed in 0..3 {
        let mut net = Net::joined(12, seed);
        for process in &mut net.processes[6..] {
            process.island = 1;
        }
        net.run(secs(60));
        assert!((6..12).all(|far| net.state(0, &node(&format!("n{far}"))) == Some(MemberState::Down)));
        for process in &mut net.processes {
            process.island = 0;
        }
        measured("heal", net.until(secs(60), "heal", Net::all_alive));
        net.run(secs(30));
        assert!(net.all_alive(), "and stays so");
    }
}

#[test]
fn a_node_cut_off_alone_returns() {
    let mut net = Net::joined(8, 11);
    net.processes[4].island = 1;
    net.run(secs(60));
    assert_eq!(net.state(4, &node("n0")), Some(MemberState::Down));
    net.processes[4].island = 0;
    measured("return of one", net.until(secs(30), "return", Net::all_alive));
}

#[test]
fn a_restart_on_another_address_is_alive_again_at_once() {
    for pause in [0, 500, 60_000] {
        let mut net = Net::joined(16, 3);
        net.crash(4);
        net.run(Duration::from_millis(pause));
        net.start(life("n4", 1_000_000, 2004));
        let epoch = Epoch(START_MS + 1_000_000);
        let back = |net: &Net| {
            net.all_alive()
                && net.running().all(|(_, process)| {
                    let member = &process.engine.members()[&node("n4")];
                    member.epoch == epoch && member.address == Some(([127, 0, 0, 1], 2004).into())
                })
        };
        measured("restart", net.until(secs(3), "restart", back));
        net.run(secs(20));
        assert!(back(&net), "what was left of the old life does not disturb the new one");
    }
}

#[test]
fn a_node_whose_clock_fell_back_takes_an_epoch_above_the_one_known() {
    let mut net = Net::of(6, 4);
    let known = net.start(life("late", 5_000, 2000));
    net.until(secs(3), "join", Net::all_alive);
    let above = epoch_above(Epoch(START_MS + 5_000));
    for pause in [1, 30] {
        let mut again = Net::joined(6, 4);
        let old = again.start(life("late", 5_000, 2000));
        again.until(secs(3), "join", Net::all_alive);
        again.crash(old);
        again.run(secs(pause));
        let back = again.start(life("late", 1_000, 2001));
        measured("raised epoch", again.until(secs(3), "return", Net::all_alive));
        assert_eq!(again.processes[back].persisted, [above]);
        assert!(again.processes[back].events.iter().any(|(_, e)| *e == Event::EpochRaised { to: above }));
        assert_eq!(again.processes[0].engine.members()[&node("late")].epoch, above);
    }
    assert!(net.processes[known].persisted.is_empty());
}

#[test]
fn two_holders_of_one_id_raise_the_alarm_and_the_cluster_stays_calm() {
    let mut net = Net::joined(6, 5);
    net.run(secs(2));
    let quiet = net.messages;
    net.run(secs(20));
    let idle = net.messages - quiet;

    let twin = net.start(life("n2", 7_000, 2002));
    let alarmed = |net: &Net, index: usize| {
        net.processes[index].events.iter().any(|(_, event)| *event == Event::DuplicateNode)
    };
    net.until(secs(30), "alarm", |net| alarmed(net, 2) && alarmed(net, twin));
    let before = net.messages;
    net.run(secs(20));
    let during = net.messages - before;
    println!("messages in 20 s: {idle} idle, {during} with two holders");
    assert!(during < 3 * idle, "{during} messages in 20 s, {idle} without the conflict");

    net.run(secs(180));
    let raised = |index: usize| net.processes[index].persisted.len();
    assert!(raised(2) + raised(twin) <= 40, "{} + {} epochs", raised(2), raised(twin));
    let renewed: usize = [2, twin]
        .iter()
        .flat_map(|index| &net.processes[*index].events)
        .filter(|(_, event)| *event == Event::Renewed)
        .count();
    assert!(renewed < 60, "{renewed} renewals");
    for name in ["n0", "n1", "n3", "n4", "n5"] {
        for (index, _) in net.running() {
            assert_eq!(net.state(index, &node(name)), Some(MemberState::Alive), "{name} as {index} sees it");
        }
    }

    // When the one that is ahead stops, the other is undisputed again.
    net.crash(twin);
    let reign = |net: &Net| {
        let own = net.processes[2].engine.own();
        let is_seen = |p: &net::Process| p.engine.members()[&own.node].address == Some(own.address);
        net.all_alive() && net.running().all(|(_, process)| is_seen(process))
    };
    measured("peace after a conflict", net.until(secs(90), "peace", reign));
    net.run(secs(30));
    assert!(reign(&net), "and stays so");
}

#[test]
fn loss_of_three_in_a_hundred_delays_but_harms_nothing() {
    for seed in 0..3 {
        let mut net = Net::of(16, seed);
        net.loss = 0.03;
        measured("join of 16 with loss", net.until(secs(10), "join", Net::all_alive));
        net.run(secs(60));
        assert_eq!(downs(&net), Vec::<String>::new());
        net.crash(9);
        let down = |net: &Net| net.all_see(&node("n9"), MemberState::Down);
        measured("failure with loss", net.until(secs(15), "failure", down));
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = |seed| {
        let mut net = Net::of(10, seed);
        net.loss = 0.1;
        net.run(secs(5));
        net.crash(3);
        net.run(secs(15));
        (net.log(), net.messages)
    };
    assert_eq!(run(42), run(42));
    assert_ne!(run(42), run(43));
}

#[test]
fn an_idle_cluster_declares_nobody_down_in_five_minutes() {
    let mut net = Net::joined(12, 6);
    net.run(secs(3));
    let before = net.messages;
    net.run(secs(300));
    println!("{:.1} messages per node and second idle", (net.messages - before) as f64 / 12.0 / 300.0);
    assert_eq!(downs(&net), Vec::<String>::new());
    assert!(net.all_alive());
}
