//! An answer's body: ends in time, and is counted when it ends.

use super::{admission::Begun, idle::Activity};
use crate::{
    audit::Act,
    auth::Withdrawn,
    error::{Fault, Reason},
    limit::Slot,
    registry::{Method, code_word},
    router::oversized,
};
use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame, SizeHint};
use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};
use tokio::time::{Instant, Sleep};
use tonic::{Code, Status, body::Body};

/// A call in progress. Counts itself when its answer ends, or when the caller turns away.
#[derive(Debug)]
pub(super) struct Call {
    method: Arc<Method>,
    started: Instant,
    code: Option<Code>,
    act: Option<Box<Act>>,
}

impl Call {
    pub(super) fn start(method: Arc<Method>) -> Self {
        method.metrics.in_flight.inc();
        Self { method, started: Instant::now(), code: None, act: None }
    }

    /// Tells the audit log of `act` when it ends, however it does.
    pub(super) fn audit(&mut self, act: Act) {
        self.act = Some(Box::new(act));
    }

    /// The act that it is.
    pub(super) fn act(&mut self) -> Option<&mut Act> {
        self.act.as_deref_mut()
    }

    /// Notes the status if these headers or trailers carry one.
    pub(super) fn note(&mut self, headers: &HeaderMap) {
        if let Some(status) = headers.get(Status::GRPC_STATUS) {
            self.code = Some(Code::from_bytes(status.as_bytes()));
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.method.metrics.in_flight.dec();
        let code = self.code.unwrap_or(Code::Cancelled);
        if let Some(act) = &mut self.act {
            act.ended(code_word(code));
        }
        self.method.metrics.finished(code, self.started.elapsed());
    }
}

/// The body of an answer.
pub struct AnswerBody {
    inner: Body,
    call: Option<Call>,
    deadline: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
    withdrawn: Option<Withdrawn>,
    /// Of a stream that may not be idle for ever.
    activity: Option<Activity>,
    /// Counts the call as under way.
    slot: Option<Slot>,
    /// Counts it for its connection.
    begun: Option<Begun>,
}

impl fmt::Debug for AnswerBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AnswerBody")
            .field("call", &self.call)
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}

impl AnswerBody {
    /// The body of an HTTP answer.
    pub(super) fn plain(inner: Body, slot: Option<Slot>) -> Self {
        Self {
            inner,
            call: None,
            deadline: None,
            timer: None,
            withdrawn: None,
            activity: None,
            slot,
            begun: None,
        }
    }

    /// The body of a gRPC answer, which ends with DEADLINE_EXCEEDED if it is not through by `deadline`, and with
    /// the fault of `withdrawn` once what the call rests on is that.
    pub(super) fn of_call(
        inner: Body,
        call: Option<Call>,
        deadline: Option<Instant>,
        withdrawn: Option<Withdrawn>,
        slot: Option<Slot>,
    ) -> Self {
        Self { inner, call, deadline, timer: None, withdrawn, activity: None, slot, begun: None }
    }

    /// The same, of a stream: what passes it is counted.
    pub(super) fn of_stream(self, activity: Option<Activity>) -> Self {
        Self { activity, ..self }
    }

    /// The same, of a call that has begun on its connection.
    pub(super) fn of_connection(self, mut begun: Begun) -> Self {
        if self.is_end_stream() {
            begun.answered();
        }
        Self { begun: Some(begun), ..self }
    }

    /// Why the answer must end now, if it must.
    fn overdue(&mut self, context: &mut Context<'_>) -> Option<Fault> {
        if let Some(Poll::Ready(fault)) = self.withdrawn.as_mut().map(|it| it.as_mut().poll(context)) {
            return Some(fault);
        }
        let passed = self.deadline.is_some_and(|deadline| Instant::now() >= deadline);
        passed.then(|| Fault::new(Reason::DeadlineExceeded, "the deadline passed"))
    }

    /// Waits for the deadline.
    fn poll_deadline(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some(deadline) = self.deadline else { return Poll::Pending };
        self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline))).as_mut().poll(context)
    }

    /// Ends the answer, and with it the call behind it.
    fn end(&mut self, fault: &Fault) -> Frame<Bytes> {
        self.inner = Body::empty();
        if let Some(begun) = &mut self.begun {
            begun.answered();
        }
        (self.deadline, self.withdrawn, self.slot, self.begun) = (None, None, None, None);
        let frame = Frame::trailers(fault.to_trailers());
        if let (Some(mut call), Some(trailers)) = (self.call.take(), frame.trailers_ref()) {
            call.note(trailers);
        }
        frame
    }
}

/// Whether the call ends well with it.
fn is_success<E>(frame: &Result<Frame<Bytes>, E>) -> bool {
    let trailers = frame.as_ref().ok().and_then(Frame::trailers_ref);
    trailers.and_then(|trailers| trailers.get(Status::GRPC_STATUS)).is_some_and(|code| code == "0")
}

/// A stream that has begun tells of an oversized message in its trailers.
fn refuse_oversized(frame: Frame<Bytes>) -> Frame<Bytes> {
    match frame.trailers_ref().and_then(oversized) {
        Some(fault) => Frame::trailers(fault.to_trailers()),
        None => frame,
    }
}

impl HttpBody for AnswerBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.inner).poll_frame(context);
        if let (Poll::Ready(_), Some(begun)) = (&polled, &mut this.begun) {
            begun.answered();
        }
        match polled {
            // An answer that pours never waits, so time is looked at here, too; and what fails because its request was cut
            // off ends with why it was.
            Poll::Ready(Some(frame))
                if !is_success(&frame)
                    && let Some(fault) = this.overdue(context) =>
            {
                Poll::Ready(Some(Ok(this.end(&fault))))
            }
            Poll::Ready(frame) => {
                if let Some(activity) = &this.activity {
                    activity.note();
                }
                let frame = frame.map(|frame| frame.map(refuse_oversized));
                let ended = match &frame {
                    Some(Ok(frame)) => match (frame.trailers_ref(), &mut this.call) {
                        (Some(trailers), Some(call)) => {
                            call.note(trailers);
                            true
                        }
                        (Some(_), None) | (None, _) => false,
                    },
                    Some(Err(_)) | None => true,
                };
                if ended {
                    (this.call, this.slot, this.begun) = (None, None, None);
                }
                Poll::Ready(frame)
            }
            Poll::Pending => {
                let _due = this.poll_deadline(context);
                match this.overdue(context) {
                    Some(fault) => Poll::Ready(Some(Ok(this.end(&fault)))),
                    None => Poll::Pending,
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::{BodyExt as _, StreamBody};
    use std::future::ready;

    /// The status of an answer whose body ends with `last`.
    async fn code(last: HeaderMap, withdrawn: Option<Withdrawn>) -> Code {
        let inner = Body::new(StreamBody::new(tokio_stream::iter([Ok::<_, Status>(Frame::trailers(last))])));
        let mut answer = AnswerBody::of_call(inner, None, None, withdrawn, None);
        let frame = answer.frame().await.expect("more").expect("a frame");
        Code::from_bytes(frame.trailers_ref().expect("trailers")[Status::GRPC_STATUS].as_bytes())
    }

    #[tokio::test]
    async fn what_fails_because_its_request_was_cut_off_ends_with_why_it_was() {
        let lost = || Fault::new(Reason::ProviderLost, "broke off").to_trailers();
        let idle = || -> Option<Withdrawn> {
            Some(Box::pin(ready(Fault::new(Reason::DeadlineExceeded, "nothing has passed"))))
        };
        assert_eq!(code(lost(), None).await, Code::Unavailable);
        assert_eq!(code(lost(), idle()).await, Code::DeadlineExceeded);
        // What ended well has ended well.
        let mut well = HeaderMap::new();
        well.insert(Status::GRPC_STATUS, http::HeaderValue::from_static("0"));
        assert_eq!(code(well, idle()).await, Code::Ok);
    }
}
