//! Limits of requests: how often each client may come, and how many calls may be under way.
//!
//! | file | what it holds |
//! |---|---|
//! | `budget` | a token bucket (GCRA, by `governor`) for each client |
//! | `keys` | what is remembered of clients, and its bound |
//! | `calls` | calls under way: of a client, and in all |
//! | `failures` | how often an address may show evidence that does not hold |
//!
//! ```text
//! a request → the first rule of `rate_limit_overrides` that means it, else its class → shared rules that mean it
//! ```
//!
//! A client's own budget is charged before any that it shares, so that nobody uses up alone what is there for all.
//!
//! `tower_governor` gives the key extraction. The answers are ours, made from governor's state: its own truncate
//! `Retry-After` to 0 and cannot speak gRPC. The limiter is governor's own, too, on the system's monotonic clock: the one that
//! `tower_governor` builds reads the processor's counter, whose calibration takes a quarter of a node's start.

mod budget;
mod calls;
mod failures;
mod keys;
#[cfg(test)]
mod tests;

pub use calls::{Calls, Slot, Weight};
pub use failures::Failures;

use crate::{
    auth::{Caller, policy},
    config::{Config, LimitRule},
    error::{Fault, Reason},
    telemetry::Metrics,
};
use budget::Budget;
use governor::clock::{Clock, MonotonicClock};
use http::Request;
use keys::{KeyMaker, Keys, SharedKeys};
use p2p_core::{Principal, SpiffeId, Subject};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
};
use std::{
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
    time::Duration,
};
use tower_governor::{GovernorError, key_extractor::KeyExtractor};

/// Class of rate limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RateClass {
    /// Generic calls: POST /rpc and RpcService.
    Rpc,
    /// Health checks.
    Health,
    /// Metrics.
    Metrics,
    /// Methods outside `p2p.v1`.
    Grpc,
    /// Everything else.
    Default,
}

impl RateClass {
    /// All classes.
    pub const ALL: [Self; 5] = [Self::Rpc, Self::Health, Self::Metrics, Self::Grpc, Self::Default];

    /// The class whose limit holds for `caller`: who proves nothing is not let in without one.
    fn of_caller(self, caller: &Caller) -> Self {
        match (self, &caller.principal) {
            (Self::Grpc, Principal::Anonymous) => Self::Default,
            (Self::Rpc | Self::Health | Self::Metrics | Self::Grpc | Self::Default, _) => self,
        }
    }

    /// The word in configuration keys, metrics and output.
    pub fn word(self) -> &'static str {
        match self {
            Self::Rpc => "rpc",
            Self::Health => "health",
            Self::Metrics => "metrics",
            Self::Grpc => "grpc",
            Self::Default => "default",
        }
    }
}

/// Whose budget a request is charged to: the principal, else the address. An IPv6 client holds at least a
/// /64 and is counted by it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Client {
    /// The holder of a certificate.
    Principal(SpiffeId),
    /// The holder of access tokens.
    Subject(Subject),
    /// A user of this host.
    User(u32),
    /// Somebody at an address.
    Address(IpAddr),
}

impl Client {
    /// The client that `caller` counts as.
    pub fn of(caller: &Caller) -> Self {
        match &caller.principal {
            Principal::Certificate(id) => Self::Principal(id.clone()),
            Principal::Token(holder) => Self::Subject(holder.subject.clone()),
            Principal::Anonymous => match caller.user() {
                Some(user) => Self::User(user.uid),
                None => Self::Address(client_address(caller.address)),
            },
        }
    }
}

/// An address as clients are told apart by it: of IPv6 the first 64 bits.
pub fn client_address(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64))),
    }
}

/// Takes the client from the [`Caller`] that authentication left in the request.
#[derive(Clone, Copy, Debug)]
pub struct ByClient;

impl KeyExtractor for ByClient {
    type Key = Client;

    fn extract<T>(&self, request: &Request<T>) -> Result<Client, GovernorError> {
        let caller = request.extensions().get::<Arc<Caller>>().ok_or(GovernorError::UnableToExtractKey)?;
        Ok(Client::of(caller))
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    class: &'static str,
}

/// What refusals by a rule of `rate_limit_overrides` are counted as.
const OVERRIDE: &str = "override";
/// The same for a budget that several clients share.
const SHARED: &str = "shared";

/// What a key is made of: the budget's number, and whose it is.
#[derive(Hash)]
enum Owner<'a> {
    Class(RateClass, &'a Client),
    Rule(usize, &'a Client),
    Shared(usize),
}

struct Rule<C: Clock> {
    rule: LimitRule,
    budget: Option<Budget<C>>,
}

impl<C: Clock> Rule<C> {
    /// Whether it means a call of the method `path` by `caller`.
    fn means(&self, path: &str, caller: &Caller) -> bool {
        let method = self.rule.methods.as_ref().is_none_or(|methods| methods.matches(path));
        let clients = &self.rule.clients;
        // How far a token reaches is for the policy to say; here it only tells who calls.
        method
            && (clients.is_empty()
                || clients.iter().any(|who| policy::admits(who, &caller.principal, true, caller.user())))
    }
}

/// The limits of one node.
pub struct Limits<C: Clock = MonotonicClock> {
    enabled: bool,
    classes: [Option<Budget<C>>; RateClass::ALL.len()],
    /// With their numbers in the configuration.
    own: Vec<(usize, Rule<C>)>,
    shared: Vec<(usize, Rule<C>)>,
    keys: KeyMaker,
    calls: Arc<Calls>,
    failures: Failures<C>,
    refused: Family<Labels, Counter>,
}

impl<C: Clock> std::fmt::Debug for Limits<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Limits")
    }
}

impl Limits {
    /// The limits that `config` sets.
    pub fn new(config: &Config, metrics: &Metrics) -> Self {
        Self::with_clock(config, metrics, MonotonicClock)
    }
}

impl<C: Clock + Clone> Limits<C> {
    fn with_clock(config: &Config, metrics: &Metrics, clock: C) -> Self {
        let refused = Family::<Labels, Counter>::default();
        for class in RateClass::ALL.map(RateClass::word).into_iter().chain([OVERRIDE, SHARED]) {
            drop(refused.get_or_create(&Labels { class }));
        }
        let store = metrics.register(|registry| {
            registry.register("rate_limited_requests", "Requests refused by a rate limit", refused.clone());
            SharedKeys(Arc::new(Keys::register(registry)))
        });
        let classes = RateClass::ALL.map(|class| {
            let (per_minute, burst) = settings(config, class);
            Budget::new(per_minute, burst, &store, &clock)
        });
        let rules = config.rate_limit_overrides.0.iter().enumerate().map(|(number, rule)| {
            let budget = Budget::new(rule.requests, rule.burst.get(), &store, &clock);
            (number, Rule { rule: rule.clone(), budget })
        });
        let (shared, own) = rules.partition(|(_, rule)| rule.rule.shared);
        let (all, client) = (config.calls_max.get() as usize, config.calls_per_client_max.get() as usize);
        Self {
            enabled: config.rate_limit_enabled,
            classes,
            own,
            shared,
            keys: KeyMaker::default(),
            calls: metrics.register(|registry| Calls::register(all, client, registry)),
            failures: Failures::new(config.authentication_failures_max, metrics, clock),
            refused,
        }
    }

    /// Calls under way.
    pub fn calls(&self) -> &Arc<Calls> {
        &self.calls
    }

    /// Evidence that did not hold.
    pub fn failures(&self) -> &Failures<C> {
        &self.failures
    }

    /// Charges one request of `class` for the method `path`, which is empty where the method is not known. Nodes of the
    /// cluster are exempt: what they forward was charged where it entered.
    ///
    /// # Errors
    ///
    /// [`Reason::RateLimited`], with the exact pause.
    pub fn charge<T>(&self, class: RateClass, path: &str, request: &Request<T>) -> Result<(), Fault> {
        let client = ByClient.extract(request).map_err(Fault::internal)?;
        match request.extensions().get::<Arc<Caller>>() {
            Some(caller) => self.charge_client(Some(class), path, caller, &client),
            None => Err(Fault::internal("a request without its caller reached the rate limit")),
        }
    }

    /// Charges `caller` for one more call, of a batch.
    ///
    /// # Errors
    ///
    /// [`Reason::RateLimited`].
    pub fn charge_caller(&self, class: RateClass, path: &str, caller: &Caller) -> Result<(), Fault> {
        self.charge_client(Some(class), path, caller, &Client::of(caller))
    }

    /// Charges `caller` for the method `path` that a generic call makes, by the rules that mean it: the generic call was
    /// charged for as such.
    ///
    /// # Errors
    ///
    /// [`Reason::RateLimited`].
    pub fn charge_target(&self, path: &str, caller: &Caller) -> Result<(), Fault> {
        match self.own.is_empty() && self.shared.is_empty() {
            true => Ok(()),
            false => self.charge_client(None, path, caller, &Client::of(caller)),
        }
    }

    fn charge_client(
        &self,
        class: Option<RateClass>,
        path: &str,
        caller: &Caller,
        client: &Client,
    ) -> Result<(), Fault> {
        if !self.enabled || is_exempt(caller) {
            return Ok(());
        }
        match (self.own.iter().find(|(_, rule)| rule.means(path, caller)), class) {
            (Some((number, rule)), _) => {
                let owner = Owner::Rule(*number, client);
                self.take(rule.budget.as_ref(), owner, OVERRIDE, || rule_message(&rule.rule))?;
            }
            (None, Some(class)) => {
                let class = match &self.classes[class as usize] {
                    Some(_) => class,
                    None => class.of_caller(caller),
                };
                let owner = Owner::Class(class, client);
                self.take(self.classes[class as usize].as_ref(), owner, class.word(), || {
                    class_message(class)
                })?;
            }
            (None, None) => {}
        }
        for (number, rule) in self.shared.iter().filter(|(_, rule)| rule.means(path, caller)) {
            self.take(rule.budget.as_ref(), Owner::Shared(*number), SHARED, || rule_message(&rule.rule))?;
        }
        Ok(())
    }

    fn take(
        &self,
        budget: Option<&Budget<C>>,
        owner: Owner<'_>,
        class: &'static str,
        message: impl FnOnce() -> (String, String),
    ) -> Result<(), Fault> {
        let Some(budget) = budget else { return Ok(()) };
        let Err(pause) = budget.take(&self.keys.key(owner)) else { return Ok(()) };
        self.refused.get_or_create(&Labels { class }).inc();
        let (what, key) = message();
        Err(limited(&format!("{what} reached"), &key, pause))
    }

    /// Forgets clients whose budget is full again. Call it about once a minute.
    pub fn evict_idle(&self) {
        let budgets = self.classes.iter().flatten();
        let rules = self.own.iter().chain(&self.shared).filter_map(|(_, rule)| rule.budget.as_ref());
        // They share what is remembered.
        if let Some(any) = budgets.chain(rules).next() {
            any.forget_full();
        }
        self.failures.forget_past();
    }
}

/// Whether `caller` is a node of the cluster, which has charged for what it forwards.
fn is_exempt(caller: &Caller) -> bool {
    caller.connection.peer().is_some()
}

fn limited(what: &str, key: &str, pause: Duration) -> Fault {
    let message = format!("{what}; retry in {:.1} s ({key} sets it)", pause.as_secs_f64());
    let mut fault = Fault::new(Reason::RateLimited, message);
    fault.retry_after = Some(pause);
    fault
}

/// What is limited, and the key that says so.
fn class_message(class: RateClass) -> (String, String) {
    let word = class.word();
    (format!("rate limit of class {word}"), format!("rate_limit_{word}_requests"))
}

fn rule_message(rule: &LimitRule) -> (String, String) {
    let whose = if rule.shared { ", which its callers share," } else { "" };
    (format!("rate limit of {rule}{whose}"), "rate_limit_overrides".to_owned())
}

/// Requests a minute and burst of a class.
fn settings(config: &Config, class: RateClass) -> (u32, u32) {
    match class {
        RateClass::Rpc => (config.rate_limit_rpc_requests, config.rate_limit_rpc_burst),
        RateClass::Health => (config.rate_limit_health_requests, config.rate_limit_health_burst),
        RateClass::Metrics => (config.rate_limit_metrics_requests, config.rate_limit_metrics_burst),
        RateClass::Grpc => (config.rate_limit_grpc_requests, config.rate_limit_grpc_burst),
        RateClass::Default => (config.rate_limit_default_requests, config.rate_limit_default_burst),
    }
}
