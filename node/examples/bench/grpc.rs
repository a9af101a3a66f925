//! The load's own gRPC client: on hyper, below tonic, with one encoded message for all calls, so that on its one core it can
//! saturate a server on the other.

use crate::{TlsFiles, proto::HelloRequest};
use anyhow::{Context as _, ensure};
use bytes::{BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, Request, header};
use hyper::{
    body::Body,
    client::conn::http2::{self, SendRequest},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _};
use std::{net::SocketAddr, sync::Arc};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

/// Length of the name that is greeted: the payload of a small call.
pub(crate) const NAME_BYTES: usize = 100;
/// What stands before each message: a flag and a length.
pub(crate) const FRAME_HEAD: usize = 5;

/// The receive windows: no smaller than those of nodes, so that it is not the load that holds a stream back.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;

/// An HTTP/2 connection.
pub(crate) async fn connect<B>(
    address: SocketAddr,
    tls: Arc<rustls::ClientConfig>,
) -> anyhow::Result<SendRequest<B>>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let tcp = TcpStream::connect(address).await.with_context(|| address.to_string())?;
    let tls = secured(tcp, tls).await?;
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .handshake(TokioIo::new(tls))
        .await?;
    tokio::spawn(async move {
        // A connection that breaks fails the calls on it, which say why.
        connection.await.ok();
    });
    Ok(sender)
}

/// TLS over `tcp`, to a server that is named as all of ours are.
pub(crate) async fn secured(
    tcp: TcpStream,
    tls: Arc<rustls::ClientConfig>,
) -> anyhow::Result<TlsStream<TcpStream>> {
    tcp.set_nodelay(true)?;
    Ok(TlsConnector::from(tls).connect(ServerName::try_from("localhost")?, tcp).await?)
}

/// Who connects, and whom it trusts; for HTTP/2.
pub(crate) fn client_config(files: &TlsFiles) -> anyhow::Result<rustls::ClientConfig> {
    let chain = CertificateDer::pem_file_iter(&files.cert)?.collect::<Result<_, _>>()?;
    let key = PrivateKeyDer::from_pem_file(&files.key)?;
    let mut config = rustls::ClientConfig::builder()
        .with_root_certificates(roots(files)?)
        .with_client_auth_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

/// The same without a certificate of its own.
pub(crate) fn stranger_config(files: &TlsFiles) -> anyhow::Result<rustls::ClientConfig> {
    let builder = rustls::ClientConfig::builder().with_root_certificates(roots(files)?);
    Ok(builder.with_no_client_auth())
}

fn roots(files: &TlsFiles) -> anyhow::Result<rustls::RootCertStore> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(&files.ca)? {
        roots.add(certificate?)?;
    }
    Ok(roots)
}

/// A call of one of the greeter's methods.
pub(crate) fn request<B>(
    address: SocketAddr,
    method: &str,
    token: Option<&str>,
    body: B,
) -> anyhow::Result<Request<B>> {
    let mut request = Request::post(format!("https://{address}/demo.v1.Greeter/{method}"))
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers");
    if let Some(token) = token {
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    Ok(request.body(body)?)
}

/// Fails unless the answer ended with OK.
pub(crate) fn ensure_ok(head: &HeaderMap, trailers: Option<&HeaderMap>) -> anyhow::Result<()> {
    let status = trailers.and_then(|trailers| trailers.get("grpc-status")).or(head.get("grpc-status"));
    ensure!(status.is_some_and(|status| status == "0"), "the call failed: {head:?} {trailers:?}");
    Ok(())
}

/// A request as gRPC frames it, greeting a name of so many bytes.
pub(crate) fn greeting(name_bytes: usize) -> Bytes {
    let message = HelloRequest { name: "x".repeat(name_bytes) }.encode_to_vec();
    let length = u32::try_from(message.len()).expect("a message far below 4 GiB");
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    frame.put_u32(length);
    frame.put_slice(&message);
    frame.freeze()
}
