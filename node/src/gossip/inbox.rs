//! How much of what peers send is taken in: what is above it waits at the peer, not here.

use super::{handle::Command, metrics::GossipMetrics};
use p2p_core::{NodeId, wire::MAX_FRAME};
use p2p_proto::v1::GossipFrame;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, Instant},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// Bytes of messages, decompressed, that wait for the task or are being decoded, of all peers together.
const ROOM: usize = 64 * 1024 * 1024;
/// What one frame takes of its peer's time, whatever it holds: 250 a second.
const FRAME_TIME: Duration = Duration::from_millis(4);
/// Bytes of messages, decompressed, that a peer may send in a second.
const BYTES_PER_SECOND: u32 = 4 * 1024 * 1024;
/// How much of a peer's time may be taken in advance: 2,000 frames or 32 MiB at once, more than the records of 10,000 nodes.
const BURST: Duration = Duration::from_secs(8);

/// Where the frames of all streams go. Clones are the same.
#[derive(Clone, Debug)]
pub(super) struct Inbox {
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) metrics: GossipMetrics,
    room: Arc<Semaphore>,
    allowances: Arc<Mutex<HashMap<NodeId, Weak<Allowance>>>>,
}

/// Room for one message. It is given back when this is dropped.
pub(super) type Room = OwnedSemaphorePermit;

impl Inbox {
    pub(super) fn new(commands: mpsc::Sender<Command>, metrics: GossipMetrics) -> Self {
        let room = Arc::new(Semaphore::new(ROOM));
        Self { commands, metrics, room, allowances: Arc::default() }
    }

    /// What `peer` may send, over all its streams together.
    pub(super) fn allowance(&self, peer: &NodeId) -> Arc<Allowance> {
        let mut allowances = locked(&self.allowances);
        if let Some(allowance) = allowances.get(peer).and_then(Weak::upgrade) {
            return allowance;
        }
        // As few as peers with a stream.
        allowances.retain(|_, allowance| allowance.strong_count() > 0);
        let allowance = Arc::new(Allowance(Mutex::new(Instant::now())));
        allowances.insert(peer.clone(), Arc::downgrade(&allowance));
        allowance
    }

    /// Waits until `frame` may be opened: until its peer has time for it, and all peers together room.
    pub(super) async fn room(
        &self,
        peer: &NodeId,
        allowance: &Allowance,
        frame: &GossipFrame,
    ) -> Option<Room> {
        let said = usize::try_from(frame.uncompressed_length).unwrap_or(MAX_FRAME);
        let bytes = frame.payload.len().max(said).min(MAX_FRAME);
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let wait = allowance.take(Instant::now(), bytes);
        if !wait.is_zero() {
            tracing::debug!(peer.id = %peer, ?wait, "the peer sends more than its share; it is read more slowly");
            self.metrics.slowed.inc();
            tokio::time::sleep(wait).await;
        }
        // Never closed.
        self.room.clone().acquire_many_owned(bytes).await.ok()
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Up to when a peer has used up its time.
#[derive(Debug)]
pub(super) struct Allowance(Mutex<Instant>);

impl Allowance {
    /// Takes a frame of so many bytes into account. Returns how long to wait before it is looked at.
    fn take(&self, now: Instant, bytes: u32) -> Duration {
        let cost = FRAME_TIME.max(Duration::from_secs(1) * bytes / BYTES_PER_SECOND);
        let mut used = locked(&self.0);
        *used = (*used).max(now) + cost;
        used.saturating_duration_since(now).saturating_sub(BURST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_may_send_much_at_once_and_little_for_ever() {
        let now = Instant::now();
        let frames = Allowance(Mutex::new(now));
        let at_once = (0..10_000).take_while(|_| frames.take(now, 100).is_zero()).count();
        assert_eq!(at_once, 2_000);
        let later = now + Duration::from_secs(10);
        let after = (0..10_000).take_while(|_| frames.take(later, 100).is_zero()).count();
        assert!((1_990..=2_000).contains(&after), "{after}");

        let bytes = Allowance(Mutex::new(now));
        let at_once = (0..100).take_while(|_| bytes.take(now, BYTES_PER_SECOND).is_zero()).count();
        assert_eq!(at_once, 8);
        let frame = u32::try_from(MAX_FRAME).expect("small");
        assert!(bytes.take(now, frame) <= Duration::from_secs(2), "a wait ends");
    }

    #[tokio::test]
    async fn the_streams_of_a_peer_share_what_it_may_send() {
        let inbox = Inbox::new(mpsc::channel(1).0, GossipMetrics::default());
        let (w1, w2) = ("w1".parse().expect("an id"), "w2".parse().expect("an id"));
        let one = inbox.allowance(&w1);
        assert!(Arc::ptr_eq(&one, &inbox.allowance(&w1)));
        assert!(!Arc::ptr_eq(&one, &inbox.allowance(&w2)));
        drop(one);
        drop(inbox.allowance(&w2));
        assert_eq!(locked(&inbox.allowances).len(), 1, "forgotten with the last stream");
    }
}
