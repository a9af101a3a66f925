//! Frames on their way to one peer.
//!
//! The queue takes without waiting, so that whoever reads a stream never waits for its writer. What bounds it are the
//! permits that frames carry: each is given back when its frame leaves.

use p2p_proto::v1::{PeerFrame, peer_frame::Kind};
use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_stream::Stream;
use tonic::Status;

#[derive(Debug)]
enum Outgoing {
    Frame(PeerFrame, Option<OwnedSemaphorePermit>),
    End(Option<Status>),
}

#[derive(Debug, Default)]
struct Counts {
    put: AtomicU64,
    taken: AtomicU64,
}

/// The end that is filled.
#[derive(Debug)]
pub(super) struct Queue {
    frames: mpsc::UnboundedSender<Outgoing>,
    counts: Arc<Counts>,
}

/// A queue, and what comes out of it.
pub(super) fn queue() -> (Queue, Outflow) {
    let (sender, frames) = mpsc::unbounded_channel();
    let counts = Arc::new(Counts::default());
    (Queue { frames: sender, counts: counts.clone() }, Outflow { frames, counts })
}

impl Queue {
    /// Sends a frame about the call `call`, and gives `permit` back when it has left. What is sent after the end is lost.
    pub(super) fn send(&self, call: u64, kind: Kind, permit: Option<OwnedSemaphorePermit>) {
        self.put(Outgoing::Frame(PeerFrame { call, kind: Some(kind) }, permit));
    }

    /// Ends this side of the stream, in order or for a reason.
    pub(super) fn end(&self, why: Option<Status>) {
        self.put(Outgoing::End(why));
    }

    fn put(&self, outgoing: Outgoing) {
        if self.frames.send(outgoing).is_ok() {
            self.counts.put.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many frames have left, if any wait.
    pub(super) fn left_while_waiting(&self) -> Option<u64> {
        let taken = self.counts.taken.load(Ordering::Relaxed);
        (self.counts.put.load(Ordering::Relaxed) != taken && !self.frames.is_closed()).then_some(taken)
    }
}

/// The end from which the stream takes. tonic writes what is ready as one piece.
#[derive(Debug)]
pub struct Outflow {
    frames: mpsc::UnboundedReceiver<Outgoing>,
    counts: Arc<Counts>,
}

impl Stream for Outflow {
    type Item = Result<PeerFrame, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let outgoing = ready!(self.frames.poll_recv(context));
        self.counts.taken.fetch_add(1, Ordering::Relaxed);
        Poll::Ready(match outgoing {
            Some(Outgoing::Frame(frame, _permit)) => Some(Ok(frame)),
            Some(Outgoing::End(why)) => {
                self.frames.close();
                why.map(Err)
            }
            None => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use p2p_proto::v1::PeerClosing;
    use tokio::sync::Semaphore;
    use tokio_stream::StreamExt as _;

    #[tokio::test]
    async fn a_permit_comes_back_when_its_frame_leaves_and_who_reads_nothing_is_found_out() {
        let (queue, mut flow) = queue();
        let room = Arc::new(Semaphore::new(2));
        assert_eq!(queue.left_while_waiting(), None, "nothing waits");
        for call in 1..=2 {
            let permit = room.clone().try_acquire_owned().expect("room");
            queue.send(call, Kind::Closing(PeerClosing {}), Some(permit));
        }
        assert_eq!((room.available_permits(), queue.left_while_waiting()), (0, Some(0)));
        assert_eq!(queue.left_while_waiting(), Some(0), "it stands still");
        assert_eq!(flow.next().await.expect("more").expect("a frame").call, 1);
        assert_eq!((room.available_permits(), queue.left_while_waiting()), (1, Some(1)));
        queue.end(Some(Status::aborted("over")));
        assert!(flow.next().await.expect("more").is_ok());
        assert_eq!(flow.next().await.expect("the reason").expect_err("the end").message(), "over");
        queue.send(3, Kind::Closing(PeerClosing {}), None);
        assert!(flow.next().await.is_none(), "what is sent after the end is lost");
        assert_eq!(queue.left_while_waiting(), None);
    }
}
