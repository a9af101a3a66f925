//! A call on its way to providers: what can be sent, and sent again.

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use http::{HeaderMap, Request};
use http_body::{Body as _, Frame};
use http_body_util::{BodyExt as _, BodyStream, Full, StreamBody};
use p2p_client::Replay;
use p2p_core::calls::{REQUEST_MAX, cost};
use tonic::{Status, body::Body};

/// A call on its way.
#[derive(Debug)]
pub(super) enum Outgoing {
    /// The small request of a unary call, read to its end: sent as often as need be.
    Small(Request<Bytes>),
    /// A larger request, or a stream, passes as it comes. While it is small, what has passed is kept.
    Flowing(Request<Body>, Replay),
}

impl Outgoing {
    /// Reads the request of a unary call if it is small. How long that takes is up to the caller, not to any provider.
    pub(super) async fn of(request: Request<Body>, unary: bool) -> Self {
        let mut request = match unary {
            true => match read_small(request).await {
                Ok(small) => return Self::Small(small),
                Err(request) => request,
            },
            false => request,
        };
        let replay = Replay::of(&mut request);
        Self::Flowing(request, replay)
    }

    /// The request that was read to its end.
    pub(super) fn small(&self) -> Option<&Request<Bytes>> {
        match self {
            Self::Small(request) => Some(request),
            Self::Flowing(..) => None,
        }
    }

    pub(super) fn headers_mut(&mut self) -> &mut HeaderMap {
        match self {
            Self::Small(request) => request.headers_mut(),
            Self::Flowing(request, _) => request.headers_mut(),
        }
    }

    /// The request to pass through. One that flows is taken; it comes back by [`Self::put_back`] or [`Self::again`].
    pub(super) fn take(&mut self) -> Request<Body> {
        match self {
            Self::Small(request) => request.clone().map(|bytes| Body::new(Full::new(bytes))),
            Self::Flowing(request, _) => std::mem::take(request),
        }
    }

    /// Puts back what was [taken](Self::take), of which nothing was sent.
    pub(super) fn put_back(&mut self, whole: Request<Body>) {
        if let Self::Flowing(request, _) = self {
            *request = whole;
        }
    }

    /// Makes the call again from its start, if that is still there.
    pub(super) fn again(&mut self) -> bool {
        let Self::Flowing(request, replay) = self else { return true };
        replay.again().map(|again| *request = again).is_some()
    }
}

/// Reads a request to its end if it is small; one that is not comes back whole.
async fn read_small(request: Request<Body>) -> Result<Request<Bytes>, Request<Body>> {
    let (parts, mut body) = request.into_parts();
    if body.size_hint().lower() > REQUEST_MAX as u64 {
        return Err(Request::from_parts(parts, body));
    }
    // `taken` is what keeping it takes: small pieces count for more.
    let (mut read, mut bytes, mut taken) = (Vec::new(), 0, 0);
    loop {
        let frame = match body.frame().await {
            None => break,
            Some(Ok(frame)) => frame.into_data().map_err(Ok),
            Some(Err(error)) => Err(Err(error)),
        };
        // Trailers, or an error, which whoever reads it next is to see.
        let other = match frame {
            Ok(data) => {
                bytes += data.len();
                taken += cost(data.len()) as usize;
                read.push(data);
                if taken <= REQUEST_MAX {
                    continue;
                }
                None
            }
            Err(other) => Some(other),
        };
        return Err(Request::from_parts(parts, resumed(read, other, body)));
    }
    let whole = match read.len() {
        0 | 1 => read.pop().unwrap_or_default(),
        _ => {
            let mut whole = BytesMut::with_capacity(bytes);
            read.iter().for_each(|part| whole.extend_from_slice(part));
            whole.freeze()
        }
    };
    Ok(Request::from_parts(parts, whole))
}

/// A body from its start.
fn resumed(read: Vec<Bytes>, last: Option<Result<Frame<Bytes>, Status>>, rest: Body) -> Body {
    let first = read.into_iter().map(|data| Ok(Frame::data(data))).chain(last);
    Body::new(StreamBody::new(futures_util::stream::iter(first).chain(BodyStream::new(rest))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use p2p_core::calls::PART_MIN;

    fn request(parts: &[usize], last: Option<Result<Frame<Bytes>, Status>>) -> Request<Body> {
        let parts: Vec<_> = parts.iter().map(|len| Ok(Frame::data(Bytes::from(vec![7; *len])))).collect();
        Request::new(Body::new(StreamBody::new(futures_util::stream::iter(parts.into_iter().chain(last)))))
    }

    async fn read(request: Request<Body>) -> Result<usize, Status> {
        Ok(request.into_body().collect().await?.to_bytes().len())
    }

    #[tokio::test]
    async fn a_small_call_is_sent_as_often_as_need_be() {
        for parts in [&[][..], &[0], &[3, 4, 5], &[REQUEST_MAX]] {
            let mut call = Outgoing::of(request(parts, None), true).await;
            for _ in 0..3 {
                assert!(call.small().is_some() && call.again());
                assert_eq!(read(call.take()).await.expect("read"), parts.iter().sum::<usize>());
            }
        }
    }

    #[tokio::test]
    async fn what_is_large_or_more_than_a_message_flows_whole() {
        let many = vec![1; REQUEST_MAX / PART_MIN as usize + 1];
        for parts in [&[REQUEST_MAX, 1, 9][..], &[REQUEST_MAX + 1], &many] {
            let mut call = Outgoing::of(request(parts, None), true).await;
            assert!(call.small().is_none());
            assert_eq!(read(call.take()).await.expect("read"), parts.iter().sum::<usize>());
        }
        // A stream is not read ahead.
        assert!(Outgoing::of(request(&[3], None), false).await.small().is_none());
        let mut call = Outgoing::of(request(&[3], Some(Ok(Frame::trailers(HeaderMap::new())))), true).await;
        let body = call.take().into_body().collect().await.expect("read");
        assert!(body.trailers().is_some() && body.to_bytes().len() == 3);
        let mut call = Outgoing::of(request(&[3], Some(Err(Status::cancelled("gone")))), true).await;
        assert_eq!(read(call.take()).await.expect_err("its error").message(), "gone");
    }
}
