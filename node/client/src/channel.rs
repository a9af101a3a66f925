//! A channel for generated clients: calls go to one of several nodes of a cluster, over one connection at a time.
//!
//! The nodes are tried in the order in which they are given; the first that answers takes all calls. When its connection
//! breaks, or it says that it stops (GOAWAY), the next call goes to the node after it. A call that provably was not
//! processed moves on by itself, if it was not sent or its body so far is small; any other never does.

use crate::{
    connection::ConnectOptions,
    dial::dial,
    endpoint::Endpoint,
    error::{ConnectError, innermost},
    replay::{Replay, is_unprocessed},
    tls::client_config,
};
use http::{HeaderMap, Request, Response, Uri, header::AUTHORIZATION, uri};
use hyper::client::conn::http2::SendRequest;
use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};
use tokio::sync::Mutex;
use tonic::{Status, TimeoutExpired, body::Body};
use tower::Service;

/// Longest that one of several nodes may take to answer before the next is tried.
const DIAL_LIMIT: Duration = Duration::from_secs(2);
/// How much longer than its deadline a call is waited for: the node's own word says more.
const DEADLINE_SLACK: Duration = Duration::from_millis(100);

/// Calls to any method of a cluster, through any of several nodes. Clones share one connection.
///
/// Generated clients take it: `GreeterClient::new(channel.clone())`. An access token of the options is added to each call.
#[derive(Clone)]
pub struct Channel(Arc<Shared>);

struct Shared {
    options: Arc<ConnectOptions>,
    tls: Option<Arc<rustls::ClientConfig>>,
    entries: Vec<Endpoint>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    open: Option<Open>,
    /// Which entry is tried first.
    first: usize,
    /// When no entry answered last, and why: those who waited for it share it.
    failure: Option<(Instant, ConnectError)>,
}

#[derive(Clone)]
struct Open {
    sender: SendRequest<Body>,
    entry: usize,
    number: u64,
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel").field("entries", &self.0.entries).finish_non_exhaustive()
    }
}

impl Channel {
    /// Connects to the first node of `options` that answers.
    ///
    /// # Errors
    ///
    /// What the first node said, if none answers.
    pub async fn connect(options: &ConnectOptions) -> Result<Self, ConnectError> {
        let channel = Self::new(Arc::new(options.clone()))?;
        channel.0.open().await?;
        Ok(channel)
    }

    /// A channel that connects with its first call.
    ///
    /// # Errors
    ///
    /// When the certificate files cannot be used.
    pub fn new(options: Arc<ConnectOptions>) -> Result<Self, ConnectError> {
        let entries: Vec<Endpoint> =
            std::iter::once(&options.endpoint).chain(&options.others).cloned().collect();
        let tls = match entries.iter().all(Endpoint::is_plain) {
            true => None,
            false => Some(client_config(&options)?),
        };
        Ok(Self(Arc::new(Shared { options, tls, entries, state: Mutex::default() })))
    }

    /// The node that takes the calls now, or is tried first.
    pub async fn entry(&self) -> Endpoint {
        let state = self.0.state.lock().await;
        let entry = state.open.as_ref().map_or(state.first, |open| open.entry);
        self.0.entries[entry].clone()
    }
}

impl Shared {
    /// The open connection, or a new one. Whoever comes while one is opened waits for it.
    async fn open(&self) -> Result<Open, ConnectError> {
        let asked = Instant::now();
        let mut state = self.state.lock().await;
        if let Some((_, error)) = state.failure.as_ref().filter(|(at, _)| *at >= asked) {
            return Err(error.clone());
        }
        if let Some(open) = &state.open {
            if !open.sender.is_closed() {
                return Ok(open.clone());
            }
            state.first = (open.entry + 1) % self.entries.len();
        }
        let number = state.open.take().map_or(0, |open| open.number + 1);
        let limit = match self.entries.len() {
            1 => self.options.timeout,
            _ => self.options.timeout.min(DIAL_LIMIT),
        };
        let mut why = None;
        for step in 0..self.entries.len() {
            let entry = (state.first + step) % self.entries.len();
            let endpoint = &self.entries[entry];
            let tls = self.tls.clone().filter(|_| !endpoint.is_plain());
            match dial(endpoint, tls, limit).await {
                Ok(sender) => {
                    let open = Open { sender, entry, number };
                    state.open = Some(open.clone());
                    return Ok(open);
                }
                Err(error) => why = why.or(Some(error)),
            }
        }
        let why = why.unwrap_or(ConnectError::NoCa);
        state.failure = Some((Instant::now(), why.clone()));
        Err(why)
    }

    /// Takes no more calls to `gone`, if nobody has opened another since.
    async fn leave(&self, gone: &Open) {
        let mut state = self.state.lock().await;
        let same = |open: &Open| open.number == gone.number && open.entry == gone.entry;
        if state.open.as_ref().is_some_and(same) {
            state.first = (gone.entry + 1) % self.entries.len();
            state.open = None;
        }
    }

    async fn call(&self, mut request: Request<Body>) -> Result<Response<Body>, Status> {
        if let Some(token) = &self.options.token {
            request.headers_mut().entry(AUTHORIZATION).or_insert_with(|| token.header().clone());
        }
        let replay = Replay::of(&mut request);
        let mut unsent = None;
        // Each node once, and one more time the first: it may have closed an idle connection.
        for _ in 0..=self.entries.len() {
            let mut open = self.open().await.map_err(|error| not_connected(&error))?;
            let endpoint = &self.entries[open.entry];
            *request.uri_mut() = addressed(request.uri(), endpoint);
            if open.sender.ready().await.is_err() {
                self.leave(&open).await;
                continue;
            }
            match open.sender.try_send_request(request).await {
                Ok(response) => return Ok(response.map(Body::new)),
                Err(mut error) => {
                    let back = error.take_message();
                    let error = error.into_error();
                    let back = back.or_else(|| replay.again().filter(|_| is_unprocessed(&error)));
                    if back.is_some() || open.sender.is_closed() {
                        self.leave(&open).await;
                    }
                    match back {
                        Some(whole) => request = whole,
                        None => return Err(broken(error, endpoint)),
                    }
                    unsent = Some(endpoint);
                }
            }
        }
        let endpoint = unsent.unwrap_or(&self.options.endpoint).clone();
        let reason = "the connection closed before the call was processed".to_owned();
        Err(not_connected(&ConnectError::Unreachable { endpoint, reason }))
    }
}

fn addressed(to: &Uri, endpoint: &Endpoint) -> Uri {
    let mut parts = uri::Parts::default();
    parts.scheme = Some(if endpoint.is_plain() { uri::Scheme::HTTP } else { uri::Scheme::HTTPS });
    parts.authority = endpoint.authority().parse().ok();
    parts.path_and_query = to.path_and_query().cloned();
    Uri::from_parts(parts).unwrap_or_else(|_| to.clone())
}

fn not_connected(error: &ConnectError) -> Status {
    let mut status = Status::unavailable(error.to_string());
    status.set_source(Arc::new(error.clone()));
    status
}

/// A call that may have been processed.
fn broken(error: hyper::Error, endpoint: &Endpoint) -> Status {
    let why = innermost(&error);
    let mut status =
        Status::unavailable(format!("{endpoint} broke off; the call may have been processed: {why}"));
    status.set_source(Arc::new(error));
    status
}

/// The deadline that a call carries.
fn deadline(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (count, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let count: u64 = count.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(count.saturating_mul(3600)),
        "M" => Duration::from_secs(count.saturating_mul(60)),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    })
}

impl Service<Request<Body>> for Channel {
    type Response = Response<Body>;
    type Error = Status;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Status>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let shared = self.0.clone();
        Box::pin(async move {
            let Some(limit) = deadline(request.headers()) else { return shared.call(request).await };
            let limit = limit.saturating_add(DEADLINE_SLACK);
            tokio::time::timeout(limit, shared.call(request)).await.unwrap_or_else(|_elapsed| {
                let mut status = Status::deadline_exceeded("no answer in time");
                status.set_source(Arc::new(TimeoutExpired(())));
                Err(status)
            })
        })
    }
}
