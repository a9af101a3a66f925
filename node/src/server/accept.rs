//! One connection's life.

use super::{
    Security, Server,
    admission::Ticket,
    expiry::Expiry,
    local::{self, Reread},
    preface::PrefaceDeadline,
    whole::WholeBody,
};
use crate::{
    auth::Connection,
    identity::{IdentityStore, PeerCertificate, explain},
    peer,
    revocation::LiveConnection,
    shutdown::{Phase, ShutdownWatch},
};
use http::{Request, Response};
use hyper::{body::Incoming, server::conn::http1, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use p2p_core::{NodeId, Principal, Role};
use rustls_pki_types::UnixTime;
use std::{
    convert::Infallible,
    error::Error as _,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpStream, UnixStream},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

/// Window of one of a client's streams, in bytes.
const CLIENT_STREAM_WINDOW: u32 = 1 << 20;
/// Window of a client's connection, in bytes: what a client can make a node hold.
const CLIENT_CONNECTION_WINDOW: u32 = 4 << 20;
/// Largest head of a request, in bytes.
pub(super) const HEADERS_MAX: u32 = 64 * 1024;
/// Streams that a client has reset before they were looked at; more end its connection (CVE-2023-44487).
const RESET_STREAMS_MAX: usize = 20;
/// Longest wait for a client to close a connection that was idle, once it is told to.
const LAST_CALLS: Duration = Duration::from_secs(10);
/// Pause between HTTP/2 pings; a client that vanished is noticed after it.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// The same for nodes, which ping from their end, and watch each other in any case.
const PEER_KEEP_ALIVE: Duration = Duration::from_secs(120);
/// Longest wait for a client of plain HTTP to read its answer.
const LINGER: Duration = Duration::from_secs(1);
/// First byte of every TLS handshake (RFC 8446 § 5.1, content type 22).
const TLS_HANDSHAKE: u8 = 22;

const PLAIN_HTTP_ANSWER: &[u8] =
    b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\nconnection: close\r\n\
    content-length: 50\r\n\r\nthis port speaks TLS; use https:// in the address\n";

/// Why a connection ended before its first request.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error("no TLS handshake in time")]
    Timeout,
    #[error("no HTTP request in time")]
    Preface,
    #[error("plain HTTP on the TLS port")]
    PlainHttp,
    #[error("neither TLS nor HTTP")]
    Garbage,
    #[error("{0}")]
    Handshake(String),
    #[error("{0}")]
    Certificate(String),
    #[error("too many certificates from there did not hold")]
    Blocked,
    #[error("{0} is evicted from the cluster")]
    Evicted(NodeId),
    #[error("the connection broke: {0}")]
    Io(#[from] io::Error),
}

impl Refusal {
    pub(super) fn word(&self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Preface => "preface",
            Self::PlainHttp => "plain_http",
            Self::Garbage => "garbage",
            Self::Handshake(_) => "handshake",
            Self::Certificate(_) => "certificate",
            Self::Blocked => "blocked",
            Self::Evicted(_) => "evicted",
            Self::Io(_) => "io",
        }
    }
}

/// A connection of which it is known who is at its other end.
struct Proven<S> {
    stream: S,
    http2: bool,
    connection: Arc<Connection>,
    /// Closes it when what it rests on is revoked.
    live: LiveConnection,
}

impl<S> Proven<S> {
    fn new(stream: S, http2: bool, connection: Connection, live: LiveConnection) -> Self {
        Self { stream, http2, connection: Arc::new(connection.closed_by(live.clone())), live }
    }
}

/// Serves one connection from its first byte to its last. Many clients stand behind a peer that is `exempt`.
pub(super) async fn serve(
    server: &Arc<Server>,
    tcp: TcpStream,
    peer: SocketAddr,
    exempt: bool,
    ticket: Arc<Ticket>,
    mut shutdown: ShutdownWatch,
) -> Result<(), Refusal> {
    tcp.set_nodelay(true)?;
    match &server.security {
        Security::Plain(principal) => {
            let connection = Connection::new(peer.ip(), principal.clone());
            // Without TLS there is no ALPN; the first bytes tell HTTP/2 from HTTP/1.1.
            let mut first = [0; 3];
            let wait = tokio::time::timeout(server.admission.limits().preface, tcp.peek(&mut first));
            let read = tokio::select! {
                read = wait => read.map_err(|_elapsed| Refusal::Timeout)??,
                () = shutdown.reached(Phase::Draining) => return Ok(()),
            };
            let http2 = first[..read] == *b"PRI";
            let live = server.revocations.live().register(connection.principal.clone(), Vec::new());
            speak_http(server, Proven::new(tcp, http2, connection, live), ticket, shutdown).await
        }
        Security::Tls(identity) => {
            let failures = server.stack.limits().failures();
            if !exempt && failures.check(peer.ip()).is_err() {
                return Err(Refusal::Blocked);
            }
            // Boxed: an open connection would keep the room that only its handshake needs.
            let proof = Box::pin(prove(server, identity, tcp, peer, &ticket));
            // Who has not finished its handshake when the node drains has nothing in flight.
            let proven = tokio::select! {
                proven = proof => proven?,
                () = shutdown.reached(Phase::Draining) => return Ok(()),
            };
            speak_http(server, proven, ticket, shutdown).await
        }
    }
}

/// The handshake. The stream is boxed, because it is large and moved several times.
async fn prove(
    server: &Server,
    identity: &IdentityStore,
    mut tcp: TcpStream,
    peer: SocketAddr,
    ticket: &Ticket,
) -> Result<Proven<Box<TlsStream<TcpStream>>>, Refusal> {
    let failures = server.stack.limits().failures();
    let acceptor = TlsAcceptor::from(identity.current().server_config());
    let handshake = tokio::time::timeout(server.admission.limits().handshake, async {
        expect_tls(&mut tcp).await?;
        match acceptor.accept(tcp).into_fallible().await {
            Ok(tls) => Ok(Box::new(tls)),
            Err((error, mut tcp)) => {
                if shows_bad_evidence(&error) {
                    failures.note(peer.ip());
                }
                // The alert says why; a connection that is reset would take it along.
                tcp.shutdown().await?;
                linger(&mut tcp).await;
                Err(Refusal::Handshake(explain::handshake(&error)))
            }
        }
    });
    let tls = handshake.await.map_err(|_elapsed| Refusal::Timeout)??;
    let connection = connection_of(&tls, peer).inspect_err(|_| failures.note(peer.ip()))?;
    if connection.certificate.is_some() {
        ticket.is_member();
    }
    let chain = tls.get_ref().1.peer_certificates().unwrap_or_default();
    let vouchers = connection.certificate.as_ref().map(|certificate| certificate.vouchers.clone());
    let live = server.revocations.live().register(connection.principal.clone(), vouchers.unwrap_or_default());
    // A resumed session was not verified again. Asked after it was registered: an eviction in between closes it.
    if let Some(node) = identity.bans().banned_in(chain) {
        return Err(Refusal::Evicted(node));
    }
    let http2 = tls.get_ref().1.alpn_protocol() == Some(b"h2");
    Ok(Proven::new(tls, http2, connection, live))
}

/// Serves one connection over the local socket.
pub(super) async fn serve_local(
    server: &Arc<Server>,
    stream: UnixStream,
    ticket: Arc<Ticket>,
    mut shutdown: ShutdownWatch,
) -> Result<(), Refusal> {
    let connection = match &server.security {
        Security::Plain(principal) => Connection::new(local::ADDRESS, principal.clone()),
        Security::Tls(identity) => local::connection_of(&stream, identity)?,
    };
    let ahead = tokio::time::timeout(server.admission.limits().preface, Reread::ahead(stream, 3));
    let stream = tokio::select! {
        read = ahead => read.map_err(|_elapsed| Refusal::Timeout)??,
        () = shutdown.reached(Phase::Draining) => return Ok(()),
    };
    let http2 = stream.first() == b"PRI";
    let live = server.revocations.live().register(connection.principal.clone(), Vec::new());
    speak_http(server, Proven::new(stream, http2, connection, live), ticket, shutdown).await
}

/// Whether a handshake failed for the certificate that the client showed, and not for ours.
fn shows_bad_evidence(error: &io::Error) -> bool {
    let error = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
    matches!(error, Some(rustls::Error::InvalidCertificate(_)))
}

/// Tells plain HTTP that this is a TLS port, in words that its sender will see.
async fn expect_tls(tcp: &mut TcpStream) -> Result<(), Refusal> {
    let mut first = [0; 1];
    if tcp.peek(&mut first).await? == 0 {
        return Err(Refusal::Io(io::ErrorKind::UnexpectedEof.into()));
    }
    match first[0] {
        TLS_HANDSHAKE => Ok(()),
        byte if byte.is_ascii_uppercase() => {
            tcp.write_all(PLAIN_HTTP_ANSWER).await?;
            tcp.shutdown().await?;
            linger(tcp).await;
            Err(Refusal::PlainHttp)
        }
        _ => Err(Refusal::Garbage),
    }
}

/// Reads what the client still sends: closing before would reset the connection, and could take the answer
/// with it (RFC 9112 § 9.6). The deadline of the handshake bounds it, too.
async fn linger(tcp: &mut TcpStream) {
    let mut rest = [0; 4096];
    let drained = async { while tcp.read(&mut rest).await.is_ok_and(|read| read > 0) {} };
    if tokio::time::timeout(LINGER, drained).await.is_err() {
        tracing::debug!("a client of plain HTTP keeps sending; closing");
    }
}

/// What the client's certificate proves. The chain was verified at the handshake; a resumed session was not
/// verified again, so the time is looked at here.
fn connection_of(tls: &TlsStream<TcpStream>, peer: SocketAddr) -> Result<Connection, Refusal> {
    let chain = tls.get_ref().1.peer_certificates().unwrap_or_default();
    if chain.is_empty() {
        return Ok(Connection::new(peer.ip(), Principal::Anonymous));
    }
    let certificate =
        PeerCertificate::parse_chain(chain).map_err(|error| Refusal::Certificate(error.to_string()))?;
    if !certificate.is_in_time(UnixTime::now()) {
        return Err(Refusal::Certificate(format!(
            "the certificate of {} is not in time",
            certificate.spiffe
        )));
    }
    if certificate.spiffe.role == Role::TokenSigner {
        return Err(Refusal::Certificate("token signers have no use for TLS".to_owned()));
    }
    Ok(Connection::with_certificate(peer.ip(), certificate))
}

/// What ends a connection that its client keeps open.
struct Ends {
    shutdown: ShutdownWatch,
    expiry: Expiry,
    /// Closes it when what it rests on is revoked.
    live: LiveConnection,
    /// How long it has had nothing to do, and how long it may.
    ticket: Arc<Ticket>,
    idle: Option<Duration>,
    /// Whether the client has said anything.
    spoken: Arc<AtomicBool>,
}

/// Why a connection takes no more calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Drain {
    Shutdown,
    Expired,
    Idle,
}

impl Ends {
    /// Runs `serving` until the client is done. `drain` lets it finish what is in flight only: when the node
    /// drains, when the client's certificate expires, and when it has been idle for long.
    async fn serve<F: Future<Output = hyper::Result<()>>>(
        mut self,
        mut serving: Pin<&mut F>,
        drain: impl FnOnce(Pin<&mut F>),
    ) -> hyper::Result<()> {
        let idle = async {
            match self.idle {
                Some(timeout) => self.ticket.idle_for(timeout).await,
                None => std::future::pending().await,
            }
        };
        let why = tokio::select! {
            result = &mut serving => return result,
            () = self.live.closed() => return Ok(()),
            () = self.shutdown.reached(Phase::Draining) => Drain::Shutdown,
            () = self.expiry.passed() => Drain::Expired,
            () = idle => Drain::Idle,
        };
        // hyper would wait for the preface of a silent client.
        if !self.spoken.load(Ordering::Relaxed) {
            return Ok(());
        }
        if why == Drain::Idle {
            self.ticket.ends_idle();
        }
        drain(serving.as_mut());
        let over = async {
            match why {
                Drain::Shutdown => std::future::pending().await,
                Drain::Expired => self.expiry.over().await,
                Drain::Idle => {
                    tokio::time::sleep(LAST_CALLS).await;
                    self.ticket.idle_for(LAST_CALLS).await;
                }
            }
        };
        tokio::select! {
            result = &mut serving => result,
            () = self.live.closed() => Ok(()),
            () = self.shutdown.reached(Phase::Stopped) => Ok(()),
            () = over => {
                tracing::debug!(?why, "a client keeps a connection that takes no more calls; ending it");
                Ok(())
            }
        }
    }
}

/// Whether h2 ended the connection for streams that were reset (or made to be) more often than it takes.
fn is_reset_too_often(error: &hyper::Error) -> bool {
    let error = error.source().and_then(|source| source.downcast_ref::<h2::Error>());
    error.is_some_and(|error| error.is_library() && error.reason() == Some(h2::Reason::ENHANCE_YOUR_CALM))
}

/// Serves HTTP until the client is done, the node drains, or the client's certificate has expired.
async fn speak_http<S>(
    server: &Arc<Server>,
    Proven { stream, http2, connection, live }: Proven<S>,
    ticket: Arc<Ticket>,
    shutdown: ShutdownWatch,
) -> Result<(), Refusal>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let speaker = ticket.clone();
    let stream = PrefaceDeadline::new(stream, server.admission.limits().preface, move || speaker.speaks());
    let (missed, spoken) = (stream.missed(), stream.spoken());
    let stream = TokioIo::new(stream);
    let (stream_window, connection_window, keep_alive) = match connection.peer() {
        Some(_) => (peer::STREAM_WINDOW, peer::CONNECTION_WINDOW, PEER_KEEP_ALIVE),
        None => (CLIENT_STREAM_WINDOW, CLIENT_CONNECTION_WINDOW, KEEP_ALIVE),
    };
    let expiry = Expiry::of(&connection, server.view.clone());
    // Nodes keep their connections as they see fit.
    let of_node = connection.peer().is_some();
    let idle = Some(server.admission.limits().idle).filter(|idle| !idle.is_zero() && !of_node);
    let stack = server.stack.clone();
    let activity = ticket.activity();
    let service = service_fn(move |request: Request<Incoming>| {
        let (stack, connection, begun) = (stack.clone(), connection.clone(), activity.begin());
        let request = request.map(|body| WholeBody::new(body, http2, activity.clone()));
        // Boxed, because hyper moves what it is given several times before it runs.
        Box::pin(async move {
            let answer = stack.handle(connection, request).await;
            Ok::<Response<_>, Infallible>(answer.map(|body| body.of_connection(begun)))
        })
    });
    let ends = Ends { shutdown, expiry, live, ticket, idle, spoken };
    let result = if http2 {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .max_concurrent_streams(server.admission.limits().streams)
            .max_pending_accept_reset_streams(RESET_STREAMS_MAX)
            .max_header_list_size(HEADERS_MAX)
            .initial_stream_window_size(stream_window)
            .initial_connection_window_size(connection_window)
            .keep_alive_interval(keep_alive);
        let mut serving = Box::pin(builder.serve_connection(stream, service));
        ends.serve(serving.as_mut(), |serving| serving.graceful_shutdown()).await
    } else {
        let mut builder = http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(server.admission.limits().preface)
            .max_buf_size(HEADERS_MAX as usize);
        let mut serving = Box::pin(builder.serve_connection(stream, service));
        ends.serve(serving.as_mut(), |serving| serving.graceful_shutdown()).await
    };
    if missed.load(Ordering::Relaxed) {
        return Err(Refusal::Preface);
    }
    if let Err(error) = result {
        if is_reset_too_often(&error) {
            server.metrics.ended("resets");
        }
        tracing::debug!(error = peer::error_chain(&error), "connection ended");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    type Served<'a, F> = fn(&'a Arc<Server>, TcpStream, SocketAddr, bool, Arc<Ticket>, ShutdownWatch) -> F;

    fn future_size<'a, F: Future>(_: Served<'a, F>) -> usize {
        size_of::<F>()
    }

    /// An idle connection keeps its future.
    #[test]
    fn a_connection_takes_little_room() {
        let size = future_size(serve);
        assert!(size <= 2048, "the future of a connection takes {size} bytes");
    }
}
