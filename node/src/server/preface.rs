//! The deadline for a connection's first bytes.
//!
//! hyper waits for ever for a client that completes TLS and then says nothing, also during a graceful
//! shutdown (hyperium/hyper#4170). This wrapper fails the first read after a deadline instead.

use crate::tap::{Reading, Tap};
use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, ReadBuf},
    time::Sleep,
};

/// Length of the HTTP/2 client preface; also less than any HTTP/1.1 request.
const ENOUGH: usize = 24;

/// A stream whose first bytes must come in time.
pub(super) type PrefaceDeadline<S> = Tap<S, Waiting>;

/// Waits for them.
pub(super) struct Waiting {
    read: usize,
    deadline: Option<Pin<Box<Sleep>>>,
    missed: Arc<AtomicBool>,
    spoken: Arc<AtomicBool>,
    /// Told when they have come.
    on_spoken: Option<Box<dyn FnOnce() + Send>>,
}

impl<S> PrefaceDeadline<S> {
    pub(super) fn new(stream: S, timeout: Duration, on_spoken: impl FnOnce() + Send + 'static) -> Self {
        let waiting = Waiting {
            read: 0,
            deadline: Some(Box::pin(tokio::time::sleep(timeout))),
            missed: Arc::default(),
            spoken: Arc::default(),
            on_spoken: Some(Box::new(on_spoken)),
        };
        Self::through(stream, waiting)
    }

    /// Whether the deadline was missed, for whoever no longer holds the stream.
    pub(super) fn missed(&self) -> Arc<AtomicBool> {
        self.reading().missed.clone()
    }

    /// Whether the first bytes have come.
    pub(super) fn spoken(&self) -> Arc<AtomicBool> {
        self.reading().spoken.clone()
    }
}

impl Reading for Waiting {
    fn poll_read<S: AsyncRead>(
        &mut self,
        stream: Pin<&mut S>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let result = stream.poll_read(context, buffer);
        let Some(deadline) = &mut self.deadline else { return result };
        match result {
            Poll::Ready(result) => {
                self.read += buffer.filled().len() - before;
                if self.read >= ENOUGH {
                    self.deadline = None;
                    self.spoken.store(true, Ordering::Relaxed);
                    if let Some(tell) = self.on_spoken.take() {
                        tell();
                    }
                }
                Poll::Ready(result)
            }
            Poll::Pending => deadline.as_mut().poll(context).map(|()| {
                self.missed.store(true, Ordering::Relaxed);
                Err(io::Error::new(io::ErrorKind::TimedOut, "the client sent no request in time"))
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    #[tokio::test(start_paused = true)]
    async fn a_silent_client_is_cut_off_and_a_speaking_one_is_not() {
        let (mut client, server) = tokio::io::duplex(64);
        let mut guarded = PrefaceDeadline::new(server, Duration::from_secs(10), || ());
        client.write_all(b"too short").await.expect("written");
        let mut buf = [0; 64];
        assert_eq!(guarded.read(&mut buf).await.expect("the bytes"), 9);
        let error = guarded.read(&mut buf).await.expect_err("cut off");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);

        let (mut client, server) = tokio::io::duplex(64);
        let mut guarded = PrefaceDeadline::new(server, Duration::from_secs(10), || ());
        client.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.expect("written");
        assert_eq!(guarded.read(&mut buf).await.expect("the bytes"), 24);
        tokio::time::advance(Duration::from_secs(60)).await;
        client.write_all(b"later").await.expect("written");
        assert_eq!(guarded.read(&mut buf).await.expect("the bytes"), 5);
    }
}
