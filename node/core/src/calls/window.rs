//! The credit of one answer.

use super::{CREDIT, PART_MIN, Violation};

/// How many bytes of one answer's body may be sent now. Both ends count it: the one that sends takes what it may, the one
/// that receives checks it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    left: u32,
}

/// What a part of an answer with `body` bytes of its body takes of the credit: small ones take room, too.
pub fn cost(body: usize) -> u32 {
    match u32::try_from(body).unwrap_or(u32::MAX) {
        0 => 0,
        bytes => bytes.max(PART_MIN),
    }
}

impl Default for Window {
    fn default() -> Self {
        Self { left: CREDIT }
    }
}

impl Window {
    /// Takes up to `wanted` bytes for one part; 0 if none may be sent now.
    pub fn take(&mut self, wanted: usize) -> usize {
        let taken = wanted.min(self.left as usize);
        match self.left.checked_sub(cost(taken)) {
            Some(left) => self.left = left,
            None => return 0,
        }
        taken
    }

    /// Counts a part with `body` bytes that has come.
    ///
    /// # Errors
    ///
    /// When they were not granted.
    pub fn received(&mut self, body: usize) -> Result<(), Violation> {
        self.left = self.left.checked_sub(cost(body)).ok_or(Violation::OverCredit)?;
        Ok(())
    }

    /// Grants `bytes` more.
    ///
    /// # Errors
    ///
    /// When that is more than the answer can have used.
    pub fn grant(&mut self, bytes: u32) -> Result<(), Violation> {
        let left = self.left.checked_add(bytes).filter(|left| *left <= CREDIT);
        self.left = left.ok_or(Violation::CreditOverflow)?;
        Ok(())
    }
}
