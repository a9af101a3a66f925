//! Frames on their way to one peer: as many, and as large together, as it may keep waiting.

use p2p_proto::v1::GossipFrame;
use prost::Message as _;
use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};
use tokio::sync::mpsc;
use tokio_stream::Stream;

/// Frames that may wait for one peer; more are dropped, and repaired by anti-entropy.
const QUEUE: usize = 512;
/// Bytes that may wait for one peer. One frame always may.
const QUEUE_BYTES: usize = 16 * 1024 * 1024;
/// A peer that takes nothing for so long while its queue is full reads no more, or has stopped.
const STALLED: Duration = Duration::from_secs(10);

/// A queue, and what comes out of it.
pub(super) fn outbox() -> (Outbox, Outflow) {
    let (sender, frames) = mpsc::channel(QUEUE);
    let waiting = Arc::new(AtomicUsize::new(0));
    (Outbox { frames: sender, waiting: waiting.clone(), full_since: None }, Outflow { frames, waiting })
}

/// The end that is filled.
#[derive(Debug)]
pub(super) struct Outbox {
    frames: mpsc::Sender<GossipFrame>,
    waiting: Arc<AtomicUsize>,
    /// How much was waiting when it was found full first, and when that was.
    full_since: Option<(Instant, usize)>,
}

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    /// There is room.
    Free,
    /// There is none now.
    Full,
    /// There has been none for so long that there will be none.
    Stalled,
}

impl Outbox {
    /// Whether the stream has ended.
    pub(super) fn is_closed(&self) -> bool {
        self.frames.is_closed()
    }

    /// Whether a frame may be sent now.
    pub(super) fn room(&mut self, now: Instant) -> Room {
        let waiting = self.waiting.load(Ordering::Acquire);
        if self.frames.capacity() > 0 && waiting < QUEUE_BYTES {
            self.full_since = None;
            return Room::Free;
        }
        // What has taken anything meanwhile is slow, not stalled.
        let (since, then) = *self.full_since.get_or_insert((now, waiting));
        if waiting < then {
            self.full_since = Some((now, waiting));
        } else if now.duration_since(since) > STALLED {
            return Room::Stalled;
        }
        Room::Full
    }

    /// Sends a frame for which there is [`Room::Free`]. Returns false if the stream has ended meanwhile.
    pub(super) fn send(&self, frame: GossipFrame) -> bool {
        let bytes = frame.encoded_len();
        self.waiting.fetch_add(bytes, Ordering::AcqRel);
        let sent = self.frames.try_send(frame).is_ok();
        if !sent {
            self.waiting.fetch_sub(bytes, Ordering::AcqRel);
        }
        sent
    }
}

/// The end from which the stream takes.
#[derive(Debug)]
pub struct Outflow {
    frames: mpsc::Receiver<GossipFrame>,
    waiting: Arc<AtomicUsize>,
}

impl Stream for Outflow {
    type Item = GossipFrame;
    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<GossipFrame>> {
        let frame = ready!(self.frames.poll_recv(context));
        if let Some(frame) = &frame {
            self.waiting.fetch_sub(frame.encoded_len(), Ordering::AcqRel);
        }
        Poll::Ready(frame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio_stream::StreamExt as _;

    fn frame(bytes: usize) -> GossipFrame {
        GossipFrame { payload: vec![0; bytes].into(), ..GossipFrame::default() }
    }

    /// Fills a queue with frames of `bytes` and says how many it took.
    fn fill(outbox: &mut Outbox, now: Instant, bytes: usize) -> usize {
        (0..10_000).take_while(|_| outbox.room(now) == Room::Free && outbox.send(frame(bytes))).count()
    }

    #[tokio::test]
    async fn what_waits_is_bounded_by_number_and_by_size() {
        let now = Instant::now();
        let (mut small, _flow) = outbox();
        assert_eq!(fill(&mut small, now, 10), QUEUE);
        let (mut large, mut flow) = outbox();
        assert_eq!(fill(&mut large, now, 1024 * 1024), 16);
        flow.next().await.expect("a frame");
        assert_eq!(large.room(now), Room::Free);
        drop(flow);
        assert!(large.is_closed() && !large.send(frame(1)));
    }

    #[tokio::test]
    async fn who_takes_nothing_has_stalled_and_who_takes_little_is_slow() {
        let now = Instant::now();
        let after = |seconds| now + Duration::from_secs(seconds);
        let (mut outbox, mut flow) = outbox();
        fill(&mut outbox, now, 1024 * 1024);
        outbox.send(frame(10));
        assert_eq!(outbox.room(after(9)), Room::Full);
        flow.next().await.expect("a frame");
        fill(&mut outbox, after(9), 1024 * 1024);
        assert_eq!(outbox.room(after(18)), Room::Full, "it has taken one");
        assert_eq!(outbox.room(after(20)), Room::Stalled);
    }
}
