//! Where a call goes: to a service of this node, or one hop to a node that provides the method.
//!
//! A forwarded call is *passed through*: its own HTTP/2 stream to the provider, body bytes untouched. It
//! makes at most one hop, because the entry node knows the providers; at the end of a hop a call is served
//! or refused ([`Reason::NotProvided`]), never sent on.

use crate::{
    auth::{Auth, Caller, SERVED_BY, TARGET_NODE},
    error::{Fault, Reason},
    peer::{PeerPool, SendError, error_chain},
    registry::{Method, Provider, Registry},
};
use http::{HeaderMap, HeaderValue, Request, Response, header};
use p2p_core::{MethodPath, NodeId, balancer, method::StreamingKind};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
};
use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::time::Instant;
use tonic::body::Body;

mod deadline;
mod descriptors;
mod forwarded;
mod generic;
mod unary;

use forwarded::{Forwarded, InFlight};
use generic::Generic;

pub use deadline::{grpc_timeout, timeout_header};
pub use unary::{Answer, AnswerLimit, JsonMethod, Target, UnaryCall};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabels {
    route: &'static str,
}

/// Routes calls of one node.
#[derive(Debug)]
pub struct Router {
    registry: Arc<Registry>,
    pool: Arc<PeerPool>,
    auth: Arc<Auth>,
    entry_node: HeaderValue,
    default_timeout: Duration,
    max_message_bytes: usize,
    served_here: Counter,
    forwarded: Counter,
    generic: Generic,
}

/// Tries before a call that never left this node is given up.
const MAX_TRIES: usize = 3;

impl Router {
    /// A router over the registry's methods. `default_timeout` bounds unary calls without a deadline,
    /// `max_message_bytes` the answers that this node reads itself for generic calls.
    pub fn new(
        registry: Arc<Registry>,
        pool: Arc<PeerPool>,
        auth: Arc<Auth>,
        default_timeout: Duration,
        max_message_bytes: usize,
        metrics: &crate::telemetry::Metrics,
    ) -> Self {
        let routed = Family::<RouteLabels, Counter>::default();
        metrics.register(|metrics| {
            metrics.register("routed_calls", "Calls by where they were served", routed.clone());
        });
        let entry_node =
            HeaderValue::from_str(registry.node().as_str()).unwrap_or(HeaderValue::from_static("node"));
        // Looked up once, not for each call.
        let of = |route| routed.get_or_create_owned(&RouteLabels { route });
        let (served_here, forwarded) = (of("local"), of("forwarded"));
        let generic = Generic::new(metrics);
        Self {
            registry,
            pool,
            auth,
            entry_node,
            default_timeout,
            max_message_bytes,
            served_here,
            forwarded,
            generic,
        }
    }

    /// The registry.
    pub fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    /// Evidence and policy.
    pub fn auth(&self) -> &Arc<Auth> {
        &self.auth
    }

    /// How long a unary call without a deadline of its own may take.
    pub fn default_timeout(&self) -> Duration {
        self.default_timeout
    }

    /// When a call that arrives now must be answered: its own deadline, or the default if it is unary and
    /// carries none. A malformed deadline counts as none.
    pub fn deadline(&self, method: &Method, headers: &HeaderMap) -> Option<Instant> {
        let own = headers.get("grpc-timeout").and_then(grpc_timeout);
        let default = (method.info.streaming == StreamingKind::Unary).then_some(self.default_timeout);
        own.or(default).and_then(|timeout| Instant::now().checked_add(timeout))
    }

    /// Serves or forwards one call and returns the answer with the node that gave it.
    pub async fn route(
        &self,
        method: &Method,
        caller: &Arc<Caller>,
        deadline: Option<Instant>,
        mut request: Request<Body>,
    ) -> Result<(Response<Body>, NodeId), Fault> {
        let target = take_target(request.headers_mut())?;
        let here = target.as_ref().is_none_or(|target| target == self.registry.node());
        match &method.local {
            Some(local) if here => {
                self.served_here.inc();
                // Calls that this node makes for a caller come without it.
                if request.extensions().get::<Arc<Caller>>().is_none() {
                    request.extensions_mut().insert(caller.clone());
                }
                caller.identify(request.headers_mut(), &self.entry_node);
                let response = within(deadline, (local.0)(request)).await?;
                let mut response = refuse_oversized(response);
                response.headers_mut().insert(SERVED_BY, self.entry_node.clone());
                Ok((response, self.registry.node().clone()))
            }
            Some(_) | None if caller.forwarded_by.is_some() => Err(Fault::new(
                Reason::NotProvided,
                format!("{} does not provide {} (any more)", self.registry.node(), method.info.path),
            )),
            Some(_) | None => {
                let candidates = self.candidates(method, target.as_ref())?;
                // Boxed, so that local calls do not carry its room.
                within(deadline, Box::pin(self.forward(method, caller, deadline, candidates, request)))
                    .await?
            }
        }
    }

    async fn forward(
        &self,
        method: &Method,
        caller: &Caller,
        deadline: Option<Instant>,
        mut candidates: Vec<Arc<Provider>>,
        mut request: Request<Body>,
    ) -> Result<(Response<Body>, NodeId), Fault> {
        let headers = request.headers_mut();
        caller.pass_on(headers, &self.entry_node);
        for name in [header::HOST, header::CONNECTION, header::TRANSFER_ENCODING, header::UPGRADE] {
            headers.remove(name);
        }
        request.extensions_mut().clear();
        let mut last = None;
        for _ in 0..MAX_TRIES {
            let loads = candidates.iter().map(|provider| provider.in_flight.load(Ordering::Relaxed));
            let Some(chosen) = balancer::choose(loads, &mut rand::rng()) else { break };
            let provider = candidates.swap_remove(chosen);
            if let Some(deadline) = deadline {
                request.headers_mut().insert("grpc-timeout", timeout_header(deadline));
            }
            match self.pass_through(&provider, request).await {
                Ok(response) => {
                    self.forwarded.inc();
                    return Ok((response, provider.node.clone()));
                }
                Err((fault, None)) => return Err(fault),
                Err((fault, Some(unsent))) => {
                    tracing::debug!(peer.id = %provider.node, %fault, method = %method.info.path, "provider not reached");
                    last = Some(fault);
                    request = *unsent;
                }
            }
        }
        Err(last.unwrap_or_else(|| no_provider(&method.info.path)))
    }

    fn candidates(&self, method: &Method, target: Option<&NodeId>) -> Result<Vec<Arc<Provider>>, Fault> {
        let Some(target) = target else {
            return match method.providers.is_empty() {
                true => Err(no_provider(&method.info.path)),
                false => Ok(method.providers.clone()),
            };
        };
        let found = method.providers.iter().find(|provider| provider.node == *target);
        if let Some(provider) = found {
            return Ok(vec![provider.clone()]);
        }
        let here = target == self.registry.node();
        Err(if here || self.registry.table().nodes.contains_key(target) {
            Fault::new(Reason::NotFound, format!("node {target} does not provide {}", method.info.path))
        } else {
            Fault::new(
                Reason::NotFound,
                format!("no node {target} is alive; `p2pctl cluster nodes` shows who is"),
            )
        })
    }

    /// One try at one provider. The request comes back if it never left.
    async fn pass_through(
        &self,
        provider: &Arc<Provider>,
        request: Request<Body>,
    ) -> Result<Response<Body>, (Fault, Option<Box<Request<Body>>>)> {
        let mut connection = match self.pool.get(&provider.node, provider.address).await {
            Ok(connection) => connection,
            Err(error) => {
                let fault =
                    Fault::new(Reason::ProviderUnreachable, format!("node {}: {error}", provider.node));
                return Err((fault, Some(Box::new(request))));
            }
        };
        let in_flight = InFlight::start(provider);
        match connection.send(request).await {
            Ok(response) => Ok(response.map(|body| Body::new(Forwarded::new(body, in_flight)))),
            Err(SendError::Unsent(request)) => {
                let fault = Fault::new(
                    Reason::ProviderUnreachable,
                    format!("the connection to node {} closed before the call was sent", provider.node),
                );
                Err((fault, Some(request)))
            }
            Err(SendError::Broken(error)) => {
                let why = error_chain(&error);
                let fault = Fault::new(
                    Reason::ProviderLost,
                    format!("node {} broke off; the call may have been processed: {why}", provider.node),
                );
                Err((fault, None))
            }
        }
    }
}

fn no_provider(path: &MethodPath) -> Fault {
    Fault::new(
        Reason::NoProvider,
        format!("no live node provides {path} now; `p2pctl rpc list` shows providers"),
    )
}

/// The node that the caller wants to be served by.
fn take_target(headers: &mut HeaderMap) -> Result<Option<NodeId>, Fault> {
    let Some(value) = headers.remove(TARGET_NODE) else { return Ok(None) };
    let id = value.to_str().ok().and_then(|text| text.parse().ok());
    id.map(Some).ok_or_else(|| Fault::new(Reason::InvalidArgument, "p2p-target-node is not a node id"))
}

/// tonic answers OUT_OF_RANGE to a message over its limit; the specification's word is RESOURCE_EXHAUSTED.
fn refuse_oversized(response: Response<Body>) -> Response<Body> {
    match oversized(response.headers()) {
        Some(fault) => fault.into_grpc(),
        None => response,
    }
}

/// The fault that headers or trailers should tell instead, if they tell of a message over tonic's limit.
pub fn oversized(headers: &HeaderMap) -> Option<Fault> {
    headers.get("grpc-status").filter(|code| code.as_bytes() == b"11")?;
    let status = tonic::Status::from_header_map(headers)?;
    let too_large = status.message().contains("message length too large");
    too_large.then(|| Fault::new(Reason::TooLarge, status.message()))
}

/// `future`, unless the deadline comes first.
pub async fn within<F: Future>(deadline: Option<Instant>, future: F) -> Result<F::Output, Fault> {
    match deadline {
        None => Ok(future.await),
        Some(deadline) => tokio::time::timeout_at(deadline, future)
            .await
            .map_err(|_elapsed| Fault::new(Reason::DeadlineExceeded, "the deadline passed")),
    }
}
