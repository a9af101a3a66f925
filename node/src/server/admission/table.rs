//! Who is connected, and who makes room for a newcomer.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How long a connection may take to get as far as HTTP before it can be made to give up its place to another.
pub(super) const FAIR_START: Duration = Duration::from_millis(250);
/// How long a stranger's connection may be idle before the same.
pub(super) const FAIR_IDLE: Duration = Duration::from_secs(1);
/// How many calls a client may take back, and in which time, before its connection is ended. Nodes take back what their
/// clients take back.
pub(super) const RESETS_MAX: u32 = 1000;
pub(super) const RESETS_WINDOW: Duration = Duration::from_secs(10);

/// Why a connection was ended while its client would have kept it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::server) enum Ended {
    /// Another needed its place.
    Room,
    /// Too many calls were taken back.
    Resets,
}

/// What is known of one open connection.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) address: IpAddr,
    pub(super) opened: Instant,
    /// Whether it has got as far as HTTP.
    pub(super) speaks: AtomicBool,
    /// Whether its client has shown a certificate of this cluster.
    pub(super) member: AtomicBool,
    /// Whether it counts for its address.
    pub(super) counted: AtomicBool,
    pub(super) calls: AtomicU32,
    /// When the last call ended, in milliseconds from `opened`.
    pub(super) idle_since: AtomicU64,
    pub(super) resets: Mutex<(u64, u32)>,
    pub(super) ended: Mutex<Option<Ended>>,
    pub(super) end: CancellationToken,
}

impl Entry {
    /// How long it has had nothing to do.
    pub(super) fn idle(&self, now: Instant) -> Duration {
        let since = Duration::from_millis(self.idle_since.load(Ordering::Relaxed));
        now.duration_since(self.opened).saturating_sub(since)
    }

    /// How much rather it makes room than others, if it may at all: what has not spoken before what is idle, the longest
    /// first.
    fn yields(&self, now: Instant) -> Option<(bool, Duration)> {
        let age = now.duration_since(self.opened);
        if !self.speaks.load(Ordering::Relaxed) {
            return (age >= FAIR_START).then_some((true, age));
        }
        let busy = self.member.load(Ordering::Relaxed) || self.calls.load(Ordering::Relaxed) > 0;
        let idle = self.idle(now);
        (!busy && idle >= FAIR_IDLE).then_some((false, idle))
    }

    pub(super) fn end(&self, why: Ended) {
        locked(&self.ended).get_or_insert(why);
        self.end.cancel();
    }

    /// The milliseconds since it was opened.
    pub(super) fn age(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Its client has taken back a call.
    pub(super) fn taken_back(&self) {
        if self.member.load(Ordering::Relaxed) {
            return;
        }
        let window = self.age() / u64::try_from(RESETS_WINDOW.as_millis()).unwrap_or(u64::MAX);
        let mut resets = locked(&self.resets);
        *resets = if resets.0 == window { (window, resets.1 + 1) } else { (window, 1) };
        if resets.1 > RESETS_MAX {
            self.end(Ended::Resets);
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Table {
    pub(super) next: u64,
    pub(super) open: HashMap<u64, Arc<Entry>>,
    /// Those that have not spoken, the oldest first.
    pub(super) opening: BTreeMap<u64, Arc<Entry>>,
    pub(super) by_address: HashMap<IpAddr, usize>,
    pub(super) opening_by_address: HashMap<IpAddr, usize>,
}

fn one_less(counts: &mut HashMap<IpAddr, usize>, address: IpAddr) {
    if let Some(count) = counts.get_mut(&address) {
        *count -= 1;
        if *count == 0 {
            counts.remove(&address);
        }
    }
}

impl Table {
    pub(super) fn add(&mut self, entry: &Arc<Entry>) -> u64 {
        let number = self.next;
        self.next += 1;
        self.open.insert(number, entry.clone());
        self.opening.insert(number, entry.clone());
        if entry.counted.load(Ordering::Relaxed) {
            for counts in [&mut self.by_address, &mut self.opening_by_address] {
                *counts.entry(entry.address).or_default() += 1;
            }
        }
        number
    }

    /// It is not one of those that have not spoken any more.
    pub(super) fn leave_opening(&mut self, number: u64) {
        if let Some(entry) = self.opening.remove(&number)
            && entry.counted.load(Ordering::Relaxed)
        {
            one_less(&mut self.opening_by_address, entry.address);
        }
    }

    pub(super) fn leave_address(&mut self, number: u64, entry: &Entry) {
        if !entry.counted.swap(false, Ordering::Relaxed) {
            return;
        }
        one_less(&mut self.by_address, entry.address);
        if self.opening.contains_key(&number) {
            one_less(&mut self.opening_by_address, entry.address);
        }
    }

    pub(super) fn remove(&mut self, number: u64) -> Option<Arc<Entry>> {
        let entry = self.open.remove(&number)?;
        self.leave_opening(number);
        self.leave_address(number, &entry);
        Some(entry)
    }

    /// Ends the connection that is worth least among those that `fit`; whether there was one.
    pub(super) fn make_room(&mut self, now: Instant, fit: impl Fn(&Entry) -> bool) -> bool {
        let yielding = self.open.iter().filter(|(_, entry)| fit(entry));
        let yielding = yielding.filter_map(|(number, entry)| Some((entry.yields(now)?, *number)));
        let least = yielding.max().map(|(_, number)| number);
        self.end(least)
    }

    /// Ends one that has not spoken: of the address that has the most of them, if `newcomer` will have less than half as many
    /// (or is of none in particular); else the oldest. So who opens thousands a second keeps out only itself.
    pub(super) fn make_room_to_open(&mut self, now: Instant, newcomer: Option<IpAddr>) -> bool {
        let own =
            newcomer.and_then(|address| self.opening_by_address.get(&address)).copied().unwrap_or_default();
        let most = self.opening_by_address.iter().max_by_key(|(_, count)| **count);
        let most = most.filter(|(_, count)| **count > 2 * (own + 1)).map(|(address, _)| *address);
        let least = match most {
            Some(address) => self
                .opening
                .iter()
                .find(|(_, entry)| entry.address == address && entry.counted.load(Ordering::Relaxed)),
            None => self.opening.iter().next().filter(|(_, oldest)| oldest.yields(now).is_some()),
        };
        let least = least.map(|(number, _)| *number);
        self.end(least)
    }

    pub(super) fn end(&mut self, number: Option<u64>) -> bool {
        let ended = number.and_then(|number| self.remove(number));
        if let Some(entry) = &ended {
            entry.end(Ended::Room);
        }
        ended.is_some()
    }
}

pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
