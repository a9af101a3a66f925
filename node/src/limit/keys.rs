//! What is remembered of clients: one number each, and never more than [`KEYS_MAX`] of them.

use governor::{nanos::Nanos, state::StateStore};
use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge},
    registry::Registry,
};
use std::{
    collections::HashMap,
    hash::{BuildHasher as _, BuildHasherDefault, Hash, Hasher, RandomState},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Most keys in all; when a shard is full, the eighth of it that has used least makes room.
pub(super) const KEYS_MAX: usize = 1 << 20;
/// Parts with a lock each: calls on different threads rarely meet, and a pass holds none for long.
const SHARDS: usize = 64;

/// A client and what it is charged for, as 64 secret bits: all keys are equally small, and nobody can choose one that
/// meets another's. That two of a million meet by chance, and share a budget, is one in 30 million.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key(u64);

impl Key {
    /// Which of `parts` parts of a table it belongs to. Not by the bits by which a part finds its keys, the lowest and the
    /// highest: those would all be the same there.
    pub(super) fn part(&self, parts: usize) -> usize {
        usize::try_from((self.0 >> 32) % parts as u64).unwrap_or_default()
    }
}

/// Makes keys.
#[derive(Debug, Default)]
pub(super) struct KeyMaker(RandomState);

impl KeyMaker {
    pub(super) fn key(&self, of: impl Hash) -> Key {
        Key(self.0.hash_one(&of))
    }
}

/// The hash of a key is the key, which is one.
#[derive(Debug, Default)]
pub(super) struct AsItIs(u64);

impl Hasher for AsItIs {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// A table by key.
pub(super) type ByKey<T> = HashMap<Key, T, BuildHasherDefault<AsItIs>>;

type Shard = ByKey<Nanos>;

/// The states of all budgets.
#[derive(Debug)]
pub(super) struct Keys {
    shards: Vec<Mutex<Shard>>,
    shard_max: usize,
    count: Gauge,
    forgotten: Counter,
}

impl Keys {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let keys = Self::with_capacity(KEYS_MAX);
        let limit = Gauge::<i64>::default();
        limit.set(i64::try_from(KEYS_MAX).unwrap_or(i64::MAX));
        registry.register("rate_limit_keys", "Budgets that are not full", keys.count.clone());
        registry.register("rate_limit_keys_limit", "Most budgets that are remembered", limit);
        registry.register(
            "rate_limit_keys_forgotten",
            "Budgets forgotten before they were full, those least used, to make room",
            keys.forgotten.clone(),
        );
        keys
    }

    pub(super) fn with_capacity(keys_max: usize) -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        let shard_max = (keys_max / SHARDS).max(1);
        Self { shards, shard_max, count: Gauge::default(), forgotten: Counter::default() }
    }

    fn shard(&self, key: &Key) -> MutexGuard<'_, Shard> {
        locked(&self.shards[key.part(SHARDS)])
    }

    /// Keeps of a full shard what has used most: who is limited stays so, however many others come.
    fn make_room(&self, shard: &mut Shard) {
        let mut states: Vec<Nanos> = shard.values().copied().collect();
        let eighth = states.len() / 8;
        let (_, cut, _) = states.select_nth_unstable(eighth);
        let (cut, before) = (*cut, shard.len());
        shard.retain(|_, state| *state > cut);
        let gone = before - shard.len();
        self.count.dec_by(i64::try_from(gone).unwrap_or(i64::MAX));
        self.forgotten.inc_by(gone as u64);
    }

    /// Forgets states up to `past`, a part of them with each step. Who has other work to do does it in between: a step
    /// takes less than a millisecond, all of them some ten.
    pub(super) fn forget(&self, past: Nanos) -> impl Iterator<Item = ()> {
        self.shards.iter().map(move |shard| {
            let mut shard = locked(shard);
            let before = shard.len();
            let kept = shard.values().filter(|state| **state > past).count();
            if kept < shard.capacity() / 4 {
                // Rather than take out one by one. Not at each pass, so that a busy shard does not grow anew after it.
                *shard = shard.drain().filter(|(_, state)| *state > past).collect();
            } else if kept < before {
                shard.retain(|_, state| *state > past);
            }
            self.count.dec_by(i64::try_from(before - kept).unwrap_or(i64::MAX));
        })
    }

    /// How many are remembered.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(|shard| locked(shard).len()).sum()
    }
}

fn locked(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

/// [`Keys`] as a limiter of governor holds them; all budgets share one. A limiter counts time from the moment at which it
/// was made, and budgets are made at several: what is kept counts from the first, which was `since` before this one.
#[derive(Clone, Debug)]
pub(super) struct SharedKeys {
    keys: Arc<Keys>,
    since: Nanos,
}

impl SharedKeys {
    pub(super) fn new(keys: Arc<Keys>, since: Nanos) -> Self {
        Self { keys, since }
    }
}

impl StateStore for SharedKeys {
    type Key = Key;

    fn measure_and_replace<T, F, E>(&self, key: &Key, measure: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let mut shard = self.keys.shard(key);
        if let Some(state) = shard.get_mut(key) {
            let (outcome, next) = measure(Some(state.saturating_sub(self.since)))?;
            *state = next + self.since;
            return Ok(outcome);
        }
        let (outcome, next) = measure(None)?;
        if shard.len() >= self.keys.shard_max {
            self.keys.make_room(&mut shard);
        }
        shard.insert(*key, next + self.since);
        self.keys.count.inc();
        Ok(outcome)
    }
}
