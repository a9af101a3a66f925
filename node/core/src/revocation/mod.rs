//! What coordinators take back: access tokens, all tokens of a subject, and nodes (eviction).
//!
//! | file | what it holds |
//! |---|---|
//! | `segment` | a signed run of one coordinator's log: made, opened, and why it is refused |
//! | `ranges` | sets of numbers |
//! | `store` | every segment known, merged; what others lack |
//! | `log` | this coordinator's own log: appending, folding |
//! | `ban` | who is evicted, of all evictions and readmissions |
//!
//! A coordinator numbers what it revokes and signs runs of it as *segments*. Rules, each kept by [`Segments`]:
//!
//! - A segment counts only with a coordinator's own signature, by a certificate that was valid when it signed.
//!   Who passes it on proves nothing.
//! - A segment replaces those of the same log that lie within its range, and only those; of the very same range the
//!   one that was signed later holds. Merging is therefore commutative, associative and idempotent: all who have seen
//!   the same segments keep the same.
//! - What has expired is dropped when its owner says that this time has passed, and not while merging; its numbers
//!   stay covered, so that an old copy is not taken for news.
//! - What a revocation forbids only ever grows until it expires: two of one token or subject together forbid what
//!   either does, and for nodes the higher counter holds. The order in which they arrive changes nothing.
//!
//! Not here: who looks a token up. The tables for that, the disk and the clock are the caller's.

mod ban;
mod log;
mod ranges;
mod segment;
mod store;
#[cfg(test)]
mod tests;

pub use ban::Bans;
pub use ranges::Ranges;
pub use segment::{SegmentHeading, SegmentRefusal};
pub use store::Segments;

use std::time::Duration;

/// Prepended to a body before it is signed, so that no other signature of the key can pass for one.
pub const SIGNATURE_CONTEXT: &[u8] = b"p2p.v1.Revocations\0";
/// Most revocations in one segment.
pub const MAX_ENTRIES: usize = 1024;
/// Largest body of a segment, in bytes.
pub const MAX_BODY_BYTES: usize = 512 * 1024;
/// Most revocations kept.
pub const MAX_REVOCATIONS: usize = 1_000_000;
/// Most revocations kept of one coordinator, so that a stolen one cannot fill the room of those who evict it.
pub const MAX_OF_SIGNER: usize = MAX_REVOCATIONS / 2;
/// How many evictions and readmissions one coordinator may add when its room is full.
pub const RESERVED: usize = 16_384;
/// Most segments kept of one log; its owner folds long before.
pub const MAX_SEGMENTS: usize = 4096;
/// Most logs kept of one coordinator.
pub const MAX_LOGS: usize = 16;
/// Most coordinators whose logs are kept.
pub const MAX_SIGNERS: usize = 256;
/// Longest `jti`, in bytes.
pub const MAX_TOKEN_ID_BYTES: usize = 128;
/// Longest subject, in bytes.
pub const MAX_SUBJECT_BYTES: usize = 256;
/// Highest counter of an eviction or readmission: nobody gets there by counting, and nobody may end the counting.
pub const MAX_COUNTER: u64 = 1 << 32;
/// How far ahead of our clock a segment may have been signed.
pub const MAX_SKEW: Duration = Duration::from_secs(5 * 60);
/// How long a revocation is kept beyond the end of what it forbids.
pub const EXPIRY_GRACE: Duration = Duration::from_secs(10 * 60);

/// Whether a revocation that expires at `expires_at` (0: never) forbids nothing any more at `unix_s`.
pub fn has_expired(expires_at: u64, unix_s: u64) -> bool {
    expires_at != 0 && expires_at.saturating_add(EXPIRY_GRACE.as_secs()) <= unix_s
}
