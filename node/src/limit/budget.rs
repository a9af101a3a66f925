//! One budget: a token bucket for each client, by governor.

use super::keys::{Key, SharedKeys};
use governor::{Quota, RateLimiter, clock::Clock, middleware::NoOpMiddleware};
use std::{num::NonZeroU32, time::Duration};

type Limiter<C> = RateLimiter<Key, SharedKeys, C, NoOpMiddleware<<C as Clock>::Instant>>;

/// A bucket of `burst` for each key, which refills at `per_minute`.
pub(super) struct Budget<C: Clock> {
    limiter: Limiter<C>,
    clock: C,
}

impl<C: Clock + Clone> Budget<C> {
    /// `None` for no limit.
    pub(super) fn new(per_minute: u32, burst: u32, keys: &SharedKeys, clock: &C) -> Option<Self> {
        let period = Duration::from_secs(60).checked_div(per_minute)?;
        let burst = NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN);
        let quota = Quota::with_period(period)?.allow_burst(burst);
        Some(Self { limiter: RateLimiter::new(quota, keys.clone(), clock.clone()), clock: clock.clone() })
    }

    /// Takes one, or says how long to wait until there is one.
    pub(super) fn take(&self, key: &Key) -> Result<(), Duration> {
        self.limiter.check_key(key).map_err(|denied| denied.wait_time_from(self.clock.now()))
    }

    /// Forgets keys whose bucket is full again, of all budgets: they share their keys and the moment from which time
    /// counts, but for the microseconds in which they were made.
    pub(super) fn forget_full(&self) {
        self.limiter.retain_recent();
    }
}
