//! The calls that one side answers on a stream.

use super::Violation;
use std::collections::HashMap;

/// The calls in flight that the peer has made, each with what answers it.
#[derive(Debug)]
pub struct Served<T> {
    last: u64,
    calls_max: usize,
    /// `None` for those that the peer has turned away from, and that still take their place.
    calls: HashMap<u64, Option<T>>,
}

impl<T> Served<T> {
    /// None yet, and never more than `calls_max`.
    pub fn new(calls_max: usize) -> Self {
        Self { last: 0, calls_max, calls: HashMap::new() }
    }

    /// The peer makes the call `number`. Returns whether there is room for it; then [`Self::begin`] it.
    ///
    /// # Errors
    ///
    /// When the number is not a new one.
    pub fn admit(&mut self, number: u64) -> Result<bool, Violation> {
        if number <= self.last {
            return Err(Violation::NumberReused);
        }
        self.last = number;
        Ok(self.calls.len() < self.calls_max)
    }

    /// The call is being answered.
    pub fn begin(&mut self, number: u64, call: T) {
        self.calls.insert(number, Some(call));
    }

    /// What answers the call `number`, if it is in flight.
    ///
    /// # Errors
    ///
    /// When the peer never made it.
    pub fn get(&mut self, number: u64) -> Result<Option<&mut T>, Violation> {
        self.check(number)?;
        Ok(self.calls.get_mut(&number).and_then(Option::as_mut))
    }

    /// The peer has turned away from the call `number`. It keeps its place until what answers it has ended, so that calls
    /// that are made and cancelled at once are bounded like all others.
    ///
    /// # Errors
    ///
    /// When the peer never made it.
    pub fn cancelled(&mut self, number: u64) -> Result<Option<T>, Violation> {
        self.check(number)?;
        Ok(self.calls.get_mut(&number).and_then(Option::take))
    }

    /// What answered the call has ended. Returns whether the peer waited for it until now.
    pub fn end(&mut self, number: u64) -> bool {
        self.calls.remove(&number).flatten().is_some()
    }

    /// Whether no call is in flight.
    pub fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    /// Ends all calls.
    pub fn drain(&mut self) -> impl Iterator<Item = T> {
        self.calls.drain().filter_map(|(_, call)| call)
    }

    fn check(&self, number: u64) -> Result<(), Violation> {
        if number == 0 || number > self.last { Err(Violation::UnknownCall) } else { Ok(()) }
    }
}
