//! Answers that are held back until they are whole. The caller of a unary method can do nothing with the beginning of an
//! answer, and as long as nothing of it was passed on, a call that may be repeated can be made again.

use crate::error::LOST;
use bytes::Bytes;
use http::{HeaderValue, Response, header};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt as _;
use p2p_core::calls::cost;
use std::{
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll},
};
use tonic::{Status, body::Body};

/// Most bytes of an answer that are held back; what is larger passes as it comes.
const HELD_MAX: usize = 64 * 1024;

/// Waits until an answer is whole. Where its provider broke off before that, it becomes an answer with nothing but that
/// status.
pub(super) async fn hold(response: Response<Body>) -> Response<Body> {
    if response.body().is_end_stream() {
        return response;
    }
    let (head, mut rest) = response.into_parts();
    let (mut frames, mut bytes) = (VecDeque::with_capacity(2), 0);
    while bytes <= HELD_MAX
        && let Some(frame) = rest.frame().await
    {
        match frame.as_ref().map(|frame| (frame.data_ref(), frame.trailers_ref())) {
            Ok((_, Some(trailers))) if trailers.contains_key(LOST) => {
                let mut lost = Response::new(Body::empty());
                lost.headers_mut().clone_from(trailers);
                let grpc = HeaderValue::from_static("application/grpc");
                lost.headers_mut().insert(header::CONTENT_TYPE, grpc);
                return lost;
            }
            // As much as keeping it takes: small pieces count for more.
            Ok((Some(data), _)) => bytes += cost(data.len()) as usize,
            Ok((None, _)) | Err(_) => bytes = usize::MAX,
        }
        frames.push_back(frame);
    }
    Response::from_parts(head, Body::new(Held { frames, rest }))
}

struct Held {
    frames: VecDeque<Result<Frame<Bytes>, Status>>,
    rest: Body,
}

impl HttpBody for Held {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        match this.frames.pop_front() {
            Some(frame) => Poll::Ready(Some(frame)),
            None => Pin::new(&mut this.rest).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.frames.is_empty() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        if self.frames.is_empty() { self.rest.size_hint() } else { SizeHint::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderMap;
    use http_body_util::StreamBody;

    fn answer(sizes: &[usize], trailers: &[(&'static str, &'static str)]) -> Response<Body> {
        let data = sizes.iter().map(|size| Frame::data(Bytes::from(vec![7; *size])));
        let pair = |(name, value)| (http::HeaderName::from_static(name), HeaderValue::from_static(value));
        let trailers: HeaderMap = trailers.iter().copied().map(pair).collect();
        let frames: Vec<_> = data.chain([Frame::trailers(trailers)]).map(Ok::<_, Status>).collect();
        let mut response = Response::new(Body::new(StreamBody::new(tokio_stream::iter(frames))));
        response.headers_mut().insert("x-head", HeaderValue::from_static("1"));
        response
    }

    async fn read(response: Response<Body>) -> (usize, HeaderMap) {
        let body = response.into_body().collect().await.expect("read");
        let trailers = body.trailers().cloned().unwrap_or_default();
        (body.to_bytes().len(), trailers)
    }

    #[tokio::test]
    async fn an_answer_arrives_as_given_whether_it_fits_or_not() {
        for sizes in
            [vec![], vec![5], vec![HELD_MAX], vec![HELD_MAX, 1, 1], vec![3, HELD_MAX, 4], vec![1; 300]]
        {
            let held = hold(answer(&sizes, &[("grpc-status", "0")])).await;
            assert!(held.headers().contains_key("x-head"));
            let (bytes, trailers) = read(held).await;
            assert_eq!(
                (bytes, &trailers["grpc-status"]),
                (sizes.iter().sum(), &HeaderValue::from_static("0"))
            );
        }
    }

    #[tokio::test]
    async fn what_breaks_off_before_its_end_is_nothing_but_that_status() {
        let lost = [("grpc-status", "14"), ("p2p-lost", "1")];
        let held = hold(answer(&[5], &lost)).await;
        assert!(held.headers().contains_key(LOST) && held.body().is_end_stream());
        assert_eq!(held.headers()[header::CONTENT_TYPE], "application/grpc");
        // Too large to be held: its beginning has passed.
        let (bytes, trailers) = read(hold(answer(&[HELD_MAX + 1], &lost)).await).await;
        assert_eq!((bytes, trailers.contains_key(LOST)), (HELD_MAX + 1, true));
    }
}
