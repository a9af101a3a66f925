//! One connection to another node.

use super::{
    severable::{Broken, Severable},
    stream::Slot,
};
use crate::{
    auth::Connection,
    identity::{Identity, PeerCertificate, explain, schedule},
    revocation::Live,
};
use http::{Request, Response, Uri, uri};
use hyper::{body::Incoming, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use p2p_core::{NodeId, Principal};
use rustls_pki_types::{ServerName, UnixTime};
use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::body::Body;

/// Window of one stream between nodes, in bytes: what a node holds of a call whose other end does not read.
pub const STREAM_WINDOW: u32 = 256 * 1024;
/// Window of a connection between nodes: the largest there is (RFC 9113 § 6.9.1). All calls between two nodes,
/// and their gossip, share one connection; were its window smaller than its streams' together, a few calls
/// whose ends do not read would stall all others. Calls in flight times [`STREAM_WINDOW`] is the bound.
pub const CONNECTION_WINDOW: u32 = (1 << 31) - 1;
/// Pause between HTTP/2 pings on a connection; a peer that vanished without a word is noticed after it.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// How long calls may go on over a connection after the peer's certificate has expired. New ones take another
/// connection, so only a stream that was opened before can be cut off, a day late.
pub const OVERTIME: Duration = Duration::from_secs(24 * 60 * 60);

/// Why there is no connection. Nothing was sent.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// Nothing listens there.
    #[error("{address} refuses connections; is the node running there?")]
    Refused {
        /// Where.
        address: SocketAddr,
    },
    /// No answer in time.
    #[error("{address} did not answer within {}s; is a firewall between?", super::DIAL_TIMEOUT.as_secs())]
    Timeout {
        /// Where.
        address: SocketAddr,
    },
    /// The network failed.
    #[error("{address} cannot be reached: {error}")]
    Network {
        /// Where.
        address: SocketAddr,
        /// What the system says.
        error: io::Error,
    },
    /// No TLS connection that both sides accept.
    #[error("{address}: {why}")]
    Tls {
        /// Where.
        address: SocketAddr,
        /// Which side refused what.
        why: String,
    },
    /// The node that answered is banned from the cluster.
    #[error("{node} at {address} is evicted from the cluster")]
    Evicted {
        /// Where.
        address: SocketAddr,
        /// Who.
        node: NodeId,
    },
    /// Somebody else answered.
    #[error("{address} is {found}, expected {expected}")]
    OtherNode {
        /// Where.
        address: SocketAddr,
        /// Who was expected.
        expected: NodeId,
        /// Who answered.
        found: NodeId,
    },
}

impl DialError {
    /// Every word, so that each series is there before it is needed.
    pub(super) const WORDS: [&str; 6] = ["refused", "timeout", "network", "tls", "evicted", "other_node"];

    /// A word for metrics, one of `WORDS`.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Refused { .. } => "refused",
            Self::Timeout { .. } => "timeout",
            Self::Network { .. } => "network",
            Self::Tls { .. } => "tls",
            Self::Evicted { .. } => "evicted",
            Self::OtherNode { .. } => "other_node",
        }
    }
}

/// An open connection to a node. Clones share it; each call is a stream of its own.
#[derive(Clone, Debug)]
pub struct PeerConnection {
    /// Who answered, as its certificate proves.
    pub node: NodeId,
    /// Where.
    pub address: SocketAddr,
    /// When the first of the certificates that it rests on expires: new calls take another connection then.
    pub expires: UnixTime,
    /// What it was opened with.
    config: Arc<rustls::ClientConfig>,
    sender: http2::SendRequest<Body>,
    authority: uri::Authority,
    broken: Broken,
    /// The coordinators whose CAs issued its certificate.
    pub(super) vouchers: Vec<NodeId>,
    /// Who calls over it from the other end.
    pub(super) caller: Arc<Connection>,
    /// The peer stream over it.
    pub(super) stream: Arc<Slot>,
}

/// A call that could not be sent, or broke.
#[derive(Debug)]
pub enum SendError {
    /// It never left: the request is whole and may go elsewhere.
    Unsent(Box<Request<Body>>),
    /// It may have been processed.
    Broken(hyper::Error),
}

impl PeerConnection {
    /// Refuses the connection if another node than `node` answered.
    pub(super) fn expect(self, node: &NodeId) -> Result<Self, DialError> {
        if self.node == *node {
            return Ok(self);
        }
        Err(DialError::OtherNode { address: self.address, expected: node.clone(), found: self.node })
    }

    /// The same connection, which rests on a certificate until `expires`, too.
    pub(super) fn until(self, expires: UnixTime) -> Self {
        Self { expires: self.expires.min(expires), ..self }
    }

    /// Whether somebody holds a clone beside the pool: a gossip stream, or a call that waits for its answer.
    pub(super) fn is_held(&self) -> bool {
        // Ours, and that of the task that moves the bytes.
        !self.sender.is_closed() && Arc::strong_count(&self.broken) > 2
    }

    /// Why the connection broke, if it did: with TLS 1.3 a node learns only by its first read that it was refused.
    pub fn why_broken(&self) -> Option<&str> {
        self.broken.get().map(String::as_str)
    }

    /// Whether new calls to `address` may take it. Not if it was opened with another identity than `present`:
    /// so a renewed certificate comes into use without a call being cut off.
    pub(super) fn is_usable_at(&self, address: SocketAddr, present: &Identity) -> bool {
        self.address == address
            && !self.sender.is_closed()
            && Arc::ptr_eq(&self.config, &present.peer_client_config())
            && self.expires >= UnixTime::now()
    }

    /// Sends a request whose URI needs no more than a path.
    pub async fn send(&mut self, mut request: Request<Body>) -> Result<Response<Incoming>, SendError> {
        let mut parts = uri::Parts::default();
        parts.scheme = Some(uri::Scheme::HTTPS);
        parts.authority = Some(self.authority.clone());
        parts.path_and_query = request.uri().path_and_query().cloned();
        if let Ok(uri) = Uri::from_parts(parts) {
            *request.uri_mut() = uri;
        }
        *request.version_mut() = http::Version::HTTP_2;
        if self.sender.ready().await.is_err() {
            return Err(SendError::Unsent(Box::new(request)));
        }
        self.sender.try_send_request(request).await.map_err(|mut error| match error.take_message() {
            Some(request) => SendError::Unsent(Box::new(request)),
            None => SendError::Broken(error.into_error()),
        })
    }
}

/// So that tonic's generated clients work over the connection.
impl tower::Service<Request<Body>> for PeerConnection {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<Self::Response, hyper::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.sender.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.sender.send_request(request))
    }
}

/// Connects to `address` and finds out which node answers. The connection counts among `live` ones, and ends when
/// those that rest on its node's certificate are closed.
pub async fn dial(
    address: SocketAddr,
    config: Arc<rustls::ClientConfig>,
    live: &Live,
) -> Result<PeerConnection, DialError> {
    let network = |error: io::Error| match error.kind() == io::ErrorKind::ConnectionRefused {
        true => DialError::Refused { address },
        false => DialError::Network { address, error },
    };
    let tcp = TcpStream::connect(address).await.map_err(network)?;
    tcp.set_nodelay(true).map_err(network)?;
    let tls_error = |why: String| DialError::Tls { address, why };
    // The verifier looks at the SPIFFE id; the name is only what SNI would carry.
    let name = ServerName::IpAddress(address.ip().into());
    let tls = TlsConnector::from(config.clone())
        .connect(name, tcp)
        .await
        .map_err(|error| tls_error(explain::handshake(&error)))?;
    let chain = tls.get_ref().1.peer_certificates().unwrap_or_default();
    if chain.is_empty() {
        return Err(tls_error("the peer presented no certificate".to_owned()));
    }
    let certificate = PeerCertificate::parse_chain(chain).map_err(|error| tls_error(error.to_string()))?;
    // A resumed session was not verified again.
    if !certificate.is_in_time(UnixTime::now()) {
        return Err(tls_error(format!("the certificate of {} is not in time", certificate.spiffe)));
    }
    let node = certificate.spiffe.node().cloned();
    let node = node.ok_or_else(|| tls_error(format!("{} is no node", certificate.spiffe)))?;
    let vouchers = certificate.vouchers.clone();
    let live = live.register(Principal::Certificate(certificate.spiffe.clone()), vouchers.clone());
    let (expires, broken) = (certificate.not_after, Broken::default());
    let caller = Arc::new(Connection::with_certificate(address.ip(), certificate));
    let cut = async move {
        let overtime = Duration::from_secs(expires.as_secs()).saturating_add(OVERTIME);
        tokio::select! {
            () = live.closed() => {}
            () = schedule::reached(UnixTime::since_unix_epoch(overtime)) => {}
        }
    };
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_while_idle(true)
        .handshake(TokioIo::new(Severable::new(tls, cut, broken.clone())))
        .await
        .map_err(|error| tls_error(error_chain(&error)))?;
    let authority = address.to_string().parse().map_err(|_| tls_error("no authority".to_owned()))?;
    let closed_node = node.clone();
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(peer.id = %closed_node, error = error_chain(&error), "peer connection ended");
        }
    });
    let stream = Arc::default();
    Ok(PeerConnection { node, address, expires, config, sender, authority, broken, vouchers, caller, stream })
}

/// An error and its causes in one line.
pub fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
