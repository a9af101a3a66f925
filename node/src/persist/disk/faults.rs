//! A disk that fails at a chosen step, for tests. It is the disk of one thread, so that tests do not meet.

use std::{
    cell::Cell,
    fs::File,
    io::{self, Write as _},
};

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// One step fails and does nothing, as when the disk is full for a moment.
    Once,
    /// One write gets half of its bytes to the disk, and fails.
    TornOnce,
    /// From one step on all fail, the first of them torn: the process, or the disk, is gone.
    Gone,
}

impl Fault {
    pub(crate) const ALL: [Self; 3] = [Self::Once, Self::TornOnce, Self::Gone];
}

thread_local! {
    /// Steps that still pass, and what comes then.
    static PLAN: Cell<Option<(usize, Fault)>> = const { Cell::new(None) };
}

/// Lets `passing` steps of `work` pass and has `fault` meet the next. Whether it was met.
pub(crate) fn with<T>(passing: usize, fault: Fault, work: impl FnOnce() -> T) -> (T, bool) {
    PLAN.set(Some((passing, fault)));
    let done = work();
    let left = PLAN.replace(None);
    let met = match fault {
        Fault::Once | Fault::TornOnce => left.is_none(),
        Fault::Gone => left.is_some_and(|(passing, _)| passing == 0),
    };
    (done, met)
}

/// Whether the step that is about to be taken fails, and how.
fn next() -> Option<Fault> {
    match PLAN.get() {
        None => None,
        Some((0, fault @ (Fault::Once | Fault::TornOnce))) => {
            PLAN.set(None);
            Some(fault)
        }
        Some((0, Fault::Gone)) => Some(Fault::Gone),
        Some((passing, fault)) => {
            PLAN.set(Some((passing - 1, fault)));
            None
        }
    }
}

fn error() -> io::Error {
    io::Error::from(io::ErrorKind::StorageFull)
}

pub(super) fn step() -> io::Result<()> {
    next().map_or(Ok(()), |_| Err(error()))
}

pub(super) fn write(file: &mut File, bytes: &[u8]) -> io::Result<()> {
    match next() {
        None => Ok(()),
        Some(Fault::Once) => Err(error()),
        Some(Fault::TornOnce | Fault::Gone) => {
            file.write_all(&bytes[..bytes.len() / 2])?;
            Err(error())
        }
    }
}
