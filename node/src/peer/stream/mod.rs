//! Peer streams: small unary calls between two nodes as frames of one long-lived gRPC stream.
//!
//! In place of an HTTP/2 stream of its own a call is two frames here, written together with those of other calls. A stream is opened over the pooled connection when a unary call was first sent there, and either side sends its
//! calls over it. What it does not take (large requests, streaming, more than its caps) is passed through as before, and so
//! is everything while there is none. A call that comes over a stream enters this node's stack like any other request.
//!
//! | file | what it holds |
//! |---|---|
//! | `link` | one stream's life: hello, reading, the end |
//! | `shared` | its books, and what each frame does |
//! | `queue` | frames on their way out |
//! | `frame` | between HTTP and frames |
//! | `ask` | the caller's half |
//! | `serve` | the provider's half |
//! | `metrics` | what is counted |
//!
//! The rules of calls and credit are `p2p_core::calls`.
//!
//! **Bounds**: calls in flight each way (1,024), bytes that wait to be sent (1 MiB), the part of an answer that its caller has
//! not taken (64 KiB), streams that one node opens here (`ACCEPTED_MAX`). The reader never waits for a call: what it hands
//! on is bounded by credit.
//!
//! **The end**: whoever drains, lets the connection go or comes to the end of a certificate says that it makes no more calls,
//! and refuses those that cross; the other side says the same; when the calls in flight have ended, both end. So none is
//! lost.

mod ask;
mod frame;
mod link;
mod metrics;
mod queue;
mod serve;
mod shared;

pub use ask::{AnswerBody, Lost, Unanswered};
pub use frame::FRAME_MAX;
pub use metrics::Way;
pub use queue::Outflow;

use super::PeerConnection;
use crate::{auth::Connection, shutdown::ShutdownWatch, telemetry::Metrics};
use futures_util::future::BoxFuture;
use http::{Request, Response};
use metrics::StreamMetrics;
use p2p_core::NodeId;
use p2p_proto::v1::PeerFrame;
use shared::{Shared, lock};
use std::{
    collections::HashMap,
    fmt,
    net::SocketAddr,
    sync::{Arc, Mutex, OnceLock},
    time::{Duration, Instant},
};
use tokio_util::task::TaskTracker;
use tonic::{Status, Streaming, body::Body};

/// Streams that one node may have open here, those that close included. An honest one has one for each connection.
const ACCEPTED_MAX: usize = 8;
/// Pause before a stream is tried again over a connection where it did not open, or has ended.
const RETRY: Duration = Duration::from_secs(30);

/// What answers a call that has come over a stream: this node's stack.
pub type Service =
    Arc<dyn Fn(Arc<Connection>, Request<Body>) -> BoxFuture<'static, Response<Body>> + Send + Sync>;

/// An open stream to a node. Clones share it.
#[derive(Clone, Debug)]
pub struct PeerStream(Arc<Shared>);

/// What every stream of a node works with.
struct Serving {
    service: Service,
    address: SocketAddr,
    shutdown: ShutdownWatch,
}

/// A stream that another node has opened, and where that node accepts connections.
struct Accepted {
    shared: Arc<Shared>,
    address: Option<SocketAddr>,
}

/// The peer streams of one node.
pub struct Streams {
    /// Not set: switched off.
    serving: OnceLock<Serving>,
    /// Those that others opened.
    accepted: Mutex<HashMap<NodeId, Vec<Accepted>>>,
    tasks: TaskTracker,
    metrics: Arc<StreamMetrics>,
}

impl fmt::Debug for Streams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Streams").field("on", &self.serving.get().is_some()).finish_non_exhaustive()
    }
}

impl Streams {
    /// None, and none is opened before [`Self::switch_on`].
    pub(super) fn new(metrics: &Metrics) -> Arc<Self> {
        Arc::new(Self {
            serving: OnceLock::new(),
            accepted: Mutex::default(),
            tasks: TaskTracker::new(),
            metrics: Arc::new(StreamMetrics::register(metrics)),
        })
    }

    /// Opens and takes streams from now on. `service` answers their calls; `address` is where this node accepts
    /// connections, as the cluster knows it.
    pub fn switch_on(&self, service: Service, address: SocketAddr, shutdown: ShutdownWatch) {
        // A second time changes nothing.
        drop(self.serving.set(Serving { service, address, shutdown }));
    }

    /// Counts a call by its way.
    pub fn sent(&self, way: Way) {
        self.metrics.sent(way);
    }

    /// Waits until all streams have ended, as they do once this node drains.
    pub async fn ended(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Takes a stream that `peer` opens over `connection`.
    ///
    /// # Errors
    ///
    /// UNIMPLEMENTED while streams are switched off, RESOURCE_EXHAUSTED when the peer has too many.
    pub fn accept(
        self: &Arc<Self>,
        peer: NodeId,
        connection: Arc<Connection>,
        frames: Streaming<PeerFrame>,
    ) -> Result<Outflow, Status> {
        let serving = self.serving.get();
        let serving =
            serving.ok_or_else(|| Status::unimplemented("peer_stream_enabled is off at this node"))?;
        let (queue, flow) = link::greeting(serving);
        let streams = self.clone();
        self.tasks.spawn(async move {
            let Some(serving) = streams.serving.get() else { return };
            let expires = connection.certificate.as_ref().map(|certificate| certificate.not_after);
            let greeted = link::greet(peer, connection, frames, queue, serving, &streams.metrics).await;
            let opened = match greeted {
                Ok(opened) => opened,
                Err(fault) => return streams.metrics.fault(fault.word()),
            };
            let PeerStream(shared) = opened.stream.clone();
            if streams.keep(&shared, opened.address.parse().ok()) {
                let _place = Place { streams: &streams, shared };
                link::run(opened, expires, serving).await;
            } else {
                streams.metrics.fault(metrics::TOO_MANY);
                let why = "this node has too many peer streams open here";
                shared.fail(why, Some(Status::resource_exhausted(why)));
            }
        });
        Ok(flow)
    }

    fn keep(&self, shared: &Arc<Shared>, address: Option<SocketAddr>) -> bool {
        let mut accepted = lock(&self.accepted);
        let of_peer = accepted.entry(shared.peer.clone()).or_default();
        let room = of_peer.len() < ACCEPTED_MAX;
        if room {
            of_peer.push(Accepted { shared: shared.clone(), address });
        }
        room
    }

    fn forget(&self, shared: &Arc<Shared>) {
        let mut accepted = lock(&self.accepted);
        if let Some(of_peer) = accepted.get_mut(&shared.peer) {
            of_peer.retain(|kept| !Arc::ptr_eq(&kept.shared, shared));
            if of_peer.is_empty() {
                accepted.remove(&shared.peer);
            }
        }
    }

    /// An open stream that the node `node` at `address` has opened.
    pub(super) fn accepted(&self, node: &NodeId, address: SocketAddr) -> Option<PeerStream> {
        let accepted = lock(&self.accepted);
        let open = |kept: &&Accepted| kept.address == Some(address) && !kept.shared.is_closing();
        accepted.get(node)?.iter().rev().find(open).map(|kept| PeerStream(kept.shared.clone()))
    }
}

/// The stream over one dialled connection. With the connection's last holder it is let go, and ends with its calls.
#[derive(Debug, Default)]
pub(super) struct Slot(Mutex<State>);

#[derive(Debug, Default)]
enum State {
    #[default]
    Untried,
    Opening,
    Open(PeerStream),
    Failed(Instant),
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let State::Open(PeerStream(shared)) = &*lock(&self.0) {
            shared.close();
        }
    }
}

impl PeerConnection {
    /// The stream over this connection. If there is none, one is being opened for later calls.
    pub(super) fn stream(&self, streams: &Arc<Streams>) -> Option<PeerStream> {
        let serving = streams.serving.get()?;
        let mut state = lock(&self.stream.0);
        match &*state {
            State::Open(stream) if !stream.0.is_closing() => return Some(stream.clone()),
            State::Open(_) => {
                *state = State::Failed(Instant::now());
                return None;
            }
            State::Failed(at) if at.elapsed() < RETRY => return None,
            State::Opening => return None,
            State::Untried | State::Failed(_) => {}
        }
        if serving.shutdown.phase() >= crate::shutdown::Phase::Draining {
            return None;
        }
        *state = State::Opening;
        drop(state);
        let (connection, streams) = (self.clone(), streams.clone());
        streams.tasks.clone().spawn(async move {
            let Some(serving) = streams.serving.get() else { return };
            let opened = link::open(&connection, serving, &streams.metrics).await;
            let (now, opened) = match opened {
                Ok(opened) => (State::Open(opened.stream.clone()), Some(opened)),
                Err(fault) => {
                    tracing::debug!(peer.id = %connection.node, %fault, "no peer stream; calls are passed through");
                    streams.metrics.fault(fault.word());
                    (State::Failed(Instant::now()), None)
                }
            };
            *lock(&connection.stream.0) = now;
            let expires = connection.expires;
            // Held no longer: the pool decides how long the connection stays.
            drop(connection);
            if let Some(opened) = opened {
                link::run(opened, Some(expires), serving).await;
            }
        });
        None
    }
}

/// The place of a stream that a node has opened here, given back however its reading ends.
struct Place<'a> {
    streams: &'a Streams,
    shared: Arc<Shared>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.streams.forget(&self.shared);
    }
}
