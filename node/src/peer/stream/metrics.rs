//! What is counted of peer streams.

use crate::telemetry::Metrics;
use p2p_proto::v1::PeerRefusalReason;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
};

/// How a call goes to another node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// As frames of the peer stream.
    Stream,
    /// As an HTTP/2 stream of its own.
    Passthrough,
}

/// Why a unary call is passed through although there is a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Excess {
    /// Its body is too large.
    Body,
    /// Its headers are.
    Headers,
    /// As many calls are in flight as the peer takes.
    Calls,
    /// As many bytes wait as may.
    Bytes,
    /// The stream is closing.
    Closing,
    /// The peer has refused it, for this reason.
    Refused(PeerRefusalReason),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WayLabels {
    way: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    reason: &'static str,
}

#[derive(Debug)]
pub(super) struct StreamMetrics {
    pub(super) open: Gauge,
    by_stream: Counter,
    passed_through: Counter,
    excess: Family<ReasonLabels, Counter>,
    refused: Family<ReasonLabels, Counter>,
    faults: Family<ReasonLabels, Counter>,
}

impl StreamMetrics {
    pub(super) fn register(metrics: &Metrics) -> Self {
        let ways = Family::<WayLabels, Counter>::default();
        let of = |way| ways.get_or_create_owned(&WayLabels { way });
        let (by_stream, passed_through) = (of("stream"), of("passthrough"));
        let (open, excess, refused, faults) =
            (Gauge::default(), Family::default(), Family::default(), Family::default());
        metrics.register(|registry| {
            registry.register("peer_calls", "Calls sent to other nodes, by way", ways.clone());
            registry.register("peer_streams", "Peer streams that are open, of both sides", open.clone());
            registry.register(
                "peer_stream_excess",
                "Unary calls that an open peer stream did not take, so that they were passed through",
                excess.clone(),
            );
            registry.register(
                "peer_stream_refusals",
                "Calls on peer streams that this node refused unprocessed",
                refused.clone(),
            );
            registry.register(
                "peer_stream_faults",
                "Peer streams that did not open, or ended before their calls",
                faults.clone(),
            );
        });
        Self { open, by_stream, passed_through, excess, refused, faults }
    }

    pub(super) fn sent(&self, way: Way) {
        match way {
            Way::Stream => self.by_stream.inc(),
            Way::Passthrough => self.passed_through.inc(),
        };
    }

    pub(super) fn excess(&self, why: Excess) {
        let reason = match why {
            Excess::Body => "body",
            Excess::Headers => "headers",
            Excess::Calls => "calls",
            Excess::Bytes => "bytes",
            Excess::Closing => "closing",
            Excess::Refused(reason) => word(reason),
        };
        self.excess.get_or_create(&ReasonLabels { reason }).inc();
    }

    pub(super) fn refused(&self, reason: PeerRefusalReason) {
        self.refused.get_or_create(&ReasonLabels { reason: word(reason) }).inc();
    }

    pub(super) fn fault(&self, reason: &'static str) {
        self.faults.get_or_create(&ReasonLabels { reason }).inc();
    }
}

fn word(reason: PeerRefusalReason) -> &'static str {
    match reason {
        PeerRefusalReason::Unspecified => "other",
        PeerRefusalReason::Busy => "busy",
        PeerRefusalReason::Stopping => "stopping",
    }
}
