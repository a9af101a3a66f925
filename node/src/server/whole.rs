//! A request's body: counts for its connection if it breaks off.

use super::admission::Activity;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use std::{
    pin::Pin,
    task::{Context, Poll},
};

/// What a client sends. What breaks it off is the client's doing: it took the call back, broke a rule of HTTP, or is gone.
#[derive(Debug)]
pub struct WholeBody {
    inner: Incoming,
    http2: bool,
    activity: Activity,
}

impl WholeBody {
    pub(super) fn new(inner: Incoming, http2: bool, activity: Activity) -> Self {
        Self { inner, http2, activity }
    }
}

impl Body for WholeBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = self.get_mut();
        let frame = Pin::new(&mut this.inner).poll_frame(context);
        let broke_off = match &frame {
            Poll::Ready(Some(Err(_))) => true,
            // hyper takes a stream that is reset with CANCEL for one that has ended. Only HTTP/2 tells at the end that it is.
            Poll::Ready(None) => this.http2 && !this.inner.is_end_stream(),
            Poll::Ready(Some(Ok(_))) | Poll::Pending => false,
        };
        if broke_off {
            this.activity.broke_off();
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
