//! Rate limits: a token bucket (GCRA, by `governor`) for each client and class.
//!
//! `tower_governor` gives the key extraction. The answers are ours, made from governor's state: its own truncate
//! `Retry-After` to 0 and cannot speak gRPC. The limiter is governor's own, too, on the system's monotonic clock: the one that
//! `tower_governor` builds reads the processor's counter, whose calibration takes a quarter of a node's start.

use crate::{
    auth::Caller,
    config::Config,
    error::{Fault, Reason},
    telemetry::Metrics,
};
use governor::{
    Quota, RateLimiter,
    clock::{Clock as _, MonotonicClock},
    middleware::NoOpMiddleware,
    state::keyed::DashMapStateStore,
};
use http::Request;
use p2p_core::{Principal, SpiffeId, Subject};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
};
use std::{
    net::{IpAddr, Ipv6Addr},
    num::NonZeroU32,
    sync::Arc,
    time::{Duration, Instant},
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
    /// Somebody at an address.
    Address(IpAddr),
}

impl Client {
    /// The client that `caller` counts as.
    pub fn of(caller: &Caller) -> Self {
        match &caller.principal {
            Principal::Certificate(id) => Self::Principal(id.clone()),
            Principal::Token(holder) => Self::Subject(holder.subject.clone()),
            Principal::Anonymous => Self::Address(match caller.connection.address.to_canonical() {
                IpAddr::V4(address) => IpAddr::V4(address),
                IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64))),
            }),
        }
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

type Limiter = RateLimiter<Client, DashMapStateStore<Client>, MonotonicClock, NoOpMiddleware<Instant>>;

/// The limits of one node.
pub struct Limits {
    classes: [Option<Limiter>; RateClass::ALL.len()],
    refused: Family<Labels, Counter>,
}

impl std::fmt::Debug for Limits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Limits")
    }
}

impl Limits {
    /// The limits that `config` sets.
    pub fn new(config: &Config, metrics: &Metrics) -> Self {
        let refused = Family::<Labels, Counter>::default();
        for class in RateClass::ALL {
            drop(refused.get_or_create(&Labels { class: class.word() }));
        }
        metrics.register(|registry| {
            registry.register("rate_limited_requests", "Requests refused by a rate limit", refused.clone());
        });
        let classes = RateClass::ALL.map(|class| {
            let (per_minute, burst) = settings(config, class);
            limiter(per_minute, burst).filter(|_| config.rate_limit_enabled)
        });
        Self { classes, refused }
    }

    /// Charges one request of `class`. Nodes of the cluster are exempt: what they forward was charged where
    /// it entered.
    pub fn charge<T>(&self, class: RateClass, request: &Request<T>) -> Result<(), Fault> {
        let client = ByClient.extract(request).map_err(Fault::internal)?;
        let caller = request.extensions().get::<Arc<Caller>>();
        match caller.is_some_and(|caller| is_exempt(caller)) {
            true => Ok(()),
            false => self.take(class, &client),
        }
    }

    /// Charges `caller` for one more.
    pub fn charge_caller(&self, class: RateClass, caller: &Caller) -> Result<(), Fault> {
        match is_exempt(caller) {
            true => Ok(()),
            false => self.take(class, &Client::of(caller)),
        }
    }

    fn take(&self, class: RateClass, client: &Client) -> Result<(), Fault> {
        let Some(limiter) = &self.classes[class as usize] else { return Ok(()) };
        let Err(denied) = limiter.check_key(client) else { return Ok(()) };
        self.refused.get_or_create(&Labels { class: class.word() }).inc();
        let pause = denied.wait_time_from(MonotonicClock.now());
        let mut fault = Fault::new(
            Reason::RateLimited,
            format!(
                "rate limit of class {} reached; retry in {:.1} s (rate_limit_{}_requests sets it)",
                class.word(),
                pause.as_secs_f64(),
                class.word()
            ),
        );
        fault.retry_after = Some(pause);
        Err(fault)
    }

    /// Forgets clients whose budget is full again. Call it about once a minute.
    pub fn evict_idle(&self) {
        for limiter in self.classes.iter().flatten() {
            limiter.retain_recent();
            limiter.shrink_to_fit();
        }
    }
}

/// Whether `caller` is a node of the cluster, which has charged for what it forwards.
fn is_exempt(caller: &Caller) -> bool {
    caller.connection.principal.node().is_some()
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

/// A bucket of `burst` that refills at `per_minute`; none if that is 0.
fn limiter(per_minute: u32, burst: u32) -> Option<Limiter> {
    let period = Duration::from_secs(60).checked_div(per_minute)?;
    let burst = NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN);
    let quota = Quota::with_period(period)?.allow_burst(burst);
    Some(RateLimiter::new(quota, DashMapStateStore::default(), MonotonicClock))
}
