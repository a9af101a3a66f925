//! How one gossip message travels: encoded, and compressed where that pays.
//!
//! | file | what it holds |
//! |---|---|
//! | `envelope` | message bytes ↔ `GossipFrame`: when to compress, and what a receiver accepts |
//! | `lz4` | the LZ4 block format, both ways |
//!
//! Nothing here knows what is in a message: that is [`crate::gossip`]'s.

mod envelope;
mod lz4;

pub use envelope::{EnvelopeError, FEATURE_LZ4, MAX_FRAME, MAX_RATIO, open, seal};
pub use lz4::BlockError;
