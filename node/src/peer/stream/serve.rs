//! The provider's half: a call frame becomes a request to this node's own stack, and its answer becomes frames.

use super::{
    frame::{pack, room},
    shared::{Shared, lock},
};
use crate::error::{Fault, Reason};
use bytes::Bytes;
use futures_util::FutureExt as _;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use p2p_core::calls::{CHUNK_MAX, HEADERS_MAX, Violation, Window};
use p2p_proto::v1::{PeerAnswer, peer_frame::Kind};
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{sync::Notify, task::AbortHandle};
use tonic::{Status, body::Body};

/// Longest wait for a caller that takes nothing of its answer; the call is then given up.
const CREDIT_TIMEOUT: Duration = Duration::from_secs(120);

/// A call that is being answered.
#[derive(Debug)]
pub(super) struct Serving {
    pub(super) task: AbortHandle,
    pub(super) credit: Arc<Credit>,
}

/// How much of an answer may be sent, and who waits for more.
#[derive(Debug, Default)]
pub(super) struct Credit {
    window: Mutex<Window>,
    granted: Notify,
}

impl Credit {
    pub(super) fn grant(&self, bytes: u32) -> Result<(), Violation> {
        lock(&self.window).grant(bytes)?;
        self.granted.notify_one();
        Ok(())
    }

    /// Takes up to `wanted` bytes as soon as there are any; none if the caller takes nothing for too long.
    async fn take(&self, wanted: usize) -> Option<usize> {
        loop {
            let taken = lock(&self.window).take(wanted);
            if taken > 0 {
                return Some(taken);
            }
            tokio::time::timeout(CREDIT_TIMEOUT, self.granted.notified()).await.ok()?;
        }
    }
}

/// Answers the call `number`. The caller holds the books, so that the call is in them before it can end.
pub(super) fn spawn(shared: &Arc<Shared>, number: u64, request: Request<Body>) -> Serving {
    let credit = Arc::new(Credit::default());
    let mut answer =
        Answer { shared: shared.clone(), number, credit: credit.clone(), begun: false, ended: false };
    let answering = async move {
        let response = (answer.shared.service)(answer.shared.connection.clone(), request).await;
        answer.send(response).await;
    };
    let task = tokio::spawn(answering).abort_handle();
    Serving { task, credit }
}

/// An answer on its way.
struct Answer {
    shared: Arc<Shared>,
    number: u64,
    credit: Arc<Credit>,
    begun: bool,
    ended: bool,
}

impl Answer {
    /// Sends a whole answer. What is ready at once goes into one frame.
    async fn send(&mut self, response: Response<Body>) {
        let (head, mut body) = response.into_parts();
        let http_status = match head.status {
            StatusCode::OK => 0,
            status => u32::from(status.as_u16()),
        };
        let Some(headers) = pack(&head.headers) else { return self.part(refusal(too_large("head"))).await };
        let mut next = PeerAnswer { head: true, http_status, headers, ..PeerAnswer::default() };
        loop {
            let frame = match body.frame().now_or_never() {
                Some(frame) => frame,
                None => {
                    if next.head || !next.body.is_empty() {
                        self.part(std::mem::take(&mut next)).await;
                    }
                    body.frame().await
                }
            };
            let trailers = match frame {
                None => return self.part(PeerAnswer { end: true, ..next }).await,
                Some(Err(status)) => trailers_of(&status),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        next = match self.data(next, data).await {
                            Some(next) => next,
                            None => return,
                        };
                        continue;
                    }
                    Err(frame) => frame.into_trailers().unwrap_or_default(),
                },
            };
            return self.end(next, &trailers).await;
        }
    }

    /// Sends all of `data` but its last part, which may share a frame with what comes next.
    async fn data(&mut self, mut next: PeerAnswer, mut data: Bytes) -> Option<PeerAnswer> {
        while !data.is_empty() {
            if !next.body.is_empty() {
                self.part(std::mem::take(&mut next)).await;
            }
            let Some(taken) = self.credit.take(data.len().min(CHUNK_MAX)).await else {
                let fault = Fault::new(
                    Reason::DeadlineExceeded,
                    format!("its caller took nothing of the answer for {} s", CREDIT_TIMEOUT.as_secs()),
                );
                self.end(next, &trailers_of(&fault.to_status())).await;
                return None;
            };
            next.body = data.split_to(taken);
        }
        Some(next)
    }

    async fn end(&mut self, next: PeerAnswer, trailers: &HeaderMap) {
        let too_large = || pack(&trailers_of(&too_large("trailers").to_status()));
        let trailers = pack(trailers).or_else(too_large).unwrap_or_default();
        self.part(PeerAnswer { trailers, end: true, ..next }).await;
    }

    async fn part(&mut self, part: PeerAnswer) {
        let size = room(&part.headers, part.body.len()).saturating_add(room(&part.trailers, 0));
        // An error: the semaphore is never closed.
        let room = self.shared.room.clone().acquire_many_owned(size).await.ok();
        (self.begun, self.ended) = (true, part.end);
        self.shared.queue.send(self.number, Kind::Answer(part), room);
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        let in_flight = lock(&self.shared.served).end(self.number);
        if in_flight && !self.ended {
            // What answers has panicked.
            let fault = Fault::internal("a call on a peer stream ended without an answer");
            let last = match self.begun {
                false => refusal(fault),
                true => {
                    let trailers = pack(&trailers_of(&fault.to_status())).unwrap_or_default();
                    PeerAnswer { trailers, end: true, ..PeerAnswer::default() }
                }
            };
            self.shared.queue.send(self.number, Kind::Answer(last), None);
        }
        self.shared.end_if_over();
    }
}

fn too_large(what: &str) -> Fault {
    Fault::new(Reason::TooLarge, format!("the {what} of the answer is larger than {HEADERS_MAX} bytes"))
}

/// An answer that is nothing but a fault.
fn refusal(fault: Fault) -> PeerAnswer {
    let headers = pack(fault.into_grpc().headers()).unwrap_or_default();
    PeerAnswer { head: true, headers, end: true, ..PeerAnswer::default() }
}

fn trailers_of(status: &Status) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    if status.add_header(&mut trailers).is_err() {
        trailers.insert("grpc-status", i32::from(status.code()).into());
    }
    trailers
}

#[cfg(test)]
mod tests {
    use super::*;
    use p2p_core::calls::CREDIT;

    #[tokio::test(start_paused = true)]
    async fn an_answer_goes_on_with_its_credit_and_is_given_up_without() {
        let credit = Arc::new(Credit::default());
        assert_eq!(credit.take(usize::MAX).await, Some(CREDIT as usize));
        let waiting = tokio::spawn({
            let credit = credit.clone();
            async move { credit.take(1_000).await }
        });
        tokio::time::sleep(CREDIT_TIMEOUT / 2).await;
        assert_eq!(credit.grant(300), Ok(()));
        assert_eq!(waiting.await.expect("no panic"), Some(300));
        let since = tokio::time::Instant::now();
        assert_eq!((credit.take(1_000).await, since.elapsed()), (None, CREDIT_TIMEOUT));
    }
}
