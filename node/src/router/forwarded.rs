//! The answer to a forwarded call on its way to the caller.

use super::attempt::Attempt;
use crate::{
    error::{Fault, Reason},
    peer::error_chain,
    registry::Provider,
};
use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use std::{
    error::Error,
    pin::Pin,
    task::{Context, Poll, ready},
};

pin_project_lite::pin_project! {
    /// A provider's body as it comes. Where the provider breaks off, its caller is told by trailers: a reset stream
    /// would read as a defect of this node (INTERNAL).
    pub(super) struct Forwarded<B> {
        #[pin]
        body: B,
        attempt: Attempt,
        broken: bool,
    }
}

impl<B> Forwarded<B> {
    pub(super) fn new(body: B, attempt: Attempt) -> Self {
        Self { body, attempt, broken: false }
    }
}

impl<B: Body<Data = Bytes, Error: Error + 'static>> Body for Forwarded<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.project();
        if *this.broken {
            return Poll::Ready(None);
        }
        let frame = match ready!(this.body.poll_frame(context)) {
            Some(Err(error)) => {
                *this.broken = true;
                this.attempt.broke(&error);
                Some(Ok(Frame::trailers(lost(this.attempt.provider(), &error))))
            }
            frame => {
                if let Some(Ok(frame)) = &frame
                    && let Some(trailers) = frame.trailers_ref()
                {
                    this.attempt.trailers(trailers);
                }
                frame
            }
        };
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.broken || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn lost(provider: &Provider, error: &(dyn Error + 'static)) -> HeaderMap {
    let why = error_chain(error);
    let message = format!("node {} broke off during its answer: {why}", provider.node);
    Fault::new(Reason::ProviderLost, message).to_trailers()
}
