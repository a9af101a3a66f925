//! The state of one stream: its books, its queue, and its end.

use super::{
    Service, StreamMetrics,
    ask::{Lost, Reply, Waiter},
    frame,
    queue::Queue,
    serve::{self, Serving},
};
use crate::auth::Connection;
use p2p_core::{
    NodeId,
    calls::{Arrival, Asked, CALLS_MAX, Part, Served, Violation},
};
use p2p_proto::v1::{
    PeerAnswer, PeerCall, PeerClosing, PeerFrame, PeerRefusal, PeerRefusalReason, peer_frame::Kind,
};
use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};
use tokio::sync::{Semaphore, mpsc};
use tonic::Status;

/// Bytes of calls and answers that may wait in one stream's queue. Calls beyond it are passed through, answers wait.
pub(super) const ROOM: usize = 1024 * 1024;

/// The calls that this side makes.
#[derive(Debug, Default)]
pub(super) struct Asking {
    pub(super) book: Asked<Waiter>,
    /// No more calls are made, and the peer knows.
    pub(super) closed: bool,
}

/// What the tasks of one stream share.
pub(super) struct Shared {
    pub(super) peer: NodeId,
    pub(super) asking: Mutex<Asking>,
    pub(super) served: Mutex<Served<Serving>>,
    pub(super) queue: Queue,
    /// Calls that this side may have in flight.
    pub(super) calls: Arc<Semaphore>,
    /// [`ROOM`].
    pub(super) room: Arc<Semaphore>,
    /// Refusals that may wait: as many as an honest peer has calls.
    refusals: Arc<Semaphore>,
    closing: AtomicBool,
    peer_closed: AtomicBool,
    over: AtomicBool,
    /// What answers calls, and on which connection they come.
    pub(super) service: Service,
    pub(super) connection: Arc<Connection>,
    pub(super) metrics: Arc<StreamMetrics>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerStream").field("peer", &self.peer).finish_non_exhaustive()
    }
}

/// No panic leaves the books half written: what is done under a lock cannot fail.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(super) fn new(
        peer: NodeId,
        calls_max: u32,
        queue: Queue,
        (service, connection): (Service, Arc<Connection>),
        metrics: Arc<StreamMetrics>,
    ) -> Arc<Self> {
        metrics.open.inc();
        Arc::new(Self {
            peer,
            asking: Mutex::default(),
            served: Mutex::new(Served::new(CALLS_MAX as usize)),
            queue,
            calls: Arc::new(Semaphore::new(calls_max.min(CALLS_MAX) as usize)),
            room: Arc::new(Semaphore::new(ROOM)),
            refusals: Arc::new(Semaphore::new(CALLS_MAX as usize)),
            closing: AtomicBool::new(false),
            peer_closed: AtomicBool::new(false),
            over: AtomicBool::new(false),
            service,
            connection,
            metrics,
        })
    }

    /// Takes a frame that has come. Never waits.
    pub(super) fn received(self: &Arc<Self>, frame: PeerFrame) -> Result<(), Violation> {
        let call = frame.call;
        match frame.kind {
            Some(Kind::Request(request)) => self.called(call, request),
            Some(Kind::Answer(answer)) => self.answered(call, answer),
            Some(Kind::Credit(bytes)) => match lock(&self.served).get(call)? {
                Some(serving) => serving.credit.grant(bytes),
                None => Ok(()),
            },
            Some(Kind::Cancel(_)) => {
                if let Some(serving) = lock(&self.served).cancelled(call)? {
                    serving.task.abort();
                }
                self.end_if_over();
                Ok(())
            }
            Some(Kind::Refusal(refusal)) => {
                let waiter = lock(&self.asking).book.refused(call)?;
                if let Some(Waiter::Head(waiter)) = waiter {
                    // An error: its caller has turned away.
                    waiter.send(Reply::Refused(refusal.reason())).ok();
                }
                self.end_if_over();
                Ok(())
            }
            Some(Kind::Closing(_)) => {
                self.peer_closed.store(true, Ordering::Release);
                self.close();
                Ok(())
            }
            Some(Kind::Hello(_)) => Err(Violation::Hello),
            None => Ok(()),
        }
    }

    fn called(self: &Arc<Self>, number: u64, call: PeerCall) -> Result<(), Violation> {
        if self.peer_closed.load(Ordering::Acquire) {
            return Err(Violation::AfterClosing);
        }
        let request = frame::request(call)?;
        let mut served = lock(&self.served);
        let refusal = match (served.admit(number)?, self.is_closing()) {
            (_, true) => PeerRefusalReason::Stopping,
            (false, false) => PeerRefusalReason::Busy,
            (true, false) => {
                served.begin(number, serve::spawn(self, number, request));
                return Ok(());
            }
        };
        drop(served);
        let permit = self.refusals.clone().try_acquire_owned().map_err(|_| Violation::Flood)?;
        self.metrics.refused(refusal);
        self.queue.send(number, Kind::Refusal(PeerRefusal { reason: refusal.into() }), Some(permit));
        Ok(())
    }

    fn answered(&self, number: u64, answer: PeerAnswer) -> Result<(), Violation> {
        let part = Part { head: answer.head, body: answer.body.len(), end: answer.end };
        let mut asking = lock(&self.asking);
        // Errors of sending: the caller has just turned away, and will say so.
        match asking.book.answered(number, part)? {
            Arrival::Nobody => return Ok(()),
            Arrival::More(Waiter::Rest(waiter)) => {
                waiter.send(Ok(answer)).ok();
                return Ok(());
            }
            Arrival::More(waiter) => {
                let (rest, more) = mpsc::unbounded_channel();
                if let Waiter::Head(head) = std::mem::replace(waiter, Waiter::Rest(rest)) {
                    head.send(Reply::Answer(answer, Some(more))).ok();
                }
                return Ok(());
            }
            Arrival::Last(Waiter::Rest(waiter)) => drop(waiter.send(Ok(answer))),
            Arrival::Last(Waiter::Head(waiter)) => drop(waiter.send(Reply::Answer(answer, None))),
        }
        drop(asking);
        self.end_if_over();
        Ok(())
    }

    /// Makes no more calls and takes none; the stream ends when those in flight, both ways, have ended.
    pub(super) fn close(&self) {
        let mut asking = lock(&self.asking);
        if !std::mem::replace(&mut asking.closed, true) {
            self.queue.send(0, Kind::Closing(PeerClosing {}), None);
        }
        drop(asking);
        self.closing.store(true, Ordering::Release);
        self.end_if_over();
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// Whether this side has ended.
    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    /// Ends this side once both make no more calls and none is in flight: nothing more will be sent.
    pub(super) fn end_if_over(&self) {
        if !self.is_closing() || !self.peer_closed.load(Ordering::Acquire) {
            return;
        }
        let idle = lock(&self.asking).book.is_empty() && lock(&self.served).is_empty();
        if idle && !self.over.swap(true, Ordering::AcqRel) {
            self.queue.end(None);
        }
    }

    /// The stream has ended: tells every caller `why`, and stops answering.
    pub(super) fn fail(&self, why: &str, status: Option<Status>) {
        self.closing.store(true, Ordering::Release);
        let lost = Lost::new(&self.peer, why);
        let mut asking = lock(&self.asking);
        asking.closed = true;
        for waiter in asking.book.drain() {
            // An error: the caller has turned away.
            match waiter {
                Waiter::Head(waiter) => drop(waiter.send(Reply::Lost(lost.clone()))),
                Waiter::Rest(waiter) => drop(waiter.send(Err(lost.clone()))),
            }
        }
        drop(asking);
        for serving in lock(&self.served).drain() {
            serving.task.abort();
        }
        if !self.over.swap(true, Ordering::AcqRel) {
            self.queue.end(status);
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.metrics.open.dec();
    }
}
