//! How many calls are under way, in all and for each client.

use super::keys::{Key, KeyMaker};
use crate::error::{Fault, Reason};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};
use std::{
    collections::HashMap,
    hash::Hash,
    num::NonZeroU32,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

/// When to come again, told to a client that has too many calls under way: about when one of them may have ended.
const PAUSE: Duration = Duration::from_millis(100);
/// Parts of the table, with a lock each.
const SHARDS: usize = 16;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    limit: &'static str,
}

/// What of a call counts against the limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    /// A call of a client.
    Client,
    /// A call that a node forwards: its client was counted where it entered.
    Forwarded,
    /// What must get through when all else is refused: health checks, metrics, and what nodes tell each other.
    Vital,
}

/// The calls under way.
#[derive(Debug)]
pub struct Calls {
    all_max: AtomicUsize,
    client_max: AtomicUsize,
    /// The same for those who read metrics.
    shown: [Gauge; 2],
    all: AtomicUsize,
    clients: [Mutex<HashMap<Key, usize>>; SHARDS],
    keys: KeyMaker,
    refused: Family<Labels, Counter>,
    under_way: Gauge,
}

impl Calls {
    /// None are let in until [`Self::limit_to`] says how many.
    pub(super) fn register(registry: &mut Registry) -> Arc<Self> {
        let refused = Family::<Labels, Counter>::default();
        for limit in ["node", "client"] {
            drop(refused.get_or_create(&Labels { limit }));
        }
        let under_way = Gauge::default();
        registry.register(
            "calls_under_way",
            "Calls and requests under way, but vital ones",
            under_way.clone(),
        );
        let shown = [
            ("calls_limit", "Most calls and requests under way (calls_max)"),
            ("calls_per_client_limit", "Most of one client (calls_per_client_max)"),
        ]
        .map(|(name, help)| {
            let limit = Gauge::default();
            registry.register(name, help, limit.clone());
            limit
        });
        registry.register(
            "calls_refused",
            "Calls refused because as many as may be were under way, at the node or of the client",
            refused.clone(),
        );
        Arc::new(Self {
            all_max: AtomicUsize::new(0),
            client_max: AtomicUsize::new(0),
            shown,
            all: AtomicUsize::new(0),
            clients: Default::default(),
            keys: KeyMaker::default(),
            refused,
            under_way,
        })
    }

    /// From now on at most `all_max` calls, and `client_max` of one client. Those under way go on.
    pub(super) fn limit_to(&self, all_max: NonZeroU32, client_max: NonZeroU32) {
        for (limit, value) in [(&self.all_max, all_max), (&self.client_max, client_max)] {
            limit.store(value.get() as usize, Ordering::Relaxed);
        }
        for (gauge, value) in self.shown.iter().zip([all_max, client_max]) {
            gauge.set(value.get().into());
        }
    }

    /// Counts a call until the slot is dropped.
    ///
    /// # Errors
    ///
    /// The client's own limit comes first: [`Reason::TooManyCalls`]; then the node's: [`Reason::Overloaded`].
    pub fn enter(self: &Arc<Self>, weight: Weight, client: impl Hash) -> Result<Slot, Fault> {
        let client = match weight {
            Weight::Vital => return Ok(Slot(None)),
            Weight::Forwarded => None,
            Weight::Client => Some(self.enter_client(self.keys.key(client))?),
        };
        let all_max = self.all_max.load(Ordering::Relaxed);
        if self.all.fetch_add(1, Ordering::Relaxed) >= all_max {
            self.all.fetch_sub(1, Ordering::Relaxed);
            self.leave_client(client);
            return Err(self.refuse(
                "node",
                Reason::Overloaded,
                format!(
                    "this node has {all_max} calls under way, all that it takes (calls_max); try another"
                ),
            ));
        }
        self.under_way.inc();
        Ok(Slot(Some((self.clone(), client))))
    }

    fn enter_client(&self, key: Key) -> Result<Key, Fault> {
        let mut clients = self.shard(&key).lock().unwrap_or_else(PoisonError::into_inner);
        let count = clients.entry(key).or_default();
        let max = self.client_max.load(Ordering::Relaxed);
        if *count >= max {
            drop(clients);
            let mut fault = self.refuse(
                "client",
                Reason::TooManyCalls,
                format!(
                    "this client has {max} calls under way, all that one may have (calls_per_client_max)"
                ),
            );
            fault.retry_after = Some(PAUSE);
            return Err(fault);
        }
        *count += 1;
        Ok(key)
    }

    fn leave_client(&self, key: Option<Key>) {
        let Some(key) = key else { return };
        let mut clients = self.shard(&key).lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = clients.get_mut(&key) {
            *count -= 1;
            if *count == 0 {
                clients.remove(&key);
            }
        }
    }

    fn shard(&self, key: &Key) -> &Mutex<HashMap<Key, usize>> {
        &self.clients[key.part(SHARDS)]
    }

    fn refuse(&self, limit: &'static str, reason: Reason, message: String) -> Fault {
        self.refused.get_or_create(&Labels { limit }).inc();
        Fault::new(reason, message)
    }
}

/// A call under way; it ends with this.
#[derive(Debug)]
#[must_use]
pub struct Slot(Option<(Arc<Calls>, Option<Key>)>);

impl Drop for Slot {
    fn drop(&mut self) {
        let Some((calls, client)) = self.0.take() else { return };
        calls.all.fetch_sub(1, Ordering::Relaxed);
        calls.under_way.dec();
        calls.leave_client(client);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn calls(all: u32, client: u32) -> Arc<Calls> {
        let calls = Calls::register(&mut Registry::default());
        limit(&calls, all, client);
        calls
    }

    fn limit(calls: &Calls, all: u32, client: u32) {
        let number = |number| NonZeroU32::new(number).expect("above zero");
        calls.limit_to(number(all), number(client));
    }

    fn reason(refused: Result<Slot, Fault>) -> Reason {
        refused.expect_err("refused").reason
    }

    #[test]
    fn a_client_reaches_its_own_limit_and_leaves_room_for_others() {
        let calls = calls(3, 2);
        let first = calls.enter(Weight::Client, "a").expect("room");
        let _second = calls.enter(Weight::Client, "a").expect("room");
        let refused = calls.enter(Weight::Client, "a").expect_err("too many");
        assert_eq!((refused.reason, refused.retry_after), (Reason::TooManyCalls, Some(PAUSE)));
        let _other = calls.enter(Weight::Client, "b").expect("room");
        assert_eq!(reason(calls.enter(Weight::Client, "c")), Reason::Overloaded);
        drop(first);
        let _again = calls.enter(Weight::Client, "a").expect("room again");
        assert_eq!(calls.refused.get_or_create(&Labels { limit: "client" }).get(), 1);
        assert_eq!(calls.refused.get_or_create(&Labels { limit: "node" }).get(), 1);
    }

    #[test]
    fn a_lower_limit_counts_from_the_next_call_on() {
        let calls = calls(3, 2);
        let _slots = [calls.enter(Weight::Client, "a"), calls.enter(Weight::Client, "a")].map(Result::unwrap);
        limit(&calls, 3, 1);
        assert_eq!(reason(calls.enter(Weight::Client, "a")), Reason::TooManyCalls);
        assert!(calls.enter(Weight::Client, "b").is_ok());
        limit(&calls, 2, 1);
        assert_eq!(reason(calls.enter(Weight::Client, "b")), Reason::Overloaded);
        assert_eq!(calls.shown.clone().map(|limit| limit.get()), [2, 1]);
    }

    #[test]
    fn health_and_gossip_get_through_and_what_nodes_forward_counts_for_the_node_only() {
        let calls = calls(2, 1);
        let slots: Vec<_> = (0..2).map(|_| calls.enter(Weight::Forwarded, "n").expect("room")).collect();
        assert_eq!(reason(calls.enter(Weight::Forwarded, "n")), Reason::Overloaded);
        let _vital = calls.enter(Weight::Vital, "n").expect("always");
        drop(slots);
        assert!(calls.enter(Weight::Client, "a").is_ok());
        let left = calls.clients.iter().map(|shard| shard.lock().expect("no panic").len()).sum::<usize>();
        assert_eq!(
            (calls.all.load(Ordering::Relaxed), left),
            (0, 0),
            "nothing is kept of calls that have ended"
        );
    }
}
