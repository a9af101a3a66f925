//! Round-trip times that change while the rest of a view does not.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// The last round-trip time measured to a node. Clones show the same; it is never a reason to call two views
/// different, since it changes with every probe.
#[derive(Clone, Default)]
pub struct Rtt(Arc<AtomicU64>);

impl Rtt {
    /// The last one, if there was any.
    pub fn get(&self) -> Option<Duration> {
        match self.0.load(Ordering::Relaxed) {
            0 => None,
            nanos => Some(Duration::from_nanos(nanos)),
        }
    }

    pub(super) fn set(&self, rtt: Duration) {
        let nanos = u64::try_from(rtt.as_nanos()).unwrap_or(u64::MAX);
        self.0.store(nanos.max(1), Ordering::Relaxed);
    }
}

impl PartialEq for Rtt {
    fn eq(&self, _other: &Self) -> bool {
        true
    }
}

impl Eq for Rtt {}

impl fmt::Debug for Rtt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}
