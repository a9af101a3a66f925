//! What gossip counts.

use super::handle::GossipCost;
use p2p_core::gossip::{Event, View};
use p2p_proto::v1::{GossipFrame, MemberState, gossip_message::Kind};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::{Registry, Unit},
};
use prost::Message as _;
use std::{sync::atomic::AtomicU64, time::Duration};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct FrameLabels {
    pub direction: &'static str,
    pub kind: &'static str,
    pub encoding: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct DirectionLabels {
    pub direction: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct StateLabels {
    pub state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ReasonLabels {
    pub reason: &'static str,
}

#[derive(Clone, Debug, Default)]
pub(super) struct GossipMetrics {
    members: Family<StateLabels, Gauge>,
    transitions: Family<StateLabels, Counter>,
    frames: Family<FrameLabels, Counter>,
    bytes: Family<DirectionLabels, Counter>,
    uncompressed_bytes: Family<DirectionLabels, Counter>,
    interval: Gauge<f64, AtomicU64>,
    load: Gauge<f64, AtomicU64>,
    pub(super) dropped: Counter,
    pub(super) slowed: Counter,
    pub(super) links: Gauge,
    refused: Family<ReasonLabels, Counter>,
    renewals: Counter,
    conflicts: Counter,
}

const STATES: [MemberState; 4] =
    [MemberState::Alive, MemberState::Suspect, MemberState::Down, MemberState::Left];

/// Every label value, so that each series is there before it is needed.
const KINDS: [&str; 10] = [
    "hello",
    "membership",
    "states",
    "digest",
    "states_request",
    "revocations",
    "revocation_positions",
    "trust_bundle",
    "accusation",
    "member_list",
];
const ENCODINGS: [&str; 2] = [PLAIN, LZ4];
const PLAIN: &str = "plain";
const LZ4: &str = "lz4";
const REFUSALS: [&str; 22] = [
    "hello",
    "frame",
    "flood",
    "stalled",
    "malformed",
    "envelope",
    "bomb",
    "length",
    "lz4",
    "not_granted",
    "cluster",
    "owner",
    "untrusted",
    "records",
    "too_large",
    "epoch_ahead",
    "role",
    "full",
    "evicted",
    "signer",
    "ahead",
    "trust_bundle",
];

/// How large a frame is, and would be without compression.
#[derive(Debug)]
pub(super) struct FrameSize {
    wire: usize,
    plain: usize,
    encoding: &'static str,
}

impl FrameSize {
    /// Of a received one only once it was opened: before, it may claim anything.
    pub(super) fn of(frame: &GossipFrame) -> Self {
        let wire = frame.encoded_len();
        if frame.lz4.is_empty() {
            return Self { wire, plain: wire, encoding: PLAIN };
        }
        let message = frame.uncompressed_length as usize;
        // One byte for the key of the field.
        let plain = 1 + prost::length_delimiter_len(message) + message;
        Self { wire, plain, encoding: LZ4 }
    }
}

impl GossipMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        for state in STATES {
            drop(metrics.members.get_or_create(&StateLabels { state: state.word() }));
            drop(metrics.transitions.get_or_create(&StateLabels { state: state.word() }));
        }
        for direction in ["sent", "received"] {
            drop(metrics.bytes.get_or_create(&DirectionLabels { direction }));
            drop(metrics.uncompressed_bytes.get_or_create(&DirectionLabels { direction }));
            for (kind, encoding) in
                KINDS.into_iter().flat_map(|kind| ENCODINGS.map(|encoding| (kind, encoding)))
            {
                drop(metrics.frames.get_or_create(&FrameLabels { direction, kind, encoding }));
            }
        }
        for reason in REFUSALS {
            drop(metrics.refused.get_or_create(&ReasonLabels { reason }));
        }
        registry.register("members", "Members by state as this node sees them", metrics.members.clone());
        registry.register(
            "member_transitions",
            "Changes of members' states by new state",
            metrics.transitions.clone(),
        );
        registry.register(
            "gossip_frames",
            "Gossip frames by direction, kind and encoding",
            metrics.frames.clone(),
        );
        registry.register_with_unit(
            "gossip",
            "Encoded gossip frames by direction",
            Unit::Bytes,
            metrics.bytes.clone(),
        );
        registry.register_with_unit(
            "gossip_uncompressed",
            "What gossip_bytes would be without compression",
            Unit::Bytes,
            metrics.uncompressed_bytes.clone(),
        );
        registry.register_with_unit(
            "gossip_interval",
            "Pause between comparisons of records with a peer",
            Unit::Seconds,
            metrics.interval.clone(),
        );
        registry.register(
            "gossip_load",
            "Gossip frames received per second, without probes and hellos, over the last minute",
            metrics.load.clone(),
        );
        registry.register(
            "gossip_dropped_frames",
            "Frames not sent because a queue was full",
            metrics.dropped.clone(),
        );
        registry.register(
            "gossip_slowed_frames",
            "Frames read later because their peer sends more than its share",
            metrics.slowed.clone(),
        );
        registry.register("gossip_links", "Open gossip streams", metrics.links.clone());
        registry.register("gossip_refused", "Frames and states refused by reason", metrics.refused.clone());
        registry.register(
            "gossip_identity_renewals",
            "Times that this node was declared down while it lived",
            metrics.renewals.clone(),
        );
        registry.register(
            "gossip_identity_conflicts",
            "Times that another live holder of this node's id was noticed",
            metrics.conflicts.clone(),
        );
        metrics
    }

    pub(super) fn frame(&self, direction: &'static str, kind: &'static str, size: &FrameSize) {
        self.frames.get_or_create(&FrameLabels { direction, kind, encoding: size.encoding }).inc();
        self.bytes.get_or_create(&DirectionLabels { direction }).inc_by(size.wire as u64);
        self.uncompressed_bytes.get_or_create(&DirectionLabels { direction }).inc_by(size.plain as u64);
    }

    pub(super) fn interval(&self, interval: Duration, load: f64) {
        self.interval.set(interval.as_secs_f64());
        self.load.set(load);
    }

    pub(super) fn cost(&self) -> GossipCost {
        let bytes = |direction| self.bytes.get_or_create(&DirectionLabels { direction }).get();
        let interval = Duration::try_from_secs_f64(self.interval.get()).unwrap_or_default();
        GossipCost { interval, sent: bytes("sent"), received: bytes("received") }
    }

    pub(super) fn refused(&self, reason: &'static str) {
        self.refused.get_or_create(&ReasonLabels { reason }).inc();
    }

    pub(super) fn view(&self, view: &View) {
        for state in STATES {
            let count = i64::try_from(view.count(state)).unwrap_or(i64::MAX);
            self.members.get_or_create(&StateLabels { state: state.word() }).set(count);
        }
    }

    pub(super) fn event(&self, event: &Event) {
        match event {
            Event::Member { to, .. } => {
                self.transitions.get_or_create(&StateLabels { state: to.word() }).inc();
            }
            Event::Refused { refusal, .. } => self.refused(refusal.reason()),
            Event::RevocationsRefused { refusal, .. } => self.refused(refusal.reason()),
            Event::NotGranted { .. } => self.refused("not_granted"),
            // Told in the log; the gauge of evicted nodes shows the rest.
            // Counted by the change of state that it brings.
            Event::Evidence(_) => {}
            Event::RevocationsReissued | Event::Evicted | Event::Readmitted => {}
            Event::Renewed => {
                self.renewals.inc();
            }
            Event::EpochRaised { .. } | Event::DuplicateNode => {
                self.conflicts.inc();
            }
            Event::Overflow => {
                self.dropped.inc();
            }
        }
    }
}

/// The word for a kind of message.
pub(super) fn kind_word(kind: &Kind) -> &'static str {
    match kind {
        Kind::Hello(_) => "hello",
        Kind::Membership(_) => "membership",
        Kind::States(_) => "states",
        Kind::Digest(_) => "digest",
        Kind::StatesRequest(_) => "states_request",
        Kind::Revocations(_) => "revocations",
        Kind::RevocationPositions(_) => "revocation_positions",
        Kind::TrustBundle(_) => "trust_bundle",
        Kind::MemberList(_) => "member_list",
        Kind::Accusation(_) => "accusation",
    }
}
