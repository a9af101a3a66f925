//! Issuing certificates: a cluster's CA and the leaves below it (RFC 5280, SPIFFE X.509-SVID).

use super::{
    authority, certificate,
    grant::{self, grant_oid, token_signing_oid, vouchers_oid},
    instant,
    key::key_matches,
    pem::{self, FileError, NotCertificates},
    trust::ca_may_vouch,
    vouchers::{self, MAX_VOUCHERS},
};
use p2p_core::{
    ClusterId, NodeId, Role, SpiffeId,
    grant::{Grant, InvalidGrant},
};
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PublicKeyData, SanType, SubjectPublicKeyInfo,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime, pem::PemObject};
use std::{fmt, path::Path, time::Duration};

pub use super::san::{InvalidSan, San};

/// Longest validity that can be asked for, in days (a hundred years).
pub const MAX_DAYS: u32 = 36_500;

/// How far certificates are backdated, so that peers whose clocks are behind accept them at once.
pub(super) const BACKDATE: Duration = Duration::from_secs(60 * 60);

/// Why a certificate could not be issued. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// A file could not be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// The CA's certificate is not one PEM certificate.
    #[error("the CA certificate is unusable: {0}")]
    Pem(#[from] NotCertificates),
    /// The CA's certificate does not parse.
    #[error("the CA certificate is unusable: {0}")]
    Certificate(#[from] certificate::InvalidCertificate),
    /// The CA's key is not a PEM private key that rcgen can sign with.
    #[error("the CA key is not an unencrypted PEM private key of a supported kind")]
    Key,
    /// Key and certificate are of different CAs.
    #[error("the CA key does not belong to the CA certificate {0:?}")]
    KeyMismatch(String),
    /// The certificate is not a CA's.
    #[error("{0:?} is not a CA certificate")]
    NotCa(String),
    /// It is the CA of a coordinator that joined.
    #[error(
        "this is the own CA of coordinator {0}, which vouches for no other coordinator's and no admin's; ask a \
         coordinator that holds the key of a root"
    )]
    NotARoot(NodeId),
    /// A certificate was renewed at too many coordinators.
    #[error(
        "certificates of this node were issued by {0} coordinators, more than {MAX_VOUCHERS}; join the node again with \
         a new token"
    )]
    Vouchers(usize),
    /// No CAs may be below it.
    #[error(
        "{0:?} was made with path length 0, so coordinators cannot have CAs of their own below it; only a new root \
         changes that (`p2pctl ca rotate`)"
    )]
    PathLength(String),
    /// The CA issues for another cluster.
    #[error("the CA belongs to cluster {ca}, not to cluster {asked}")]
    OtherCluster {
        /// The cluster in the CA's certificate.
        ca: ClusterId,
        /// The cluster asked for.
        asked: ClusterId,
    },
    /// The CA's certificate has expired.
    #[error("the CA certificate expired on {}; make a new CA and issue all certificates again", instant::rfc3339(*.0))]
    Expired(UnixTime),
    /// The validity is empty or out of bounds.
    #[error("the validity must be 1 to {MAX_DAYS} days and end before the year 9999")]
    Validity,
    /// The grant does not encode.
    #[error(transparent)]
    Grant(#[from] InvalidGrant),
    /// The public key is not one that certificates are issued for.
    #[error("the public key is malformed or of an unsupported kind")]
    PublicKey,
    /// rcgen or its randomness failed.
    #[error("the certificate could not be made: {0}")]
    Make(#[from] rcgen::Error),
}

/// From when until when a certificate is valid, both inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// First second.
    pub not_before: UnixTime,
    /// Last second.
    pub not_after: UnixTime,
}

impl Validity {
    /// `days` from `now` on, backdated by one hour against clock skew. 1 to [`MAX_DAYS`].
    pub fn days(now: UnixTime, days: u32) -> Result<Self, CaError> {
        if !(1..=MAX_DAYS).contains(&days) {
            return Err(CaError::Validity);
        }
        Ok(Self::lasting(now, Duration::from_secs(u64::from(days) * 24 * 60 * 60)))
    }

    /// `life` from `now` on, backdated by one hour against clock skew.
    pub fn lasting(now: UnixTime, life: Duration) -> Self {
        let now = Duration::from_secs(now.as_secs());
        Self {
            not_before: UnixTime::since_unix_epoch(now.saturating_sub(BACKDATE)),
            not_after: UnixTime::since_unix_epoch(now.saturating_add(life)),
        }
    }

    pub(super) fn apply(self, params: &mut CertificateParams) -> Result<(), CaError> {
        if self.not_after <= self.not_before {
            return Err(CaError::Validity);
        }
        params.not_before = instant::to_date(self.not_before).ok_or(CaError::Validity)?;
        params.not_after = instant::to_date(self.not_after).ok_or(CaError::Validity)?;
        Ok(())
    }
}

/// What a leaf certificate is to say.
#[derive(Clone, Debug)]
pub struct LeafRequest {
    /// Who the holder is. The role decides the key usage: nodes server and client, admins client, token
    /// signers neither.
    pub spiffe: SpiffeId,
    /// The names under which the holder is reached.
    pub sans: Vec<San>,
    /// The services that the holder may provide; `None` grants all but the reserved ones.
    pub grant: Option<Grant>,
    /// Coordinators whose CAs issued the certificates that this one replaces; see [`PeerCertificate::vouchers`].
    ///
    /// [`PeerCertificate::vouchers`]: certificate::PeerCertificate::vouchers
    pub vouchers: Vec<NodeId>,
    /// From when until when. A leaf never outlives its CA: the end is clamped.
    pub validity: Validity,
}

/// A certificate with the key that was made for it.
pub struct Issued {
    /// The certificate, and behind it that of the CA unless it is a root.
    pub cert_pem: String,
    /// Its private key, PKCS#8. Write it to files of mode 0600 only.
    pub key_pem: String,
    /// Last second of validity, after clamping.
    pub not_after: UnixTime,
    der: CertificateDer<'static>,
}

impl Issued {
    /// The certificate as DER.
    pub fn der(&self) -> &CertificateDer<'static> {
        &self.der
    }
}

impl fmt::Debug for Issued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issued").field("cert_pem", &self.cert_pem).finish_non_exhaustive()
    }
}

/// A certificate authority: certificate and key. Its `Debug` shows no key.
#[derive(Debug)]
pub struct Ca {
    cert_pem: String,
    subject: String,
    cluster: Option<ClusterId>,
    not_after: UnixTime,
    issuer: Issuer<'static, KeyPair>,
    /// What goes behind each certificate that it issues: nothing for a root, else its own certificate.
    chain: Vec<CertificateDer<'static>>,
    pub(super) path_len: Option<u32>,
    pub(super) coordinator: Option<NodeId>,
}

impl Ca {
    /// Makes a new root for `cluster`: ECDSA P-256, path length 1 for the CAs of coordinators that join, and
    /// the URI SAN `spiffe://<cluster>` (SPIFFE X.509-SVID § 4.2: a signing certificate carries the trust
    /// domain).
    pub fn generate(cluster: &ClusterId, validity: Validity) -> Result<Self, CaError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        validity.apply(&mut params)?;
        params.serial_number = Some(random_serial()?);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.subject_alt_names = vec![uri_san(&format!("spiffe://{cluster}"))?];
        // RFC 5280 allows 64 characters of common name; the URI SAN has the whole id.
        let shown: String = cluster.as_str().chars().take(40).collect();
        params.distinguished_name = common_name(&format!("p2p-core cluster {shown} CA"));
        let cert_pem = params.self_signed(&key)?.pem();
        Self::from_pem(&cert_pem, &key.serialize_pem())
    }

    /// Reads the CA that the key makes: a coordinator's own if its certificate lies beside the key
    /// ([`authority::issuer_cert_path`]), else the root among the trusted certificates in `cert_path`.
    pub fn load(cert_path: &Path, key_path: &Path) -> Result<Self, CaError> {
        let text = |path: &Path| pem::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        let own = authority::issuer_cert_path(key_path);
        match own.exists() {
            true => Self::from_issuer_pem(&text(&own)?, &text(key_path)?),
            false => Self::from_pem(&text(cert_path)?, &text(key_path)?),
        }
    }

    /// Reads a coordinator's own CA: its certificate, those above it up to the root without that, its key.
    pub fn from_issuer_pem(chain_pem: &str, key_pem: &str) -> Result<Self, CaError> {
        let ca = Self::from_pem(chain_pem, key_pem)?;
        Ok(Self { chain: pem::certificates(chain_pem.as_bytes())?, ..ca })
    }

    /// Reads a root from PEM: the certificate of that key (during a rotation there are several), which must be
    /// a CA's. A CA made elsewhere may be of any kind that rcgen signs with, and need not name a cluster.
    pub fn from_pem(cert_pem: &str, key_pem: &str) -> Result<Self, CaError> {
        let mut all = pem::certificates(cert_pem.as_bytes())?;
        let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes()).ok();
        let is_its = |der: &CertificateDer<'_>| {
            let x509 = certificate::parse_x509(der).ok();
            x509.zip(key.as_ref()).is_some_and(|(x509, key)| key_matches(key, x509.public_key().raw))
        };
        let index = all.iter().position(is_its).unwrap_or(0);
        let der = all.swap_remove(index);
        let x509 = certificate::parse_x509(&der)?;
        let subject = x509.subject().to_string();
        let may_sign = x509.key_usage().ok().flatten().is_none_or(|usage| usage.value.key_cert_sign());
        if !certificate::is_ca(&x509) || !may_sign {
            return Err(CaError::NotCa(subject));
        }
        let key_der = key.ok_or(CaError::Key)?;
        let key = KeyPair::try_from(&key_der).map_err(|_| CaError::Key)?;
        if !key_matches(&key_der, x509.public_key().raw) {
            return Err(CaError::KeyMismatch(subject));
        }
        Ok(Self {
            cert_pem: pem::to_text(&der),
            subject,
            cluster: certificate::ca_cluster(&x509),
            not_after: instant::from_seconds(x509.validity().not_after.timestamp()),
            path_len: certificate::path_len(&x509),
            coordinator: certificate::coordinator(&x509)?,
            chain: Vec::new(),
            issuer: Issuer::from_ca_cert_der(&der, key)?,
        })
    }

    /// The CA's certificate.
    pub fn cert_pem(&self) -> &str {
        &self.cert_pem
    }

    /// The CA's private key, PKCS#8. Write it to files of mode 0600 only.
    pub fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// What goes behind each certificate that it issues, up to the root without that; empty for a root.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// The coordinator whose own CA this is; `None` for a root.
    pub fn coordinator(&self) -> Option<&NodeId> {
        self.coordinator.as_ref()
    }

    pub(super) fn issuer(&self) -> &Issuer<'static, KeyPair> {
        &self.issuer
    }

    /// The CA's distinguished name.
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// The cluster that the CA's certificate names; `None` for CAs made elsewhere.
    pub fn cluster_id(&self) -> Option<&ClusterId> {
        self.cluster.as_ref()
    }

    /// Last second of the CA's validity.
    pub fn not_after(&self) -> UnixTime {
        self.not_after
    }

    /// Fails if the CA cannot issue for `cluster` at `now`.
    pub fn check(&self, cluster: &ClusterId, now: UnixTime) -> Result<(), CaError> {
        if self.not_after <= now {
            return Err(CaError::Expired(self.not_after));
        }
        match &self.cluster {
            Some(ca) if ca != cluster => {
                Err(CaError::OtherCluster { ca: ca.clone(), asked: cluster.clone() })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Makes an ECDSA P-256 key and the certificate for it. Refuses another cluster's ids and, when the CA
    /// ends before the request's validity begins, [`CaError::Expired`].
    pub fn issue(&self, request: &LeafRequest) -> Result<Issued, CaError> {
        let key = KeyPair::generate()?;
        let (certificate, not_after) = self.sign(request, &key)?;
        let mut issued = issued(certificate, &key, not_after);
        issued.cert_pem.extend(self.chain.iter().map(|der| pem::to_text(der)));
        Ok(issued)
    }

    /// The certificate for a key that its holder made, without what goes [behind it](Self::chain):
    /// `public_key` is a DER SubjectPublicKeyInfo. The caller has checked that the holder has the private half.
    pub fn certify(
        &self,
        request: &LeafRequest,
        public_key: &[u8],
    ) -> Result<CertificateDer<'static>, CaError> {
        let key = SubjectPublicKeyInfo::from_der(public_key).map_err(|_| CaError::PublicKey)?;
        Ok(self.sign(request, &key)?.0.into())
    }

    fn sign(
        &self,
        request: &LeafRequest,
        key: &impl PublicKeyData,
    ) -> Result<(rcgen::Certificate, UnixTime), CaError> {
        self.check(&request.spiffe.cluster, request.validity.not_before)?;
        let SpiffeId { role, name, .. } = &request.spiffe;
        if let Some(node) = self.coordinator.as_ref().filter(|node| !ca_may_vouch(node, *role, name)) {
            return Err(CaError::NotARoot(node.clone()));
        }
        let not_after = request.validity.not_after.min(self.not_after);
        let params = leaf_params(request, Validity { not_after, ..request.validity })?;
        Ok((params.signed_by(key, &self.issuer)?, not_after))
    }
}

/// A stand-alone certificate: nobody vouches for it, so peers trust it only if they list it among their
/// roots, and then for itself only: it cannot issue others.
pub fn self_signed(request: &LeafRequest) -> Result<Issued, CaError> {
    let key = KeyPair::generate()?;
    let certificate = leaf_params(request, request.validity)?.self_signed(&key)?;
    Ok(issued(certificate, &key, request.validity.not_after))
}

fn issued(certificate: rcgen::Certificate, key: &KeyPair, not_after: UnixTime) -> Issued {
    let (cert_pem, key_pem) = (certificate.pem(), key.serialize_pem());
    Issued { cert_pem, key_pem, not_after, der: certificate.into() }
}

fn leaf_params(request: &LeafRequest, validity: Validity) -> Result<CertificateParams, CaError> {
    use ExtendedKeyUsagePurpose::{ClientAuth, Other, ServerAuth};
    let mut params = CertificateParams::default();
    validity.apply(&mut params)?;
    params.serial_number = Some(random_serial()?);
    params.distinguished_name = common_name(request.spiffe.name.as_str());
    params.is_ca = IsCa::ExplicitNoCa;
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = match request.spiffe.role {
        Role::Coordinator | Role::Worker => vec![ServerAuth, ClientAuth],
        Role::Admin => vec![ClientAuth],
        Role::TokenSigner => vec![Other(token_signing_oid())],
    };
    params.subject_alt_names.push(uri_san(&request.spiffe.to_string())?);
    for san in &request.sans {
        params.subject_alt_names.push(match san {
            San::Dns(name) => SanType::DnsName(name.as_str().try_into()?),
            San::Ip(ip) => SanType::IpAddress(*ip),
        });
    }
    if let Some(grant) = &request.grant {
        params.custom_extensions.push(CustomExtension::from_oid_content(&grant_oid(), grant::to_der(grant)?));
    }
    if !request.vouchers.is_empty() {
        let value = vouchers::to_der(&request.vouchers).ok_or(CaError::Vouchers(request.vouchers.len()))?;
        params.custom_extensions.push(CustomExtension::from_oid_content(&vouchers_oid(), value));
    }
    Ok(params)
}

pub(super) fn common_name(name: &str) -> rcgen::DistinguishedName {
    let mut subject = rcgen::DistinguishedName::new();
    subject.push(DnType::CommonName, name);
    subject
}

pub(super) fn uri_san(uri: &str) -> Result<SanType, CaError> {
    Ok(SanType::URI(uri.try_into()?))
}

/// 126 random bits: positive, never zero, at most 20 octets (RFC 5280 § 4.1.2.2).
pub(super) fn random_serial() -> Result<rcgen::SerialNumber, CaError> {
    let mut bytes = vec![0; 16];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| rcgen::Error::RingUnspecified)?;
    bytes[0] = (bytes[0] & 0x3f) | 0x40;
    Ok(bytes.into())
}
