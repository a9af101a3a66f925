//! Opening one HTTP/2 connection to one node.

use crate::{
    endpoint::Endpoint,
    error::{ConnectError, connect_error},
    tls::server_name,
};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ClientConfig;
use std::{error::Error, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
};
use tokio_rustls::TlsConnector;
use tonic::body::Body;

/// How often a connection is asked whether it is alive, and how long it has to answer. Calls on a host that vanished end
/// after both.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Connects within `limit`; over TLS if `tls` says how.
pub(crate) async fn dial(
    endpoint: &Endpoint,
    tls: Option<Arc<ClientConfig>>,
    limit: Duration,
) -> Result<SendRequest<Body>, ConnectError> {
    let timed_out = || ConnectError::TimedOut { endpoint: endpoint.clone(), timeout: limit };
    tokio::time::timeout(limit, open(endpoint, tls)).await.map_err(|_elapsed| timed_out())?
}

async fn open(
    endpoint: &Endpoint,
    tls: Option<Arc<ClientConfig>>,
) -> Result<SendRequest<Body>, ConnectError> {
    let failed = |error: &(dyn Error + 'static)| connect_error(error, endpoint);
    let unreachable =
        |reason: &str| ConnectError::Unreachable { endpoint: endpoint.clone(), reason: reason.to_owned() };
    if let Some(path) = endpoint.socket() {
        let socket = UnixStream::connect(path).await.map_err(|error| failed(&error))?;
        return handshake(socket, endpoint).await;
    }
    let tcp = TcpStream::connect(endpoint.authority()).await.map_err(|error| failed(&error))?;
    tcp.set_nodelay(true).map_err(|error| failed(&error))?;
    let Some(tls) = tls else { return handshake(tcp, endpoint).await };
    let name = server_name(endpoint).ok_or_else(|| unreachable("its name is no host name"))?;
    let stream = TlsConnector::from(tls).connect(name, tcp).await.map_err(|error| failed(&error))?;
    if stream.get_ref().1.alpn_protocol() != Some(b"h2") {
        return Err(unreachable("what listens there does not speak HTTP/2"));
    }
    handshake(stream, endpoint).await
}

async fn handshake<S>(stream: S, endpoint: &Endpoint) -> Result<SendRequest<Body>, ConnectError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| connect_error(&error, endpoint))?;
    // Its calls are told why it ends.
    tokio::spawn(async move { drop(connection.await) });
    Ok(sender)
}
