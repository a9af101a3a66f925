//! Where a call goes: to a service of this node, or one hop to a node that provides the method.
//!
//! A forwarded call goes over the peer stream if it is unary and small, else it is *passed through*: its own HTTP/2
//! stream to the provider. Body bytes are untouched. It makes at most one hop, because the entry node knows the providers; at the end of a hop a call is served
//! or refused ([`Reason::NotProvided`]), never sent on.

use crate::{
    auth::{Auth, Caller, SERVED_BY, TARGET_NODE},
    error::{Fault, Reason, UNPROCESSED},
    peer::{PeerPool, SendError, Way, error_chain},
    registry::{LocalHandler, Method, Provider, Refused, Registry},
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
mod streamed;
mod unary;

use forwarded::{Forwarded, InFlight};
use generic::Generic;
use p2p_client::{Replay, is_unprocessed};

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
    refused: Counter,
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
        let (routed, refused) = (Family::<RouteLabels, Counter>::default(), Counter::default());
        metrics.register(|metrics| {
            metrics.register("routed_calls", "Calls by where they were served", routed.clone());
            metrics.register(
                "routed_calls_refused",
                "Calls that a provider refused unprocessed and that were tried at another one",
                refused.clone(),
            );
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
            refused,
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
        let forwarded = caller.forwarded_by.is_some();
        // What is drained here still serves those who have not heard of it.
        let local = method.local.as_ref().or(method.draining.as_ref().filter(|_| forwarded));
        let mut refused = None;
        if let Some(local) = local.filter(|_| here) {
            self.introduce(local, caller, deadline, &mut request);
            match within(deadline, (local.handler)(request)).await? {
                Ok(response) => {
                    self.served_here.inc();
                    let mut response = refuse_oversized(response);
                    response.headers_mut().insert(SERVED_BY, self.entry_node.clone());
                    return Ok((response, self.registry.node().clone()));
                }
                // Nothing of it was processed: another provider may take it, unless it was meant for this one.
                Err(back) if forwarded || target.is_some() || method.providers.is_empty() => {
                    return Err(back.fault);
                }
                Err(mut back) => {
                    request = std::mem::take(&mut back.request);
                    refused = Some(back);
                }
            }
        } else if forwarded {
            return Err(Fault::new(
                Reason::NotProvided,
                format!("{} does not provide {} (any more)", self.registry.node(), method.info.path),
            ));
        }
        let candidates = self.candidates(method, target.as_ref())?;
        // Boxed, so that local calls do not carry its room.
        within(deadline, Box::pin(self.forward(method, caller, deadline, candidates, request, refused)))
            .await?
    }

    /// Tells a service of this node who calls, and a process behind it how long it has.
    fn introduce(
        &self,
        local: &LocalHandler,
        caller: &Arc<Caller>,
        deadline: Option<Instant>,
        request: &mut Request<Body>,
    ) {
        // Calls that this node makes for a caller come without it.
        if request.extensions().get::<Arc<Caller>>().is_none() {
            request.extensions_mut().insert(caller.clone());
        }
        caller.identify(request.headers_mut(), &self.entry_node);
        if let Some(deadline) = deadline.filter(|_| local.upstream) {
            request.headers_mut().insert("grpc-timeout", timeout_header(deadline));
        }
    }

    /// `refused` says why this node itself does not serve what it provides, for the case that nobody else does.
    async fn forward(
        &self,
        method: &Method,
        caller: &Caller,
        deadline: Option<Instant>,
        mut candidates: Vec<Arc<Provider>>,
        mut request: Request<Body>,
        refused: Option<Box<Refused>>,
    ) -> Result<(Response<Body>, NodeId), Fault> {
        let headers = request.headers_mut();
        caller.pass_on(headers, &self.entry_node);
        for name in [header::HOST, header::CONNECTION, header::TRANSFER_ENCODING, header::UPGRADE] {
            headers.remove(name);
        }
        request.extensions_mut().clear();
        let mut last = refused.map(|refused| refused.fault);
        // Kept for another provider, where there is one.
        let replay = (candidates.len() > 1).then(|| Replay::of(&mut request));
        for _ in 0..MAX_TRIES {
            let loads = candidates.iter().map(|provider| provider.in_flight.load(Ordering::Relaxed));
            let Some(chosen) = balancer::choose(loads, &mut rand::rng()) else { break };
            let provider = candidates.swap_remove(chosen);
            if let Some(deadline) = deadline {
                request.headers_mut().insert("grpc-timeout", timeout_header(deadline));
            }
            match self.attempt(method, &provider, request).await {
                Ok(response) => {
                    let refused = response.headers().contains_key(UNPROCESSED) && !candidates.is_empty();
                    let again = replay.as_ref().filter(|_| refused).and_then(Replay::again);
                    let Some(again) = again else {
                        self.forwarded.inc();
                        return Ok((response, provider.node.clone()));
                    };
                    self.refused.inc();
                    tracing::debug!(peer.id = %provider.node, method = %method.info.path, "call refused unprocessed");
                    last = Some(refusal(&provider, response.headers()));
                    request = again;
                }
                Err((fault, None)) => {
                    let again = replay.as_ref().filter(|_| fault.reason == Reason::ProviderUnreachable);
                    let Some(again) = again.and_then(Replay::again) else { return Err(fault) };
                    self.refused.inc();
                    last = Some(fault);
                    request = again;
                }
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
                false => Ok(method.providers.to_vec()),
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
    async fn attempt(
        &self,
        method: &Method,
        provider: &Arc<Provider>,
        request: Request<Body>,
    ) -> Result<Response<Body>, (Fault, Option<Box<Request<Body>>>)> {
        match self.over_stream(method, provider, request).await {
            Ok(answer) => answer.map_err(|fault| (fault, None)),
            Err(request) => self.pass_through(provider, request).await,
        }
    }

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
        self.pool.streams().sent(Way::Passthrough);
        match connection.send(request).await {
            Ok(response) => Ok(response.map(|body| Body::new(Forwarded::new(body, in_flight)))),
            Err(SendError::Unsent(request)) => {
                let fault = Fault::new(
                    Reason::ProviderUnreachable,
                    format!("the connection to node {} closed before the call was sent", provider.node),
                );
                Err((fault, Some(request)))
            }
            Err(SendError::Broken(error)) if is_unprocessed(&error) => {
                let fault = Fault::new(
                    Reason::ProviderUnreachable,
                    format!("node {} is stopping and has not processed the call", provider.node),
                );
                Err((fault, None))
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

/// What a provider says that has refused a call unprocessed, for the case that no other takes it.
fn refusal(provider: &Provider, headers: &HeaderMap) -> Fault {
    let status = tonic::Status::from_header_map(headers);
    let busy = status.as_ref().is_some_and(|status| status.code() == tonic::Code::ResourceExhausted);
    let reason = if busy { Reason::ProviderBusy } else { Reason::ProviderUnreachable };
    let why = status.as_ref().map(tonic::Status::message).unwrap_or_default();
    Fault::new(reason, format!("node {}: {why}", provider.node))
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
