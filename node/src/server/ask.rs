//! A request's body: ends when what the call rests on counts no more, and when nothing passes.

use super::idle::Activity;
use crate::auth::Withdrawn;
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
};
use tonic::{Status, body::Body};

/// What a caller streams to a method. Whoever reads it may outlive the answer, and a caller that has been cut off could
/// go on sending.
pub(super) struct AskBody {
    inner: Body,
    withdrawn: Option<Withdrawn>,
    activity: Activity,
}

impl AskBody {
    pub(super) fn new(inner: Body, withdrawn: Withdrawn, activity: Activity) -> Self {
        Self { inner, withdrawn: Some(withdrawn), activity }
    }
}

impl fmt::Debug for AskBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AskBody").finish_non_exhaustive()
    }
}

impl HttpBody for AskBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        if let Some(withdrawn) = &mut this.withdrawn
            && let Poll::Ready(fault) = withdrawn.as_mut().poll(context)
        {
            this.withdrawn = None;
            this.inner = Body::empty();
            return Poll::Ready(Some(Err(fault.to_status())));
        }
        let frame = Pin::new(&mut this.inner).poll_frame(context);
        if frame.is_ready() {
            this.activity.note();
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Fault, Reason};
    use http_body_util::{BodyExt as _, StreamBody};

    #[tokio::test]
    async fn what_is_streamed_ends_with_the_token_also_when_nothing_comes() {
        let (revoke, revoked) = tokio::sync::oneshot::channel::<()>();
        let withdrawn: Withdrawn = Box::pin(async move {
            drop(revoked.await);
            Fault::new(Reason::Unauthenticated, "the access token is revoked")
        });
        let first = std::iter::once(Ok::<_, Status>(Frame::data(Bytes::from_static(b"x"))));
        let endless = futures_util::StreamExt::chain(
            futures_util::stream::iter(first),
            futures_util::stream::pending(),
        );
        let mut body = AskBody::new(Body::new(StreamBody::new(endless)), withdrawn, Activity::default());
        assert!(body.frame().await.expect("more").expect("a frame").is_data());
        drop(revoke);
        let status = body.frame().await.expect("told").expect_err("an end");
        assert_eq!(
            (status.code(), status.message()),
            (tonic::Code::Unauthenticated, "the access token is revoked")
        );
        assert!(body.frame().await.is_none());
    }
}
