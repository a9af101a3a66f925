//! The books of a peer stream: which calls are in flight on it, each way, and how much of an answer may still come.
//!
//! A peer stream carries many calls between two nodes as frames of one gRPC stream. What is here decides about each frame
//! without I/O: which call it belongs to, and whether the peer keeps to the rules. Who breaks one ([`Violation`]) is broken
//! or hostile, and the stream ends. Frames about calls that have ended are no violation: they cross with the end.
//!
//! | file | what it holds |
//! |---|---|
//! | `window` | the credit of one answer |
//! | `asked` | the calls that this side makes |
//! | `served` | the calls that this side answers |

mod asked;
mod served;
#[cfg(test)]
mod tests;
mod window;

pub use asked::{Arrival, Asked, Part};
pub use served::Served;
pub use window::{Window, cost};

/// Largest request that is carried, in bytes.
pub const REQUEST_MAX: usize = 64 * 1024;
/// Largest part of an answer's body in one frame, in bytes.
pub const CHUNK_MAX: usize = 16 * 1024;
/// How much of an answer's body may be sent before its caller has taken any, in bytes.
pub const CREDIT: u32 = 64 * 1024;
/// What the smallest part of an answer takes of the credit: what the receiver needs to keep it.
pub const PART_MIN: u32 = 256;
/// Most bytes of headers, or of trailers, of one call.
pub const HEADERS_MAX: usize = 32 * 1024;
/// How many calls at a time one side takes over one stream.
pub const CALLS_MAX: u32 = 1024;

/// A rule of the stream that the peer has broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A frame about a call that was never made.
    #[error("a frame about a call that was never made")]
    UnknownCall,
    /// Numbers of calls must rise.
    #[error("a call whose number is not higher than that of the one before")]
    NumberReused,
    /// The first part of an answer must hold its head, and no other.
    #[error("an answer whose head is missing or comes twice")]
    Head,
    /// A part of an answer over [`CHUNK_MAX`].
    #[error("a part of an answer of more than {CHUNK_MAX} bytes")]
    Chunk,
    /// A part of an answer with nothing in it.
    #[error("a part of an answer with nothing in it")]
    Empty,
    /// More of an answer than was granted.
    #[error("more of an answer than was granted")]
    OverCredit,
    /// More credit than an answer can use.
    #[error("credit beyond {CREDIT} bytes")]
    CreditOverflow,
    /// A request over [`REQUEST_MAX`].
    #[error("a request of more than {REQUEST_MAX} bytes")]
    Request,
    /// Headers over [`HEADERS_MAX`].
    #[error("headers of more than {HEADERS_MAX} bytes")]
    Headers,
    /// A name, value or path that HTTP does not allow.
    #[error("headers that are none")]
    Malformed,
    /// A second hello, or none at first.
    #[error("a hello that is missing or comes twice")]
    Hello,
    /// A call after the peer said that it makes no more.
    #[error("a call after the end of calls")]
    AfterClosing,
    /// Calls beyond the agreed number, again and again, without reading the refusals.
    #[error("more calls than were agreed")]
    Flood,
}
