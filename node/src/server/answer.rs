//! An answer's body: ends in time, and is counted when it ends.

use crate::{
    error::{Fault, Reason},
    registry::Method,
    router::oversized,
};
use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame, SizeHint};
use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};
use tokio::time::{Instant, Sleep};
use tonic::{Code, Status, body::Body};

/// A call in progress. Counts itself when its answer ends, or when the caller turns away.
#[derive(Debug)]
pub(super) struct Call {
    method: Arc<Method>,
    started: Instant,
    code: Option<Code>,
}

impl Call {
    pub(super) fn start(method: Arc<Method>) -> Self {
        method.metrics.in_flight.inc();
        Self { method, started: Instant::now(), code: None }
    }

    /// Notes the status if these headers or trailers carry one.
    pub(super) fn note(&mut self, headers: &HeaderMap) {
        if let Some(status) = headers.get("grpc-status") {
            self.code = Some(Code::from_bytes(status.as_bytes()));
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.method.metrics.in_flight.dec();
        let code = self.code.unwrap_or(Code::Cancelled);
        self.method.metrics.finished(code, self.started.elapsed().as_secs_f64());
    }
}

/// The body of an answer.
#[derive(Debug)]
pub struct AnswerBody {
    inner: Body,
    call: Option<Call>,
    deadline: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl AnswerBody {
    /// The body of an HTTP answer.
    pub(super) fn plain(inner: Body) -> Self {
        Self { inner, call: None, deadline: None, timer: None }
    }

    /// The body of a gRPC answer, which ends with DEADLINE_EXCEEDED if it is not through by `deadline`.
    pub(super) fn of_call(inner: Body, call: Option<Call>, deadline: Option<Instant>) -> Self {
        Self { inner, call, deadline, timer: None }
    }

    /// Ends the answer with DEADLINE_EXCEEDED, and with it the call behind it.
    fn expire(&mut self) -> Frame<Bytes> {
        self.inner = Body::empty();
        self.deadline = None;
        let frame = status_trailers(&Fault::new(Reason::DeadlineExceeded, "the deadline passed"));
        if let (Some(mut call), Some(trailers)) = (self.call.take(), frame.trailers_ref()) {
            call.note(trailers);
        }
        frame
    }
}

/// A stream that has begun tells of an oversized message in its trailers.
fn refuse_oversized(frame: Frame<Bytes>) -> Frame<Bytes> {
    match frame.trailers_ref().and_then(oversized) {
        Some(fault) => status_trailers(&fault),
        None => frame,
    }
}

fn status_trailers(fault: &Fault) -> Frame<Bytes> {
    let mut trailers = HeaderMap::new();
    let status = fault.to_status();
    if status.add_header(&mut trailers).is_err() {
        trailers.insert("grpc-status", http::HeaderValue::from(i32::from(status.code())));
    }
    Frame::trailers(trailers)
}

impl HttpBody for AnswerBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        match Pin::new(&mut this.inner).poll_frame(context) {
            // An answer that pours never waits, so its deadline is looked at here.
            Poll::Ready(Some(Ok(frame)))
                if frame.is_data() && this.deadline.is_some_and(|deadline| Instant::now() >= deadline) =>
            {
                Poll::Ready(Some(Ok(this.expire())))
            }
            Poll::Ready(frame) => {
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
                    this.call = None;
                }
                Poll::Ready(frame)
            }
            Poll::Pending => {
                let Some(deadline) = this.deadline else { return Poll::Pending };
                let timer = this.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
                ready!(timer.as_mut().poll(context));
                Poll::Ready(Some(Ok(this.expire())))
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
