//! The one port: accepts connections, proves who is there, and hands requests to [`stack`].
//!
//! | file | what it holds |
//! |---|---|
//! | `accept` | one connection's life: TLS, ALPN, HTTP, drain |
//! | `expiry` | when a connection ends because its certificate has expired |
//! | `preface` | the deadline for a connection's first bytes |
//! | [`stack`] | one request's life |
//! | `answer` | an answer's body: deadline, and what is counted when it ends |

mod accept;
mod answer;
mod ask;
mod expiry;
mod metrics;
mod preface;
pub mod stack;

pub use answer::AnswerBody;
pub use stack::Stack;

use crate::{
    identity::IdentityStore,
    revocation::Revocations,
    shutdown::{Phase, ShutdownWatch},
};
use metrics::ConnectionMetrics;
use p2p_core::{Principal, gossip::View};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, watch},
};
use tokio_util::task::TaskTracker;

/// Pause after a failed accept: the system is out of something, such as file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How a connection is secured.
#[derive(Clone, Debug)]
pub enum Security {
    /// TLS with the identity in force at each handshake; client certificates optional.
    Tls(Arc<IdentityStore>),
    /// None: loopback only, everybody counts as this principal.
    Plain(Principal),
}

/// Limits of connections.
#[derive(Clone, Copy, Debug)]
pub struct ServerLimits {
    /// Most open connections; further ones are closed at once.
    pub connections: usize,
    /// Longest TLS handshake.
    pub handshake: Duration,
    /// Longest wait for the first bytes of HTTP after it, and for the rest of an HTTP/1.1 head.
    pub preface: Duration,
}

/// What every connection shares.
#[derive(Debug)]
pub struct Server {
    stack: Arc<Stack>,
    security: Security,
    revocations: Arc<Revocations>,
    limits: ServerLimits,
    view: watch::Receiver<Arc<View>>,
    slots: Arc<Semaphore>,
    metrics: ConnectionMetrics,
}

impl Server {
    /// A server that answers with `stack`. `view` tells which nodes still have valid certificates.
    pub fn new(
        stack: Arc<Stack>,
        security: Security,
        revocations: Arc<Revocations>,
        limits: ServerLimits,
        view: watch::Receiver<Arc<View>>,
        metrics: &crate::telemetry::Metrics,
    ) -> Arc<Self> {
        Arc::new(Self {
            stack,
            security,
            revocations,
            slots: Arc::new(Semaphore::new(limits.connections)),
            limits,
            view,
            metrics: metrics.register(ConnectionMetrics::register),
        })
    }

    /// Accepts until the node drains, then waits for the open connections: they finish what is in flight,
    /// or end when the node stops.
    pub async fn run(self: Arc<Self>, listener: TcpListener, mut shutdown: ShutdownWatch) {
        let connections = TaskTracker::new();
        let watch = shutdown.clone();
        loop {
            let accepted = tokio::select! {
                () = shutdown.reached(Phase::Draining) => break,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => self.admit(stream, peer, &connections, &watch),
                Err(error) => {
                    self.metrics.refused("accept");
                    tracing::warn!(%error, "connection not accepted; is the limit of open files too low?");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        drop(listener);
        connections.close();
        connections.wait().await;
    }

    fn admit(
        self: &Arc<Self>,
        stream: tokio::net::TcpStream,
        peer: SocketAddr,
        connections: &TaskTracker,
        shutdown: &ShutdownWatch,
    ) {
        let Ok(slot) = self.slots.clone().try_acquire_owned() else {
            self.metrics.refused("limit");
            return;
        };
        let (server, shutdown) = (self.clone(), shutdown.clone());
        connections.spawn(async move {
            let _slot = slot;
            server.metrics.open.inc();
            if let Err(refusal) = accept::serve(&server, stream, peer, shutdown).await {
                server.metrics.refused(refusal.word());
                tracing::debug!(peer.address = %peer, error = %refusal, "connection refused");
            }
            server.metrics.open.dec();
        });
    }
}
