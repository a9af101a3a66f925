//! `certs inspect` and `certs verify`.

use super::{
    certificate::{self, InvalidCertificate, PeerCertificate},
    instant,
    key::key_matches,
    pem::{self, NotCertificates},
    trust::{InvalidRoots, Trust, TrustError, Usage},
};
use aws_lc_rs::digest::{SHA256, digest};
use p2p_core::{ClusterId, Role, SpiffeId};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime, pem::PemObject};
use serde::Serialize;
use std::net::IpAddr;
use x509_parser::{certificate::X509Certificate, extensions::GeneralName};

/// One certificate in words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CertificateInfo {
    /// Distinguished name of the holder.
    pub subject: String,
    /// Distinguished name of the issuer.
    pub issuer: String,
    /// The SPIFFE id as found, if there is exactly one URI name.
    pub spiffe_id: Option<String>,
    /// The role in it, if it is one of ours.
    pub role: Option<&'static str>,
    /// The cluster in it (also in a CA's).
    pub cluster_id: Option<ClusterId>,
    /// DNS names.
    pub dns_names: Vec<String>,
    /// IP addresses.
    pub ip_addresses: Vec<IpAddr>,
    /// Globs of the services that it may provide; `None` means all but the reserved ones.
    pub grant: Option<Vec<String>>,
    /// First second of validity, RFC 3339.
    pub not_before: String,
    /// Last second of validity, RFC 3339.
    pub not_after: String,
    /// Whole days until `not_after`, negative once it has passed.
    pub days_left: i64,
    /// Serial number, hexadecimal.
    pub serial: String,
    /// SHA-256 of the DER, hexadecimal.
    pub sha256: String,
    /// Whether it is a CA's.
    pub is_ca: bool,
    /// Kind of the public key, such as `ECDSA P-256`.
    pub key_algorithm: String,
}

/// Describes every certificate of a PEM text; says nothing about trust.
///
/// ```
/// use p2p_node::identity::{Ca, UnixTime, Validity, inspect};
///
/// let directory = tempfile::tempdir()?;
/// let ca = Ca::generate(&"shop".parse()?, Validity::days(UnixTime::now(), 30)?)?;
/// let path = directory.path().join("ca_cert.pem");
/// std::fs::write(&path, ca.cert_pem())?;
///
/// let found = inspect(&std::fs::read(&path)?, UnixTime::now())?;
/// assert!(found[0].is_ca);
/// assert_eq!(found[0].subject, "CN=p2p-core cluster shop CA");
/// assert_eq!(found[0].key_algorithm, "ECDSA P-256");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn inspect(pem: &[u8], now: UnixTime) -> Result<Vec<CertificateInfo>, VerifyError> {
    pem::certificates(pem)?.iter().map(|der| describe(der, now)).collect()
}

pub(super) fn describe(der: &CertificateDer<'_>, now: UnixTime) -> Result<CertificateInfo, VerifyError> {
    let x509 = certificate::parse_x509(der)?;
    let spiffe_id = match certificate::uris(&x509)?.as_slice() {
        [uri] => Some((*uri).to_owned()),
        _ => None,
    };
    let spiffe: Option<SpiffeId> = spiffe_id.as_deref().and_then(|uri| uri.parse().ok());
    let (dns_names, ip_addresses) = names(&x509);
    let not_after = instant::from_seconds(x509.validity().not_after.timestamp());
    Ok(CertificateInfo {
        subject: x509.subject().to_string(),
        issuer: x509.issuer().to_string(),
        role: spiffe.as_ref().map(|id| id.role.as_str()),
        cluster_id: spiffe.map(|id| id.cluster).or_else(|| certificate::ca_cluster(&x509)),
        spiffe_id,
        dns_names,
        ip_addresses,
        grant: certificate::grant(&x509)?.map(|grant| grant.globs()),
        not_before: instant::rfc3339(instant::from_seconds(x509.validity().not_before.timestamp())),
        not_after: instant::rfc3339(not_after),
        days_left: instant::days_between(now, not_after),
        serial: hex(x509.raw_serial()),
        sha256: hex(digest(&SHA256, der).as_ref()),
        is_ca: certificate::is_ca(&x509),
        key_algorithm: key_algorithm(&x509),
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn names(x509: &X509Certificate<'_>) -> (Vec<String>, Vec<IpAddr>) {
    let (mut dns, mut ips) = (Vec::new(), Vec::new());
    let extension = x509.subject_alternative_name().ok().flatten();
    for name in extension.iter().flat_map(|extension| &extension.value.general_names) {
        if let GeneralName::DNSName(name) = name {
            dns.push((*name).to_owned());
        } else if let GeneralName::IPAddress(bytes) = name {
            let v4 = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
            ips.extend(v4.or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from)).ok());
        }
    }
    (dns, ips)
}

fn key_algorithm(x509: &X509Certificate<'_>) -> String {
    let key = x509.public_key();
    let algorithm = key.algorithm.algorithm.to_id_string();
    let curve =
        key.algorithm.parameters.as_ref().and_then(|any| any.as_oid().ok()).map(|oid| oid.to_id_string());
    match (algorithm.as_str(), curve.as_deref()) {
        ("1.2.840.10045.2.1", Some("1.2.840.10045.3.1.7")) => "ECDSA P-256".to_owned(),
        ("1.2.840.10045.2.1", Some("1.3.132.0.34")) => "ECDSA P-384".to_owned(),
        ("1.2.840.10045.2.1", Some("1.3.132.0.35")) => "ECDSA P-521".to_owned(),
        ("1.2.840.113549.1.1.1", _) => {
            format!("RSA {}", key.parsed().map_or(0, |parsed| parsed.key_size()))
        }
        ("1.3.101.112", _) => "Ed25519".to_owned(),
        _ => algorithm,
    }
}

/// Why certificates do not describe or verify.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// Not PEM certificates.
    #[error("the file is unusable: {0}")]
    Pem(#[from] NotCertificates),
    /// A certificate does not parse.
    #[error("the certificate is unusable: {0}")]
    Certificate(#[from] InvalidCertificate),
    /// The CA file is no set of trusted certificates.
    #[error("the CA file is unusable: {0}")]
    Ca(#[source] NotCertificates),
    /// The CA file holds too much, or something that does not parse.
    #[error("the CA file is unusable: {0}")]
    Roots(#[from] InvalidRoots),
    /// It is a CA's certificate.
    #[error("{0:?} is a CA certificate; verify a node's, an admin's or a token signer's")]
    IsCa(String),
    /// It is not to be believed.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// No PEM private key.
    #[error("the key file holds no unencrypted PEM private key")]
    Key,
    /// The key is another certificate's.
    #[error("the key does not belong to the certificate of {0}")]
    KeyMismatch(SpiffeId),
}

/// Verifies the certificate in `pem` (leaf first, then intermediates) below the CAs in `ca_pem` at `now`, as
/// a node would: issued by them, in time, one SPIFFE id of a known role in the CA's cluster; and that `key`,
/// if given, is its private key.
///
/// ```
/// use p2p_core::Role;
/// use p2p_node::identity::{GenerateRequest, UnixTime, generate, verify};
///
/// let directory = tempfile::tempdir()?;
/// let out = directory.path().to_owned();
/// let nodes = vec![("worker".parse()?, Role::Worker)];
/// let request = GenerateRequest {
///     out: out.clone(), cluster_id: None, nodes, sans: vec![], days: 30, self_signed: false, force: false,
/// };
/// generate(&request, UnixTime::now())?;
///
/// let read = |name: &str| std::fs::read(out.join(name));
/// let (ca, cert, key) = (read("ca_cert.pem")?, read("worker_cert.pem")?, read("worker_key.pem")?);
/// let certificate = verify(&ca, &cert, Some(&key), UnixTime::now())?;
/// assert_eq!(certificate.spiffe.to_string(), "spiffe://p2p-core/worker/worker");
///
/// let error = verify(&ca, &cert, Some(&read("admin_key.pem")?), UnixTime::now()).unwrap_err();
/// assert!(error.to_string().starts_with("the key does not belong to"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn verify(
    ca_pem: &[u8],
    pem: &[u8],
    key: Option<&[u8]>,
    now: UnixTime,
) -> Result<PeerCertificate, VerifyError> {
    let roots = pem::certificates(ca_pem).map_err(VerifyError::Ca)?;
    let chain = pem::certificates(pem)?;
    let x509 = certificate::parse_x509(&chain[0])?;
    if certificate::is_ca(&x509) {
        return Err(VerifyError::IsCa(x509.subject().to_string()));
    }
    let claimed = PeerCertificate::parse(&chain[0])?;
    let cluster = expected_cluster(&roots, &claimed.spiffe.cluster);
    let usages: &[Usage] = match claimed.spiffe.role {
        Role::Coordinator | Role::Worker => &[Usage::Client, Usage::Server],
        Role::Admin => &[Usage::Client],
        Role::TokenSigner => &[Usage::TokenSigning],
    };
    let trust = Trust::new(cluster, roots)?;
    for usage in usages {
        trust.verify(&chain, *usage, now)?;
    }
    if let Some(key) = key {
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| VerifyError::Key)?;
        if !key_matches(&key, &claimed.public_key) {
            return Err(VerifyError::KeyMismatch(claimed.spiffe));
        }
    }
    Ok(claimed)
}

/// The cluster that the roots speak for: the claimed one, unless all of them name others.
fn expected_cluster(roots: &[CertificateDer<'_>], claimed: &ClusterId) -> ClusterId {
    let named = |root| certificate::parse_x509(root).ok().and_then(|x509| certificate::ca_cluster(&x509));
    let clusters: Vec<Option<ClusterId>> = roots.iter().map(|root| named(root.as_ref())).collect();
    let fits = |cluster: &Option<ClusterId>| cluster.as_ref().is_none_or(|cluster| cluster == claimed);
    match clusters.iter().flatten().next() {
        Some(other) if !clusters.iter().any(fits) => other.clone(),
        Some(_) | None => claimed.clone(),
    }
}
