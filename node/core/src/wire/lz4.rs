//! The LZ4 block format, without the frame format around it.
//!
//! A block is a row of sequences, each a run of literals and then a match: a copy of what the output already
//! holds, `offset` bytes back. The last sequence has literals only. The format, with the rules for how a block
//! ends, is that of <https://github.com/lz4/lz4/blob/dev/doc/lz4_Block_format.md>; what is made here any LZ4
//! library reads, and the other way round.

mod compress;
mod decompress;
#[cfg(test)]
mod tests;

pub(super) use compress::compress;
pub(super) use decompress::decompress;

/// Shortest match that a sequence can name.
const MIN_MATCH: usize = 4;
/// A match starts at least this many bytes before the end of the input.
const MATCH_MARGIN: usize = 12;
/// This many bytes at the end of the input are literals.
const LAST_LITERALS: usize = 5;
/// A length of this much or more in one half of a token goes on in the bytes after it.
const LONG: usize = 15;

/// Why a block is not taken. Nothing was allocated for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    /// It ends within a sequence, or after a match.
    #[error("the LZ4 block is cut off")]
    Truncated,
    /// A match points before the start of the output.
    #[error("a match in the LZ4 block points {offset} bytes back, with {written} written")]
    Offset {
        /// How far back.
        offset: usize,
        /// How many bytes there are.
        written: usize,
    },
    /// It holds more than was said.
    #[error("the LZ4 block holds more than the {said} bytes that it is said to")]
    Longer {
        /// How many bytes were said.
        said: usize,
    },
    /// It holds less than was said.
    #[error("the LZ4 block holds {holds} bytes, not the {said} that it is said to")]
    Shorter {
        /// How many bytes were said.
        said: usize,
        /// How many there are.
        holds: usize,
    },
}
