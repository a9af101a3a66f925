//! A byte stream of which one side is ours: something decides over its reads, and writes pass through.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What decides over reads.
pub trait Reading {
    /// Reads from `stream`, or fails in its place.
    fn poll_read<S: AsyncRead>(
        &mut self,
        stream: Pin<&mut S>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>>;
}

pin_project_lite::pin_project! {
    /// `stream`, read through `reading`.
    #[derive(Debug)]
    pub struct Tap<S, R> {
        #[pin]
        stream: S,
        reading: R,
    }
}

impl<S, R> Tap<S, R> {
    /// Reads `stream` through `reading`.
    pub fn through(stream: S, reading: R) -> Self {
        Self { stream, reading }
    }

    /// What it is read through.
    pub fn reading(&self) -> &R {
        &self.reading
    }
}

impl<S: AsyncRead, R: Reading> AsyncRead for Tap<S, R> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.project();
        this.reading.poll_read(this.stream, context, buffer)
    }
}

impl<S: AsyncWrite, R> AsyncWrite for Tap<S, R> {
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
