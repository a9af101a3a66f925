//! The frame around one encoded message.

use super::lz4::{self, BlockError};
use bytes::Bytes;
use p2p_proto::v1::GossipFrame;
use prost::Message as _;

/// The feature in a hello that says that a node reads compressed frames.
pub const FEATURE_LZ4: &str = "lz4";
/// Largest frame, in bytes as it travels, and largest message in one, in bytes before compression.
pub const MAX_FRAME: usize = 4 * 1024 * 1024;
/// Most bytes that one byte of an LZ4 block can stand for: what a length claims beyond that is a lie.
pub const MAX_RATIO: usize = 255;

/// Why a frame was refused. No more memory was taken than its own bytes can hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// Plain and compressed at once, or a length without anything compressed.
    #[error("the frame holds {plain} bytes as they are, {lz4} compressed, and says that those are {said}")]
    Ambiguous {
        /// Bytes of the plain form.
        plain: usize,
        /// Bytes of the compressed form.
        lz4: usize,
        /// Length that the compressed form is said to have.
        said: u32,
    },
    /// The message is said to be larger than any may be.
    #[error("the frame says that its message has {said} bytes, at most {MAX_FRAME} are taken")]
    TooLarge {
        /// How many bytes were said.
        said: u32,
    },
    /// So few bytes cannot hold so many.
    #[error("the frame says that {lz4} compressed bytes hold {said}, more than {MAX_RATIO} times as many")]
    Ratio {
        /// Bytes of the compressed form.
        lz4: usize,
        /// How many bytes were said.
        said: u32,
    },
    /// The block does not hold what was said.
    #[error(transparent)]
    Block(#[from] BlockError),
}

impl EnvelopeError {
    /// One word for metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Ambiguous { .. } => "envelope",
            Self::TooLarge { .. } | Self::Ratio { .. } => "bomb",
            Self::Block(BlockError::Longer { .. } | BlockError::Shorter { .. }) => "length",
            Self::Block(BlockError::Malformed) => "lz4",
        }
    }
}

/// The frame of an encoded message. With a threshold, a message of more bytes than that is compressed, unless
/// the frame would not get smaller.
pub fn seal(message: Bytes, threshold: Option<usize>) -> GossipFrame {
    let compresses = threshold.is_some_and(|threshold| message.len() > threshold);
    let length = u32::try_from(message.len()).ok().filter(|_| message.len() <= MAX_FRAME);
    let plain = GossipFrame { payload: message, ..GossipFrame::default() };
    let Some(uncompressed_length) = length.filter(|_| compresses) else { return plain };
    let lz4 = lz4::compress(&plain.payload).into();
    let compressed = GossipFrame { payload: Bytes::new(), lz4, uncompressed_length };
    if compressed.encoded_len() < plain.encoded_len() { compressed } else { plain }
}

/// The encoded message in a frame.
///
/// # Errors
///
/// When the frame is not one that [`seal`] of any release makes. The sender is broken or hostile.
pub fn open(frame: GossipFrame) -> Result<Bytes, EnvelopeError> {
    let GossipFrame { payload, lz4, uncompressed_length: said } = frame;
    if lz4.is_empty() && said == 0 {
        return Ok(payload);
    }
    if lz4.is_empty() || !payload.is_empty() {
        return Err(EnvelopeError::Ambiguous { plain: payload.len(), lz4: lz4.len(), said });
    }
    let length = usize::try_from(said).ok().filter(|length| *length <= MAX_FRAME);
    let length = length.ok_or(EnvelopeError::TooLarge { said })?;
    if length > lz4.len().saturating_mul(MAX_RATIO) {
        return Err(EnvelopeError::Ratio { lz4: lz4.len(), said });
    }
    Ok(lz4::decompress(&lz4, length)?.into())
}

#[cfg(test)]
mod tests;
