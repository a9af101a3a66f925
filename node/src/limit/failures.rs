//! How often an address may show evidence that does not hold.

use super::{
    budget::{Budget, Ledger},
    client_address,
    keys::Keys,
};
use crate::{error::Fault, telemetry::Metrics};
use arc_swap::ArcSwapOption;
use governor::clock::{Clock, Reference};
use prometheus_client::metrics::{counter::Counter, gauge::Gauge};
use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, AtomicUsize, Ordering},
    },
    time::Duration,
};

/// Most addresses that are watched at a time.
const ADDRESSES_MAX: usize = 65_536;

/// Addresses that have shown too much that does not hold, and until when nothing more of them is looked at.
pub struct Failures<C: Clock> {
    per_minute: AtomicU32,
    budget: ArcSwapOption<Budget<C>>,
    ledger: Ledger<C>,
    blocked: Mutex<HashMap<IpAddr, C::Instant>>,
    /// Their number, so that the usual case takes no lock.
    count: AtomicUsize,
    refused: Counter,
    gauge: Gauge,
    limit: Gauge,
}

impl<C: Clock> std::fmt::Debug for Failures<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Failures")
    }
}

impl<C: Clock + Clone> Failures<C> {
    /// No limit until [`Self::limit_to`] sets one.
    pub(super) fn new(metrics: &Metrics, clock: C) -> Self {
        let (refused, gauge, limit) = (Counter::default(), Gauge::default(), Gauge::default());
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
                limit.clone(),
            );
        });
        Self {
            per_minute: AtomicU32::new(0),
            budget: ArcSwapOption::empty(),
            ledger: Ledger::new(Keys::with_capacity(ADDRESSES_MAX), clock),
            blocked: Mutex::default(),
            count: AtomicUsize::new(0),
            refused,
            gauge,
            limit,
        }
    }

    /// From now on `per_minute` failures of an address are looked at. Who is blocked stays so until its time is over.
    pub(super) fn limit_to(&self, per_minute: u32) {
        if self.per_minute.swap(per_minute, Ordering::Relaxed) != per_minute {
            self.budget.store(Budget::new(per_minute, per_minute, &self.ledger).map(Arc::new));
            self.limit.set(per_minute.into());
        }
    }

    /// Whether any address is watched: the cheap question before [`Self::check`].
    pub fn is_watchful(&self) -> bool {
        self.count.load(Ordering::Relaxed) > 0
    }

    /// Notes that evidence from `address` did not hold.
    pub fn note(&self, address: IpAddr) {
        let Some(budget) = &*self.budget.load() else { return };
        let address = client_address(address);
        let Err(pause) = budget.take(address, &self.ledger) else { return };
        let until = self.ledger.clock().now() + pause.into();
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
                let most = self.per_minute.load(Ordering::Relaxed);
                let what = format!("{most} failed authentications in a minute came from this address");
                Err(super::limited(&what, "authentication_failures_max", pause))
            }
        }
    }

    fn pause(&self, address: IpAddr) -> Option<Duration> {
        if !self.is_watchful() {
            return None;
        }
        let (address, now) = (client_address(address), self.ledger.clock().now());
        let mut blocked = self.locked();
        let until = *blocked.get(&address)?;
        if until <= now {
            blocked.remove(&address);
            self.counted(&blocked);
            return None;
        }
        Some(until.duration_since(now).into())
    }

    /// Forgets addresses whose time is over, a part of them with each step.
    pub(super) fn forget_past(&self) -> impl Iterator<Item = ()> {
        let (mut blocked, now) = (self.locked(), self.ledger.clock().now());
        blocked.retain(|_, until| *until > now);
        self.counted(&blocked);
        drop(blocked);
        self.ledger.forget_full()
    }

    fn counted(&self, blocked: &HashMap<IpAddr, C::Instant>) {
        self.count.store(blocked.len(), Ordering::Relaxed);
        self.gauge.set(i64::try_from(blocked.len()).unwrap_or(i64::MAX));
    }

    fn locked(&self) -> MutexGuard<'_, HashMap<IpAddr, C::Instant>> {
        self.blocked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
