//! The calls that one side makes on a stream.

use super::{CHUNK_MAX, Violation, Window};
use std::collections::HashMap;

/// What a frame with part of an answer says about its shape.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    /// It holds the answer's head.
    pub head: bool,
    /// Bytes of the body in it.
    pub body: usize,
    /// Nothing follows.
    pub end: bool,
}

#[derive(Debug)]
struct Call<T> {
    waiter: T,
    begun: bool,
    window: Window,
}

/// Whom a frame is for.
#[derive(Debug, PartialEq, Eq)]
pub enum Arrival<'a, T> {
    /// Its call goes on.
    More(&'a mut T),
    /// Its call has ended with it.
    Last(T),
    /// Nobody: the caller has turned away.
    Nobody,
}

/// The calls in flight that this side has made, each with who waits for its answer.
#[derive(Debug)]
pub struct Asked<T> {
    last: u64,
    calls: HashMap<u64, Call<T>>,
}

impl<T> Default for Asked<T> {
    fn default() -> Self {
        Self { last: 0, calls: HashMap::new() }
    }
}

impl<T> Asked<T> {
    /// A new call, and its number.
    pub fn open(&mut self, waiter: T) -> u64 {
        self.last += 1;
        self.calls.insert(self.last, Call { waiter, begun: false, window: Window::default() });
        self.last
    }

    /// Part of the answer to the call `number` has come.
    ///
    /// # Errors
    ///
    /// When it breaks a rule.
    pub fn answered(&mut self, number: u64, part: Part) -> Result<Arrival<'_, T>, Violation> {
        if part.body > CHUNK_MAX {
            return Err(Violation::Chunk);
        }
        if part.body == 0 && !part.head && !part.end {
            return Err(Violation::Empty);
        }
        if part.end {
            return match self.ended(number)? {
                None => Ok(Arrival::Nobody),
                Some(mut call) => {
                    call.advance(part)?;
                    Ok(Arrival::Last(call.waiter))
                }
            };
        }
        self.check(number)?;
        let Some(call) = self.calls.get_mut(&number) else { return Ok(Arrival::Nobody) };
        call.advance(part)?;
        Ok(Arrival::More(&mut call.waiter))
    }

    /// The provider has refused the call `number`.
    ///
    /// # Errors
    ///
    /// When it was never made, or has been answered in part.
    pub fn refused(&mut self, number: u64) -> Result<Option<T>, Violation> {
        match self.ended(number)? {
            Some(call) if call.begun => Err(Violation::Head),
            call => Ok(call.map(|call| call.waiter)),
        }
    }

    /// The caller has taken parts of the answer that cost `bytes`. Returns whether the provider must hear of it.
    pub fn taken(&mut self, number: u64, bytes: u32) -> bool {
        // It never exceeds what has come, so it cannot overflow.
        self.calls.get_mut(&number).is_some_and(|call| call.window.grant(bytes).is_ok())
    }

    /// The caller has turned away. Returns whether the provider must hear of it.
    pub fn forget(&mut self, number: u64) -> bool {
        self.calls.remove(&number).is_some()
    }

    /// Whether no call is in flight.
    pub fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    /// Ends all calls.
    pub fn drain(&mut self) -> impl Iterator<Item = T> {
        self.calls.drain().map(|(_, call)| call.waiter)
    }

    fn ended(&mut self, number: u64) -> Result<Option<Call<T>>, Violation> {
        self.check(number)?;
        Ok(self.calls.remove(&number))
    }

    fn check(&self, number: u64) -> Result<(), Violation> {
        if number == 0 || number > self.last { Err(Violation::UnknownCall) } else { Ok(()) }
    }
}

impl<T> Call<T> {
    fn advance(&mut self, part: Part) -> Result<(), Violation> {
        if part.head == self.begun {
            return Err(Violation::Head);
        }
        self.begun = true;
        self.window.received(part.body)
    }
}
