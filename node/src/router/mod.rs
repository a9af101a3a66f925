//! Where a call goes: to a service of this node, or one hop to a node that provides the method.
//!
//! A forwarded call goes over the peer stream if it is unary and small, else it is *passed through*: its own HTTP/2
//! stream to the provider. Body bytes are untouched. It makes at most one hop, because the entry node knows the
//! providers; at the end of a hop a call is served or refused ([`Reason::NotProvided`]), never sent on.
//!
//! | file | what it holds |
//! |---|---|
//! | `mod` | here or elsewhere; one try at one provider |
//! | `forward` `retry` | the tries of a call: which provider is next, and whether there is another |
//! | `outgoing` | a call on its way: what can be sent again |
//! | `streamed` | a try over the peer stream |
//! | `attempt` `forwarded` `held` | what a try teaches of its provider; its answer on the way back; held back until it is whole |
//! | `generic` `unary` `descriptors` | calls that this node makes for callers without stubs |
//! | `deadline` `metrics` | `grpc-timeout`; what is counted |

use crate::{
    auth::{Auth, Caller, SERVED_BY, TARGET_NODE},
    error::{Fault, Reason},
    peer::{PeerPool, SendError, Way, error_chain},
    registry::{LocalHandler, Method, Provider, Refused, Registry},
};
use http::{HeaderMap, HeaderValue, Request, Response};
use p2p_core::{MethodPath, Moment, NodeId, method::StreamingKind, retry::RetryBudget};
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::Instant;
use tonic::body::Body;

mod attempt;
mod deadline;
mod descriptors;
mod forward;
mod forwarded;
mod generic;
mod held;
mod metrics;
mod outgoing;
mod retry;
mod streamed;
mod unary;

use attempt::Attempt;
use forwarded::Forwarded;
use generic::Generic;
use held::hold;
use metrics::RouterMetrics;
use outgoing::Outgoing;
use p2p_client::{Replay, is_unprocessed};
use retry::{Candidates, Why};

pub use deadline::{GRPC_TIMEOUT, grpc_timeout, timeout_header};
pub use unary::{Answer, AnswerLimit, JsonMethod, Target, UnaryCall};

/// Routes calls of one node.
#[derive(Debug)]
pub struct Router {
    registry: Arc<Registry>,
    pool: Arc<PeerPool>,
    auth: Arc<Auth>,
    entry_node: HeaderValue,
    default_timeout: Duration,
    max_message_bytes: usize,
    metrics: RouterMetrics,
    retries: Mutex<RetryBudget>,
    started: Instant,
    generic: Generic,
}

/// Tries of one call.
const MAX_TRIES: usize = 3;

/// Why a provider gave no answer.
enum Unanswered {
    /// There is no connection to it; the call was not sent.
    Unreached(Fault),
    /// Its connection was closing, and the call has not been processed; whether the request is as before: nothing of it was
    /// sent.
    Closed(Fault, bool),
    /// It broke off, and may have processed the call.
    Lost(Fault),
}

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
        let entry_node =
            HeaderValue::from_str(registry.node().as_str()).unwrap_or(HeaderValue::from_static("node"));
        Self {
            metrics: RouterMetrics::new(&registry, metrics),
            registry,
            pool,
            auth,
            entry_node,
            default_timeout,
            max_message_bytes,
            retries: Mutex::default(),
            started: Instant::now(),
            generic: Generic::new(metrics),
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
        let own = headers.get(GRPC_TIMEOUT).and_then(grpc_timeout);
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
            let others = !forwarded && target.is_none() && !method.providers.is_empty();
            // A process may break off; this node itself does not.
            let serving = if others && local.upstream && method.is_repeatable() {
                Box::pin(self.serve_repeatable(method, local, deadline, request))
            } else {
                (local.handler)(request)
            };
            match within(deadline, serving).await? {
                Ok(response) => {
                    self.metrics.served_here.inc();
                    let mut response = refuse_oversized(response);
                    response.headers_mut().insert(SERVED_BY, self.entry_node.clone());
                    return Ok((response, self.registry.node().clone()));
                }
                // Another provider may take it, unless it was meant for this one.
                Err(back) if !others => return Err(back.fault),
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
        let named;
        let candidates = match &target {
            Some(target) => {
                named = [self.named(method, target)?];
                Candidates { providers: &named, near: 0 }
            }
            None => Candidates { providers: &method.providers, near: method.near },
        };
        // Boxed, so that local calls do not carry its room.
        let refused = refused.map(|back| back.fault);
        within(deadline, Box::pin(self.forward(method, caller, deadline, candidates, request, refused)))
            .await?
    }

    /// Has a call served by a process behind this node. If that breaks off, the call comes back for another provider.
    async fn serve_repeatable(
        &self,
        method: &Method,
        local: &LocalHandler,
        deadline: Option<Instant>,
        mut request: Request<Body>,
    ) -> Result<Response<Body>, Box<Refused>> {
        let replay = Replay::of(&mut request);
        let answer = (local.handler)(request).await?;
        self.called();
        let unary = method.info.streaming == StreamingKind::Unary;
        let answer = if unary { hold(answer).await } else { answer };
        let why = Why::of_answer(answer.headers()).filter(|why| *why == Why::Lost);
        let Some((why, request)) = why.zip(replay.again()) else { return Ok(answer) };
        if !self.may_retry(why, deadline).await {
            return Ok(answer);
        }
        self.metrics.retried(why);
        let text = format!("the process behind node {} broke off", self.registry.node());
        Err(Box::new(Refused { fault: Fault::new(Reason::ProviderLost, text), request }))
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
            request.headers_mut().insert(GRPC_TIMEOUT, timeout_header(deadline));
        }
    }

    /// The provider that a caller names.
    fn named(&self, method: &Method, target: &NodeId) -> Result<Arc<Provider>, Fault> {
        let found = method.providers.iter().find(|provider| provider.node == *target);
        if let Some(provider) = found {
            return Ok(provider.clone());
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

    fn budget(&self) -> MutexGuard<'_, RetryBudget> {
        self.retries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Moment {
        Moment::at(self.started.elapsed())
    }

    /// One try at one provider: over the peer stream if that takes the call, else passed through. What is learned of the
    /// provider goes into an [`Attempt`], which ends with the answer's body.
    async fn attempt(
        &self,
        provider: &Arc<Provider>,
        unary: bool,
        call: &mut Outgoing,
    ) -> Result<Response<Body>, Unanswered> {
        if unary && let Some(answer) = self.over_stream(provider, call.small()).await {
            return answer;
        }
        self.pass_through(provider, unary, call).await
    }

    async fn pass_through(
        &self,
        provider: &Arc<Provider>,
        unary: bool,
        call: &mut Outgoing,
    ) -> Result<Response<Body>, Unanswered> {
        let mut attempt = Attempt::start(provider, unary);
        let node = &provider.node;
        let mut connection = match self.pool.get(node, provider.address).await {
            Ok(connection) => connection,
            Err(error) => {
                attempt.failed();
                let fault = Fault::new(Reason::ProviderUnreachable, format!("node {node}: {error}"));
                return Err(Unanswered::Unreached(fault));
            }
        };
        self.pool.streams().sent(Way::Passthrough);
        match connection.send(call.take()).await {
            Ok(response) => {
                attempt.head(&response);
                Ok(response.map(|body| Body::new(Forwarded::new(body, attempt))))
            }
            Err(SendError::Unsent(request)) => {
                attempt.void();
                call.put_back(*request);
                let text = format!("the connection to node {node} closed before the call was sent");
                Err(Unanswered::Closed(Fault::new(Reason::ProviderUnreachable, text), true))
            }
            Err(SendError::Broken(error)) if is_unprocessed(&error) => {
                attempt.void();
                let text = format!("node {node} is stopping and has not processed the call");
                Err(Unanswered::Closed(Fault::new(Reason::ProviderUnreachable, text), false))
            }
            Err(SendError::Broken(error)) => {
                attempt.broke(&error);
                let why = error_chain(&error);
                let text = format!("node {node} broke off; the call may have been processed: {why}");
                Err(Unanswered::Lost(Fault::new(Reason::ProviderLost, text)))
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
    headers.get(tonic::Status::GRPC_STATUS).filter(|code| code.as_bytes() == b"11")?;
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
