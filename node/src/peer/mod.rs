//! Connections to other nodes: dialling, proving who answered, and the pool that all calls share.
//!
//! One HTTP/2 connection per peer carries gossip, passed-through calls and the peer stream ([`stream`]) alike (more measurably cost CPU).
//! It is dialled when first needed, by one dialler at a time, within [`DIAL_TIMEOUT`], and kept until it
//! breaks, one of its certificates expires or is replaced, nothing has used it for [`IDLE_MAX`], or more than
//! `peer_connections_max` are open; then the one unused for longest is let go. What is let go closes once its last call has ended.

mod dial;
mod resolve;
mod severable;
pub mod stream;
#[cfg(test)]
mod tests;

pub use dial::{
    CONNECTION_WINDOW, DialError, OVERTIME, PeerConnection, STREAM_WINDOW, SendError, dial, error_chain,
};
pub use resolve::resolve;
pub use stream::{PeerStream, Streams, Unanswered as StreamUnanswered, Way};

use crate::{
    identity::{Identity, IdentityStore},
    revocation::Revocations,
    telemetry::Metrics,
};
use p2p_core::NodeId;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
};
use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::{OwnedMutexGuard, oneshot};

/// Longest a dial may take: TCP, TLS and the HTTP/2 preface.
pub const DIAL_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the error of a dial that took [`DIAL_TIMEOUT`] is shared with those who ask after it: they need not wait as long to
/// learn the same.
const TIMEOUT_SHARED: Duration = Duration::from_secs(1);
/// How long a connection is kept that carries neither gossip nor new calls.
pub const IDLE_MAX: Duration = Duration::from_secs(60);

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DialLabels {
    result: &'static str,
}

#[derive(Debug, Default)]
struct Slot {
    connection: Mutex<Option<PeerConnection>>,
    /// Held while dialling, so that one dial serves all who wait. The last dial that failed: those who waited for it share its
    /// error.
    dialling: Arc<tokio::sync::Mutex<Option<Failure>>>,
    /// In milliseconds since the pool was made.
    last_used: AtomicU64,
}

impl Slot {
    fn connection(&self) -> MutexGuard<'_, Option<PeerConnection>> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn usable_at(&self, address: SocketAddr, present: &Identity) -> Option<PeerConnection> {
        self.connection().as_ref().filter(|open| open.is_usable_at(address, present)).cloned()
    }

    fn is_in_use(&self) -> bool {
        self.dialling.try_lock().is_err() || self.connection().as_ref().is_some_and(PeerConnection::is_held)
    }
}

/// A dial that failed.
#[derive(Debug)]
struct Failure {
    at: Instant,
    error: Arc<DialError>,
}

impl Failure {
    /// Whether it answers somebody who asked at `asked`.
    fn answers(&self, asked: Instant) -> bool {
        let timed_out = matches!(*self.error, DialError::Timeout { .. });
        let shared_for = if timed_out { TIMEOUT_SHARED } else { Duration::ZERO };
        self.at + shared_for >= asked
    }
}

/// A node, and where it is looked for.
type Place = (NodeId, SocketAddr);

/// Open connections to other nodes.
#[derive(Debug)]
pub struct PeerPool {
    identity: Arc<IdentityStore>,
    revocations: Arc<Revocations>,
    limit: usize,
    start: Instant,
    /// By node and address: whoever asks for a node that has moved does not wait for a dial of where it was, nor share its error.
    slots: Mutex<HashMap<Place, Arc<Slot>>>,
    streams: Arc<Streams>,
    open: Gauge,
    dials: Family<DialLabels, Counter>,
}

impl PeerPool {
    /// An empty pool that keeps at most `limit` peers.
    pub fn new(
        identity: Arc<IdentityStore>,
        revocations: Arc<Revocations>,
        limit: usize,
        metrics: &Metrics,
    ) -> Self {
        let open = Gauge::default();
        let dials = Family::<DialLabels, Counter>::default();
        for result in ["ok"].into_iter().chain(DialError::WORDS) {
            drop(dials.get_or_create(&DialLabels { result }));
        }
        metrics.register(|registry| {
            registry.register("peer_connections", "Peers with a connection from this node", open.clone());
            registry.register("peer_dials", "Dials of other nodes by result", dials.clone());
        });
        let (streams, start, slots) = (Streams::new(metrics), Instant::now(), Mutex::default());
        Self { identity, revocations, limit, start, slots, streams, open, dials }
    }

    /// Peer streams.
    pub fn streams(&self) -> &Arc<Streams> {
        &self.streams
    }

    /// An open peer stream to `node`, over a connection of this side or, if there is none, of the other. Never dials.
    pub fn stream(&self, node: &NodeId, address: SocketAddr) -> Option<PeerStream> {
        let place = (node.clone(), address);
        let slot = self.slots().get(&place).cloned();
        let ours = slot.and_then(|slot| {
            slot.last_used.store(self.now(), Ordering::Relaxed);
            let present = self.identity.current();
            let connection = slot.connection();
            connection.as_ref().filter(|open| open.is_usable_at(address, &present))?.stream(&self.streams)
        });
        ours.or_else(|| self.streams.accepted(node, address))
    }

    fn slots(&self) -> MutexGuard<'_, HashMap<Place, Arc<Slot>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection to `node`, dialled at `address` if there is none. The dial goes on when nobody waits for it any more: how it
    /// ends is worth knowing to whoever asks next.
    ///
    /// # Errors
    ///
    /// When nobody answers there, or somebody else than `node` does. Nothing was sent then.
    pub async fn get(
        self: &Arc<Self>,
        node: &NodeId,
        address: SocketAddr,
    ) -> Result<PeerConnection, Arc<DialError>> {
        let asked = Instant::now();
        let place = (node.clone(), address);
        let slot = self.slot(&place);
        if let Some(open) = slot.usable_at(address, &self.identity.current()) {
            return Ok(open);
        }
        let failure = slot.dialling.clone().lock_owned().await;
        if let Some(open) = slot.usable_at(address, &self.identity.current()) {
            return Ok(open);
        }
        if let Some(failure) = failure.as_ref().filter(|failure| failure.answers(asked)) {
            return Err(failure.error.clone());
        }
        *slot.connection() = None;
        let (result, dialled) = oneshot::channel();
        tokio::spawn(self.clone().fill(place, slot, failure, result));
        let panicked = |_| {
            let error = io::Error::other("its dial ended without a result");
            Err(Arc::new(DialError::Network { address, error }))
        };
        dialled.await.unwrap_or_else(panicked)
    }

    /// Dials for a slot whose `last` failure is locked, and tells `result`.
    async fn fill(
        self: Arc<Self>,
        place: Place,
        slot: Arc<Slot>,
        mut last: OwnedMutexGuard<Option<Failure>>,
        result: oneshot::Sender<Result<PeerConnection, Arc<DialError>>>,
    ) {
        let (node, address) = &place;
        // Errors of sending: nobody waits any more.
        match self.dial(*address).await.and_then(|dialled| dialled.expect(node)) {
            Ok(dialled) => {
                *slot.connection() = Some(dialled.clone());
                result.send(Ok(dialled)).ok();
            }
            Err(error) => {
                let error = Arc::new(error);
                result.send(Err(error.clone())).ok();
                let timed_out = matches!(*error, DialError::Timeout { .. });
                *last = Some(Failure { at: Instant::now(), error });
                drop(last);
                if timed_out {
                    tokio::time::sleep(TIMEOUT_SHARED).await;
                }
                self.forget(&place, &slot);
            }
        }
    }

    /// Dials an address of which only the address is known, such as a seed's. Who answered is in the
    /// connection, which joins the pool.
    pub async fn get_any(&self, address: SocketAddr) -> Result<PeerConnection, DialError> {
        let dialled = self.dial(address).await?;
        if dialled.node == self.identity.current().spiffe().name {
            return Ok(dialled);
        }
        let slot = self.slot(&(dialled.node.clone(), address));
        let _nobody_else = slot.dialling.lock().await;
        if let Some(open) = slot.usable_at(address, &self.identity.current()) {
            return Ok(open);
        }
        *slot.connection() = Some(dialled.clone());
        Ok(dialled)
    }

    /// Lets go of every connection; those in use close when their calls end.
    pub fn close(&self) {
        self.slots().clear();
        self.open.set(0);
    }

    /// Lets go of what has been idle for [`IDLE_MAX`]. Call it now and then.
    pub fn close_idle(&self) {
        let idle_since = self.now().saturating_sub(u64::try_from(IDLE_MAX.as_millis()).unwrap_or(u64::MAX));
        let mut slots = self.slots();
        slots.retain(|_, slot| {
            let recent = slot.last_used.load(Ordering::Relaxed) > idle_since;
            recent || slot.is_in_use()
        });
        self.open.set(i64::try_from(slots.len()).unwrap_or(i64::MAX));
    }

    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Lets the connection to a node go; calls in flight on it may finish.
    pub fn let_go(&self, node: &NodeId) {
        let mut slots = self.slots();
        slots.retain(|(peer, _), _| peer != node);
        self.open.set(i64::try_from(slots.len()).unwrap_or(i64::MAX));
    }

    async fn dial(&self, address: SocketAddr) -> Result<PeerConnection, DialError> {
        let present = self.identity.current();
        let dialling = dial(address, present.peer_client_config(), self.revocations.live());
        let result = match tokio::time::timeout(DIAL_TIMEOUT, dialling).await {
            // Asked after it was registered: an eviction in between closes it.
            Ok(Ok(dialled))
                if std::iter::once(&dialled.node)
                    .chain(&dialled.vouchers)
                    .any(|node| self.revocations.is_evicted(node)) =>
            {
                Err(DialError::Evicted { address, node: dialled.node })
            }
            Ok(result) => result.map(|connection| connection.until(present.not_after())),
            Err(_elapsed) => Err(DialError::Timeout { address }),
        };
        let word = result.as_ref().map_or_else(DialError::word, |_| "ok");
        self.dials.get_or_create(&DialLabels { result: word }).inc();
        result
    }

    /// The slot of a node at an address; the one unused for longest makes room.
    fn slot(&self, place: &Place) -> Arc<Slot> {
        let now = self.now();
        let mut slots = self.slots();
        if !slots.contains_key(place) && slots.len() >= self.limit {
            let oldest = slots.iter().min_by_key(|(_, slot)| slot.last_used.load(Ordering::Relaxed));
            if let Some(oldest) = oldest.map(|(place, _)| place.clone()) {
                slots.remove(&oldest);
            }
        }
        let slot = slots.entry(place.clone()).or_default().clone();
        slot.last_used.store(now, Ordering::Relaxed);
        self.open.set(i64::try_from(slots.len()).unwrap_or(i64::MAX));
        slot
    }

    /// Drops the slot of a failed dial, unless somebody has used it since.
    fn forget(&self, place: &Place, slot: &Arc<Slot>) {
        let mut slots = self.slots();
        let ours = slots.get(place).is_some_and(|kept| Arc::ptr_eq(kept, slot));
        // Two: the map's and ours. Anybody waiting for the dial holds a third.
        if ours && Arc::strong_count(slot) <= 2 {
            slots.remove(place);
        }
        self.open.set(i64::try_from(slots.len()).unwrap_or(i64::MAX));
    }
}
