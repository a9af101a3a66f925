//! A call on its way to an upstream, and the answer on its way back. Bodies are passed as bytes, never decoded; what is
//! checked is that the answer is gRPC at all.

use super::{channel::Channel, metrics::UpstreamMetrics, spec::Spec};
use crate::{
    error::{Fault, Reason},
    peer::{SendError, error_chain},
    registry::{Handler, Refused},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, header};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use p2p_core::ServiceName;
use prometheus_client::metrics::gauge::Gauge;
use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    task::{Context, Poll, ready},
};
use tokio::sync::Notify;
use tonic::body::Body;

/// Connections tried for one call that never left: the one that is open, and a new one.
const TRIES: usize = 2;
/// The start of headers that only nodes write.
const OURS: &str = "p2p-";

/// A process, as calls see it.
#[derive(Debug)]
pub(super) struct Upstream {
    pub(super) spec: Spec,
    pub(super) channel: Channel,
    in_flight: AtomicU32,
    gauge: Gauge,
    metrics: UpstreamMetrics,
    /// A call has found it gone: look at once.
    pub(super) gone: Notify,
}

impl Upstream {
    pub(super) fn new(spec: Spec, metrics: &UpstreamMetrics) -> Result<Arc<Self>, super::Problem> {
        let channel = Channel::new(&spec)?;
        let gauge = metrics.in_flight(&spec.name);
        Ok(Arc::new(Self {
            channel,
            in_flight: AtomicU32::new(0),
            gauge,
            metrics: metrics.clone(),
            gone: Notify::new(),
            spec,
        }))
    }

    pub(super) fn name(&self) -> &ServiceName {
        &self.spec.name
    }

    /// Calls that it has not answered to the end.
    pub(super) fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// What the registry calls.
    pub(super) fn handler(self: &Arc<Self>) -> Handler {
        let upstream = self.clone();
        Arc::new(move |request| {
            let upstream = upstream.clone();
            Box::pin(async move { upstream.call(request).await })
        })
    }

    async fn call(self: Arc<Self>, mut request: Request<Body>) -> Result<Response<Body>, Box<Refused>> {
        let slot = match Slot::take(&self) {
            Ok(slot) => slot,
            Err(fault) => return Err(self.refuse("busy", fault, request)),
        };
        prepare(&mut request);
        for _ in 0..TRIES {
            let mut connection = match self.channel.get().await {
                Ok(connection) => connection,
                Err(error) => {
                    let fault = self.unreachable(&error.to_string());
                    return Err(self.refuse(error.word(), fault, request));
                }
            };
            match connection.send(request).await {
                Ok(response) => return Ok(self.answer(response, slot)),
                Err(SendError::Unsent(whole)) => {
                    self.channel.forget(&connection).await;
                    request = *whole;
                }
                Err(SendError::Broken(error)) => {
                    let why = connection.foreign().map_or_else(|| error_chain(&error), str::to_owned);
                    return Ok(self.lost(&why).into_grpc());
                }
            }
        }
        let fault = self.unreachable("it closes connections before calls are sent");
        Err(self.refuse("closed", fault, request))
    }

    fn refuse(&self, reason: &'static str, fault: Fault, request: Request<Body>) -> Box<Refused> {
        self.metrics.call_failed(self.name(), reason);
        Box::new(Refused { fault, request })
    }

    /// A fault that names the service; where the process listens, and what went wrong there, is for the log.
    fn fault(&self, reason: Reason, told: &str) -> Fault {
        Fault::new(reason, format!("the process that provides {} {told}", self.name()))
    }

    fn unreachable(&self, why: &str) -> Fault {
        self.gone.notify_one();
        tracing::debug!(service = %self.name(), upstream = %self.channel.url(), why, "upstream not reached");
        self.fault(Reason::ProviderUnreachable, "cannot be reached now; nothing was sent")
    }

    fn lost(&self, why: &str) -> Fault {
        self.gone.notify_one();
        self.metrics.call_failed(self.name(), "lost");
        tracing::debug!(service = %self.name(), upstream = %self.channel.url(), why, "upstream broke off");
        self.fault(Reason::ProviderLost, "broke off; the call may have been processed")
    }

    fn answer(self: &Arc<Self>, response: Response<Incoming>, slot: Slot) -> Response<Body> {
        let (mut head, body) = response.into_parts();
        if let Some(what) = not_grpc(head.status, &head.headers) {
            self.metrics.call_failed(self.name(), "not_grpc");
            return self.fault(Reason::UpstreamInvalid, &what).into_grpc();
        }
        strip(&mut head.headers);
        let has_status = head.headers.contains_key(GRPC_STATUS);
        if !has_status && body.is_end_stream() {
            return self.no_status().into_grpc();
        }
        let relayed = Relayed { body, slot, ended: has_status };
        Response::from_parts(head, Body::new(relayed))
    }

    fn no_status(&self) -> Fault {
        self.metrics.call_failed(self.name(), "no_status");
        self.fault(Reason::UpstreamInvalid, "ended its answer without a gRPC status")
    }
}

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// Takes out what belongs to the hop before. Who calls has been written by the router.
fn prepare(request: &mut Request<Body>) {
    request.extensions_mut().clear();
    let headers = request.headers_mut();
    for name in [header::HOST, header::CONNECTION, header::TRANSFER_ENCODING, header::UPGRADE] {
        headers.remove(name);
    }
    headers.insert(header::TE, HeaderValue::from_static("trailers"));
}

/// Removes headers that only nodes write: an upstream must not speak for them.
fn strip(headers: &mut HeaderMap) {
    let ours: Vec<HeaderName> =
        headers.keys().filter(|name| name.as_str().starts_with(OURS)).cloned().collect();
    for name in ours {
        headers.remove(name);
    }
}

/// Why this is no gRPC answer, if so (gRPC over HTTP/2, "Responses").
fn not_grpc(status: StatusCode, headers: &HeaderMap) -> Option<String> {
    if status != StatusCode::OK {
        return Some(format!("answered HTTP {} instead of gRPC", status.as_u16()));
    }
    let content_type = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    let rest = content_type.strip_prefix(b"application/grpc");
    let is_grpc =
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"+") || rest.starts_with(b";"));
    let shown = || String::from_utf8_lossy(&content_type[..content_type.len().min(64)]).into_owned();
    (!is_grpc).then(|| format!("answered {:?} instead of application/grpc", shown()))
}

/// A call that the upstream works on, counted until its answer has been read or dropped.
#[derive(Debug)]
struct Slot(Arc<Upstream>);

impl Slot {
    fn take(upstream: &Arc<Upstream>) -> Result<Self, Fault> {
        let most = upstream.spec.max_concurrent.map_or(u32::MAX, std::num::NonZeroU32::get);
        let taken = upstream
            .in_flight
            .try_update(Ordering::Relaxed, Ordering::Relaxed, |calls| (calls < most).then_some(calls + 1));
        match taken {
            Ok(_) => {
                upstream.gauge.inc();
                Ok(Self(upstream.clone()))
            }
            Err(_) => {
                let what = format!("takes no more than {most} calls at a time (max_concurrent)");
                Err(upstream.fault(Reason::ProviderBusy, &what))
            }
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.0.gauge.dec();
    }
}

pin_project_lite::pin_project! {
    /// An upstream's body as it comes. Where it breaks off or ends without a status, its caller is told by trailers: a
    /// reset stream would read as a defect of this node.
    struct Relayed {
        #[pin]
        body: Incoming,
        slot: Slot,
        // Whether the status is out.
        ended: bool,
    }
}

impl HttpBody for Relayed {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = self.project();
        let upstream = &this.slot.0;
        let fault = match ready!(this.body.poll_frame(context)) {
            Some(Ok(frame)) => match frame.into_trailers() {
                Err(frame) => return Poll::Ready(Some(Ok(frame))),
                Ok(mut trailers) if trailers.contains_key(GRPC_STATUS) => {
                    strip(&mut trailers);
                    *this.ended = true;
                    return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
                }
                Ok(_) => upstream.no_status(),
            },
            _ if *this.ended => return Poll::Ready(None),
            Some(Err(error)) => upstream.lost(&error_chain(&error)),
            None => upstream.no_status(),
        };
        *this.ended = true;
        Poll::Ready(Some(Ok(Frame::trailers(fault.to_trailers()))))
    }

    fn is_end_stream(&self) -> bool {
        self.ended && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(content_type: Option<&'static str>) -> HeaderMap {
        let value = content_type.map(|text| (header::CONTENT_TYPE, HeaderValue::from_static(text)));
        value.into_iter().collect()
    }

    #[test]
    fn only_http_200_with_a_grpc_media_type_is_an_answer() {
        for fine in ["application/grpc", "application/grpc+proto", "application/grpc;charset=utf-8"] {
            assert_eq!(not_grpc(StatusCode::OK, &headers(Some(fine))), None, "{fine}");
        }
        for bad in [Some("text/html"), Some("application/grpc-web"), Some("application/grpcx"), None] {
            assert!(not_grpc(StatusCode::OK, &headers(bad)).is_some(), "{bad:?}");
        }
        let why = not_grpc(StatusCode::NOT_FOUND, &headers(Some("application/grpc")));
        assert!(why.is_some_and(|why| why.contains("404")));
    }

    #[test]
    fn what_only_nodes_write_is_not_taken_from_an_upstream() {
        let mut answer = headers(Some("application/grpc"));
        for name in ["p2p-principal", "p2p-unprocessed", "x-own"] {
            answer.insert(HeaderName::from_static(name), HeaderValue::from_static("1"));
        }
        strip(&mut answer);
        assert_eq!(answer.len(), 2);
        assert!(answer.contains_key("x-own"));
    }
}
