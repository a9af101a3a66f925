//! Limits of requests: how often each client may come, and how many calls may be under way.
//!
//! | file | what it holds |
//! |---|---|
//! | `budgets` | the budgets of classes and rules, as the configuration sets them |
//! | `budget` | a token bucket (GCRA, by `governor`) for each client |
//! | `keys` | what is remembered of clients, and its bound |
//! | `calls` | calls under way, and streams that watch health: of a client, and in all |
//! | `count` | how many there are of something |
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
mod budgets;
mod calls;
mod count;
mod failures;
mod keys;
#[cfg(test)]
mod tests;

pub use calls::{Calls, Slot, Weight};
pub use failures::Failures;

use crate::{
    auth::Caller,
    config::{Config, LimitRule},
    error::{Fault, Reason},
    telemetry::Metrics,
};
use arc_swap::ArcSwap;
use budget::{Budget, Ledger};
use budgets::Budgets;
use governor::clock::{Clock, MonotonicClock};
use http::Request;
use keys::Keys;
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

/// The limits of one node.
pub struct Limits<C: Clock = MonotonicClock> {
    budgets: ArcSwap<Budgets<C>>,
    ledger: Ledger<C>,
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
        let keys = metrics.register(|registry| {
            registry.register("rate_limited_requests", "Requests refused by a rate limit", refused.clone());
            Keys::register(registry)
        });
        let ledger = Ledger::new(keys, clock.clone());
        let limits = Self {
            budgets: ArcSwap::from_pointee(Budgets::default()),
            ledger,
            calls: metrics.register(Calls::register),
            failures: Failures::new(metrics, clock),
            refused,
        };
        limits.reconfigure(config);
        limits
    }

    /// Takes over the limits of `config`. A budget whose limit has not changed goes on as it is.
    pub fn reconfigure(&self, config: &Config) {
        let budgets = self.budgets.load().with(config, &self.ledger);
        self.budgets.store(Arc::new(budgets));
        self.calls.limit_to(config.calls_max, config.calls_per_client_max);
        self.failures.limit_to(config.authentication_failures_max);
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
        match self.budgets.load().has_rules() {
            false => Ok(()),
            true => self.charge_client(None, path, caller, &Client::of(caller)),
        }
    }

    fn charge_client(
        &self,
        class: Option<RateClass>,
        path: &str,
        caller: &Caller,
        client: &Client,
    ) -> Result<(), Fault> {
        let budgets = self.budgets.load();
        if !budgets.enabled || is_exempt(caller) {
            return Ok(());
        }
        match (budgets.own.iter().find(|rule| rule.means(path, caller)), class) {
            (Some(rule), _) => {
                self.take(rule.budget.as_deref(), Some(client), OVERRIDE, || rule_message(&rule.rule))?;
            }
            (None, Some(class)) => {
                let class = match budgets.class(class) {
                    Some(_) => class,
                    None => class.of_caller(caller),
                };
                let budget = budgets.class(class).map(Arc::as_ref);
                self.take(budget, Some(client), class.word(), || class_message(class))?;
            }
            (None, None) => {}
        }
        for rule in budgets.shared.iter().filter(|rule| rule.means(path, caller)) {
            self.take(rule.budget.as_deref(), None, SHARED, || rule_message(&rule.rule))?;
        }
        Ok(())
    }

    /// Charges `client`, or all together.
    fn take(
        &self,
        budget: Option<&Budget<C>>,
        client: Option<&Client>,
        class: &'static str,
        message: impl FnOnce() -> (String, String),
    ) -> Result<(), Fault> {
        let Some(budget) = budget else { return Ok(()) };
        let Err(pause) = budget.take(client, &self.ledger) else { return Ok(()) };
        self.refused.get_or_create(&Labels { class }).inc();
        let (what, key) = message();
        Err(limited(&format!("{what} reached"), &key, pause))
    }

    /// Forgets clients whose budget is full again. Call it about once a minute. Other tasks of the thread get their turn
    /// in between.
    pub async fn evict_idle(&self) {
        for () in self.forget() {
            tokio::task::yield_now().await;
        }
    }

    fn forget(&self) -> impl Iterator<Item = ()> {
        self.ledger.forget_full().chain(self.failures.forget_past())
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
