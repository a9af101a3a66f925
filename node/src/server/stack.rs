//! One request's life, top to bottom. The same steps for gRPC and HTTP; only what is resolved, what routes
//! and how a fault reads differ.
//!
//! ```text
//! resolve (registry | gateway) → admit → authenticate → limit (rate, calls under way) → authorize → route
//! ```

use super::{
    answer::{AnswerBody, Call},
    ask::AskBody,
    idle::{Activity, first},
    whole::WholeBody,
};
use crate::{
    audit::{Act, Audit, Note},
    auth::{Access, Auth, Caller, Connection, Withdrawn, audit_entry, is_audited},
    error::{Fault, Reason},
    gateway::{Endpoint, Gateway, secure},
    limit::{Client, Limits, RateClass, Slot, Weight},
    registry::{Method as RegisteredMethod, Registry},
    router::{Router, within},
    shutdown::{Phase, ShutdownWatch},
    telemetry::Metrics,
};
use futures_util::FutureExt as _;
use http::{HeaderMap, Method, Request, Response, Version, header};
use http_body::Body as _;
use p2p_core::{Principal, method::StreamingKind};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
};
use std::{
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};
use tonic::body::Body;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HttpLabels {
    path: &'static str,
    status: u16,
}

/// Largest body of a refused HTTP request that is read before it is answered, in bytes.
const DRAINED_MAX: usize = 64 * 1024;
/// Longest that takes.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

/// What every request passes through.
#[derive(Debug)]
pub struct Stack {
    router: Arc<Router>,
    gateway: Gateway,
    limits: Arc<Limits>,
    audit: Arc<Audit>,
    stream_idle_timeout: Duration,
    shutdown: ShutdownWatch,
    http_requests: Family<HttpLabels, Counter>,
}

impl Stack {
    /// The stack of a node. A stream that nothing passes for `stream_idle_timeout` ends; zero: never.
    pub fn new(
        router: Arc<Router>,
        gateway: Gateway,
        limits: Arc<Limits>,
        audit: Arc<Audit>,
        stream_idle_timeout: Duration,
        shutdown: ShutdownWatch,
        metrics: &Metrics,
    ) -> Self {
        let http_requests = Family::default();
        metrics.register(|registry| {
            registry.register("http_requests", "HTTP requests by path and status", http_requests.clone());
        });
        Self { router, gateway, limits, audit, stream_idle_timeout, shutdown, http_requests }
    }

    /// Answers one request of a connection.
    pub fn handle(
        &self,
        connection: Arc<Connection>,
        request: Request<WholeBody>,
    ) -> impl Future<Output = Response<AnswerBody>> {
        // Not async itself: the request would take its room twice.
        self.answer(connection, request.map(Body::new))
    }

    /// The same for a request that has come over a peer stream.
    pub async fn answer(&self, connection: Arc<Connection>, request: Request<Body>) -> Response<AnswerBody> {
        if is_grpc(&request) {
            self.grpc(connection, request).await
        } else {
            // Boxed, so that calls do not carry its room; see the test below.
            Box::pin(self.http(connection, request)).await
        }
    }

    /// A gRPC call.
    async fn grpc(&self, connection: Arc<Connection>, mut request: Request<Body>) -> Response<AnswerBody> {
        // resolve: which method; what nobody knows is refused below, after it was charged for
        let resolved = self.registry().resolve(request.uri().path());
        let known = resolved.as_ref().ok().cloned();
        let asked = Asked::of_call(known.as_deref());
        let mut call = known.clone().map(Call::start);
        let origin = self.auth().origin(&connection, request.headers());
        if let Some(call) = call.as_mut().filter(|_| self.audit.is_on() && is_audited(asked.path)) {
            let note = Note::default();
            request.extensions_mut().insert(note.clone());
            let entry = audit_entry(asked.path, &connection, origin, None);
            call.audit(Act::begin(&self.audit, entry, Some(note)));
        }
        let (mut deadline, mut withdrawn, mut activity, mut slot) = (None, None, None, None);
        let answer = async {
            let (caller, entered) = self.enter(&connection, &asked, &mut request)?;
            slot = Some(entered);
            if let Some(act) = call.as_mut().and_then(Call::act) {
                act.is(audit_entry(asked.path, &connection, origin, Some(&caller)));
            }
            let method = resolved.map_err(|fault| for_stranger(fault, &caller))?;
            // authorize
            let path = method.info.path.as_str();
            self.auth().authorize(&caller, method.access, path, path)?;
            // route: here, or one hop
            deadline = self.router.deadline(&method, request.headers());
            activity = self.may_idle(&method);
            withdrawn = self.end(&caller, activity.as_ref());
            let request = match withdrawn.take() {
                Some(end) if asks_on(method.info.streaming) => {
                    // One end for both ways: what fails because the request was cut off is answered with why it was.
                    let end = end.shared();
                    withdrawn = Some(Box::pin(end.clone()));
                    let activity = activity.clone().unwrap_or_default();
                    request.map(|body| Body::new(AskBody::new(body, Box::pin(end), activity)))
                }
                end => {
                    withdrawn = end;
                    request
                }
            };
            let answer = pin!(self.router.route(&method, &caller, deadline, request));
            let (answer, _node) = unless(&mut withdrawn, answer).await?;
            Ok(answer)
        };
        let answer: Response<Body> = answer.await.unwrap_or_else(Fault::into_grpc);
        if let Some(call) = &mut call {
            call.note(answer.headers());
        }
        answer.map(|body| AnswerBody::of_call(body, call, deadline, withdrawn, slot).of_stream(activity))
    }

    /// Counts what passes a stream, if it ends when that is nothing. Streams of the node itself may be quiet for long: who
    /// watches waits for changes.
    fn may_idle(&self, method: &RegisteredMethod) -> Option<Activity> {
        let of_user = method.class == RateClass::Grpc;
        (is_stream(method.info.streaming) && of_user && !self.stream_idle_timeout.is_zero())
            .then(Activity::default)
    }

    /// What ends a call of `caller`, beside its deadline.
    fn end(&self, caller: &Caller, activity: Option<&Activity>) -> Option<Withdrawn> {
        let idle = activity.map(|activity| activity.ceases(self.stream_idle_timeout));
        first(self.auth().withdrawn(caller), idle)
    }

    /// An HTTP request.
    async fn http(&self, connection: Arc<Connection>, mut request: Request<Body>) -> Response<AnswerBody> {
        // resolve
        let resolved = Endpoint::resolve(request.uri().path());
        let asked = Asked::of_endpoint(resolved.as_ref().ok().copied());
        let path = resolved.as_ref().map_or("other", |endpoint| endpoint.path());
        let head = request.method() == Method::HEAD;
        let mut slot = None;
        let entered = self.enter(&connection, &asked, &mut request).and_then(|(caller, entered)| {
            slot = Some(entered);
            let endpoint = resolved?;
            // authorize: what an endpoint takes is no secret
            if request.method() != Method::OPTIONS {
                let access = self.gateway.access(endpoint);
                self.auth().authorize(&caller, access, endpoint.method(), endpoint.path())?;
            }
            Ok((caller, endpoint))
        });
        let answer = async {
            let (caller, endpoint) = entered?;
            // route
            let deadline = tokio::time::Instant::now().checked_add(self.router.default_timeout());
            within(deadline, self.gateway.answer(endpoint, &caller, &mut request)).await?
        };
        let answer: Response<Body> = answer.await.unwrap_or_else(Fault::into_http);
        drain(request.into_body()).await;
        let mut answer = if head { without_body(answer) } else { answer };
        secure(answer.headers_mut());
        self.http_requests.get_or_create(&HttpLabels { path, status: answer.status().as_u16() }).inc();
        answer.map(|body| AnswerBody::plain(body, slot))
    }

    /// The steps between resolve and authorize: admit, authenticate, limit. The call is under way until the slot is
    /// dropped.
    fn enter(
        &self,
        connection: &Arc<Connection>,
        asked: &Asked<'_>,
        request: &mut Request<Body>,
    ) -> Result<(Arc<Caller>, Slot), Fault> {
        // admit: what a node forwards, others have shown
        if self.shutdown.phase() >= Phase::Stopped {
            return Err(Fault::new(Reason::ShuttingDown, "this node is shutting down"));
        }
        let (auth, failures) = (self.auth(), self.limits.failures());
        let origin = auth.origin(connection, request.headers());
        let of_node = connection.peer().is_some();
        if !of_node && failures.is_watchful() && auth.must_verify(request.headers()) {
            failures.check(origin)?;
        }
        // authenticate
        let caller = auth.authenticate(connection, request.headers_mut()).inspect_err(|_| {
            if !of_node {
                failures.note(origin);
            }
        })?;
        let caller = Arc::new(caller);
        request.extensions_mut().insert(caller.clone());
        // limit: how often, and how many at a time
        self.limits.charge(asked.class, asked.path, request)?;
        let weight = match (asked.weight, of_node) {
            (Weight::Client, true) => Weight::Forwarded,
            (weight, _) => weight,
        };
        let slot = self.limits.calls().enter(weight, Client::of(&caller))?;
        Ok((caller, slot))
    }

    /// The limits of requests.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// What answers HTTP.
    pub fn gateway(&self) -> &Gateway {
        &self.gateway
    }

    fn auth(&self) -> &Auth {
        self.router.auth()
    }

    fn registry(&self) -> &Registry {
        self.router.registry()
    }
}

/// What a request asks for, as far as limits look at it.
struct Asked<'a> {
    class: RateClass,
    /// The method; of an endpoint the one that does the same, and empty for what is not known.
    path: &'a str,
    /// What it counts as if it does not come from a node.
    weight: Weight,
}

impl<'a> Asked<'a> {
    const UNKNOWN: Self = Self { class: RateClass::Default, path: "", weight: Weight::Client };

    fn of_call(method: Option<&'a RegisteredMethod>) -> Self {
        method.map_or(Self::UNKNOWN, |method| {
            let weight = match (method.access == Access::Node, is_observation(method.class)) {
                (true, _) => Weight::Vital,
                // It goes on for as long as its caller likes.
                (false, true) if is_stream(method.info.streaming) => Weight::Watch,
                (false, true) => Weight::Vital,
                (false, false) => Weight::Client,
            };
            Self { class: method.class, path: method.info.path.as_str(), weight }
        })
    }

    fn of_endpoint(endpoint: Option<Endpoint>) -> Self {
        endpoint.map_or(Self::UNKNOWN, |endpoint| {
            let weight = if is_observation(endpoint.class()) { Weight::Vital } else { Weight::Client };
            Self { class: endpoint.class(), path: endpoint.method(), weight }
        })
    }
}

/// A node that is full must still be seen to be.
fn is_observation(class: RateClass) -> bool {
    match class {
        RateClass::Health | RateClass::Metrics => true,
        RateClass::Rpc | RateClass::Grpc | RateClass::Default => false,
    }
}

fn is_stream(streaming: StreamingKind) -> bool {
    match streaming {
        StreamingKind::Unary | StreamingKind::Unspecified => false,
        StreamingKind::Server | StreamingKind::Client | StreamingKind::Bidi => true,
    }
}

/// Whether the caller goes on sending after the call has begun.
fn asks_on(streaming: StreamingKind) -> bool {
    match streaming {
        StreamingKind::Unary | StreamingKind::Server | StreamingKind::Unspecified => false,
        StreamingKind::Client | StreamingKind::Bidi => true,
    }
}

/// Does `work` as long as what it was asked with counts; if that is over, it is also why the work failed. The work comes
/// pinned: moved in here, it would take its room in the caller's future a second time.
async fn unless<T>(
    withdrawn: &mut Option<Withdrawn>,
    work: Pin<&mut impl Future<Output = Result<T, Fault>>>,
) -> Result<T, Fault> {
    let Some(end) = withdrawn else { return work.await };
    let fault = tokio::select! {
        biased;
        done = work => match done {
            Ok(done) => return Ok(done),
            Err(failed) => match end.as_mut().now_or_never() {
                Some(fault) => fault,
                None => return Err(failed),
            },
        },
        fault = end.as_mut() => fault,
    };
    // It has said all: nobody asks it again.
    *withdrawn = None;
    Err(fault)
}

/// Reads a small body that nobody wanted. An answer that comes before the request has ended resets its stream, and some
/// clients (curl among them) then show an error in place of the answer.
async fn drain(body: Body) {
    let small = http_body_util::Limited::new(body, DRAINED_MAX);
    let read = http_body_util::BodyExt::collect(small);
    if tokio::time::timeout(DRAIN_TIMEOUT, read).await.is_err() {
        tracing::debug!("the body of a refused request did not end");
    }
}

/// The answer to HEAD: the length of the body, without it. hyper leaves the body out in HTTP/1 only.
fn without_body(answer: Response<Body>) -> Response<Body> {
    let (mut head, body) = answer.into_parts();
    if let Some(length) = body.size_hint().exact() {
        head.headers.insert(header::CONTENT_LENGTH, length.into());
    }
    Response::from_parts(head, Body::empty())
}

/// gRPC is POST over HTTP/2 with its own media type; all else is for the gateway.
fn is_grpc(request: &Request<Body>) -> bool {
    let grpc = |headers: &HeaderMap| {
        headers
            .get(header::CONTENT_TYPE)
            .is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
    };
    request.version() == Version::HTTP_2 && grpc(request.headers())
}

/// Strangers, and bearers of tokens, are not told the names of methods that they did not know.
fn for_stranger(fault: Fault, caller: &Caller) -> Fault {
    match (caller.proven(), fault.reason) {
        (Principal::Anonymous | Principal::Token(_), Reason::Unknown) => {
            Fault::new(Reason::Unknown, "no node of this cluster provides this method")
        }
        _ => fault,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn future_size<'a, F: Future>(_: fn(&'a Stack, Arc<Connection>, Request<WholeBody>) -> F) -> usize {
        size_of::<F>()
    }

    /// Each call allocates and moves its future, so what calls rarely need (a dial, the gateway) is boxed.
    #[test]
    fn a_call_takes_little_room() {
        let size = future_size(Stack::handle);
        assert!(size <= 2560, "the future of a request takes {size} bytes");
    }

    #[tokio::test]
    async fn work_that_fails_because_its_request_was_cut_off_fails_with_why_it_was() {
        let lost = async || Err::<(), _>(Fault::new(Reason::ProviderLost, "broke off"));
        let idle = || -> Option<Withdrawn> {
            Some(Box::pin(std::future::ready(Fault::new(Reason::DeadlineExceeded, "nothing has passed"))))
        };
        let reason = async |mut end: Option<Withdrawn>| {
            unless(&mut end, pin!(lost())).await.expect_err("a fault").reason
        };
        assert_eq!(reason(None).await, Reason::ProviderLost);
        assert_eq!(reason(Some(Box::pin(std::future::pending()))).await, Reason::ProviderLost);
        assert_eq!(reason(idle()).await, Reason::DeadlineExceeded);
    }
}
