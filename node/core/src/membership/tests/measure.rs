//! How fast failures are noticed, and how often the living are taken for dead. Not a test: it prints a table.
//!
//! `cargo test -p p2p-core --release -- --ignored --nocapture failure_detection_in_figures`

use super::{
    super::Liveness,
    crowd::{Crowd, Weather},
    secs,
};
use std::{collections::BTreeSet, time::Duration};

const CALM: Weather = Weather { loss: 0.0, refuses: false, slow: 0 };

struct Detection {
    suspect_median: f64,
    first: f64,
    median: f64,
    all: f64,
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// One crash among `count`: when the others knew of it.
fn crash(count: usize, seed: u64, weather: Weather) -> Detection {
    let mut crowd = Crowd::of(count, seed, weather);
    crowd.run(Duration::from_millis(seed * 137 % 2_000));
    let (crashed, victim) = (crowd.now, count / 2);
    crowd.crash(victim);
    let all_know =
        |crowd: &Crowd| (0..count).all(|by| by == victim || crowd.sees(by, victim) == Some(Liveness::Down));
    while !all_know(&crowd) && crowd.now.since(crashed) < secs(60) {
        crowd.run(Duration::from_millis(100));
    }
    let times = |to: Liveness| {
        let mut first = vec![f64::INFINITY; count];
        for change in crowd.changes.iter().filter(|change| change.of == victim && change.to == to) {
            first[change.by] = first[change.by].min(change.at.since(crashed).as_secs_f64());
        }
        first.remove(victim);
        first
    };
    let suspect_median = median(&mut times(Liveness::Suspect));
    let mut down = times(Liveness::Down);
    let median = median(&mut down);
    Detection { suspect_median, first: down[0], median, all: down[down.len() - 1] }
}

fn crashes(count: usize, seeds: u64, weather: Weather) {
    let runs: Vec<Detection> = (0..seeds).map(|seed| crash(count, seed, weather)).collect();
    let of = |get: fn(&Detection) -> f64| {
        let mut values: Vec<f64> = runs.iter().map(get).collect();
        let middle = median(&mut values);
        (middle, values[values.len() - 1])
    };
    let (suspect, first, middle, all) =
        (of(|run| run.suspect_median), of(|run| run.first), of(|run| run.median), of(|run| run.all));
    println!(
        "crash  n={count:<4} loss={:>2.0}% {:<10} suspect median {:>5.2} | down first {:>5.2} median {:>5.2} all {:>5.2} (worst of {seeds}: {:>5.2}) s",
        weather.loss * 100.0,
        if weather.refuses { "refused" } else { "unanswered" },
        suspect.0,
        first.0,
        middle.0,
        all.0,
        all.1,
    );
}

/// Nobody crashes for ten minutes: who is suspected and taken for dead all the same.
fn peace(count: usize, seed: u64, weather: Weather) {
    let mut crowd = Crowd::of(count, seed, weather);
    let before = crowd.packets;
    crowd.run(secs(600));
    let events = |to: Liveness, of_slow: bool| {
        let changes = crowd.changes.iter().filter(|change| change.to == to);
        let mut of: Vec<(usize, u64)> = changes
            .filter(|change| (change.of >= count - weather.slow) == of_slow)
            .map(|change| (change.of, change.at.elapsed().as_secs() / 20))
            .collect();
        of.sort_unstable();
        of.dedup();
        of.len()
    };
    println!(
        "10 min n={count:<4} loss={:>2.0}% slow={:<3} healthy: suspected {:>4} down {:>3} | slow: suspected {:>4} down {:>3} | {:>5.1} packets/s per node",
        weather.loss * 100.0,
        weather.slow,
        events(Liveness::Suspect, false),
        events(Liveness::Down, false),
        events(Liveness::Suspect, true),
        events(Liveness::Down, true),
        (crowd.packets - before) as f64 / 600.0 / count as f64,
    );
}

/// A node that lives refuses others, every 20 s for ten minutes: how often it goes down all the same.
fn refusals(count: usize, accusers: usize, weather: Weather) {
    let mut crowd = Crowd::of(count, 7, weather);
    for _ in 0..30 {
        crowd.refuse(count / 2, accusers);
        crowd.run(secs(20));
    }
    let downs: BTreeSet<u64> = crowd
        .changes
        .iter()
        .filter(|change| change.to == Liveness::Down)
        .map(|change| change.at.elapsed().as_secs() / 20)
        .collect();
    println!(
        "30 times a living node refuses {accusers:>3} others, n={count:<4} loss={:>2.0}%: down {} times",
        weather.loss * 100.0,
        downs.len(),
    );
}

#[test]
#[ignore = "takes minutes; it measures"]
fn failure_detection_in_figures() {
    for count in [16, 64, 128_usize] {
        for loss in [0.0, 0.01, 0.05] {
            for refuses in [true, false] {
                crashes(count, 9, Weather { loss, refuses, ..CALM });
            }
        }
        for accusers in [4, count - 1] {
            refusals(count, accusers, Weather { loss: 0.05, ..CALM });
        }
        let slow = count.div_ceil(100);
        for (loss, slow) in [(0.0, 0), (0.01, 0), (0.05, 0), (0.0, slow), (0.01, slow)] {
            peace(count, 1, Weather { loss, slow, ..CALM });
        }
    }
}

#[test]
#[ignore = "takes minutes; it measures"]
fn failure_detection_at_a_thousand_nodes() {
    for refuses in [true, false] {
        crashes(1_000, 3, Weather { loss: 0.01, refuses, ..CALM });
    }
}
