//! What is counted of upstreams. Services are those of this node, reasons a closed set.

use super::{channel::DialError, problem::Problem};
use p2p_core::ServiceName;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ServiceLabels {
    service: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct FailureLabels {
    service: String,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ReasonLabels {
    reason: &'static str,
}

/// What becomes of a call, beside the words of [`DialError`].
const CALL_FAILURES: [&str; 5] = ["busy", "closed", "lost", "not_grpc", "no_status"];

/// All upstreams of a node.
#[derive(Clone, Debug, Default)]
pub(super) struct UpstreamMetrics {
    calls: Family<FailureLabels, Counter>,
    checks: Family<FailureLabels, Counter>,
    refused: Family<ReasonLabels, Counter>,
    in_flight: Family<ServiceLabels, Gauge>,
    healthy: Family<ServiceLabels, Gauge>,
}

impl UpstreamMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        for reason in problems() {
            drop(metrics.refused.get_or_create(&ReasonLabels { reason }));
        }
        registry.register(
            "upstream_call_failures",
            "Calls that an upstream did not answer as gRPC, by service and reason",
            metrics.calls.clone(),
        );
        registry.register(
            "upstream_check_failures",
            "Looks at an upstream (its methods, its health) that failed, by service and reason",
            metrics.checks.clone(),
        );
        registry.register(
            "upstream_registrations_refused",
            "Registrations of services that failed at the process, by reason",
            metrics.refused.clone(),
        );
        registry.register(
            "upstream_calls_in_flight",
            "Calls that an upstream has not answered to the end",
            metrics.in_flight.clone(),
        );
        registry.register(
            "upstream_healthy",
            "Whether an upstream passes its health check and its methods are known",
            metrics.healthy.clone(),
        );
        metrics
    }

    /// A service that this node has from now on: each of its series is there before it is needed.
    pub(super) fn begin(&self, service: &ServiceName, healthy: bool) {
        let labels = |reason| FailureLabels { service: service.to_string(), reason };
        for reason in CALL_FAILURES.into_iter().chain(DialError::WORDS) {
            drop(self.calls.get_or_create(&labels(reason)));
        }
        for reason in problems() {
            drop(self.checks.get_or_create(&labels(reason)));
        }
        drop(self.in_flight.get_or_create(&service_labels(service)));
        self.set_healthy(service, healthy);
    }

    /// A call that failed.
    pub(super) fn call_failed(&self, service: &ServiceName, reason: &'static str) {
        self.calls.get_or_create(&FailureLabels { service: service.to_string(), reason }).inc();
    }

    /// A look that failed.
    pub(super) fn check_failed(&self, service: &ServiceName, reason: &'static str) {
        self.checks.get_or_create(&FailureLabels { service: service.to_string(), reason }).inc();
    }

    /// A registration that failed. Without the name, which anybody may have misspelt.
    pub(super) fn refused(&self, reason: &'static str) {
        self.refused.get_or_create(&ReasonLabels { reason }).inc();
    }

    /// The gauge of a service's calls in flight.
    pub(super) fn in_flight(&self, service: &ServiceName) -> Gauge {
        self.in_flight.get_or_create_owned(&service_labels(service))
    }

    /// Whether it is healthy.
    pub(super) fn set_healthy(&self, service: &ServiceName, healthy: bool) {
        self.healthy.get_or_create(&service_labels(service)).set(healthy.into());
    }

    /// Forgets the gauges of a service that is deregistered. Counters stay, as counters do.
    pub(super) fn forget(&self, service: &ServiceName) {
        self.healthy.remove(&service_labels(service));
        self.in_flight.remove(&service_labels(service));
    }
}

/// Why an upstream was not asked with success.
fn problems() -> impl Iterator<Item = &'static str> {
    // A dial may time out, too.
    Problem::WORDS.into_iter().chain(DialError::WORDS)
}

fn service_labels(service: &ServiceName) -> ServiceLabels {
    ServiceLabels { service: service.to_string() }
}
