//! Figures of clusters of any size, as lines of CSV: what the plots of ARCHITECTURE.md are made of.

use crate::{TICK, secs, world::World};
use p2p_proto::v1::MemberState;
use std::time::{Duration, Instant};

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn millis(time: Option<Duration>) -> f64 {
    time.map_or(f64::NAN, |time| time.as_secs_f64() * 1e3)
}

/// `SIM_SIZES` (16,64,128,256,512,1000) at `SIM_LOSS` (0.01).
#[test]
#[ignore = "long: run it in a release build"]
fn figures() {
    let sizes = std::env::var("SIM_SIZES").unwrap_or_else(|_| "16,64,128,256,512,1000".to_owned());
    let loss: f64 = std::env::var("SIM_LOSS").ok().and_then(|text| text.parse().ok()).unwrap_or(0.01);
    println!("{COLUMNS}");
    for size in sizes.split(',').map(|text| text.parse::<usize>().expect("a number")) {
        figures_of(size, loss);
    }
}

/// What the simulator itself costs: 1,000 nodes that join at once, over ten minutes.
#[test]
#[ignore = "a minute in a release build"]
fn speed() {
    let (size, started) = (1000, Instant::now());
    let mut world = World::of(size, 1);
    world.links.weather.loss = 0.01;
    world.run(secs(600));
    let wall = started.elapsed();
    world.agrees().expect("ten minutes are enough");
    println!(
        "{size} nodes, {:?} of virtual time, {:.1} s of real time",
        world.now.elapsed(),
        wall.as_secs_f64()
    );
}

/// Peak memory of this process, MiB; none where the system does not tell.
fn peak_mib() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<f64>().ok()? / 1024.0)
}

const COLUMNS: &str = "nodes,loss,join_ms,join_bytes_per_node,idle_bytes_per_node_s,idle_frames_per_node_s,change_999_ms,\
    change_all_ms,killed_down_all_ms,silent_down_all_ms,false_downs_600_s,slow_false_downs_600_s,wall_s,peak_mib";

fn figures_of(size: usize, loss: f64) {
    let (wall, mut world) = (Instant::now(), World::of(size, 1));
    world.links.weather.loss = loss;
    let join = world.until(secs(180), TICK, |world| (0..size).all(|index| world.alive(index) == size));
    let join_bytes = world.traffic().bytes as f64 / size as f64;
    world.run(secs(60));
    let (before, downs) = (world.traffic(), world.tally.false_downs);
    world.run(secs(600));
    let after = world.traffic();
    let per_node = |before: u64, after: u64| (after - before) as f64 / 600.0 / size as f64;
    let (bytes, frames) = (per_node(before.bytes, after.bytes), per_node(before.frames, after.frames));
    let false_downs = world.tally.false_downs - downs;
    let slow = slow_nodes(&mut world, size);
    let changes: Vec<(f64, f64)> = (1..=9).map(|version| change(&mut world, size, version)).collect();
    let most = median(changes.iter().map(|(most, _)| *most).collect());
    let all = median(changes.iter().map(|(_, all)| *all).collect());
    let mut kills = |refuses, first: usize| {
        median((0..5).map(|number| kill(&mut world, (first + 2 * number) * size / 11, refuses)).collect())
    };
    let (killed, silent) = (kills(true, 1), kills(false, 2));
    println!(
        "{size},{loss},{:.0},{join_bytes:.0},{bytes:.1},{frames:.2},{most:.0},{all:.0},{killed:.0},{silent:.0},{false_downs},\
         {slow},{:.1},{:.0}",
        millis(join),
        wall.elapsed().as_secs_f64(),
        peak_mib().unwrap_or(f64::NAN),
    );
}

/// False downs in ten minutes in which one node in a hundred does nothing for two of every four seconds.
fn slow_nodes(world: &mut World, size: usize) -> u64 {
    let before = world.tally.false_downs;
    for _ in 0..150 {
        for index in (size / 2..size).step_by(100).take(size.div_ceil(100)) {
            world.processes[index].stalled = world.now + secs(2);
        }
        world.run(secs(4));
    }
    world.tally.false_downs - before
}

/// How long a change takes to reach 99.9 %, and all, ms.
fn change(world: &mut World, size: usize, version: u64) -> (f64, f64) {
    let owner = (version as usize * 7) % size;
    world.publish(owner, version);
    let node = world.processes[owner].node.clone();
    let wanted = version.to_string();
    let have = |world: &World| {
        world.running().filter(|(_, p)| p.engine.members()[&node].records.node.version == wanted).count()
    };
    let (count, started) = (world.running_count(), world.now);
    let step = Duration::from_millis(5);
    world.until(secs(60), step, |world| have(world) * 1000 >= count * 999);
    let most = world.now.since(started);
    world.until(secs(60), step, |world| have(world) == count);
    let all = world.now.since(started);
    world.run(secs(2));
    (millis(Some(most)), millis(Some(all)))
}

/// How long until all show a node as down whose host falls silent, ms.
fn kill(world: &mut World, victim: usize, refuses: bool) -> f64 {
    world.crash(victim, refuses);
    let others = world.running_count();
    let took = world.until(secs(60), TICK, |world| world.seen(victim, MemberState::Down) == others);
    world.run(secs(5));
    millis(took)
}
