//! How many there are of something, in all and of each client.

use super::keys::{ByKey, Key, KeyMaker};
use std::{
    hash::Hash,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

/// Parts of the table, with a lock each.
const SHARDS: usize = 16;

/// Which of two limits is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    /// That of one client.
    Client,
    /// That of all.
    All,
}

#[derive(Debug, Default)]
pub(super) struct Count {
    all: AtomicUsize,
    clients: [Mutex<ByKey<usize>>; SHARDS],
    keys: KeyMaker,
}

impl Count {
    /// Counts one more of `client`, or of nobody in particular, until [`Self::leave`].
    ///
    /// # Errors
    ///
    /// The client's own limit comes first.
    pub(super) fn enter(
        &self,
        client: Option<impl Hash>,
        all_max: usize,
        client_max: usize,
    ) -> Result<Option<Key>, Full> {
        let key = client.map(|client| self.keys.key(client));
        if let Some(key) = &key {
            let mut clients = self.shard(key);
            let count = clients.entry(*key).or_default();
            if *count >= client_max {
                return Err(Full::Client);
            }
            *count += 1;
        }
        if self.all.fetch_add(1, Ordering::Relaxed) >= all_max {
            self.leave(key);
            return Err(Full::All);
        }
        Ok(key)
    }

    pub(super) fn leave(&self, key: Option<Key>) {
        self.all.fetch_sub(1, Ordering::Relaxed);
        let Some(key) = key else { return };
        let mut clients = self.shard(&key);
        if let Some(count) = clients.get_mut(&key) {
            *count -= 1;
            if *count == 0 {
                clients.remove(&key);
            }
        }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.all.load(Ordering::Relaxed) == 0
            && self.clients.iter().all(|shard| shard.lock().is_ok_and(|it| it.is_empty()))
    }

    fn shard(&self, key: &Key) -> MutexGuard<'_, ByKey<usize>> {
        self.clients[key.part(SHARDS)].lock().unwrap_or_else(PoisonError::into_inner)
    }
}
