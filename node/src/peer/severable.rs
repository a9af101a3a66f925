//! A byte stream that can be cut. hyper keeps a client's HTTP/2 connection in a task of its own, which ends only with
//! its bytes.

use crate::revocation::LiveConnection;
use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

pin_project_lite::pin_project! {
    /// `stream`, until the connection must be closed; then every read fails, which ends all that is built on it.
    pub(super) struct Severable<S> {
        #[pin]
        stream: S,
        closed: Pin<Box<dyn Future<Output = ()> + Send>>,
    }
}

impl<S> Severable<S> {
    pub(super) fn new(stream: S, live: LiveConnection) -> Self {
        Self { stream, closed: Box::pin(async move { live.closed().await }) }
    }
}

impl<S: AsyncRead> AsyncRead for Severable<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.project();
        // Never polled again once it is ready: the error ends the connection.
        if this.closed.as_mut().poll(context).is_ready() {
            *this.closed = Box::pin(std::future::ready(()));
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the node is evicted")));
        }
        this.stream.poll_read(context, buffer)
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
