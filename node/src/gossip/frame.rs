//! One message on its way to a peer, or from one.

use super::metrics::{FrameSize, kind_word};
use bytes::Bytes;
use p2p_core::{
    gossip::{self, MessageError},
    wire::{self, EnvelopeError},
};
use p2p_proto::v1::{GossipFrame, GossipMessage, gossip_message::Kind};
use prost::Message as _;

/// A message that is encoded, but not framed yet: that depends on what the peer reads.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) word: &'static str,
    message: Bytes,
}

impl Outgoing {
    pub(super) fn of(kind: Kind) -> Self {
        let word = kind_word(&kind);
        Self { word, message: GossipMessage { kind: Some(kind) }.encode_to_vec().into() }
    }

    /// The frame for a peer that reads compressed ones if `threshold` is given.
    pub(super) fn seal(self, threshold: Option<usize>) -> GossipFrame {
        wire::seal(self.message, threshold)
    }
}

/// Why a received frame holds no message.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unreadable {
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    #[error(transparent)]
    Message(#[from] MessageError),
}

impl Unreadable {
    /// One word for metrics.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Envelope(error) => error.reason(),
            Self::Message(error) => error.reason(),
        }
    }
}

/// The message in a frame, `None` for a kind that only newer releases know, and how large it was.
pub(super) fn read(frame: GossipFrame) -> Result<(Option<Kind>, FrameSize), Unreadable> {
    let size = FrameSize::of(&frame);
    let message = wire::open(frame)?;
    Ok((gossip::decode(&message)?, size))
}
