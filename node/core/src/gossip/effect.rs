//! What an engine asks for and reports.

use super::Evidence;
use crate::{
    Epoch, NodeId, id::InvalidId, membership::PacketError, record::Refusal, revocation::SegmentRefusal,
};
use p2p_proto::v1::{MemberState, Revocation, RevocationSegment, gossip_message::Kind};
use std::{collections::BTreeSet, net::SocketAddr, sync::Arc};

/// What the caller must do.
#[derive(Debug)]
pub enum Effect {
    /// Send a message, over the open connection or a new one.
    Send {
        /// To whom.
        to: NodeId,
        /// Where, if there is no connection.
        address: SocketAddr,
        /// What.
        message: Kind,
    },
    /// Dial the configured seeds and report each with [`Engine::connected`](super::Engine::connected).
    DialSeeds,
    /// This node's epoch grew: store it durably.
    PersistEpoch(Epoch),
    /// Others' revocations: enforce and keep them.
    Revoked {
        /// As signed.
        segment: Arc<RevocationSegment>,
        /// What it revokes.
        entries: Vec<Revocation>,
    },
    /// These nodes, and no others, are evicted now.
    Banned(BTreeSet<NodeId>),
}

/// What happened, for logs and metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A member changed state.
    Member {
        /// Who.
        node: NodeId,
        /// From what; `None` when first seen.
        from: Option<MemberState>,
        /// To what.
        to: MemberState,
    },
    /// Something speaks for or against a member.
    Evidence(Arc<Evidence>),
    /// A state of an owner was refused.
    Refused {
        /// Who sent it.
        from: NodeId,
        /// Why.
        refusal: Refusal,
        /// Whether this very state was refused before: peers offer what they hold at each comparison.
        again: bool,
    },
    /// Revocations were refused.
    RevocationsRefused {
        /// Who sent them.
        from: NodeId,
        /// Why.
        refusal: SegmentRefusal,
    },
    /// Others hold revocations in this node's name that it has not signed in this life: its state was set back. It has
    /// signed its own anew.
    RevocationsReissued,
    /// This very node is evicted.
    Evicted,
    /// This very node is evicted no longer.
    Readmitted,
    /// An owner publishes services that its certificate does not grant; they are not shown.
    NotGranted {
        /// Who.
        owner: NodeId,
        /// Which.
        services: Vec<String>,
    },
    /// Others had declared this node down; it renewed its identity.
    Renewed,
    /// A later life of this node's id is known to others, so this node took a higher epoch.
    EpochRaised {
        /// The new epoch.
        to: Epoch,
    },
    /// Two live processes hold this node's id: this node stops competing for a minute and keeps serving.
    DuplicateNode,
    /// Effects or events were dropped because nobody drained them.
    Overflow,
}

/// Why a frame was refused. Nothing has changed when it was.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// A packet of the failure detector.
    #[error(transparent)]
    Packet(#[from] PacketError),
    /// The sender is evicted.
    #[error("{0} is evicted from the cluster")]
    Evicted(NodeId),
    /// An accusation that names no node.
    #[error("an accusation of no node: {0}")]
    Accusation(#[from] InvalidId),
    /// The peer sends nothing but what is refused, or speaks against everybody.
    #[error("{peer} sends more {what} than this node listens to")]
    Flood {
        /// Who.
        peer: NodeId,
        /// Of what.
        what: &'static str,
    },
    /// A hello in the middle of a stream, or an empty frame.
    #[error("unexpected {0} in the middle of a gossip stream")]
    Unexpected(&'static str),
}

impl FrameError {
    /// One word for metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Packet(_) | Self::Evicted(_) | Self::Accusation(_) | Self::Unexpected(_) => "frame",
            Self::Flood { .. } => "flood",
        }
    }
}
