//! What connections count.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    reason: &'static str,
}

/// Every reason, so that each series is there before it is needed.
const REASONS: [&str; 9] =
    ["accept", "limit", "timeout", "preface", "plain_http", "garbage", "handshake", "certificate", "io"];

#[derive(Clone, Debug, Default)]
pub(super) struct ConnectionMetrics {
    pub(super) open: Gauge,
    refused: Family<Labels, Counter>,
}

impl ConnectionMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        for reason in REASONS {
            drop(metrics.refused.get_or_create(&Labels { reason }));
        }
        registry.register("connections", "Open connections to this node", metrics.open.clone());
        registry.register(
            "connections_refused",
            "Connections refused before their first request, by reason",
            metrics.refused.clone(),
        );
        metrics
    }

    pub(super) fn refused(&self, reason: &'static str) {
        self.refused.get_or_create(&Labels { reason }).inc();
    }
}
