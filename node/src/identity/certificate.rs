//! What a certificate says about its holder.

use super::{
    authority,
    grant::{self, coordinator_oid, grant_oid, vouchers_oid},
    instant, vouchers,
};
use p2p_core::{
    ClusterId, NodeId, SpiffeId,
    grant::{Grant, InvalidGrant},
    spiffe::InvalidSpiffeId,
};
use rustls_pki_types::UnixTime;
use x509_parser::{asn1_rs::Oid, certificate::X509Certificate, extensions::GeneralName};

/// Longest certificate that is parsed, in bytes: room for a full grant.
pub const MAX_CERTIFICATE_LEN: usize = 32 * 1024;

/// Why a certificate cannot say who its holder is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidCertificate {
    /// Not one DER-encoded X.509 certificate.
    #[error("it is not a DER-encoded X.509 certificate")]
    Encoding,
    /// Longer than [`MAX_CERTIFICATE_LEN`].
    #[error("it has {0} bytes, at most {MAX_CERTIFICATE_LEN} are allowed")]
    TooLong(usize),
    /// No URI SAN.
    #[error("it carries no SPIFFE id (a URI subject alternative name)")]
    NoSpiffeId,
    /// Several URI SANs (X.509-SVID § 2 allows exactly one).
    #[error("it carries {0} URI names where exactly one SPIFFE id is allowed")]
    ManySpiffeIds(usize),
    /// The URI SAN is not a SPIFFE id of this system.
    #[error("its SPIFFE id {uri:?} is not ours: {reason}")]
    SpiffeId {
        /// The URI as found.
        uri: String,
        /// What is wrong with it.
        reason: InvalidSpiffeId,
    },
    /// The grant extension is present and unreadable.
    #[error("its service grant is invalid: {0}")]
    Grant(#[from] InvalidGrant),
    /// The extension that names a CA's coordinator is present and unreadable.
    #[error("its extension that names a coordinator is invalid")]
    Coordinator,
    /// The extension that names the coordinators before is present and unreadable.
    #[error("its extension that names the coordinators who issued those before it is invalid")]
    Vouchers,
}

/// What the certificate of a peer says. Parsing proves nothing: [`Trust`](super::Trust) does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerCertificate {
    /// Who the holder is and in which role.
    pub spiffe: SpiffeId,
    /// First second of validity.
    pub not_before: UnixTime,
    /// Last second of validity.
    pub not_after: UnixTime,
    /// The services that the holder may provide; `None` means all but the reserved ones.
    pub grant: Option<Grant>,
    /// Coordinators with own CAs on whose word it rests. Parsed alone, those who issued the ones that it replaced;
    /// verified, also whose CAs are in its chain.
    pub vouchers: Vec<NodeId>,
    /// The holder's public key: a DER SubjectPublicKeyInfo (RFC 5280 § 4.1.2.7).
    pub public_key: Vec<u8>,
}

impl PeerCertificate {
    /// Reads a certificate. It must carry exactly one URI SAN, a SPIFFE id of this system (SPIFFE X.509-SVID
    /// § 2), whatever other names it has.
    pub fn parse(der: &[u8]) -> Result<Self, InvalidCertificate> {
        let x509 = parse_x509(der)?;
        Ok(Self {
            spiffe: spiffe_id(&x509)?,
            not_before: instant::from_seconds(x509.validity().not_before.timestamp()),
            not_after: instant::from_seconds(x509.validity().not_after.timestamp()),
            grant: grant(&x509)?,
            vouchers: vouchers(&x509)?,
            public_key: x509.public_key().raw.to_vec(),
        })
    }

    /// Whether the certificate is valid at `now`.
    ///
    /// A resumed TLS session is not verified again, so who keeps a peer's certificate over time asks this.
    pub fn is_in_time(&self, now: UnixTime) -> bool {
        self.not_before <= now && now <= self.not_after
    }

    /// Whether the holder may provide `service`. Reserved names are never granted.
    pub fn may_provide(&self, service: &p2p_core::ServiceName) -> bool {
        p2p_core::grant::may_provide(self.grant.as_ref(), service)
    }
}

/// One certificate and nothing behind it, within the size limit.
pub(super) fn parse_x509(der: &[u8]) -> Result<X509Certificate<'_>, InvalidCertificate> {
    if der.len() > MAX_CERTIFICATE_LEN {
        return Err(InvalidCertificate::TooLong(der.len()));
    }
    match x509_parser::parse_x509_certificate(der) {
        Ok(([], x509)) => Ok(x509),
        Ok(_) | Err(_) => Err(InvalidCertificate::Encoding),
    }
}

/// The URI names.
pub(super) fn uris<'a>(x509: &'a X509Certificate<'_>) -> Result<Vec<&'a str>, InvalidCertificate> {
    let names = x509.subject_alternative_name().map_err(|_| InvalidCertificate::Encoding)?;
    let names = names.map(|extension| extension.value.general_names.iter()).into_iter().flatten();
    Ok(names.filter_map(|name| if let GeneralName::URI(uri) = name { Some(*uri) } else { None }).collect())
}

fn spiffe_id(x509: &X509Certificate<'_>) -> Result<SpiffeId, InvalidCertificate> {
    match uris(x509)?.as_slice() {
        [] => Err(InvalidCertificate::NoSpiffeId),
        [uri] => uri
            .parse()
            .map_err(|reason| InvalidCertificate::SpiffeId { uri: uri.chars().take(256).collect(), reason }),
        many => Err(InvalidCertificate::ManySpiffeIds(many.len())),
    }
}

/// The cluster that a CA certificate names: its only URI SAN, `spiffe://<cluster_id>` (SPIFFE-ID § 2: a
/// trust domain). `None` for CAs made elsewhere.
pub(super) fn ca_cluster(x509: &X509Certificate<'_>) -> Option<ClusterId> {
    match uris(x509).ok()?.as_slice() {
        [uri] => uri.strip_prefix("spiffe://")?.parse().ok(),
        _ => None,
    }
}

/// The grant extension, if there is one. A certificate that carries it twice is refused.
pub(super) fn grant(x509: &X509Certificate<'_>) -> Result<Option<Grant>, InvalidCertificate> {
    let oid = Oid::from(&grant_oid()).map_err(|_| InvalidCertificate::Encoding)?;
    let extension = x509.get_extension_unique(&oid).map_err(|_| InvalidCertificate::Encoding)?;
    Ok(extension.map(|extension| grant::from_der(extension.value)).transpose()?)
}

/// The coordinators who issued the certificates before this one. A certificate that carries the extension twice is
/// refused.
fn vouchers(x509: &X509Certificate<'_>) -> Result<Vec<NodeId>, InvalidCertificate> {
    let oid = Oid::from(&vouchers_oid()).map_err(|_| InvalidCertificate::Encoding)?;
    let extension = x509.get_extension_unique(&oid).map_err(|_| InvalidCertificate::Encoding)?;
    Ok(extension.map(|extension| vouchers::from_der(extension.value)).transpose()?.unwrap_or_default())
}

/// The coordinator whose own CA this is; `None` for roots, CAs made elsewhere and leaves. A certificate that
/// carries the extension twice is refused.
pub(super) fn coordinator(x509: &X509Certificate<'_>) -> Result<Option<NodeId>, InvalidCertificate> {
    let oid = Oid::from(&coordinator_oid()).map_err(|_| InvalidCertificate::Encoding)?;
    let extension = x509.get_extension_unique(&oid).map_err(|_| InvalidCertificate::Encoding)?;
    extension.map(|extension| authority::coordinator_from_der(extension.value)).transpose()
}

/// `coordinator` of DER, if it says so.
pub fn coordinator_of(der: &[u8]) -> Option<NodeId> {
    coordinator(&parse_x509(der).ok()?).ok().flatten()
}

/// The public key (a DER SubjectPublicKeyInfo) of a CA's certificate; `None` for what is none.
pub fn ca_key_of(der: &[u8]) -> Option<Vec<u8>> {
    let x509 = parse_x509(der).ok().filter(is_ca)?;
    Some(x509.public_key().raw.to_vec())
}

/// How many CAs BasicConstraints allow below this one; `None` for no bound.
pub(super) fn path_len(x509: &X509Certificate<'_>) -> Option<u32> {
    x509.basic_constraints().ok().flatten().and_then(|extension| extension.value.path_len_constraint)
}

/// Whether BasicConstraints make it a CA's certificate.
pub(super) fn is_ca(x509: &X509Certificate<'_>) -> bool {
    x509.basic_constraints().ok().flatten().is_some_and(|extension| extension.value.ca)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::tests::{issuer, request};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            prop_assert!(PeerCertificate::parse(&bytes).is_err());
        }

        #[test]
        fn a_damaged_certificate_never_panics(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let mut der = DAMAGED.clone();
            let at = at.index(der.len());
            der[at] = byte;
            if let Ok(parsed) = PeerCertificate::parse(&der) {
                prop_assert!(parsed.public_key.len() < der.len());
            }
        }
    }

    static DAMAGED: std::sync::LazyLock<Vec<u8>> = std::sync::LazyLock::new(|| {
        let mut request = request("spiffe://c/worker/w-1");
        request.grant = Some(Grant::parse(&["demo.*"]).unwrap());
        issuer("c").issue(&request).unwrap().der().to_vec()
    });

    #[test]
    fn a_certificate_says_who_until_when_and_what() {
        let parsed = PeerCertificate::parse(&DAMAGED).unwrap();
        assert_eq!(parsed.spiffe.to_string(), "spiffe://c/worker/w-1");
        assert!(parsed.may_provide(&"demo.v1.Greeter".parse().unwrap()));
        assert!(!parsed.may_provide(&"other.Service".parse().unwrap()));
        assert!(!parsed.is_in_time(instant::from_seconds(0)));
        assert!(parsed.is_in_time(parsed.not_after));
    }

    #[test]
    fn without_a_grant_all_but_the_reserved_names_may_be_provided() {
        let issued = issuer("c").issue(&request("spiffe://c/worker/w-1")).unwrap();
        let parsed = PeerCertificate::parse(issued.der()).unwrap();
        assert!(parsed.may_provide(&"other.Service".parse().unwrap()));
        assert!(!parsed.may_provide(&"p2p.v1.AuthService".parse().unwrap()));
    }

    #[test]
    fn exactly_one_spiffe_id_is_accepted() {
        let with = |uris: &[&str]| {
            let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
            for uri in uris {
                params.subject_alt_names.push(rcgen::SanType::URI((*uri).try_into().unwrap()));
            }
            let key = rcgen::KeyPair::generate().unwrap();
            PeerCertificate::parse(params.self_signed(&key).unwrap().der())
        };
        assert_eq!(with(&[]), Err(InvalidCertificate::NoSpiffeId));
        let two = with(&["spiffe://c/worker/a", "https://example.org"]);
        assert_eq!(two, Err(InvalidCertificate::ManySpiffeIds(2)));
        let king = with(&["spiffe://c/king/a"]).unwrap_err().to_string();
        assert_eq!(king, r#"its SPIFFE id "spiffe://c/king/a" is not ours: unknown role "king""#);
        assert_eq!(
            PeerCertificate::parse(&vec![0; MAX_CERTIFICATE_LEN + 1]),
            Err(InvalidCertificate::TooLong(MAX_CERTIFICATE_LEN + 1))
        );
    }
}
