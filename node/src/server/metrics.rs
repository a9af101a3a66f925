//! What connections count.

use super::{ServerLimits, accept::HEADERS_MAX};
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
const REASONS: [&str; 13] = [
    "accept",
    "limit",
    "address_limit",
    "opening_limit",
    "blocked",
    "timeout",
    "preface",
    "plain_http",
    "garbage",
    "handshake",
    "certificate",
    "evicted",
    "io",
];
/// Every reason to end an open connection.
const ENDS: [&str; 3] = ["room", "resets", "idle"];

#[derive(Clone, Debug, Default)]
pub(super) struct ConnectionMetrics {
    pub(super) open: Gauge,
    pub(super) opening: Gauge,
    ended: Family<Labels, Counter>,
    refused: Family<Labels, Counter>,
    limits: [Gauge; 4],
}

impl ConnectionMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        for reason in REASONS {
            drop(metrics.refused.get_or_create(&Labels { reason }));
        }
        for reason in ENDS {
            drop(metrics.ended.get_or_create(&Labels { reason }));
        }
        registry.register("connections", "Open connections to this node", metrics.open.clone());
        registry.register(
            "connections_opening",
            "Open connections that have not got as far as HTTP",
            metrics.opening.clone(),
        );
        registry.register(
            "connections_ended",
            "Connections ended that their clients would have kept: idle for long, to make room, or for calls taken back",
            metrics.ended.clone(),
        );
        let limits = [
            ("connections_limit", "Most open connections (connections_max)"),
            ("connections_per_address_limit", "The same of one address (connections_per_address_max)"),
            (
                "connections_opening_limit",
                "The same of those that have not got as far as HTTP (handshakes_max)",
            ),
            ("connection_streams_limit", "Most calls of one connection (streams_per_connection_max)"),
        ];
        for (gauge, (name, help)) in metrics.limits.iter().zip(limits) {
            registry.register(name, help, gauge.clone());
        }
        let headers = Gauge::<i64>::default();
        headers.set(HEADERS_MAX.into());
        registry.register("request_headers_limit_bytes", "Largest head of a request", headers);
        registry.register(
            "connections_refused",
            "Connections refused before their first request, by reason",
            metrics.refused.clone(),
        );
        metrics
    }

    pub(super) fn show_limits(&self, limits: &ServerLimits) {
        let counts = [limits.connections, limits.per_address, limits.opening];
        let counts = counts.map(|count| i64::try_from(count).unwrap_or(i64::MAX));
        for (gauge, value) in self.limits.iter().zip(counts.into_iter().chain([limits.streams.into()])) {
            gauge.set(value);
        }
    }

    pub(super) fn ended(&self, reason: &'static str) {
        self.ended.get_or_create(&Labels { reason }).inc();
    }

    pub(super) fn refused(&self, reason: &'static str) {
        self.refused.get_or_create(&Labels { reason }).inc();
    }
}
