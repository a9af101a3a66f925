//! A byte stream that can be cut. hyper keeps a client's HTTP/2 connection in a task of its own, which ends only with
//! its bytes.

use crate::identity::explain;
use std::{
    io,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

pin_project_lite::pin_project! {
    /// `stream`, until it must be cut; then every read fails, which ends all that is built on it.
    pub(super) struct Severable<S> {
        #[pin]
        stream: S,
        cut: Pin<Box<dyn Future<Output = ()> + Send>>,
        broken: Broken,
    }
}

/// Why the bytes ended, for those who only see that a call was cancelled: the first error of reading.
pub(super) type Broken = Arc<OnceLock<String>>;

impl<S> Severable<S> {
    pub(super) fn new(stream: S, cut: impl Future<Output = ()> + Send + 'static, broken: Broken) -> Self {
        Self { stream, cut: Box::pin(cut), broken }
    }
}

impl<S: AsyncRead> AsyncRead for Severable<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.project();
        if this.cut.as_mut().poll(context).is_ready() {
            // A future that is through must not be polled again.
            *this.cut = Box::pin(std::future::ready(()));
            let why = "what the connection rested on is revoked or has expired";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, why)));
        }
        let read = this.stream.poll_read(context, buffer);
        if let Poll::Ready(Err(error)) = &read {
            this.broken.get_or_init(|| explain::handshake(error));
        }
        read
    }
}

impl<S: AsyncWrite> AsyncWrite for Severable<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.project().stream.poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().stream.poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().stream.poll_shutdown(context)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.project().stream.poll_write_vectored(context, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
