//! Clusters of engines, foca included, in virtual time: invariants under faults, and figures.
//!
//! ```sh
//! cargo test -p p2p-core --test sim                                        # what CI runs
//! scripts/simulate.sh                                                      # long campaigns, figures, speed
//! ```
//!
//! A run that fails prints its seed and its last events; the same seed fails in the same way again.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::print_stdout,
    clippy::print_stderr,
    unreachable_pub,
    reason = "a test that prints figures of small numbers"
)]

mod chaos;
mod figures;
mod keyring;
mod links;
mod queue;
mod tail;
mod view;
mod world;

use links::Weather;
use p2p_proto::v1::MemberState;
use std::time::Duration;
use world::World;

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

const TICK: Duration = Duration::from_millis(20);

/// Waits until all agree, or panics with what is missing.
fn converges(world: &mut World, limit: Duration) -> Duration {
    let mut last = String::new();
    let took = world.until(limit, secs(1), |world| match world.agrees() {
        Ok(()) => true,
        Err(error) => {
            last = error;
            false
        }
    });
    took.unwrap_or_else(|| panic!("no agreement within {limit:?}: {last}"))
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = |seed| {
        let mut world = World::of(12, seed);
        world.links.weather = Weather { loss: 0.05, reset: 0.005, drop: 0.01, double: 0.01, swap: 0.01 };
        world.run(secs(20));
        world.crash(3, true);
        world.run(secs(20));
        world.restart(3);
        world.run(secs(20));
        (world.fingerprint(), world.traffic().bytes)
    };
    assert_eq!(run(7), run(7));
    assert_ne!(run(7), run(8));
}

fn join_and_notice_a_crash(count: usize) {
    let mut world = World::of(count, 1);
    world.links.weather.loss = 0.01;
    let joined = world.until(secs(60), secs(1), |world| (0..count).all(|index| world.alive(index) == count));
    println!("{count} nodes at 1 % loss: all see all after {:?}", joined.expect("all join"));
    converges(&mut world, secs(30));
    world.crash(count / 2, false);
    let seen = world.until(secs(30), TICK, |world| world.seen(count / 2, MemberState::Down) == count - 1);
    println!("a host that falls silent: down everywhere after {:?}", seen.expect("noticed"));
    assert_eq!(world.tally.false_downs, 0);
}

#[test]
fn hundreds_of_nodes_join_and_notice_a_crash() {
    join_and_notice_a_crash(400);
}

#[test]
#[ignore = "two minutes: run it in a release build"]
fn a_thousand_nodes_join_and_notice_a_crash() {
    join_and_notice_a_crash(1000);
}
