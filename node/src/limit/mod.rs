//! Rate limits: a token bucket (GCRA, by `governor`) for each client and class.
//!
//! `tower_governor` gives the key extraction and the limiter; the answers are ours, made from the same
//! governor state, because its own truncate `Retry-After` to 0 and cannot speak gRPC. Its `per_second(n)`
//! means one request each n seconds, so the period is set directly.

use crate::{
    auth::Caller,
    config::Config,
    error::{Fault, Reason},
    telemetry::Metrics,
};
use governor::{
    clock::{Clock as _, DefaultClock},
    middleware::NoOpMiddleware,
};
use http::Request;
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
use tower_governor::{
    GovernorError,
    governor::{GovernorConfig, GovernorConfigBuilder},
    key_extractor::KeyExtractor,
};

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

/// The limits of one node.
pub struct Limits {
    classes: [Option<GovernorConfig<ByClient, NoOpMiddleware>>; RateClass::ALL.len()],
    clock: DefaultClock,
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
        Self { classes, clock: DefaultClock::default(), refused }
    }

    /// Charges one request of `class`. Nodes of the cluster are exempt: what they forward was charged where
    /// it entered.
    pub fn charge<T>(&self, class: RateClass, request: &Request<T>) -> Result<(), Fault> {
        let caller = request.extensions().get::<Arc<Caller>>();
        let caller =
            caller.ok_or_else(|| Fault::internal("a request without its caller is to be charged"))?;
        self.charge_caller(class, caller)
    }

    /// Charges `caller` for one more.
    pub fn charge_caller(&self, class: RateClass, caller: &Caller) -> Result<(), Fault> {
        let Some(config) = &self.classes[class as usize] else { return Ok(()) };
        if caller.connection.principal.node().is_some() {
            return Ok(());
        }
        let key = Client::of(caller);
        let Err(denied) = config.limiter().check_key(&key) else { return Ok(()) };
        self.refused.get_or_create(&Labels { class: class.word() }).inc();
        let pause = denied.wait_time_from(self.clock.now());
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
        for config in self.classes.iter().flatten() {
            config.limiter().retain_recent();
            config.limiter().shrink_to_fit();
        }
    }
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
fn limiter(per_minute: u32, burst: u32) -> Option<GovernorConfig<ByClient, NoOpMiddleware>> {
    if per_minute == 0 {
        return None;
    }
    GovernorConfigBuilder::default()
        .period(Duration::from_secs(60) / per_minute)
        .burst_size(burst.max(1))
        .key_extractor(ByClient)
        .finish()
}
