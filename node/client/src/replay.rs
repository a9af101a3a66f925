//! A request that can be sent once more: whoever refuses a call unprocessed may have read some of it.

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Uri};
use http_body::{Body as HttpBody, Frame};
use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};
use tonic::{Status, body::Body};

/// Most bytes of a body that are kept until its call is answered. What is larger is not sent twice.
const KEPT_MAX: usize = 64 * 1024;
/// What a piece of a body counts at least: what keeping it takes.
const PIECE_MIN: usize = 256;

#[derive(Debug)]
struct Source {
    body: Body,
    kept: Vec<Bytes>,
    bytes: usize,
    /// Whether all that was read is kept.
    whole: bool,
    /// Which of the bodies made of it may read: the last.
    reader: usize,
}

/// A request that can be made again while its body is small and whole.
#[derive(Debug)]
pub struct Replay {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    source: Arc<Mutex<Source>>,
}

impl Replay {
    /// Takes the body out of `request` and puts one in its place that can be made again.
    pub fn of(request: &mut Request<Body>) -> Self {
        let body = std::mem::take(request.body_mut());
        let source = Source { body, kept: Vec::new(), bytes: 0, whole: true, reader: 0 };
        let replay = Self {
            method: request.method().clone(),
            uri: request.uri().clone(),
            headers: request.headers().clone(),
            source: Arc::new(Mutex::new(source)),
        };
        *request.body_mut() = replay.body(0);
        replay
    }

    /// The request from its start, if that is still there. What was made before reads no more.
    pub fn again(&self) -> Option<Request<Body>> {
        let reader = {
            let mut source = lock(&self.source);
            if !source.whole {
                return None;
            }
            source.reader += 1;
            source.reader
        };
        let mut request = Request::new(self.body(reader));
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
        Some(request)
    }

    fn body(&self, reader: usize) -> Body {
        Body::new(Kept { source: self.source.clone(), reader, next: 0 })
    }
}

/// An answer has come: nothing is kept any more.
impl Drop for Replay {
    fn drop(&mut self) {
        let mut source = lock(&self.source);
        source.whole = false;
        // What this reader has not read yet goes on.
        if source.reader == 0 {
            source.kept.clear();
        }
    }
}

/// Whether the peer says that it has not processed the request that failed so (RFC 9113 § 8.7): its stream is above the last
/// one of a graceful GOAWAY, or was refused. h2 reports a GOAWAY without an error for such streams only.
pub fn is_unprocessed(error: &hyper::Error) -> bool {
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<h2::Error>() {
            let stopped = error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR);
            let refused = error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
            return error.is_remote() && (stopped || refused);
        }
        cause = error.source();
    }
    false
}

/// Whether the request failed because this side ended its stream, as when its body could not be read on: the peer has no part
/// in that.
pub fn is_reset_here(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<h2::Error>() {
            return error.is_reset() && !error.is_remote();
        }
        cause = error.source();
    }
    false
}

fn lock(source: &Mutex<Source>) -> MutexGuard<'_, Source> {
    source.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Kept {
    source: Arc<Mutex<Source>>,
    reader: usize,
    next: usize,
}

impl HttpBody for Kept {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        let mut source = lock(&this.source);
        if source.reader != this.reader {
            return Poll::Ready(None);
        }
        if let Some(kept) = source.kept.get(this.next) {
            this.next += 1;
            return Poll::Ready(Some(Ok(Frame::data(kept.clone()))));
        }
        let frame = ready!(Pin::new(&mut source.body).poll_frame(context));
        match frame.as_ref().map(|frame| frame.as_ref().ok().and_then(Frame::data_ref)) {
            None => {}
            Some(Some(data)) if source.whole && source.bytes + data.len().max(PIECE_MIN) <= KEPT_MAX => {
                source.bytes += data.len().max(PIECE_MIN);
                source.kept.push(data.clone());
                this.next += 1;
            }
            Some(_) => {
                source.whole = false;
                source.kept = Vec::new();
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        let source = lock(&self.source);
        source.reader != self.reader || (self.next >= source.kept.len() && source.body.is_end_stream())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::{BodyExt as _, StreamBody};

    fn request(parts: &[usize]) -> Request<Body> {
        let frames: Vec<_> =
            parts.iter().map(|len| Ok::<_, Status>(Frame::data(Bytes::from(vec![7; *len])))).collect();
        Request::new(Body::new(StreamBody::new(tokio_stream::iter(frames))))
    }

    async fn read(request: &mut Request<Body>) -> usize {
        let frame = request.body_mut().frame().await.expect("a frame").expect("read");
        frame.into_data().expect("data").len()
    }

    async fn rest(request: Request<Body>) -> usize {
        request.into_body().collect().await.expect("read").to_bytes().len()
    }

    #[tokio::test]
    async fn a_small_body_is_sent_again_from_its_start_and_only_once_at_a_time() {
        let mut first = request(&[3, 4, 5]);
        let replay = Replay::of(&mut first);
        assert_eq!((read(&mut first).await, read(&mut first).await), (3, 4));
        let mut second = replay.again().expect("whole");
        assert_eq!(read(&mut second).await, 3);
        assert_eq!(rest(first).await, 0, "the one before reads no more");
        // Once answered, nothing is kept, and nothing is lost.
        drop(replay);
        assert_eq!(rest(second).await, 9);
    }

    #[tokio::test]
    async fn a_large_body_passes_once_and_whole() {
        let mut first = request(&[KEPT_MAX, 1, 1]);
        let replay = Replay::of(&mut first);
        assert_eq!(read(&mut first).await, KEPT_MAX);
        assert!(replay.again().is_some(), "up to the limit it can");
        // Many small pieces take more room than their bytes.
        let mut first = request(&[1; KEPT_MAX / PIECE_MIN + 1]);
        let replay = Replay::of(&mut first);
        for _ in 0..KEPT_MAX / PIECE_MIN {
            read(&mut first).await;
        }
        assert!(replay.again().is_some());
        let mut first = request(&[1; KEPT_MAX / PIECE_MIN + 1]);
        let replay = Replay::of(&mut first);
        assert_eq!(rest(first).await, KEPT_MAX / PIECE_MIN + 1);
        assert!(replay.again().is_none());
        let mut first = request(&[KEPT_MAX, 1, 1]);
        let replay = Replay::of(&mut first);
        assert_eq!((read(&mut first).await, read(&mut first).await), (KEPT_MAX, 1));
        assert!(replay.again().is_none());
        assert_eq!(rest(first).await, 1);
    }
}
