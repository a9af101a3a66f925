//! The LZ4 block format, without the frame format around it: `lz4_flex`, with our limits before it.

use lz4_flex::block::{self, DecompressError};

/// Why a block is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    /// It is no block: cut off, or a match points to what is not there.
    #[error("the bytes are no LZ4 block")]
    Malformed,
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

pub(super) fn compress(text: &[u8]) -> Vec<u8> {
    block::compress(text)
}

/// The `said` bytes that a block holds. The caller bounds `said`: so many are allocated.
pub(super) fn decompress(block: &[u8], said: usize) -> Result<Vec<u8>, BlockError> {
    let mut text = vec![0; said];
    match block::decompress_into(block, &mut text) {
        Ok(holds) if holds == said => Ok(text),
        Ok(holds) => Err(BlockError::Shorter { said, holds }),
        Err(DecompressError::OutputTooSmall { .. }) => Err(BlockError::Longer { said }),
        Err(_) => Err(BlockError::Malformed),
    }
}

#[cfg(test)]
mod tests;
