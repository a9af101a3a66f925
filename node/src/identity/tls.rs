//! TLS 1.2 and 1.3 with our verifiers: identity is the SPIFFE id, never the DNS name.

use super::{
    key::NodeKey,
    trust::{Trust, TrustError, Usage},
};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, OtherError, ServerConfig,
    SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
    server::danger::{ClientCertVerified, ClientCertVerifier},
    version::{TLS12, TLS13},
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::sync::{Arc, LazyLock};

/// Tickets that the peer client remembers; rustls keeps up to eight for each server.
const CLIENT_SESSIONS: usize = 8 * 256;

static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| Arc::new(aws_lc_rs::default_provider()));

/// The cryptography of every TLS connection: aws-lc with AEAD suites only. Nothing reads or sets rustls's
/// process-wide default.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::clone(&PROVIDER)
}

/// The server side: a client may present a certificate, and then it must be of our cluster; ALPN `h2` and
/// `http/1.1`.
///
/// Tickets are encrypted under keys of this configuration (new ones every 6 h), so replacing it ends the
/// resumption of everything verified under older trust. A resumed session is not verified again: whoever
/// accepts the connection checks time and revocations on the peer's certificate.
///
/// `root`, if given, is sent behind the chain: a node that joins knows only the hash of its key.
pub(super) fn server_config(
    mut chain: Vec<CertificateDer<'static>>,
    root: Option<CertificateDer<'static>>,
    key: &NodeKey,
    trust: Arc<Trust>,
) -> Result<Arc<ServerConfig>, rustls::Error> {
    chain.extend(root);
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13, &TLS12])?
        .with_client_cert_verifier(Arc::new(Verifier::new(trust)))
        .with_single_cert(chain, key.to_der())?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.ticketer = aws_lc_rs::Ticketer::new()?;
    Ok(Arc::new(config))
}

/// The client side between nodes: presents our certificate and accepts nodes of our cluster, by whatever
/// name they were dialled; ALPN `h2`. Sessions are remembered by the name dialled.
pub(super) fn peer_client_config(
    chain: Vec<CertificateDer<'static>>,
    key: &NodeKey,
    trust: Arc<Trust>,
) -> Result<Arc<ClientConfig>, rustls::Error> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13, &TLS12])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Verifier::new(trust)))
        .with_client_auth_cert(chain, key.to_der())?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.resumption = Resumption::in_memory_sessions(CLIENT_SESSIONS);
    Ok(Arc::new(config))
}

/// The client side of a node whose certificate has expired: shows none, accepts nodes of its cluster; ALPN
/// `h2`, TLS 1.3 only, no resumption.
pub(super) fn anonymous_client_config(trust: Arc<Trust>) -> Result<Arc<ClientConfig>, rustls::Error> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Verifier::new(trust)))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// [`Trust`] as rustls asks it, on both sides.
#[derive(Debug)]
pub(super) struct Verifier {
    trust: Arc<Trust>,
    hints: Vec<DistinguishedName>,
}

impl Verifier {
    pub(super) fn new(trust: Arc<Trust>) -> Self {
        Self { hints: trust.hints(), trust }
    }

    fn check(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        usage: Usage,
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        let chain: Vec<&[u8]> = std::iter::once(leaf).chain(intermediates).map(AsRef::as_ref).collect();
        self.trust.verify(&chain, usage, now).map(drop).map_err(|error| {
            tracing::debug!(%error, "peer certificate refused");
            to_rustls(error, now)
        })
    }
}

/// Keeps rustls's own variants where they carry what there is to say: they choose the alert that the peer
/// reads. The rest travels whole, for [`explain`](super::explain).
fn to_rustls(error: TrustError, now: UnixTime) -> rustls::Error {
    let reason = match error {
        TrustError::Expired(peer) => {
            CertificateError::ExpiredContext { time: now, not_after: peer.not_after }
        }
        TrustError::NotYetValid(peer) => {
            CertificateError::NotValidYetContext { time: now, not_before: peer.not_before }
        }
        TrustError::OtherCa { .. } => CertificateError::UnknownIssuer,
        TrustError::Banned(_) => CertificateError::Revoked,
        error @ (TrustError::NoCertificate
        | TrustError::LongChain(_)
        | TrustError::Certificate(_)
        | TrustError::OtherCluster { .. }
        | TrustError::WrongRole { .. }
        | TrustError::OtherCoordinator { .. }
        | TrustError::Chain { .. }
        | TrustError::Signature(_)) => CertificateError::Other(OtherError(Arc::new(error))),
    };
    rustls::Error::InvalidCertificate(reason)
}

impl ClientCertVerifier for Verifier {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.check(leaf, intermediates, Usage::Client, now).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, signature, &PROVIDER.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signature, &PROVIDER.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        PROVIDER.signature_verification_algorithms.supported_schemes()
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.check(leaf, intermediates, Usage::Server, now).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, signature, &PROVIDER.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signature, &PROVIDER.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        PROVIDER.signature_verification_algorithms.supported_schemes()
    }
}
