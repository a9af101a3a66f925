//! Random faults, then peace: whatever happened, all agree in the end.

use crate::{converges, links::Weather, secs, tail::Happening, world::World};
use p2p_core::Moment;
use rand::{RngExt as _, seq::IndexedRandom as _};
use std::{
    ops::Range,
    time::{Duration, Instant},
};

#[derive(Clone, Copy, Debug)]
enum Fault {
    Crash { refuses: bool },
    Restart,
    Split,
    Heal,
    Stall,
    Clock,
    Weather,
    Publish,
    Start,
}

/// Two virtual minutes of faults upon `count` nodes, then calm weather.
fn chaos(seed: u64, count: usize) -> World {
    use Fault::{Clock, Crash, Heal, Publish, Restart, Split, Stall, Start, Weather as Change};
    const FAULTS: [Fault; 12] = [
        Crash { refuses: true },
        Crash { refuses: false },
        Restart,
        Restart,
        Split,
        Heal,
        Stall,
        Clock,
        Change,
        Publish,
        Publish,
        Start,
    ];
    let mut world = World::of(count, seed);
    let (end, limit) = (Moment::at(secs(120)), 2 * count);
    let mut version = 0;
    while world.now < end {
        let pause = Duration::from_millis(world.rng().random_range(50..6000));
        let before = world.epochs();
        world.run(pause);
        nothing_goes_back(&before, &world);
        let count = world.processes.len();
        let index = world.rng().random_range(0..count);
        let fault = *FAULTS.choose(world.rng()).expect("some");
        world.note(Happening::Act(format!("fault: {fault:?} at n{index}")));
        match fault {
            // One seed remains, as in any cluster that means to find itself again.
            Crash { refuses } if index != 0 && world.processes[index].running => world.crash(index, refuses),
            Restart if !world.processes[index].running => world.restart(index),
            Split => {
                for index in 0..world.processes.len() {
                    world.processes[index].island = world.rng().random_range(0..2);
                }
            }
            Heal => heal(&mut world),
            Stall => {
                let pause = Duration::from_millis(world.rng().random_range(500..8000));
                world.processes[index].stalled = world.now + pause;
            }
            Clock => world.processes[index].clock = world.rng().random_range(-120_000..120_000),
            Change => {
                let bad = world.rng().random_bool(0.5);
                world.links.weather = match bad {
                    true => Weather { loss: 0.1, reset: 0.01, drop: 0.05, double: 0.02, swap: 0.02 },
                    false => Weather { loss: 0.01, ..Weather::default() },
                };
            }
            Publish if world.processes[index].running => {
                version += 1;
                world.publish(index, version);
            }
            Start if world.processes.len() < limit => drop(world.start_new()),
            Crash { .. } | Restart | Publish | Start => {}
        }
    }
    heal(&mut world);
    world.links.weather = Weather::default();
    world
}

fn heal(world: &mut World) {
    for process in &mut world.processes {
        process.island = 0;
    }
}

/// No process shows an earlier start of a node than it has shown before, unless it was itself started anew.
fn nothing_goes_back(
    before: &[std::collections::BTreeMap<p2p_core::NodeId, p2p_core::Epoch>],
    world: &World,
) {
    for (earlier, later) in before.iter().zip(world.epochs()) {
        for (node, epoch) in earlier {
            assert!(later.get(node).is_none_or(|now| now >= epoch), "{node} went back from {epoch}");
        }
    }
}

fn survives(seed: u64, count: usize) -> Duration {
    let mut world = chaos(seed, count);
    let took = converges(&mut world, secs(180));
    // And stays so.
    world.run(secs(30));
    world.agrees().expect("it lasts");
    took
}

#[test]
fn all_agree_after_any_faults() {
    for seed in 0..24 {
        survives(seed, 3 + seed as usize % 10);
    }
}

/// `FIRST..END` of an environment variable.
fn range(name: &str, default: &str) -> Range<u64> {
    let text = std::env::var(name).unwrap_or_else(|_| default.to_owned());
    let bounds =
        text.split_once("..").and_then(|(first, end)| Some((first.parse().ok()?, end.parse().ok()?)));
    let (first, end) = bounds.unwrap_or_else(|| panic!("{name} is FIRST..END, two numbers; not {text:?}"));
    first..end
}

/// `SIM_SEEDS` (0..1000), each at a number of nodes within `SIM_NODES` (3..65). Runs them all, names those that failed, and
/// then fails itself.
#[test]
#[ignore = "long: run it in a release build"]
fn campaign() {
    let (seeds, sizes) = (range("SIM_SEEDS", "0..1000"), range("SIM_NODES", "3..65"));
    let (started, all) = (Instant::now(), seeds.clone().count());
    let (mut longest, mut failed) = ((Duration::ZERO, 0), Vec::new());
    let (mut shown, span) = (Instant::now(), (sizes.end - sizes.start).max(1));
    for (done, seed) in (1..).zip(seeds.clone()) {
        let count = (sizes.start + seed % span) as usize;
        match std::panic::catch_unwind(|| survives(seed, count)) {
            Ok(took) => longest = longest.max((took, seed)),
            Err(_) => {
                println!(
                    "seed {seed} at {count} nodes FAILED; again: SIM_SEEDS={seed}..{} with the same sizes",
                    seed + 1
                );
                failed.push(seed);
            }
        }
        if shown.elapsed() >= secs(10) || done == all {
            shown = Instant::now();
            let (elapsed, left) = (started.elapsed(), (all - done) as u32);
            let still = elapsed / done as u32 * left;
            println!(
                "{done} of {all} seeds, {} failed; {:.0} s so far, about {:.0} s to go",
                failed.len(),
                elapsed.as_secs_f64(),
                still.as_secs_f64()
            );
        }
    }
    println!(
        "seeds {seeds:?} at {sizes:?} nodes: {} held, {} failed; the longest way to agreement took {:?} (seed {})",
        all - failed.len(),
        failed.len(),
        longest.0,
        longest.1
    );
    assert!(failed.is_empty(), "seeds {failed:?} failed");
}
