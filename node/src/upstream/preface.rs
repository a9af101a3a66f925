//! What answers, by its first bytes: hyper would call HTTP/1 a frame with an invalid size.

use std::{
    io,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll, ready},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What was found instead of HTTP/2.
pub(super) type Foreign = Arc<OnceLock<&'static str>>;

/// Bytes of an HTTP/2 frame's head (RFC 9113 § 4.1); its fourth is the type, and the first frame of a server is SETTINGS.
const FRAME_HEAD: usize = 9;
const SETTINGS: u8 = 4;

/// A stream whose first bytes are looked at.
pub(super) struct FirstBytes<S> {
    stream: S,
    seen: Vec<u8>,
    foreign: Foreign,
}

impl<S> FirstBytes<S> {
    pub(super) fn new(stream: S, foreign: Foreign) -> Self {
        Self { stream, seen: Vec::new(), foreign }
    }
}

fn foreign(head: &[u8]) -> Option<&'static str> {
    if head.len() < 5 && b"HTTP/".starts_with(head) {
        None
    } else if head.starts_with(b"HTTP/") {
        Some("it speaks HTTP/1, and gRPC needs HTTP/2")
    } else if head.first() == Some(&0x15) && head.get(1) == Some(&3) {
        Some("it speaks TLS; write https:// and give its CA")
    } else if head.get(3).is_some_and(|kind| *kind != SETTINGS) {
        Some("it does not speak HTTP/2")
    } else {
        None
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for FirstBytes<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(context, buffer))?;
        if this.seen.len() < FRAME_HEAD {
            let new = &buffer.filled()[before..];
            this.seen.extend(new.iter().take(FRAME_HEAD - this.seen.len()));
            if let Some(what) = foreign(&this.seen) {
                this.foreign.get_or_init(|| what);
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, what)));
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for FirstBytes<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(context, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::foreign;

    #[test]
    fn what_is_no_http2_is_told_by_its_first_bytes() {
        assert_eq!(foreign(&[0, 0, 18, 4, 0, 0, 0, 0, 0]), None);
        assert_eq!(foreign(b"HT"), None, "not enough to tell");
        assert!(foreign(b"HTTP/1.1 400 Bad Request").is_some_and(|why| why.contains("HTTP/1")));
        assert!(foreign(&[0x15, 3, 3, 0, 2, 2, 40]).is_some_and(|why| why.contains("TLS")));
        assert!(foreign(b"SSH-2.0-").is_some_and(|why| why.contains("does not speak HTTP/2")));
    }
}
