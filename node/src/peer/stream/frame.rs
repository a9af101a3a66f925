//! Between HTTP and the frames of a stream.

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Version, uri::PathAndQuery};
use http_body_util::Full;
use p2p_core::calls::{HEADERS_MAX, REQUEST_MAX, Violation};
use p2p_proto::v1::{PeerCall, PeerHeader};
use tonic::body::Body;

/// What a header takes beside its name and value, as HTTP/2 counts it (RFC 9113 § 6.5.2).
const HEADER_OVERHEAD: usize = 32;
/// Largest frame, in bytes: a request and its headers, or part of an answer with head and trailers, and then some.
pub const FRAME_MAX: usize = REQUEST_MAX + 3 * HEADERS_MAX;

/// Headers as frames carry them; none if they are too large.
pub(super) fn pack(headers: &HeaderMap) -> Option<Vec<PeerHeader>> {
    let size = |(name, value): (&HeaderName, &HeaderValue)| name.as_str().len() + value.len();
    let bytes: usize = headers.iter().map(size).sum();
    if bytes + headers.len() * HEADER_OVERHEAD > HEADERS_MAX {
        return None;
    }
    // One allocation for all texts.
    let mut texts = BytesMut::with_capacity(bytes);
    for (name, value) in headers {
        texts.extend_from_slice(name.as_str().as_bytes());
        texts.extend_from_slice(value.as_bytes());
    }
    let mut texts = texts.freeze();
    let packed = headers.iter().map(|(name, value)| PeerHeader {
        name: texts.split_to(name.as_str().len()),
        value: texts.split_to(value.len()),
    });
    Some(packed.collect())
}

/// The headers that a frame carries. Their size is looked at first: one without name and value takes two bytes on the wire.
pub(super) fn unpack(headers: Vec<PeerHeader>) -> Result<HeaderMap, Violation> {
    let size = |header: &PeerHeader| header.name.len() + header.value.len() + HEADER_OVERHEAD;
    if headers.iter().map(size).sum::<usize>() > HEADERS_MAX {
        return Err(Violation::Headers);
    }
    let mut map = HeaderMap::try_with_capacity(headers.len()).map_err(|_| Violation::Headers)?;
    for PeerHeader { name, value } in headers {
        let name = HeaderName::from_bytes(&name).map_err(|_| Violation::Malformed)?;
        let value = HeaderValue::from_maybe_shared(value).map_err(|_| Violation::Malformed)?;
        map.try_append(name, value).map_err(|_| Violation::Malformed)?;
    }
    Ok(map)
}

/// What the frames of a call take of a queue's room.
pub(super) fn room(headers: &[PeerHeader], body: usize) -> u32 {
    let bytes = |header: &PeerHeader| header.name.len() + header.value.len() + HEADER_OVERHEAD;
    u32::try_from(headers.iter().map(bytes).sum::<usize>() + body + HEADER_OVERHEAD).unwrap_or(u32::MAX)
}

/// The request that a call frame carries, as HTTP/2 would have brought it.
pub(super) fn request(call: PeerCall) -> Result<Request<Body>, Violation> {
    if call.body.len() > REQUEST_MAX {
        return Err(Violation::Request);
    }
    let path = PathAndQuery::from_maybe_shared(call.path).map_err(|_| Violation::Malformed)?;
    let mut request = Request::new(full(call.body));
    *request.method_mut() = Method::POST;
    *request.version_mut() = Version::HTTP_2;
    *request.uri_mut() = path.into();
    *request.headers_mut() = unpack(call.headers)?;
    Ok(request)
}

/// A body that is there already.
pub(super) fn full(bytes: Bytes) -> Body {
    Body::new(Full::new(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn headers_arrive_as_sent(
            pairs in proptest::collection::vec(("[a-z-]{1,20}", proptest::collection::vec(32_u8..127, 0..40)), 0..20),
        ) {
            let mut headers = HeaderMap::new();
            for (name, value) in &pairs {
                let name: HeaderName = name.parse().expect("a name");
                headers.append(name, HeaderValue::from_bytes(value).expect("a value"));
            }
            prop_assert_eq!(unpack(pack(&headers).expect("small")), Ok(headers));
        }

        #[test]
        fn any_call_reads_or_is_refused(path: Vec<u8>, name: Vec<u8>, value: Vec<u8>, body: Vec<u8>) {
            let headers = vec![PeerHeader { name: name.into(), value: value.into() }];
            let call = PeerCall { path: path.clone().into(), headers, body: body.clone().into() };
            match request(call) {
                Ok(request) => prop_assert_eq!(request.uri().path_and_query().expect("a path").as_str().as_bytes(), &path),
                Err(violation) => prop_assert_eq!(violation, Violation::Malformed),
            }
        }
    }

    #[test]
    fn what_is_too_large_is_not_carried() {
        let mut headers = HeaderMap::new();
        headers.insert("x-large", HeaderValue::try_from("x".repeat(HEADERS_MAX)).expect("a value"));
        assert_eq!(pack(&headers), None);
        // More than a map of headers can hold, in a few bytes each.
        for (count, name) in [(40_000, ""), (40_000, "x"), (2, "x-large")] {
            let value = vec![b'x'; if count == 2 { HEADERS_MAX } else { 0 }];
            let header = PeerHeader { name: name.into(), value: value.into() };
            assert_eq!(unpack(vec![header; count]), Err(Violation::Headers));
        }
        let call = PeerCall { path: "/a.B/C".into(), body: vec![0; REQUEST_MAX + 1].into(), headers: vec![] };
        assert_eq!(request(call).expect_err("too large"), Violation::Request);
    }
}
