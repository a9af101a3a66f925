//! Reading a block: measured first, so that a lying length costs no memory, then written.

use super::{BlockError, LONG, MIN_MATCH};

/// The `said` bytes that `block` holds. Memory is taken only once the block is known to hold just that many.
pub(in crate::wire) fn decompress(block: &[u8], said: usize) -> Result<Vec<u8>, BlockError> {
    measure(block, said)?;
    let mut output = Vec::with_capacity(said);
    for sequence in Sequences::of(block) {
        let Sequence { literals, copy } = sequence?;
        output.extend_from_slice(literals);
        if let Some(copy) = copy {
            repeat(&mut output, copy);
        }
    }
    Ok(output)
}

/// Whether all sequences are sound and make `said` bytes in all.
fn measure(block: &[u8], said: usize) -> Result<(), BlockError> {
    let mut written = 0_usize;
    for sequence in Sequences::of(block) {
        let Sequence { literals, copy } = sequence?;
        written += literals.len();
        if let Some(Copy { offset, length }) = copy {
            if offset == 0 || offset > written {
                return Err(BlockError::Offset { offset, written });
            }
            written = written.saturating_add(length);
        }
        if written > said {
            return Err(BlockError::Longer { said });
        }
    }
    if written < said {
        return Err(BlockError::Shorter { said, holds: written });
    }
    Ok(())
}

/// Appends what lies `offset` bytes back, which may overlap what is being written: a period that goes on.
fn repeat(output: &mut Vec<u8>, Copy { offset, length }: Copy) {
    let start = output.len() - offset;
    let mut left = length;
    while left > 0 {
        let run = left.min(output.len() - start);
        output.extend_from_within(start..start + run);
        left -= run;
    }
}

#[derive(Clone, Copy)]
pub(super) struct Copy {
    pub(super) offset: usize,
    pub(super) length: usize,
}

pub(super) struct Sequence<'a> {
    pub(super) literals: &'a [u8],
    /// Nothing in the last sequence.
    pub(super) copy: Option<Copy>,
}

/// The sequences of a block, up to the first that is not whole.
pub(super) struct Sequences<'a> {
    rest: &'a [u8],
    ended: bool,
}

impl<'a> Sequences<'a> {
    pub(super) fn of(block: &'a [u8]) -> Self {
        Self { rest: block, ended: false }
    }

    fn sequence(&mut self) -> Result<Sequence<'a>, BlockError> {
        let token = self.byte()?;
        let length = self.length(usize::from(token >> 4))?;
        let (literals, rest) = self.rest.split_at_checked(length).ok_or(BlockError::Truncated)?;
        self.rest = rest;
        if rest.is_empty() {
            self.ended = true;
            return Ok(Sequence { literals, copy: None });
        }
        let offset = usize::from(u16::from_le_bytes([self.byte()?, self.byte()?]));
        let length = self.length(usize::from(token & 0x0f))?.saturating_add(MIN_MATCH);
        Ok(Sequence { literals, copy: Some(Copy { offset, length }) })
    }

    /// A length that starts with half of a token: while what is added is 255, more follows.
    fn length(&mut self, half: usize) -> Result<usize, BlockError> {
        let mut length = half;
        if half == LONG {
            loop {
                let more = self.byte()?;
                // Bounded by 255 times the bytes of the block.
                length = length.saturating_add(usize::from(more));
                if more != u8::MAX {
                    break;
                }
            }
        }
        Ok(length)
    }

    fn byte(&mut self) -> Result<u8, BlockError> {
        let (byte, rest) = self.rest.split_first().ok_or(BlockError::Truncated)?;
        self.rest = rest;
        Ok(*byte)
    }
}

impl<'a> Iterator for Sequences<'a> {
    type Item = Result<Sequence<'a>, BlockError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let sequence = self.sequence();
        self.ended |= sequence.is_err();
        Some(sequence)
    }
}
