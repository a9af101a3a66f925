//! What is counted of peer streams.

use super::link::Fault;
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
        let open = Gauge::default();
        let refusals = REFUSALS.map(word);
        let excess = by_reason(EXCESS.into_iter().chain(refusals));
        let refused = by_reason(refusals);
        let faults = by_reason(Fault::WORDS.into_iter().chain([TOO_MANY]));
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
        let reason = why.word();
        self.excess.get_or_create(&ReasonLabels { reason }).inc();
    }

    pub(super) fn refused(&self, reason: PeerRefusalReason) {
        self.refused.get_or_create(&ReasonLabels { reason: word(reason) }).inc();
    }

    pub(super) fn fault(&self, reason: &'static str) {
        self.faults.get_or_create(&ReasonLabels { reason }).inc();
    }
}

/// Every reason to refuse a call on a stream.
const REFUSALS: [PeerRefusalReason; 3] =
    [PeerRefusalReason::Unspecified, PeerRefusalReason::Busy, PeerRefusalReason::Stopping];
/// The words of the reasons for excess that are this side's own.
const EXCESS: [&str; 5] = ["body", "headers", "calls", "bytes", "closing"];
/// The reason of a stream that a peer opens beyond those that it may have.
pub(super) const TOO_MANY: &str = "too_many";

impl Excess {
    fn word(self) -> &'static str {
        match self {
            Self::Body => "body",
            Self::Headers => "headers",
            Self::Calls => "calls",
            Self::Bytes => "bytes",
            Self::Closing => "closing",
            Self::Refused(reason) => word(reason),
        }
    }
}

/// A family with each of its series at zero.
fn by_reason(reasons: impl IntoIterator<Item = &'static str>) -> Family<ReasonLabels, Counter> {
    let family = Family::default();
    for reason in reasons {
        drop(family.get_or_create(&ReasonLabels { reason }));
    }
    family
}

fn word(reason: PeerRefusalReason) -> &'static str {
    match reason {
        PeerRefusalReason::Unspecified => "other",
        PeerRefusalReason::Busy => "busy",
        PeerRefusalReason::Stopping => "stopping",
    }
}
