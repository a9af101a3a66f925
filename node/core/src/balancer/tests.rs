use super::*;
use crate::Moment;
use proptest::prelude::*;
use rand::{SeedableRng as _, rngs::StdRng};
use std::collections::BTreeSet;

const FREE: Gate = Gate::Free;

fn seconds(seconds: f64) -> Moment {
    Moment::at(Duration::from_secs_f64(seconds))
}

fn milliseconds(count: u64) -> Duration {
    Duration::from_millis(count)
}

fn shut(left: u64) -> Gate {
    Gate::Shut { left: Duration::from_secs(left) }
}

/// How often each is chosen in a thousand choices.
fn chosen(all: &[(f64, Gate)], near: usize, tried: &[usize]) -> Vec<usize> {
    let mut rng = StdRng::seed_from_u64(7);
    let mut counts = vec![0; all.len()];
    for _ in 0..1000 {
        let look = |index: usize| Candidate { cost: all[index].0, gate: all[index].1 };
        if let Some(index) = (Providers { count: all.len(), near, tried }).choose(look, &mut rng) {
            counts[index] += 1;
        }
    }
    counts
}

#[test]
fn the_costliest_of_several_is_never_chosen_over_another_and_equals_share() {
    let counts = chosen(&[(3.0, FREE), (900.0, FREE), (3.0, FREE), (3.0, FREE)], 0, &[]);
    assert_eq!(counts[1], 0);
    assert!(counts.iter().filter(|&&count| count > 250).count() == 3, "{counts:?}");
    assert_eq!(chosen(&[(7.0, FREE)], 0, &[]), [1000]);
    assert_eq!(chosen(&[(7.0, FREE)], 0, &[0]), [0]);
    assert!(chosen(&[], 0, &[]).is_empty());
}

#[test]
fn near_ones_come_first_while_one_of_them_may_be_tried() {
    let (busy, idle) = ((900.0, FREE), (1.0, FREE));
    let counts = chosen(&[busy, busy, idle, idle], 2, &[]);
    assert_eq!(counts[2] + counts[3], 0);
    assert_eq!(chosen(&[busy, busy, idle], 2, &[0, 1]), [0, 0, 1000]);
    assert_eq!(chosen(&[(1.0, shut(5)), idle, idle, idle], 1, &[])[0], 0);
}

#[test]
fn who_is_ejected_is_passed_over_unless_that_were_more_than_half() {
    let ejected = |left| (1.0, shut(left));
    assert_eq!(chosen(&[ejected(5), (9.0, FREE), (9.0, FREE)], 0, &[])[0], 0);
    // Two of three: the one that is ejected for the shortest time yet is tried.
    let counts = chosen(&[ejected(5), ejected(3), (9.0, FREE)], 0, &[]);
    assert_eq!((counts[0], counts[1]), (0, 1000));
    // The only one is better than none, and so is the last that is left.
    assert_eq!(chosen(&[ejected(60)], 0, &[]), [1000]);
    assert_eq!(chosen(&[ejected(60), (1.0, FREE)], 0, &[1]), [1000, 0]);
}

#[test]
fn who_is_due_for_a_trial_gets_one_call_at_a_time() {
    let mut circuit = Circuit::default();
    for _ in 0..5 {
        circuit.ended(seconds(1.0), false, Outcome::Failed);
    }
    assert_eq!(circuit.state(seconds(2.0)), CircuitState::Open { left: Duration::from_secs(4) });
    let now = seconds(6.0);
    assert_eq!((circuit.gate(now), circuit.state(now)), (Gate::Trial, CircuitState::HalfOpen));
    // Wherever it is met it comes first, however much it costs.
    let counts = chosen(&[(900.0, circuit.gate(now)), (1.0, FREE)], 0, &[]);
    assert_eq!(counts, [1000, 0]);
    assert!(circuit.begin(now));
    assert_eq!(circuit.gate(now), Gate::Shut { left: Duration::ZERO });
    // A trial that hangs holds nobody back for long.
    let later = now + Duration::from_secs(10);
    assert_eq!(circuit.gate(later), Gate::Trial);
    assert!(circuit.begin(later));
    assert_eq!(circuit.gate(later), Gate::Shut { left: Duration::ZERO });
    circuit.ended(later, true, Outcome::Unknown);
    let now = later;
    // A caller that turns away has tried nothing.
    circuit.ended(now, true, Outcome::Unknown);
    assert_eq!(circuit.gate(now), Gate::Trial);
    assert!(circuit.begin(now));
    circuit.ended(now, true, Outcome::Answered);
    assert_eq!((circuit.gate(now), circuit.state(now)), (FREE, CircuitState::Closed));
}

#[test]
fn who_keeps_failing_is_ejected_for_twice_as_long_each_time_and_forgiven_after_a_minute() {
    let mut circuit = Circuit::default();
    let mut now = seconds(100.0);
    for _ in 0..4 {
        assert!(!circuit.ended(now, false, Outcome::Failed));
    }
    assert!(circuit.ended(now, false, Outcome::Failed));
    // What was begun before says nothing new.
    assert!(!circuit.ended(now, false, Outcome::Failed));
    for pause in [5, 10, 20, 40, 60, 60] {
        assert_eq!(circuit.state(now), CircuitState::Open { left: Duration::from_secs(pause) });
        now = now + Duration::from_secs(pause);
        assert!(circuit.begin(now));
        assert!(circuit.ended(now, true, Outcome::Failed));
    }
    now = now + Duration::from_secs(60);
    assert!(circuit.begin(now));
    assert!(!circuit.ended(now, true, Outcome::Answered));
    let fails = |circuit: &Circuit, at: Moment| {
        let mut circuit = circuit.clone();
        for _ in 0..5 {
            circuit.ended(at, false, Outcome::Failed);
        }
        circuit.state(at)
    };
    let soon = fails(&circuit, now + Duration::from_secs(59));
    let later = fails(&circuit, now + Duration::from_secs(61));
    assert_eq!(soon, CircuitState::Open { left: Duration::from_secs(60) });
    assert_eq!(later, CircuitState::Open { left: Duration::from_secs(5) });
}

#[test]
fn half_of_enough_calls_within_the_window_eject_and_fewer_do_not() {
    let run = |every: u32, calls: u32, apart: f64| {
        let mut circuit = Circuit::default();
        (1..=calls).any(|call| {
            let outcome = if call.is_multiple_of(every) { Outcome::Failed } else { Outcome::Answered };
            circuit.ended(seconds(f64::from(call) * apart), false, outcome)
        })
    };
    assert!(run(2, 20, 0.01));
    assert!(!run(2, 19, 0.01), "too few to say");
    assert!(!run(3, 1000, 0.01), "a third");
    assert!(!run(2, 1000, 1.0), "ten within ten seconds");
}

#[test]
fn a_peak_counts_at_once_and_is_forgotten_with_time() {
    let mut latency = Latency::default();
    latency.observe(seconds(1.0), milliseconds(10));
    latency.observe(seconds(1.1), milliseconds(400));
    let average = |latency: &Latency, at: f64| latency.average(seconds(at)).expect("known").as_secs_f64();
    assert!((average(&latency, 1.1) - 0.4).abs() < 1e-9);
    // Fast answers bring it down only as fast as time does.
    for _ in 0..1000 {
        latency.observe(seconds(1.1), milliseconds(10));
    }
    assert!(average(&latency, 1.1) > 0.39);
    latency.observe(seconds(11.1), milliseconds(10));
    let after = average(&latency, 11.1);
    assert!((after - (0.01 + 0.39 / std::f64::consts::E)).abs() < 1e-6, "{after}");
    assert_eq!(latency.average(seconds(72.0)), None, "too old to say anything");
    // Whoever gives up has waited at least so long.
    latency.gave_up(seconds(11.1), milliseconds(5));
    assert!((average(&latency, 11.1) - after).abs() < 1e-9);
    latency.gave_up(seconds(11.1), milliseconds(700));
    assert!((average(&latency, 11.1) - 0.7).abs() < 1e-9);
    // Also where nothing is known: impatient callers would go there again and again.
    let mut silent = Latency::default();
    silent.gave_up(seconds(1.0), milliseconds(500));
    assert!((average(&silent, 1.0) - 1.0).abs() < 1e-9);
}

#[test]
fn an_unknown_provider_is_tried_first_but_not_flooded_and_a_failing_one_is_spared_for_seconds() {
    let (unknown, mut known) = (Latency::default(), Latency::default());
    known.observe(seconds(1.0), milliseconds(1));
    let cost = |latency: &Latency, at: f64, in_flight| latency.cost(seconds(at), in_flight);
    assert!(cost(&unknown, 1.0, 0) < cost(&known, 1.0, 0));
    assert!(cost(&unknown, 1.0, 1) > cost(&known, 1.0, 100));

    let mut failed = known.clone();
    failed.failed(seconds(1.0));
    assert!(cost(&failed, 1.0, 0) > cost(&known, 1.0, 500));
    assert!(cost(&failed, 4.0, 0) > cost(&known, 4.0, 10));
    assert!(cost(&failed, 9.0, 0) < cost(&known, 9.0, 1));
}

fn gate() -> impl Strategy<Value = Gate> {
    prop_oneof![3 => Just(Gate::Free), 1 => Just(Gate::Trial), 2 => (0_u64..60).prop_map(shut)]
}

proptest! {
    #[test]
    fn a_choice_is_untried_and_passes_over_at_most_half_of_all_for_their_circuits(
        all in proptest::collection::vec((0_u32..4, gate()), 1..9),
        near in 0_usize..9,
        tried in proptest::collection::vec(0_usize..9, 0..4),
        seed in any::<u64>(),
    ) {
        let tried: Vec<usize> = tried.into_iter().filter(|index| *index < all.len()).collect();
        let providers = Providers { count: all.len(), near, tried: &tried };
        let look = |index: usize| Candidate { cost: f64::from(all[index].0), gate: all[index].1 };
        let untried: BTreeSet<usize> = (0..all.len()).filter(|index| !tried.contains(index)).collect();
        let is_shut = |index: &usize| matches!(all[*index].1, Gate::Shut { .. });
        let Some(index) = providers.choose(look, &mut StdRng::seed_from_u64(seed)) else {
            prop_assert!(untried.is_empty());
            return Ok(());
        };
        prop_assert!(untried.contains(&index));
        let ejected = (0..all.len()).filter(is_shut).count();
        let others = untried.iter().any(|index| !is_shut(index));
        // Shut ones are chosen only where too many are, or nobody else is left.
        prop_assert!(!is_shut(&index) || ejected > all.len() / 2 || !others);
        // A far one is chosen only where no near one may be tried.
        let near_open = untried.iter().any(|index| *index < near && !is_shut(index));
        prop_assert!(!(near_open && index >= near));
    }

    #[test]
    fn a_circuit_always_heals_and_never_shuts_for_more_than_a_minute(
        events in proptest::collection::vec((0_u64..8_000, 0_u8..3), 1..300),
    ) {
        let (mut circuit, mut now) = (Circuit::default(), Moment::default());
        for (pause, event) in events {
            now = now + milliseconds(pause);
            if let CircuitState::Open { left } = circuit.state(now) {
                prop_assert!(left <= Duration::from_secs(60));
                continue;
            }
            let trial = circuit.gate(now) == Gate::Trial;
            prop_assert_eq!(circuit.begin(now), trial, "one at a time, and only while it is not closed");
            let outcome = [Outcome::Answered, Outcome::Failed, Outcome::Unknown][usize::from(event)];
            let ejected = circuit.ended(now, trial, outcome);
            prop_assert!(!ejected || outcome == Outcome::Failed);
            prop_assert_eq!(ejected, matches!(circuit.state(now), CircuitState::Open { .. }));
        }
        now = now + Duration::from_secs(60);
        let trial = circuit.begin(now);
        circuit.ended(now, trial, Outcome::Answered);
        prop_assert_eq!(circuit.gate(now), Gate::Free);
    }
}
