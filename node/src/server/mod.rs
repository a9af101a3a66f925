//! The one port: accepts connections, proves who is there, and hands requests to [`stack`].
//!
//! | file | what it holds |
//! |---|---|
//! | `admission` | which connections may be open, and which one makes room |
//! | `accept` | one connection's life: TLS, ALPN, HTTP, drain |
//! | `expiry` | when a connection ends because its certificate has expired |
//! | [`local`] | the socket for users of this host |
//! | `preface` | the deadline for a connection's first bytes |
//! | [`stack`] | one request's life |
//! | `answer` | an answer's body: deadline, and what is counted when it ends |
//! | `whole` | a request's body: whether it breaks off |

mod accept;
mod admission;
mod answer;
mod ask;
mod expiry;
mod idle;
pub mod local;
mod metrics;
mod preface;
pub mod stack;
mod whole;

pub use answer::AnswerBody;
pub use local::LocalSocket;
pub use stack::Stack;
pub use whole::WholeBody;

use crate::{
    config::{Config, Network},
    identity::IdentityStore,
    revocation::Revocations,
    shutdown::{Phase, ShutdownWatch},
};
use admission::Admission;
use metrics::ConnectionMetrics;
use p2p_core::{Principal, gossip::View};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::{net::TcpListener, sync::watch};
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
#[derive(Clone, Debug)]
pub struct ServerLimits {
    /// Most open connections.
    pub connections: usize,
    /// Most of one address, but for this host, proxies and members.
    pub per_address: usize,
    /// Most that have not got as far as HTTP.
    pub opening: usize,
    /// Most calls of one connection.
    pub streams: u32,
    /// Longest TLS handshake.
    pub handshake: Duration,
    /// Longest wait for the first bytes of HTTP after it, and for the rest of an HTTP/1.1 head.
    pub preface: Duration,
    /// How long a client's connection may have nothing to do; zero for ever.
    pub idle: Duration,
    /// Proxies, behind which many clients stand.
    pub proxies: Vec<Network>,
}

impl From<&Config> for ServerLimits {
    fn from(config: &Config) -> Self {
        Self {
            connections: config.connections_max.get() as usize,
            per_address: config.connections_per_address_max.get() as usize,
            opening: config.handshakes_max.get() as usize,
            streams: config.streams_per_connection_max.get(),
            handshake: config.tls_handshake_timeout,
            preface: config.http_preface_timeout,
            idle: config.connection_idle_timeout,
            proxies: config.trusted_proxies.clone(),
        }
    }
}

/// What every connection shares.
#[derive(Debug)]
pub struct Server {
    stack: Arc<Stack>,
    security: Security,
    revocations: Arc<Revocations>,
    view: watch::Receiver<Arc<View>>,
    admission: Arc<Admission>,
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
        let metrics = metrics.register(ConnectionMetrics::register);
        let admission = Admission::new(limits, metrics.clone());
        Arc::new(Self { stack, security, revocations, admission, view, metrics })
    }

    /// Takes over `limits` for connections that are opened from now on.
    pub fn limit_to(&self, limits: ServerLimits) {
        self.admission.limit_to(limits);
    }

    /// Accepts until the node drains, then waits for the open connections: they finish what is in flight,
    /// or end when the node stops.
    pub async fn run(
        self: Arc<Self>,
        listener: TcpListener,
        local: Option<LocalSocket>,
        mut shutdown: ShutdownWatch,
    ) {
        let connections = TaskTracker::new();
        let watch = shutdown.clone();
        loop {
            let accept_local = async {
                match &local {
                    Some(socket) => socket.listener.accept().await,
                    None => std::future::pending().await,
                }
            };
            let accepted = tokio::select! {
                () = shutdown.reached(Phase::Draining) => break,
                accepted = listener.accept() => {
                    accepted.map(|(stream, peer)| self.admit(stream, peer, &connections, &watch))
                }
                accepted = accept_local => {
                    accepted.map(|(stream, _)| self.admit_local(stream, &connections, &watch))
                }
            };
            match accepted {
                Ok(()) => {}
                Err(error) => {
                    self.metrics.refused("accept");
                    tracing::warn!(%error, "connection not accepted; is the limit of open files too low?");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        drop((listener, local));
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
        let address = peer.ip();
        let limits = self.admission.limits();
        let proxied = limits.proxies.iter().any(|network| network.contains(address));
        // Behind these stand many clients; nobody is kept out for what another does.
        let exempt = address.is_loopback() || proxied;
        let ticket = match self.admission.admit(address, exempt) {
            Ok(ticket) => Arc::new(ticket),
            Err(limit) => return self.metrics.refused(limit),
        };
        let (server, shutdown) = (self.clone(), shutdown.clone());
        connections.spawn(async move {
            let serving = accept::serve(&server, stream, peer, exempt, ticket.clone(), shutdown);
            let served = tokio::select! {
                served = serving => served,
                () = ticket.ended() => Ok(()),
            };
            server.note(served, &peer);
        });
    }

    /// The same over the local socket.
    fn admit_local(
        self: &Arc<Self>,
        stream: tokio::net::UnixStream,
        connections: &TaskTracker,
        shutdown: &ShutdownWatch,
    ) {
        let ticket = match self.admission.admit(local::ADDRESS, true) {
            Ok(ticket) => Arc::new(ticket),
            Err(limit) => return self.metrics.refused(limit),
        };
        let (server, shutdown) = (self.clone(), shutdown.clone());
        connections.spawn(async move {
            let serving = accept::serve_local(&server, stream, ticket.clone(), shutdown);
            let served = tokio::select! {
                served = serving => served,
                () = ticket.ended() => Ok(()),
            };
            server.note(served, &"the local socket");
        });
    }

    fn note(&self, served: Result<(), accept::Refusal>, peer: &dyn std::fmt::Display) {
        if let Err(refusal) = served {
            self.metrics.refused(refusal.word());
            tracing::debug!(peer.address = %peer, error = %refusal, "connection refused");
        }
    }
}
