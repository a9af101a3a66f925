//! What gossip counts.

use p2p_core::gossip::{Event, View};
use p2p_proto::v1::{MemberState, gossip_message::Kind};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::{Registry, Unit},
};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct FrameLabels {
    pub direction: &'static str,
    pub kind: &'static str,
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
    pub(super) dropped: Counter,
    pub(super) links: Gauge,
    refused: Family<ReasonLabels, Counter>,
    renewals: Counter,
    conflicts: Counter,
}

const STATES: [MemberState; 4] =
    [MemberState::Alive, MemberState::Suspect, MemberState::Down, MemberState::Left];

/// Every label value, so that each series is there before it is needed.
const KINDS: [&str; 9] = [
    "hello",
    "membership",
    "states",
    "digest",
    "states_request",
    "revocations",
    "revocation_positions",
    "trust_bundle",
    "accusation",
];
const REFUSALS: [&str; 15] = [
    "hello",
    "frame",
    "malformed",
    "not_granted",
    "cluster",
    "owner",
    "untrusted",
    "records",
    "too_large",
    "epoch_ahead",
    "full",
    "evicted",
    "signer",
    "ahead",
    "trust_bundle",
];

impl GossipMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        for state in STATES {
            drop(metrics.members.get_or_create(&StateLabels { state: state.word() }));
            drop(metrics.transitions.get_or_create(&StateLabels { state: state.word() }));
        }
        for direction in ["sent", "received"] {
            drop(metrics.bytes.get_or_create(&DirectionLabels { direction }));
            for kind in KINDS {
                drop(metrics.frames.get_or_create(&FrameLabels { direction, kind }));
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
        registry.register("gossip_frames", "Gossip frames by direction and kind", metrics.frames.clone());
        registry.register_with_unit(
            "gossip",
            "Encoded gossip frames by direction",
            Unit::Bytes,
            metrics.bytes.clone(),
        );
        registry.register(
            "gossip_dropped_frames",
            "Frames not sent because a queue was full",
            metrics.dropped.clone(),
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

    pub(super) fn frame(&self, direction: &'static str, kind: &'static str, bytes: usize) {
        self.frames.get_or_create(&FrameLabels { direction, kind }).inc();
        self.bytes.get_or_create(&DirectionLabels { direction }).inc_by(bytes as u64);
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
        Kind::Accusation(_) => "accusation",
    }
}
