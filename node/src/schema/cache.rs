//! Schemas fetched from other nodes, by digest.

use super::Schema;
use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
};

/// Most schemas of other nodes kept.
const CACHE_LIMIT: usize = 256;
/// Most bytes that all of them take as they were encoded; built, they take some times as much.
const CACHE_BYTES: usize = 16 * 1024 * 1024;

/// What the bytes of a digest turned out to be. Since the digest is theirs, that never changes.
pub type Verdict = Result<Arc<Schema>, Arc<str>>;

/// Schemas by digest, and digests whose bytes are unusable. The oldest leave first.
#[derive(Debug, Default)]
pub struct SchemaCache(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    verdicts: HashMap<[u8; 32], Verdict>,
    order: VecDeque<[u8; 32]>,
    bytes: usize,
}

fn bytes_of(verdict: &Verdict) -> usize {
    match verdict {
        Ok(schema) => schema.encoded().len(),
        Err(why) => why.len(),
    }
}

impl SchemaCache {
    /// What is known of `digest`, if its bytes were fetched before.
    pub fn get(&self, digest: &[u8; 32]) -> Option<Verdict> {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.verdicts.get(digest).cloned()
    }

    /// Keeps what was found out about `digest`.
    pub fn insert(&self, digest: [u8; 32], verdict: Verdict) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = bytes_of(&verdict);
        if state.verdicts.insert(digest, verdict).is_some() {
            return;
        }
        state.order.push_back(digest);
        state.bytes += bytes;
        while state.order.len() > CACHE_LIMIT || (state.bytes > CACHE_BYTES && state.order.len() > 1) {
            let Some(oldest) = state.order.pop_front() else { break };
            let gone = state.verdicts.remove(&oldest);
            state.bytes -= gone.as_ref().map_or(0, bytes_of);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_leave_when_there_are_too_many_or_they_are_too_large() {
        let cache = SchemaCache::default();
        let digest = |at: usize| crate::schema::sha256(&at.to_be_bytes());
        let large: Arc<str> = "x".repeat(CACHE_BYTES / 4).into();
        for at in 0..6 {
            cache.insert(digest(at), Err(large.clone()));
        }
        assert!(cache.get(&digest(1)).is_none() && cache.get(&digest(2)).is_some());
        for at in 6..6 + CACHE_LIMIT {
            cache.insert(digest(at), Err("x".into()));
        }
        assert!(cache.get(&digest(5)).is_none() && cache.get(&digest(6)).is_some());
    }
}
