//! How often an address may show evidence that does not hold.

use super::{
    budget::Budget,
    client_address,
    keys::{KeyMaker, Keys, SharedKeys},
};
use crate::{error::Fault, telemetry::Metrics};
use governor::clock::{Clock, Reference};
use prometheus_client::metrics::{counter::Counter, gauge::Gauge};
use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

/// Most addresses that are watched at a time.
const ADDRESSES_MAX: usize = 65_536;

/// Addresses that have shown too much that does not hold, and until when nothing more of them is looked at.
pub struct Failures<C: Clock> {
    per_minute: u32,
    budget: Option<Budget<C>>,
    keys: KeyMaker,
    clock: C,
    blocked: Mutex<HashMap<IpAddr, C::Instant>>,
    /// Their number, so that the usual case takes no lock.
    count: AtomicUsize,
    refused: Counter,
    gauge: Gauge,
}

impl<C: Clock> std::fmt::Debug for Failures<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Failures")
    }
}

impl<C: Clock + Clone> Failures<C> {
    pub(super) fn new(per_minute: u32, metrics: &Metrics, clock: C) -> Self {
        let (refused, gauge, limit) = (Counter::default(), Gauge::default(), Gauge::<i64>::default());
        limit.set(per_minute.into());
        metrics.register(|registry| {
            registry.register(
                "authentication_blocked",
                "Requests and connections refused unseen after too many failures of their address",
                refused.clone(),
            );
            registry.register(
                "authentication_blocked_addresses",
                "Addresses of which nothing new is looked at",
                gauge.clone(),
            );
            registry.register(
                "authentication_failures_limit",
                "Failures a minute and address (authentication_failures_max)",
                limit,
            );
        });
        let store = SharedKeys(Arc::new(Keys::with_capacity(ADDRESSES_MAX)));
        Self {
            per_minute,
            budget: Budget::new(per_minute, per_minute, &store, &clock),
            keys: KeyMaker::default(),
            clock,
            blocked: Mutex::default(),
            count: AtomicUsize::new(0),
            refused,
            gauge,
        }
    }

    /// Whether any address is watched: the cheap question before [`Self::check`].
    pub fn is_watchful(&self) -> bool {
        self.count.load(Ordering::Relaxed) > 0
    }

    /// Notes that evidence from `address` did not hold.
    pub fn note(&self, address: IpAddr) {
        let Some(budget) = &self.budget else { return };
        let address = client_address(address);
        let Err(pause) = budget.take(&self.keys.key(address)) else { return };
        let until = self.clock.now() + pause.into();
        let mut blocked = self.locked();
        if blocked.len() < ADDRESSES_MAX {
            blocked.insert(address, until);
            self.counted(&blocked);
        }
    }

    /// Refuses what would have to be verified, if `address` has shown too much that did not hold.
    ///
    /// # Errors
    ///
    /// `RATE_LIMITED`, with the exact pause.
    pub fn check(&self, address: IpAddr) -> Result<(), Fault> {
        match self.pause(address) {
            None => Ok(()),
            Some(pause) => {
                self.refused.inc();
                let what =
                    format!("{} failed authentications in a minute came from this address", self.per_minute);
                Err(super::limited(&what, "authentication_failures_max", pause))
            }
        }
    }

    fn pause(&self, address: IpAddr) -> Option<Duration> {
        if !self.is_watchful() {
            return None;
        }
        let (address, now) = (client_address(address), self.clock.now());
        let mut blocked = self.locked();
        let until = *blocked.get(&address)?;
        if until <= now {
            blocked.remove(&address);
            self.counted(&blocked);
            return None;
        }
        Some(until.duration_since(now).into())
    }

    /// Forgets addresses whose time is over.
    pub(super) fn forget_past(&self) {
        if let Some(budget) = &self.budget {
            budget.forget_full();
        }
        let (mut blocked, now) = (self.locked(), self.clock.now());
        blocked.retain(|_, until| *until > now);
        self.counted(&blocked);
    }

    fn counted(&self, blocked: &HashMap<IpAddr, C::Instant>) {
        self.count.store(blocked.len(), Ordering::Relaxed);
        self.gauge.set(i64::try_from(blocked.len()).unwrap_or(i64::MAX));
    }

    fn locked(&self) -> MutexGuard<'_, HashMap<IpAddr, C::Instant>> {
        self.blocked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
