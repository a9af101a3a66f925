//! How many calls are under way, in all and for each client.

use super::{
    count::{Count, Full},
    keys::Key,
};
use crate::error::{Fault, Reason};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};
use std::{
    hash::Hash,
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

/// When to come again, told to a client that has too many calls under way: about when one of them may have ended.
const PAUSE: Duration = Duration::from_millis(100);
/// Most streams that watch health, in all and of one client. They have no share in the room for calls: strangers may watch
/// for as long as they like, and could take all of it.
const WATCHES_MAX: usize = 1024;
const WATCHES_PER_CLIENT: usize = 128;

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
    /// A stream that watches health.
    Watch,
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
    calls: Count,
    watches: Count,
    refused: Family<Labels, Counter>,
    under_way: Gauge,
}

impl Calls {
    /// None are let in until [`Self::limit_to`] says how many.
    pub(super) fn register(registry: &mut Registry) -> Arc<Self> {
        let refused = Family::<Labels, Counter>::default();
        for limit in ["node", "client", "watches"] {
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
            "Calls refused because as many as may be were under way, at the node or of the client, or as many watched health",
            refused.clone(),
        );
        Arc::new(Self {
            all_max: AtomicUsize::new(0),
            client_max: AtomicUsize::new(0),
            shown,
            calls: Count::default(),
            watches: Count::default(),
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
            Weight::Watch => return self.watch(client),
            Weight::Forwarded => None,
            Weight::Client => Some(client),
        };
        let [all_max, client_max] =
            [&self.all_max, &self.client_max].map(|limit| limit.load(Ordering::Relaxed));
        match self.calls.enter(client, all_max, client_max) {
            Ok(key) => {
                self.under_way.inc();
                Ok(Slot(Some((self.clone(), Kind::Call, key))))
            }
            Err(Full::Client) => Err(self.refuse(
                "client",
                Reason::TooManyCalls,
                format!("this client has {client_max} calls under way, all that one may have (calls_per_client_max)"),
            )),
            Err(Full::All) => Err(self.refuse(
                "node",
                Reason::Overloaded,
                format!(
                    "this node has {all_max} calls under way, all that it takes (calls_max); try another"
                ),
            )),
        }
    }

    fn watch(self: &Arc<Self>, client: impl Hash) -> Result<Slot, Fault> {
        let refused = |reason, message| Err(self.refuse("watches", reason, message));
        match self.watches.enter(Some(client), WATCHES_MAX, WATCHES_PER_CLIENT) {
            Ok(key) => Ok(Slot(Some((self.clone(), Kind::Watch, key)))),
            Err(Full::Client) => refused(
                Reason::TooManyCalls,
                format!(
                    "this client watches health by {WATCHES_PER_CLIENT} streams, all that one may have; use Check"
                ),
            ),
            Err(Full::All) => refused(
                Reason::Overloaded,
                format!(
                    "{WATCHES_MAX} streams watch health, all that this node takes; try another, or use Check"
                ),
            ),
        }
    }

    fn refuse(&self, limit: &'static str, reason: Reason, message: String) -> Fault {
        self.refused.get_or_create(&Labels { limit }).inc();
        let mut fault = Fault::new(reason, message);
        fault.retry_after = (reason == Reason::TooManyCalls).then_some(PAUSE);
        fault
    }
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Call,
    Watch,
}

/// A call under way; it ends with this.
#[derive(Debug)]
#[must_use]
pub struct Slot(Option<(Arc<Calls>, Kind, Option<Key>)>);

impl Drop for Slot {
    fn drop(&mut self) {
        match self.0.take() {
            Some((calls, Kind::Call, key)) => {
                calls.under_way.dec();
                calls.calls.leave(key);
            }
            Some((calls, Kind::Watch, key)) => calls.watches.leave(key),
            None => {}
        }
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
        assert!(calls.calls.is_empty(), "nothing is kept of calls that have ended");
    }

    #[test]
    fn who_watches_health_takes_no_room_of_calls_and_not_all_of_those_who_watch() {
        let calls = calls(1, 1);
        let watch = |client: usize| calls.enter(Weight::Watch, client);
        let mut slots: Vec<_> = (0..WATCHES_PER_CLIENT).map(|_| watch(0).expect("room")).collect();
        assert_eq!(reason(watch(0)), Reason::TooManyCalls);
        let _call = calls.enter(Weight::Client, 0).expect("a call is no watch");
        for client in 1..WATCHES_MAX / WATCHES_PER_CLIENT {
            slots.extend((0..WATCHES_PER_CLIENT).map(|_| watch(client).expect("room")));
        }
        assert_eq!(reason(watch(usize::MAX)), Reason::Overloaded);
        assert_eq!(calls.refused.get_or_create(&Labels { limit: "watches" }).get(), 2);
        slots.pop();
        drop(watch(usize::MAX).expect("room again"));
        drop(slots);
        assert!(calls.watches.is_empty());
    }
}
