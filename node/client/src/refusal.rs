//! Why a node closed a connection right after the handshake.
//!
//! In TLS 1.3 the client's handshake ends before the node has read the client's certificate. A refusal
//! arrives as an alert afterwards, when HTTP libraries already write the request: they report a closed
//! connection and drop the alert. So the handshake is repeated here, and the alert awaited.

use crate::{
    connection::ConnectOptions,
    error::{ConnectError, connect_error},
    tls::{client_config, server_name},
};
use std::time::Duration;
use tokio::{io::AsyncReadExt as _, net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;

/// How long an alert is awaited; it follows the handshake at once.
const ALERT_TIMEOUT: Duration = Duration::from_secs(1);

/// The node's refusal of the options' certificate, or of having none; `None` if it does not refuse.
pub async fn refusal(options: &ConnectOptions) -> Option<ConnectError> {
    let error = timeout(options.timeout.min(ALERT_TIMEOUT), await_alert(options)).await.ok()?.err()?;
    let error = connect_error(&error, &options.endpoint);
    matches!(error, ConnectError::Tls { .. }).then_some(error)
}

/// Ends with the error that the node's alert becomes, or when the node sends anything else.
async fn await_alert(options: &ConnectOptions) -> std::io::Result<()> {
    if options.endpoint.is_plain() {
        return Ok(());
    }
    // What is unusable was reported when connecting.
    let (Ok(config), Some(name)) = (client_config(options), server_name(&options.endpoint)) else {
        return Ok(());
    };
    let stream = TcpStream::connect(options.endpoint.authority()).await?;
    let mut stream = TlsConnector::from(config).connect(name, stream).await?;
    stream.read(&mut [0]).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CallError, Connection, ErrorKind};
    use rustls::{
        RootCertStore, ServerConfig, crypto::aws_lc_rs, pki_types::PrivateKeyDer,
        server::WebPkiClientVerifier,
    };
    use std::sync::Arc;
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    /// A server that requires a client certificate, like a node that takes nobody anonymous; returns the
    /// options of a client that has none.
    async fn strict_server() -> ConnectOptions {
        let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(own.cert.der().clone()).expect("a root");
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_client_cert_verifier(verifier.build().expect("a verifier"))
            .with_single_cert(
                vec![own.cert.der().clone()],
                PrivateKeyDer::try_from(own.signing_key.serialize_der()).expect("a key"),
            )
            .expect("a configuration");
        config.alpn_protocols = vec![b"h2".to_vec()];
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let port = listener.local_addr().expect("bound").port();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let handshake = acceptor.accept(stream).await;
                assert!(handshake.is_err(), "an anonymous client is refused");
            }
        });
        let mut options = ConnectOptions::new(format!("localhost:{port}").parse().expect("an address"));
        options.ca_pem = Some(own.cert.pem().into_bytes());
        options
    }

    #[tokio::test]
    async fn a_refusal_after_the_handshake_is_told_from_a_closed_connection() {
        let options = strict_server().await;
        let connection = Connection::connect(&options).await.expect("our side of the handshake is complete");
        let error = connection.list_nodes().await.expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::Tls, "{error}");
        assert!(matches!(error, CallError::Connection(ConnectError::Tls { refused_by_node: true, .. })));
        assert!(error.to_string().ends_with("it requires a client certificate"), "{error}");
    }
}
