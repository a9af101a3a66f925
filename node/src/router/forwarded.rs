//! The answer to a forwarded call on its way to the caller.

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
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll, ready},
};

/// Counts a call as in flight until its answer has been read or dropped.
#[derive(Debug)]
pub(super) struct InFlight(Arc<Provider>);

impl InFlight {
    pub(super) fn start(provider: &Arc<Provider>) -> Self {
        provider.in_flight.fetch_add(1, Ordering::Relaxed);
        Self(provider.clone())
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

pin_project_lite::pin_project! {
    /// A provider's body as it comes. Where the provider breaks off, its caller is told by trailers: a reset stream
    /// would read as a defect of this node (INTERNAL).
    pub(super) struct Forwarded<B> {
        #[pin]
        body: B,
        in_flight: InFlight,
        broken: bool,
    }
}

impl<B> Forwarded<B> {
    pub(super) fn new(body: B, in_flight: InFlight) -> Self {
        Self { body, in_flight, broken: false }
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
                Some(Ok(Frame::trailers(lost(&this.in_flight.0, &error))))
            }
            frame => frame,
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
    let answer = Fault::new(Reason::ProviderLost, message).into_grpc();
    let mut trailers = answer.into_parts().0.headers;
    trailers.remove(http::header::CONTENT_TYPE);
    trailers
}
