//! One budget: a token bucket for each client, by governor.

use super::keys::{Key, KeyMaker, Keys, SharedKeys};
use governor::{
    Quota, RateLimiter,
    clock::{Clock, Reference as _},
    middleware::NoOpMiddleware,
};
use std::{
    hash::Hash,
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

type Limiter<C> = RateLimiter<Key, SharedKeys, C, NoOpMiddleware<<C as Clock>::Instant>>;

/// What budgets share, also those that a reload makes: what is remembered of clients, and the moment from which time counts.
pub(super) struct Ledger<C: Clock> {
    keys: Arc<Keys>,
    maker: KeyMaker,
    clock: C,
    origin: C::Instant,
    /// The number of the next budget.
    next: AtomicU64,
}

impl<C: Clock + Clone> Ledger<C> {
    pub(super) fn new(keys: Keys, clock: C) -> Self {
        let (keys, origin) = (Arc::new(keys), clock.now());
        Self { keys, maker: KeyMaker::default(), clock, origin, next: AtomicU64::new(0) }
    }

    pub(super) fn clock(&self) -> &C {
        &self.clock
    }

    /// Forgets clients whose bucket is full again, as if they had never come: their state lies in the past. A part of them
    /// with each step.
    pub(super) fn forget_full(&self) -> impl Iterator<Item = ()> {
        self.keys.forget(self.clock.now().duration_since(self.origin))
    }

    /// How many are remembered.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }
}

/// A bucket of `burst` for each client, which refills at `per_minute`.
pub(super) struct Budget<C: Clock> {
    limiter: Limiter<C>,
    limit: (u32, u32),
    /// Tells its clients from those of other budgets.
    number: u64,
}

impl<C: Clock + Clone> Budget<C> {
    /// `None` for no limit.
    pub(super) fn new(per_minute: u32, burst: u32, ledger: &Ledger<C>) -> Option<Self> {
        let period = Duration::from_secs(60).checked_div(per_minute)?;
        let at_once = NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN);
        let quota = Quota::with_period(period)?.allow_burst(at_once);
        let since = ledger.clock.now().duration_since(ledger.origin);
        let keys = SharedKeys::new(ledger.keys.clone(), since);
        let number = ledger.next.fetch_add(1, Ordering::Relaxed);
        let limiter = RateLimiter::new(quota, keys, ledger.clock.clone());
        Some(Self { limiter, limit: (per_minute, burst), number })
    }

    /// Whether it was made for this limit.
    pub(super) fn is_of(&self, per_minute: u32, burst: u32) -> bool {
        self.limit == (per_minute, burst)
    }

    /// Takes one of `client`, or says how long to wait until there is one.
    pub(super) fn take(&self, client: impl Hash, ledger: &Ledger<C>) -> Result<(), Duration> {
        let key = ledger.maker.key((self.number, client));
        self.limiter.check_key(&key).map_err(|denied| denied.wait_time_from(ledger.clock.now()))
    }
}
