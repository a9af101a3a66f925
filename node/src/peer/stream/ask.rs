//! The caller's half: a request becomes a frame, and frames become its answer.

use super::{
    PeerStream,
    frame::{self, pack, unpack},
    metrics::{Excess, Way},
    shared::{Shared, lock},
};
use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::{Body as HttpBody, Frame, SizeHint};
use p2p_core::{
    NodeId,
    calls::{CREDIT, REQUEST_MAX, cost},
};
use p2p_proto::v1::{PeerAnswer, PeerCall, PeerCancel, PeerRefusalReason, peer_frame::Kind};
use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

/// How much of an answer its caller takes before the provider is told, in bytes.
const GRANT: u32 = CREDIT / 2;

/// The stream broke while a call was in flight; the provider may have processed it.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct Lost(Arc<str>);

impl Lost {
    pub(super) fn new(peer: &NodeId, why: &str) -> Self {
        Self(format!("the stream to {peer} ended: {why}").into())
    }
}

/// The rest of an answer as it comes: never more than its credit.
type Rest = mpsc::UnboundedReceiver<Result<PeerAnswer, Lost>>;

/// Who waits for the answer to a call.
#[derive(Debug)]
pub(super) enum Waiter {
    /// For its first part.
    Head(oneshot::Sender<Reply>),
    /// For more of it.
    Rest(mpsc::UnboundedSender<Result<PeerAnswer, Lost>>),
}

/// What first becomes of a call.
#[derive(Debug)]
pub(super) enum Reply {
    Answer(PeerAnswer, Option<Rest>),
    Refused(PeerRefusalReason),
    Lost(Lost),
}

/// Why a call that a stream was asked to carry has no answer.
#[derive(Debug)]
pub enum Unanswered {
    /// Nothing of it was processed: pass it through.
    NotCarried,
    /// It may have been processed.
    Lost(Lost),
}

impl PeerStream {
    /// Counts a call that was not offered because its request is too large, or has trailers.
    pub fn oversized(&self) {
        self.0.metrics.excess(Excess::Body);
    }

    /// Carries one unary call, if there is room for it. Dropping the answer, or what this returns, cancels it.
    pub async fn call(&self, request: &Request<Bytes>) -> Result<Response<AnswerBody>, Unanswered> {
        let shared = &self.0;
        let why = match send(shared, request) {
            Err(why) => why,
            Ok((in_flight, reply)) => match reply.await {
                Ok(Reply::Answer(answer, rest)) => return answered(in_flight, answer, rest),
                Ok(Reply::Lost(lost)) => return Err(Unanswered::Lost(lost)),
                Ok(Reply::Refused(reason)) => Excess::Refused(reason),
                Err(_) => {
                    return Err(Unanswered::Lost(Lost::new(&shared.peer, "this node is shutting down")));
                }
            },
        };
        shared.metrics.excess(why);
        Err(Unanswered::NotCarried)
    }
}

/// Sends a call, if there is room for it.
fn send(
    shared: &Arc<Shared>,
    request: &Request<Bytes>,
) -> Result<(InFlight, oneshot::Receiver<Reply>), Excess> {
    let body = request.body().clone();
    if body.len() > REQUEST_MAX {
        return Err(Excess::Body);
    }
    let headers = pack(request.headers()).ok_or(Excess::Headers)?;
    let slot = shared.calls.clone().try_acquire_owned().map_err(|_| Excess::Calls)?;
    let room = frame::room(&headers, body.len());
    let room = shared.room.clone().try_acquire_many_owned(room).map_err(|_| Excess::Bytes)?;
    let (waiter, reply) = oneshot::channel();
    let mut asking = lock(&shared.asking);
    if asking.closed {
        return Err(Excess::Closing);
    }
    let number = asking.book.open(Waiter::Head(waiter));
    let path = request.uri().path_and_query().map(|path| path.as_str()).unwrap_or_default();
    let call = PeerCall { path: Bytes::copy_from_slice(path.as_bytes()), headers, body };
    // Under the lock, so that calls leave in the order of their numbers and none after the closing.
    shared.queue.send(number, Kind::Request(call), Some(room));
    drop(asking);
    shared.metrics.sent(Way::Stream);
    Ok((InFlight { shared: shared.clone(), number, slot: Some(slot) }, reply))
}

/// A call that the provider may be working on; dropped before the answer has ended, it is cancelled there.
#[derive(Debug)]
struct InFlight {
    shared: Arc<Shared>,
    number: u64,
    slot: Option<OwnedSemaphorePermit>,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if lock(&self.shared.asking).book.forget(self.number) {
            // Its slot is free again once the provider is told.
            self.shared.queue.send(self.number, Kind::Cancel(PeerCancel {}), self.slot.take());
            self.shared.end_if_over();
        }
    }
}

fn answered(
    in_flight: InFlight,
    mut answer: PeerAnswer,
    rest: Option<Rest>,
) -> Result<Response<AnswerBody>, Unanswered> {
    let garbled = || Lost::new(&in_flight.shared.peer, "the head of an answer does not read");
    let status = match answer.http_status {
        0 => Ok(StatusCode::OK),
        status => u16::try_from(status).map_or(StatusCode::from_u16(0), StatusCode::from_u16),
    };
    let (Ok(headers), Ok(status)) = (unpack(std::mem::take(&mut answer.headers)), status) else {
        return Err(Unanswered::Lost(garbled()));
    };
    let mut body =
        AnswerBody { data: None, trailers: None, ended: false, rest, taken: 0, in_flight: Some(in_flight) };
    body.absorb(answer).map_err(Unanswered::Lost)?;
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    Ok(response)
}

/// The body of an answer as its frames come.
#[derive(Debug)]
pub struct AnswerBody {
    data: Option<Bytes>,
    trailers: Option<HeaderMap>,
    ended: bool,
    rest: Option<Rest>,
    /// What was taken and is not granted again yet.
    taken: u32,
    in_flight: Option<InFlight>,
}

impl AnswerBody {
    fn absorb(&mut self, answer: PeerAnswer) -> Result<(), Lost> {
        self.data = Some(answer.body).filter(|body| !body.is_empty());
        if answer.end {
            self.ended = true;
            let trailers = unpack(answer.trailers).map_err(|_| self.lost("trailers that do not read"))?;
            self.trailers = Some(trailers).filter(|trailers| !trailers.is_empty());
            self.in_flight = None;
        }
        Ok(())
    }

    fn lost(&self, why: &str) -> Lost {
        match &self.in_flight {
            Some(call) => Lost::new(&call.shared.peer, why),
            None => Lost(why.into()),
        }
    }

    /// Tells the provider that so much has been taken.
    fn grant(&mut self, bytes: usize) {
        let Some(InFlight { shared, number, .. }) = self.in_flight.as_ref().filter(|_| !self.ended) else {
            return;
        };
        self.taken += cost(bytes);
        if self.taken < GRANT {
            return;
        }
        let granted = std::mem::take(&mut self.taken);
        if lock(&shared.asking).book.taken(*number, granted) {
            shared.queue.send(*number, Kind::Credit(granted), None);
        }
    }
}

impl HttpBody for AnswerBody {
    type Data = Bytes;
    type Error = Lost;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Lost>>> {
        let this = self.get_mut();
        loop {
            if let Some(data) = this.data.take() {
                this.grant(data.len());
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
            if let Some(trailers) = this.trailers.take() {
                return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
            }
            let Some(rest) = this.rest.as_mut().filter(|_| !this.ended) else { return Poll::Ready(None) };
            let part = ready!(rest.poll_recv(context));
            let part = part.unwrap_or_else(|| Err(this.lost("this node is shutting down")));
            if let Err(lost) = part.and_then(|part| this.absorb(part)) {
                (this.ended, this.data, this.in_flight) = (true, None, None);
                return Poll::Ready(Some(Err(lost)));
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ended && self.data.is_none() && self.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        match (&self.data, self.ended) {
            (data, true) => SizeHint::with_exact(data.as_ref().map_or(0, |data| data.len() as u64)),
            (_, false) => SizeHint::default(),
        }
    }
}
