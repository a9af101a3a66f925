//! TLS towards a coordinator of which only the key of its root is known: what a join token pins.
//!
//! A coordinator sends its root along (`tls::server_config`); TLS servers may leave it out (RFC 8446
//! § 4.4.2), and a pin alone cannot verify a chain. Nothing is sent before the handshake has proven the rest:
//! the root's key is pinned, and below it is a coordinator of the token's cluster, in time.

pub use super::join_token::RootPin;
use super::{
    JoinToken, certificate, tls,
    trust::{Trust, TrustError, Usage},
};
use aws_lc_rs::digest::{SHA256, digest};
use p2p_core::{ClusterId, Role, SpiffeId};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, OtherError, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::verify_tls13_signature,
    version::TLS13,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::sync::{Arc, Mutex, PoisonError};

/// Why whoever answered is not the coordinator that the token is for. Nothing was sent.
#[derive(Debug, Clone, thiserror::Error)]
pub enum NotTheCoordinator {
    /// No root of the chain is pinned.
    #[error(
        "it shows no CA certificate that the join token pins: another cluster's node, one that is no coordinator, or \
         somebody in between"
    )]
    Pin,
    /// The chain does not hold.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// A node, but without CA authority.
    #[error("{0} is no coordinator")]
    Role(SpiffeId),
}

/// The SHA-256 of a CA certificate's key; `None` for what is not a CA's certificate.
pub(super) fn pin_of(der: &[u8]) -> Option<RootPin> {
    let x509 = certificate::parse_x509(der).ok().filter(certificate::is_ca)?;
    digest(&SHA256, x509.public_key().raw).as_ref().try_into().ok()
}

/// Verifies who answers a join, and remembers why somebody was refused.
#[derive(Debug)]
pub struct PinnedCoordinator {
    pins: Vec<RootPin>,
    cluster: ClusterId,
    refused: Mutex<Option<NotTheCoordinator>>,
}

impl PinnedCoordinator {
    /// The coordinators that `token` is for.
    pub fn new(token: &JoinToken) -> Arc<Self> {
        Arc::new(Self { pins: token.pins.clone(), cluster: token.cluster.clone(), refused: Mutex::default() })
    }

    /// TLS 1.3 only, anonymous, ALPN `h2`, no resumption.
    ///
    /// # Errors
    ///
    /// When rustls does not offer TLS 1.3: a defect.
    pub fn client_config(self: &Arc<Self>) -> Result<Arc<ClientConfig>, Error> {
        let mut config = ClientConfig::builder_with_provider(tls::provider())
            .with_protocol_versions(&[&TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(self.clone())
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        config.resumption = rustls::client::Resumption::disabled();
        Ok(Arc::new(config))
    }

    /// Why the last handshake was refused by us, if it was; forgets it.
    pub fn take_refusal(&self) -> Option<NotTheCoordinator> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn check(&self, chain: &[&[u8]], now: UnixTime) -> Result<(), NotTheCoordinator> {
        let pinned = |der: &&&[u8]| pin_of(der).is_some_and(|pin| self.pins.contains(&pin));
        let root = chain.iter().skip(1).find(pinned).ok_or(NotTheCoordinator::Pin)?;
        let root = CertificateDer::from(root.to_vec());
        let trust = Trust::new(self.cluster.clone(), vec![root]).map_err(|_| NotTheCoordinator::Pin)?;
        let peer = trust.verify(chain, Usage::Server, now)?;
        if peer.spiffe.role == Role::Coordinator { Ok(()) } else { Err(NotTheCoordinator::Role(peer.spiffe)) }
    }
}

impl ServerCertVerifier for PinnedCoordinator {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let chain: Vec<&[u8]> = std::iter::once(leaf).chain(intermediates).map(AsRef::as_ref).collect();
        self.check(&chain, now).map(|()| ServerCertVerified::assertion()).map_err(|refused| {
            *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = Some(refused.clone());
            Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(refused))))
        })
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("joining takes TLS 1.3".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, signature, &tls::provider().signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        tls::provider().signature_verification_algorithms.supported_schemes()
    }
}
