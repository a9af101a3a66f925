//! Failed handshakes as sentences that a person can act on.

use super::{instant, pinned::NotTheCoordinator, trust::TrustError};
use rustls::{AlertDescription, CertificateError, Error, InvalidMessage};
use std::io;

/// Says why a dial or handshake failed. Network errors say what the system says.
pub fn handshake(error: &io::Error) -> String {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(error) => tls(error),
        None if error.kind() == io::ErrorKind::UnexpectedEof => {
            "the peer closed the connection during the TLS handshake".to_owned()
        }
        None => error.to_string(),
    }
}

/// Says why a TLS handshake failed, and on which side to look.
pub fn tls(error: &Error) -> String {
    // rustls's enums are open and large, so what is not told apart falls back to rustls's own words.
    #[expect(clippy::wildcard_enum_match_arm, reason = "foreign, non-exhaustive enum")]
    match error {
        Error::InvalidCertificate(reason) => theirs(reason),
        Error::AlertReceived(alert) => ours(*alert),
        Error::NoCertificatesPresented => "the peer presented no certificate".to_owned(),
        Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            "the peer does not speak TLS on this port (is https_enabled: false there?)".to_owned()
        }
        Error::PeerIncompatible(reason) => {
            format!("no common TLS version or cipher suite (TLS 1.2 or newer is needed): {reason:?}")
        }
        Error::NoApplicationProtocol => "the peer speaks neither HTTP/2 nor HTTP/1.1".to_owned(),
        other => format!("TLS failed: {other}"),
    }
}

/// We refused the peer's certificate.
fn theirs(reason: &CertificateError) -> String {
    #[expect(clippy::wildcard_enum_match_arm, reason = "foreign, non-exhaustive enum")]
    match reason {
        CertificateError::ExpiredContext { not_after, .. } => {
            format!("the peer's certificate expired on {}; renew it there", instant::rfc3339(*not_after))
        }
        CertificateError::NotValidYetContext { not_before, .. } => format!(
            "the peer's certificate is not valid until {}; check the clocks of both hosts",
            instant::rfc3339(*not_before)
        ),
        CertificateError::UnknownIssuer => {
            "the peer's certificate was issued by another CA than those in ssl_ca_cert_file".to_owned()
        }
        CertificateError::Revoked => {
            "the peer, or the coordinator whose CA issued its certificate, was evicted from the cluster"
                .to_owned()
        }
        CertificateError::Other(other) => {
            let trust = other.0.downcast_ref::<TrustError>().map(ToString::to_string);
            let pin = || other.0.downcast_ref::<NotTheCoordinator>().map(ToString::to_string);
            match trust.or_else(pin) {
                Some(error) => format!("the peer was refused: {error}"),
                None => format!("the peer's certificate was refused: {other}"),
            }
        }
        other => format!("the peer's certificate was refused: {other}"),
    }
}

/// The peer refused us. With TLS 1.3 a client may learn this only at its first read.
fn ours(alert: AlertDescription) -> String {
    #[expect(clippy::wildcard_enum_match_arm, reason = "foreign, non-exhaustive enum")]
    match alert {
        AlertDescription::CertificateExpired => {
            "the peer says that our certificate is expired or not yet valid; see `p2pctl certs inspect` and \
             check the clocks of both hosts"
                .to_owned()
        }
        AlertDescription::UnknownCA => {
            "the peer does not trust the CA that issued our certificate; compare ssl_ca_cert_file on both \
             hosts"
                .to_owned()
        }
        AlertDescription::CertificateUnknown | AlertDescription::AccessDenied => {
            "the peer refused our certificate, usually for its cluster id or role; the peer's log has the \
             reason"
                .to_owned()
        }
        AlertDescription::CertificateRevoked => {
            "the peer says that we, or the coordinator whose CA issued our certificate, were evicted from the \
             cluster"
                .to_owned()
        }
        AlertDescription::CertificateRequired => "the peer demands a client certificate".to_owned(),
        AlertDescription::ProtocolVersion => {
            "no common TLS version: TLS 1.2 or newer is needed on both sides".to_owned()
        }
        AlertDescription::HandshakeFailure => "the peer found no common cipher suite".to_owned(),
        AlertDescription::NoApplicationProtocol => "the peer speaks no HTTP/2 on this port".to_owned(),
        other => format!("the peer broke off the TLS handshake: {other:?}"),
    }
}
