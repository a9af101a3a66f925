use super::{keys::KEYS_MAX, *};
use crate::config::Config;
use governor::clock::FakeRelativeClock;
use p2p_core::TokenHolder;
use std::time::Instant;

const GREET: &str = "demo.Greeter/Hi";

struct Gate {
    clock: FakeRelativeClock,
    limits: Limits<FakeRelativeClock>,
    metrics: Metrics,
}

impl Gate {
    fn new(yaml: &str) -> Self {
        let config = Config::from_yaml(&format!("node_id: a\n{yaml}"), "test").expect("valid");
        let (clock, metrics) = (FakeRelativeClock::default(), Metrics::default());
        let limits = Limits::with_clock(&config, &metrics, clock.clone());
        Self { clock, limits, metrics }
    }

    fn reload(&self, yaml: &str) {
        let config = Config::from_yaml(&format!("node_id: a\n{yaml}"), "test").expect("valid");
        self.limits.reconfigure(&config);
    }

    fn forget(&self) {
        self.limits.forget().for_each(drop);
    }

    fn ask(&self, class: RateClass, path: &str, caller: &Caller) -> Result<(), Fault> {
        self.limits.charge_caller(class, path, caller)
    }

    /// How many of `tries` calls at once get through.
    fn pass(&self, class: RateClass, path: &str, caller: &Caller, tries: u32) -> u32 {
        (0..tries).map(|_| u32::from(self.ask(class, path, caller).is_ok())).sum()
    }

    fn sample(&self, name: &str) -> Option<f64> {
        let text = self.metrics.encode(crate::telemetry::Format::Prometheus).expect("text");
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|value| value.parse().ok())
    }
}

fn certificate(id: &str) -> Caller {
    Caller::of(Principal::Certificate(id.parse().expect("an id")), [192, 0, 2, 1].into())
}

fn subject(name: &str) -> Caller {
    let holder = TokenHolder { subject: name.parse().expect("a subject"), jti: "1".into() };
    Caller::of(Principal::Token(holder), [192, 0, 2, 1].into())
}

fn stranger(address: &str) -> Caller {
    Caller::of(Principal::Anonymous, address.parse().expect("an address"))
}

#[test]
fn the_first_minute_of_100_with_a_burst_of_20_lets_120_through_and_not_121() {
    let gate = Gate::new("");
    let client = certificate("spiffe://c/admin/alice");
    let mut passed = 0;
    for _millisecond in 0..=60_000 {
        passed += u32::from(gate.ask(RateClass::Rpc, "", &client).is_ok());
        gate.clock.advance(Duration::from_millis(1));
    }
    assert_eq!(passed, 120);
    // Who comes back after a rest finds the burst, and not one more.
    gate.clock.advance(Duration::from_secs(600));
    assert_eq!(gate.pass(RateClass::Rpc, "", &client, 30), 20);
    gate.clock.advance(Duration::from_secs(600));
    gate.forget();
    assert_eq!(gate.pass(RateClass::Rpc, "", &client, 30), 20);
}

#[test]
fn a_refusal_names_the_exact_pause_and_the_key() {
    let gate = Gate::new("");
    let client = stranger("192.0.2.7");
    assert_eq!(gate.pass(RateClass::Rpc, "", &client, 20), 20);
    gate.clock.advance(Duration::from_millis(2));
    let fault = gate.ask(RateClass::Rpc, "", &client).expect_err("refused");
    assert_eq!(fault.retry_after, Some(Duration::from_millis(598)));
    assert!(fault.message.contains("rate_limit_rpc_requests"), "{fault}");
    gate.clock.advance(Duration::from_millis(598));
    assert!(gate.ask(RateClass::Rpc, "", &client).is_ok(), "who obeys is let in");
    assert_eq!(gate.sample("p2p_rate_limited_requests_total{class=\"rpc\"}"), Some(1.0));
}

#[test]
fn a_client_is_a_principal_or_a_network_of_64_bits() {
    let gate = Gate::new("");
    assert_eq!(gate.pass(RateClass::Rpc, "", &stranger("2001:db8:1:2::1"), 20), 20);
    assert!(gate.ask(RateClass::Rpc, "", &stranger("2001:db8:1:2:9::9")).is_err(), "the same /64");
    assert!(gate.ask(RateClass::Rpc, "", &stranger("2001:db8:1:3::1")).is_ok());
    assert_eq!(gate.pass(RateClass::Rpc, "", &stranger("192.0.2.1"), 20), 20);
    assert!(gate.ask(RateClass::Rpc, "", &stranger("::ffff:192.0.2.1")).is_err(), "the same address");
    assert!(gate.ask(RateClass::Rpc, "", &subject("ci")).is_ok(), "who proves something has its own budget");
    assert!(gate.ask(RateClass::Health, "", &stranger("192.0.2.1")).is_ok(), "another class, too");
}

#[test]
fn nodes_are_charged_where_a_call_enters_and_services_limit_strangers_only() {
    let gate = Gate::new("");
    assert_eq!(gate.pass(RateClass::Rpc, "", &certificate("spiffe://c/worker/w"), 500), 500);
    assert_eq!(gate.pass(RateClass::Grpc, GREET, &certificate("spiffe://c/admin/a"), 500), 500);
    assert_eq!(gate.pass(RateClass::Grpc, GREET, &stranger("192.0.2.9"), 500), 30, "the default class");
    let gate = Gate::new("rate_limit_grpc_requests: 60\nrate_limit_grpc_burst: 4\n");
    assert_eq!(gate.pass(RateClass::Grpc, GREET, &certificate("spiffe://c/admin/a"), 500), 4);
    let gate = Gate::new("rate_limit_enabled: false\n");
    assert_eq!(gate.pass(RateClass::Rpc, "", &stranger("192.0.2.9"), 500), 500);
}

#[test]
fn the_first_rule_that_means_the_call_stands_in_for_its_class() {
    let gate = Gate::new(
        "rate_limit_overrides:\n\
         - {clients: [ci-bot], requests: 0}\n\
         - {methods: [demo.*], clients: [token], requests: 60, burst: 3}\n\
         - {methods: [demo.Greeter/Hi, p2p.v1.RpcService/Call], requests: 60, burst: 5}\n",
    );
    assert_eq!(gate.pass(RateClass::Rpc, "p2p.v1.RpcService/Call", &subject("ci-bot"), 500), 500);
    assert_eq!(gate.pass(RateClass::Grpc, GREET, &subject("other"), 500), 3);
    assert_eq!(gate.pass(RateClass::Grpc, GREET, &certificate("spiffe://c/admin/a"), 500), 5);
    assert_eq!(gate.pass(RateClass::Rpc, "p2p.v1.RpcService/Call", &subject("other"), 500), 5);
    assert_eq!(
        gate.pass(RateClass::Rpc, "p2p.v1.RpcService/Broadcast", &subject("other"), 500),
        20,
        "its class"
    );
    let fault = gate.ask(RateClass::Grpc, GREET, &subject("other")).expect_err("refused");
    assert!(fault.message.contains("rate_limit_overrides"), "{fault}");
    // A generic call is charged by the rules of what it calls, and not a second time as such.
    let generic = subject("another");
    let passed = (0..500).filter(|_| gate.limits.charge_target(GREET, &generic).is_ok()).count();
    assert_eq!(passed, 3);
    assert_eq!(gate.pass(RateClass::Rpc, "p2p.v1.RpcService/Broadcast", &generic, 500), 20);
}

#[test]
fn a_client_over_its_own_limit_takes_nothing_of_what_all_share() {
    let gate = Gate::new(
        "rate_limit_overrides:\n\
         - {methods: [demo.*], requests: 60, burst: 10, shared: true}\n\
         - {methods: [demo.*], requests: 60, burst: 4}\n",
    );
    assert_eq!(gate.pass(RateClass::Grpc, GREET, &subject("flood"), 500), 4);
    assert_eq!(gate.pass(RateClass::Grpc, GREET, &subject("a"), 4), 4);
    assert_eq!(gate.pass(RateClass::Grpc, GREET, &subject("b"), 4), 2, "ten in all");
    let fault = gate.ask(RateClass::Grpc, GREET, &subject("c")).expect_err("refused");
    assert!(fault.message.contains("share"), "{fault}");
    assert_eq!(gate.sample("p2p_rate_limited_requests_total{class=\"override\"}"), Some(496.0));
    assert_eq!(gate.sample("p2p_rate_limited_requests_total{class=\"shared\"}"), Some(3.0));
}

#[test]
fn clients_are_forgotten_once_their_budget_is_full_and_not_before() {
    let gate = Gate::new("");
    for number in 0..500 {
        gate.ask(RateClass::Rpc, "", &subject(&format!("s{number}"))).expect("its first");
    }
    assert_eq!(gate.pass(RateClass::Rpc, "", &subject("busy"), 20), 20);
    assert_eq!(gate.sample("p2p_rate_limit_keys"), Some(501.0));
    gate.clock.advance(Duration::from_millis(1300));
    gate.forget();
    assert_eq!(gate.sample("p2p_rate_limit_keys"), Some(1.0));
    assert_eq!(gate.pass(RateClass::Rpc, "", &subject("busy"), 20), 2, "what it has used is remembered");
}

#[test]
fn a_pass_is_made_in_steps_and_nobody_waits_for_all_of_it() {
    let gate = Gate::new("");
    for number in 0..500 {
        gate.ask(RateClass::Rpc, "", &subject(&format!("s{number}"))).expect("its first");
    }
    gate.clock.advance(Duration::from_secs(1));
    let mut pass = gate.limits.forget();
    let mut left = 500.0;
    for _ in 0..10 {
        pass.next().expect("a step");
        let now = gate.sample("p2p_rate_limit_keys").expect("a sample");
        assert!(left - now < 50.0, "{left} to {now} in one step");
        left = now;
    }
    assert!(left > 0.0, "there is more to do");
    pass.for_each(drop);
    assert_eq!(gate.sample("p2p_rate_limit_keys"), Some(0.0));
}

#[test]
fn between_passes_the_number_of_clients_is_bounded_and_who_is_limited_stays_so() {
    let clock = FakeRelativeClock::default();
    let ledger = Ledger::new(Keys::with_capacity(64 * 64), clock.clone());
    let budget = Budget::new(100, 20, &ledger).expect("a limit");
    while budget.take("flood", &ledger).is_ok() {}
    for number in 0..100_000 {
        clock.advance(Duration::from_nanos(1));
        budget.take(number, &ledger).expect("its first");
    }
    assert!(ledger.len() <= 64 * 64, "{} keys", ledger.len());
    assert!(budget.take("flood", &ledger).is_err(), "a flood of others does not buy it a new budget");
}

#[test]
fn an_address_that_fails_too_often_is_not_looked_at_for_a_while() {
    let gate = Gate::new("authentication_failures_max: 60\n");
    let (bad, good) = ([192, 0, 2, 66].into(), [192, 0, 2, 1].into());
    let failures = gate.limits.failures();
    for _ in 0..60 {
        failures.note(bad);
    }
    assert!(failures.check(bad).is_ok(), "sixty are within the budget");
    failures.note(bad);
    let fault = failures.check(bad).expect_err("refused");
    assert_eq!((fault.reason, fault.retry_after), (Reason::RateLimited, Some(Duration::from_secs(1))));
    assert!(failures.check(good).is_ok());
    gate.clock.advance(Duration::from_secs(1));
    assert!(failures.check(bad).is_ok(), "its pause is over");
    assert!(!failures.is_watchful());
    assert_eq!(gate.sample("p2p_authentication_blocked_total"), Some(1.0));
}

#[test]
fn a_reload_changes_what_has_changed_and_leaves_what_clients_have_used_of_the_rest() {
    let rules = |stock: u32, shared: u32| {
        format!(
            "rate_limit_overrides:\n\
             - {{methods: [demo.Stock/*], requests: 60, burst: {stock}}}\n\
             - {{methods: [demo.Greeter/*], requests: 60, burst: {shared}, shared: true}}\n"
        )
    };
    let gate = Gate::new(&rules(3, 5));
    let (a, b, stock) = (subject("a"), subject("b"), "demo.Stock/Get");
    assert_eq!(gate.pass(RateClass::Rpc, "", &a, 50), 20);
    assert_eq!(gate.pass(RateClass::Grpc, stock, &a, 9), 3);
    assert_eq!(gate.pass(RateClass::Grpc, GREET, &a, 9), 5);
    gate.clock.advance(Duration::from_millis(100));

    gate.reload(&(rules(3, 8) + "rate_limit_default_burst: 31\n"));
    assert_eq!(gate.pass(RateClass::Rpc, "", &a, 50), 0, "the class is as it was");
    assert_eq!(gate.pass(RateClass::Grpc, stock, &a, 9), 0, "the rule, too");
    assert_eq!(gate.pass(RateClass::Grpc, GREET, &b, 20), 8, "another limit begins anew");
    assert_eq!(gate.pass(RateClass::Default, "", &a, 50), 31);
    // Budgets of several ages are filled and forgotten by one clock.
    gate.clock.advance(Duration::from_millis(950));
    assert_eq!(gate.pass(RateClass::Grpc, GREET, &a, 9), 0, "what is shared fills from its own start");
    gate.clock.advance(Duration::from_millis(50));
    assert_eq!(gate.pass(RateClass::Grpc, GREET, &a, 9), 1);
    assert_eq!(gate.pass(RateClass::Grpc, stock, &a, 9), 1);
    gate.clock.advance(Duration::from_secs(600));
    gate.forget();
    assert_eq!(gate.sample("p2p_rate_limit_keys"), Some(0.0));

    assert_eq!(gate.pass(RateClass::Rpc, "", &a, 20), 20);
    gate.forget();
    assert_eq!(gate.pass(RateClass::Rpc, "", &a, 20), 0, "who has used all is not forgotten");
    gate.reload("rate_limit_enabled: false\n");
    assert_eq!(gate.pass(RateClass::Rpc, "", &a, 500), 500);
    gate.reload("");
    assert_eq!(gate.pass(RateClass::Rpc, "", &a, 500), 0, "off and on again is no way to a new budget");
}

#[test]
fn a_reload_changes_how_many_failures_are_looked_at() {
    let gate = Gate::new("authentication_failures_max: 60\n");
    let (failures, bad) = (gate.limits.failures(), [192, 0, 2, 66].into());
    gate.reload("authentication_failures_max: 2\n");
    for _ in 0..3 {
        failures.note(bad);
    }
    let fault = failures.check(bad).expect_err("refused");
    assert!(fault.message.starts_with("2 failed"), "{fault}");
    assert_eq!(gate.sample("p2p_authentication_failures_limit"), Some(2.0));
    gate.reload("authentication_failures_max: 0\n");
    gate.clock.advance(Duration::from_secs(60));
    for _ in 0..500 {
        failures.note(bad);
    }
    assert!(failures.check(bad).is_ok(), "no limit");
}

/// Prints what a million clients take. Numbers of debug builds say little of the time.
#[test]
#[ignore = "a measurement: cargo test --release -p p2p-node --lib -- --ignored --nocapture a_million"]
#[allow(clippy::print_stdout, reason = "a measurement")]
fn a_million_clients_take_less_than_100_mb_and_a_pass_less_than_20_ms() {
    let resident = || -> usize {
        let pages = std::fs::read_to_string("/proc/self/statm").expect("this is Linux");
        pages.split(' ').nth(1).and_then(|pages| pages.parse().ok()).map_or(0, |pages: usize| pages * 4096)
    };
    let clock = FakeRelativeClock::default();
    let ledger = Ledger::new(Keys::with_capacity(KEYS_MAX * 2), clock.clone());
    let budget = Budget::new(100, 20, &ledger).expect("a limit");
    let (before, started) = (resident(), Instant::now());
    for number in 0..1_000_000 {
        if number == 500_000 {
            clock.advance(Duration::from_millis(400));
        }
        budget.take(number, &ledger).expect("its first");
    }
    let (grown, filled) = (resident() - before, started.elapsed());
    let mut longest = Duration::ZERO;
    for (what, wait, left) in [("none", 0, 1_000_000), ("half", 400, 500_000), ("the rest", 400, 0)] {
        clock.advance(Duration::from_millis(wait));
        let (began, mut pass) = (Instant::now(), Duration::ZERO);
        for () in ledger.forget_full() {
            longest = longest.max(began.elapsed() - pass);
            pass = began.elapsed();
        }
        println!("pass that forgets {what}: {pass:?}");
        assert_eq!(ledger.len(), left, "{what}");
    }
    println!(
        "{} MB, {} ns a call, longest step {longest:?}",
        grown / 1_000_000,
        filled.as_nanos() / 1_000_000
    );
    assert!(grown <= 100_000_000, "{grown} bytes");
    assert!(longest <= Duration::from_millis(20), "{longest:?}");
}
