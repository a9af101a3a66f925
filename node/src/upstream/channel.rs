//! The connection to an upstream. All calls share it, each as a stream of its own.
//!
//! It is dialled when first needed, by one dialler at a time, and replaced when it has broken. No pings are sent: servers
//! built on gRPC's core end connections that ping while idle. A process that hangs is noticed by its health check, and
//! calls to it end by their deadlines.

use super::{
    preface::{FirstBytes, Foreign},
    spec::Spec,
};
use crate::{
    config::{SeedHost, UpstreamUrl},
    peer::{CONNECTION_WINDOW, STREAM_WINDOW, SendError, error_chain, resolve},
};
use http::{Request, Response, Uri, Version, uri};
use hyper::{body::Incoming, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;
use tonic::body::Body;

/// Longest a dial may take: name, TCP and TLS.
pub(super) const DIAL_TIMEOUT: Duration = Duration::from_secs(2);
/// Largest head of an answer, in bytes.
const HEAD_MAX: u32 = 64 * 1024;

/// Why there is no connection. Nothing was sent.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// Nothing listens there.
    #[error("{0} refuses connections; is the process running?")]
    Refused(UpstreamUrl),
    /// No answer in time.
    #[error("{0} did not accept a connection within {seconds}s", seconds = DIAL_TIMEOUT.as_secs())]
    Timeout(UpstreamUrl),
    /// The name has no address.
    #[error("the name of {0} does not resolve")]
    Name(UpstreamUrl),
    /// The network failed.
    #[error("{url} cannot be reached: {error}")]
    Network {
        /// Where.
        url: UpstreamUrl,
        /// What the system says.
        error: io::Error,
    },
    /// No TLS connection that this node accepts.
    #[error("{url}: no TLS connection: {why}")]
    Tls {
        /// Where.
        url: UpstreamUrl,
        /// Why.
        why: String,
    },
}

impl DialError {
    /// Every word, so that each series is there before it is needed.
    pub(super) const WORDS: [&str; 5] = ["refused", "timeout", "name", "network", "tls"];

    /// A word for metrics, one of `WORDS`.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Refused(_) => "refused",
            Self::Timeout(_) => "timeout",
            Self::Name(_) => "name",
            Self::Network { .. } => "network",
            Self::Tls { .. } => "tls",
        }
    }

    pub(super) fn is_timeout(&self) -> bool {
        matches!(self, Self::Timeout(_))
    }
}

#[derive(Debug, Default)]
struct State {
    open: Option<Connection>,
    /// The last dial that failed, and when: those who waited for it share its error.
    failure: Option<(Instant, Arc<DialError>)>,
}

/// Where an upstream is reached.
#[derive(Debug)]
pub(super) struct Channel {
    url: UpstreamUrl,
    tls: Option<Arc<ClientConfig>>,
    /// Held while dialling, so that one dial serves all who wait.
    state: tokio::sync::Mutex<State>,
    dialled: AtomicU64,
}

impl Channel {
    /// The channel to `spec`'s process; nothing is opened yet.
    pub(super) fn new(spec: &Spec) -> Result<Self, super::Problem> {
        let tls = spec.tls()?;
        Ok(Self {
            url: spec.url.clone(),
            tls,
            state: tokio::sync::Mutex::default(),
            dialled: AtomicU64::new(0),
        })
    }

    /// Where it leads.
    pub(super) fn url(&self) -> &UpstreamUrl {
        &self.url
    }

    /// How often a connection was made: another number means that it may be another process.
    pub(super) fn dialled(&self) -> u64 {
        self.dialled.load(Ordering::Relaxed)
    }

    /// The connection, dialled if there is none.
    pub(super) async fn get(&self) -> Result<Connection, Arc<DialError>> {
        let asked = Instant::now();
        let mut state = self.state.lock().await;
        if let Some(open) = state.open.as_ref().filter(|open| !open.sender.is_closed()) {
            return Ok(open.clone());
        }
        if let Some((_, error)) = state.failure.as_ref().filter(|(at, _)| *at >= asked) {
            return Err(error.clone());
        }
        state.open = None;
        // Boxed, so that calls over an open connection do not carry a TLS handshake's room.
        match Box::pin(self.dial()).await {
            Ok(dialled) => {
                let number = self.dialled.fetch_add(1, Ordering::Relaxed) + 1;
                let dialled = Connection { number, ..dialled };
                state.open = Some(dialled.clone());
                Ok(dialled)
            }
            Err(error) => {
                let error = Arc::new(error);
                state.failure = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    /// Gives a connection to no more calls: it takes none.
    pub(super) async fn forget(&self, connection: &Connection) {
        let mut state = self.state.lock().await;
        if state.open.as_ref().is_some_and(|open| open.number == connection.number) {
            state.open = None;
        }
    }

    /// Opens a connection of its own and closes it again: whether somebody accepts there.
    pub(super) async fn knock(&self) -> Result<(), Arc<DialError>> {
        let timeout = || DialError::Timeout(self.url.clone());
        let connected = tokio::time::timeout(DIAL_TIMEOUT, self.connect()).await;
        connected.unwrap_or_else(|_elapsed| Err(timeout())).map(drop).map_err(Arc::new)
    }

    async fn dial(&self) -> Result<Connection, DialError> {
        let timeout = || DialError::Timeout(self.url.clone());
        tokio::time::timeout(DIAL_TIMEOUT, self.open()).await.unwrap_or_else(|_elapsed| Err(timeout()))
    }

    async fn addresses(&self) -> Vec<SocketAddr> {
        let address = &self.url.address;
        match &address.host {
            // Never asked of a name server: what may only be a process of this host stays one.
            SeedHost::Name(name) if name == "localhost" => {
                vec![(Ipv4Addr::LOCALHOST, address.port).into(), (Ipv6Addr::LOCALHOST, address.port).into()]
            }
            SeedHost::Name(_) | SeedHost::Ip(_) => resolve(address).await,
        }
    }

    async fn connect(&self) -> Result<TcpStream, DialError> {
        let mut failed = DialError::Name(self.url.clone());
        for address in self.addresses().await {
            match TcpStream::connect(address).await {
                Ok(tcp) => return Ok(tcp),
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    failed = DialError::Refused(self.url.clone());
                }
                Err(error) => failed = DialError::Network { url: self.url.clone(), error },
            }
        }
        Err(failed)
    }

    async fn open(&self) -> Result<Connection, DialError> {
        let tcp = self.connect().await?;
        if let Err(error) = tcp.set_nodelay(true) {
            return Err(DialError::Network { url: self.url.clone(), error });
        }
        let Some(config) = &self.tls else { return self.http2(tcp).await };
        let tls_error = |why: String| DialError::Tls { url: self.url.clone(), why };
        let name = match &self.url.address.host {
            SeedHost::Ip(ip) => ServerName::IpAddress((*ip).into()),
            SeedHost::Name(name) => {
                ServerName::try_from(name.clone()).map_err(|error| tls_error(error.to_string()))?
            }
        };
        let tls = TlsConnector::from(config.clone())
            .connect(name, tcp)
            .await
            .map_err(|error| tls_error(error.to_string()))?;
        if tls.get_ref().1.alpn_protocol() != Some(b"h2") {
            return Err(tls_error("the process does not speak HTTP/2 (no ALPN h2)".to_owned()));
        }
        self.http2(tls).await
    }

    async fn http2<S>(&self, stream: S) -> Result<Connection, DialError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let network = |why: String| DialError::Network {
            url: self.url.clone(),
            error: io::Error::new(io::ErrorKind::InvalidData, why),
        };
        let foreign = Foreign::default();
        let stream = FirstBytes::new(stream, foreign.clone());
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(HEAD_MAX)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| network(error_chain(&error)))?;
        let authority = self.url.address.to_string().parse();
        let authority = authority.map_err(|_| network("the address is no authority".to_owned()))?;
        let url = self.url.clone();
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(upstream = %url, error = error_chain(&error), "upstream connection ended");
            }
        });
        let scheme = if self.url.tls { uri::Scheme::HTTPS } else { uri::Scheme::HTTP };
        Ok(Connection { number: 0, sender, scheme, authority, foreign })
    }
}

/// An open connection. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct Connection {
    number: u64,
    sender: http2::SendRequest<Body>,
    scheme: uri::Scheme,
    authority: uri::Authority,
    foreign: Foreign,
}

impl Connection {
    /// Sends a request of which only the path of its URI counts.
    pub(super) async fn send(&mut self, request: Request<Body>) -> Result<Response<Incoming>, SendError> {
        let request = self.addressed(request);
        if self.sender.ready().await.is_err() {
            return Err(SendError::Unsent(Box::new(request)));
        }
        self.sender.try_send_request(request).await.map_err(|mut error| match error.take_message() {
            Some(request) => SendError::Unsent(Box::new(request)),
            None => SendError::Broken(error.into_error()),
        })
    }

    /// What answers there, if it is no HTTP/2.
    pub(super) fn foreign(&self) -> Option<&'static str> {
        self.foreign.get().copied()
    }

    fn addressed(&self, mut request: Request<Body>) -> Request<Body> {
        let mut parts = uri::Parts::default();
        parts.scheme = Some(self.scheme.clone());
        parts.authority = Some(self.authority.clone());
        parts.path_and_query = request.uri().path_and_query().cloned();
        if let Ok(uri) = Uri::from_parts(parts) {
            *request.uri_mut() = uri;
        }
        *request.version_mut() = Version::HTTP_2;
        request
    }
}

/// So that tonic's generated clients work over the connection.
impl tower::Service<Request<Body>> for Connection {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, hyper::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.sender.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let request = self.addressed(request);
        Box::pin(self.sender.send_request(request))
    }
}
