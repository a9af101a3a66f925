//! What answers, by its first bytes: hyper would call HTTP/1 a frame with an invalid size.

use crate::tap::{Reading, Tap};
use std::{
    io,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll, ready},
};
use tokio::io::{AsyncRead, ReadBuf};

/// What was found instead of HTTP/2.
pub(super) type Foreign = Arc<OnceLock<&'static str>>;

/// Bytes of an HTTP/2 frame's head (RFC 9113 § 4.1); its fourth is the type, and the first frame of a server is SETTINGS.
const FRAME_HEAD: usize = 9;
const SETTINGS: u8 = 4;

/// A stream whose first bytes are looked at.
pub(super) type FirstBytes<S> = Tap<S, Looking>;

/// Looks at them.
pub(super) struct Looking {
    seen: Vec<u8>,
    foreign: Foreign,
}

impl<S> FirstBytes<S> {
    pub(super) fn new(stream: S, foreign: Foreign) -> Self {
        Self::through(stream, Looking { seen: Vec::new(), foreign })
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

impl Reading for Looking {
    fn poll_read<S: AsyncRead>(
        &mut self,
        stream: Pin<&mut S>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(stream.poll_read(context, buffer))?;
        if self.seen.len() < FRAME_HEAD {
            let new = &buffer.filled()[before..];
            self.seen.extend(new.iter().take(FRAME_HEAD - self.seen.len()));
            if let Some(what) = foreign(&self.seen) {
                self.foreign.get_or_init(|| what);
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, what)));
            }
        }
        Poll::Ready(Ok(()))
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
