//! What the router counts.

use super::retry::Why;
use crate::registry::Registry;
use p2p_core::balancer::CircuitState;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _},
    metrics::{counter::Counter, family::Family, gauge::ConstGauge},
};
use std::sync::Arc;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabels {
    route: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RetryLabels {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CircuitLabels {
    state: &'static str,
}

/// Counters of a router, looked up once and not for each call.
#[derive(Debug)]
pub(super) struct RouterMetrics {
    pub(super) served_here: Counter,
    pub(super) forwarded: Counter,
    retries: [Counter; Why::ALL.len()],
    /// Calls that were not made again because the budget was spent.
    pub(super) denied: Counter,
}

impl RouterMetrics {
    pub(super) fn new(registry: &Arc<Registry>, metrics: &crate::telemetry::Metrics) -> Self {
        let (routed, retries) =
            (Family::<RouteLabels, Counter>::default(), Family::<RetryLabels, Counter>::default());
        let denied = Counter::default();
        metrics.register(|metrics| {
            metrics.register("routed_calls", "Calls by where they were served", routed.clone());
            metrics.register("retries", "Calls made again, by why the try before failed", retries.clone());
            metrics.register(
                "retries_denied",
                "Calls that were not made again because too many were (20 % of calls within 10 s)",
                denied.clone(),
            );
            metrics.register_collector(Box::new(Circuits(registry.clone())));
        });
        let of = |route| routed.get_or_create_owned(&RouteLabels { route });
        Self {
            served_here: of("local"),
            forwarded: of("forwarded"),
            retries: Why::ALL.map(|why| retries.get_or_create_owned(&RetryLabels { reason: why.word() })),
            denied,
        }
    }

    pub(super) fn retried(&self, why: Why) {
        if let Some(place) = Why::ALL.iter().position(|known| *known == why) {
            self.retries[place].inc();
        }
    }
}

/// Providers by the state of their circuits, counted when somebody asks: circuits change with time alone.
#[derive(Debug)]
struct Circuits(Arc<Registry>);

impl Collector for Circuits {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let (mut closed, mut open, mut half_open) = (0, 0, 0);
        for provider in self.0.table().services.values().flat_map(|nodes| nodes.values()) {
            match provider.snapshot().circuit {
                CircuitState::Closed => closed += 1,
                CircuitState::Open { .. } => open += 1,
                CircuitState::HalfOpen => half_open += 1,
            }
        }
        let help = "Providers of services at other nodes by the state of their circuit.";
        let kind = prometheus_client::metrics::MetricType::Gauge;
        let mut family = encoder.encode_descriptor("circuits", help, None, kind)?;
        for (state, count) in [("closed", closed), ("open", open), ("half_open", half_open)] {
            let labels = CircuitLabels { state };
            ConstGauge::<i64>::new(count).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}
