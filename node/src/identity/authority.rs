//! CAs of coordinators: below a root, one for each coordinator that joined.
//!
//! ```text
//! root (path length 1) ─┬─ leaves that its holder issues
//!                       └─ CA of c-2 (path length 0) ── leaves that c-2 issues, sent with this CA's certificate
//! ```
//!
//! The CA's certificate names its coordinator in a private extension, not critical, beside the cluster's
//! `spiffe://<cluster>` (X.509-SVID allows one URI only): so whoever verifies a leaf knows which coordinator
//! issued it, and the eviction of that one bans the leaf ([`Bans`](super::Bans)).
//!
//! On disk: `ssl_ca_key_file` holds the CA's key, [`issuer_cert_path`] beside it the CA's certificate, and
//! `ssl_ca_cert_file`, as everywhere, the roots.

use super::{
    bundle::{Bundle, leads_to},
    ca::{self, Ca, CaError, LeafRequest, Validity},
    certificate::{InvalidCertificate, coordinator_of, parse_x509},
    csr,
    enrolled::EnrolledError,
    grant::{coordinator_oid, token_signing_oid},
    key::{InvalidKey, NodeKey},
    local::IdentityFiles,
    pem,
    trust::{Trust, Usage},
    write::{NewFile, write_all},
};
use p2p_core::{ClusterId, NodeId, Role, SpiffeId};
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SubjectPublicKeyInfo,
};
use rustls_pki_types::{CertificateDer, UnixTime};
use std::{
    fmt,
    path::{Path, PathBuf},
};
use x509_parser::asn1_rs::{FromDer, ToDer, Utf8String};

/// Validity of a coordinator's CA, in days; it never outlives the CA above it.
pub const CA_DAYS: u32 = 365;

/// Longest part of a cluster's or node's id in the name of a CA: RFC 5280 allows 64 characters in all, and
/// the extensions have both ids whole.
const SHOWN: usize = 20;

/// Where the certificate of a coordinator's own CA lies: beside `ssl_ca_key_file`, `ca_issuer_cert.pem` for
/// `ca_key.pem`. Whoever holds a root has no such file.
pub fn issuer_cert_path(ca_key: &Path) -> PathBuf {
    let stem = ca_key.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    ca_key.with_file_name(format!("{}_issuer_cert.pem", stem.strip_suffix("_key").unwrap_or(&stem)))
}

/// The value of the extension that names a CA's coordinator.
pub(super) fn coordinator_from_der(der: &[u8]) -> Result<NodeId, InvalidCertificate> {
    let (rest, text) = Utf8String::from_der(der).map_err(|_| InvalidCertificate::Coordinator)?;
    let node = rest.is_empty().then(|| text.string().parse().ok()).flatten();
    node.ok_or(InvalidCertificate::Coordinator)
}

impl Ca {
    /// Fails unless CAs of coordinators may be made below this one.
    pub fn check_cas_below(&self) -> Result<(), CaError> {
        match (&self.coordinator, self.path_len) {
            (Some(node), _) => Err(CaError::NotARoot(node.clone())),
            (None, Some(0)) => Err(CaError::PathLength(self.subject().to_owned())),
            (None, Some(_) | None) => Ok(()),
        }
    }

    /// A certificate for `holder` that lives a day, and what goes behind it, DER: shows who has the CA's key.
    fn prove(&self, holder: &SpiffeId, now: UnixTime) -> Result<Vec<Vec<u8>>, CaError> {
        let validity = Validity::days(now, 1)?;
        let leaf = self.issue(&LeafRequest {
            spiffe: holder.clone(),
            sans: Vec::new(),
            grant: None,
            vouchers: Vec::new(),
            validity,
        })?;
        Ok(std::iter::once(leaf.der()).chain(self.chain()).map(|der| der.to_vec()).collect())
    }

    /// The certificate of `node`'s own CA, for a key that the node made: `public_key` is a DER
    /// SubjectPublicKeyInfo whose private half the caller has seen proven. It lives [`CA_DAYS`].
    ///
    /// # Errors
    ///
    /// As [`Self::check_cas_below`] and [`Self::check`].
    pub fn certify_coordinator(
        &self,
        cluster: &ClusterId,
        node: &NodeId,
        public_key: &[u8],
        now: UnixTime,
    ) -> Result<CertificateDer<'static>, CaError> {
        self.check_cas_below()?;
        self.check(cluster, now)?;
        let key = SubjectPublicKeyInfo::from_der(public_key).map_err(|_| CaError::PublicKey)?;
        let validity = Validity::days(now, CA_DAYS)?;
        let not_after = validity.not_after.min(self.not_after());
        let mut params = CertificateParams::default();
        Validity { not_after, ..validity }.apply(&mut params)?;
        params.serial_number = Some(ca::random_serial()?);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        // A key purpose that is required of a leaf (RFC 5280 § 4.2.1.12) is looked for in the CAs above it, too.
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
            ExtendedKeyUsagePurpose::Other(token_signing_oid()),
        ];
        params.subject_alt_names = vec![ca::uri_san(&format!("spiffe://{cluster}"))?];
        let shown = |id: &str| id.chars().take(SHOWN).collect::<String>();
        let name = format!("p2p-core cluster {} CA of {}", shown(cluster.as_str()), shown(node.as_str()));
        params.distinguished_name = ca::common_name(&name);
        let value = Utf8String::from(node.as_str()).to_der_vec().map_err(|_| CaError::PublicKey)?;
        params.custom_extensions.push(CustomExtension::from_oid_content(&coordinator_oid(), value));
        Ok(params.signed_by(&key, self.issuer())?.into())
    }
}

/// The key of a joining coordinator's own CA that waits for its certificate. Its `Debug` shows no key.
pub struct PendingCa {
    path: PathBuf,
    key_pem: String,
    csr: Vec<u8>,
}

impl PendingCa {
    /// The key of an earlier try, or a new one, durable once this returns; with the request for `node`'s CA.
    /// Refuses to begin where a CA key is in force.
    ///
    /// # Errors
    ///
    /// [`EnrolledError::CaKeyExists`], [`EnrolledError::PendingKey`], or what reading and writing fail with.
    pub fn prepare(files: &IdentityFiles, node: &NodeId) -> Result<Self, EnrolledError> {
        if files.ca_key.exists() {
            return Err(EnrolledError::CaKeyExists(files.ca_key.clone()));
        }
        let path = pending(&files.ca_key);
        let key_pem = if path.exists() {
            String::from_utf8_lossy(&pem::read(&path)?).into_owned()
        } else {
            let pem = KeyPair::generate()?.serialize_pem();
            write_all(vec![NewFile::key(path.clone(), pem.clone(), false)])?;
            pem
        };
        let unusable = |reason| EnrolledError::PendingKey { path: path.clone(), reason };
        NodeKey::from_pem(key_pem.as_bytes()).map_err(unusable)?;
        let pair = KeyPair::from_pem(&key_pem).map_err(|_| unusable(InvalidKey::Kind))?;
        Ok(Self { csr: csr::request(node, &pair)?, path, key_pem })
    }

    /// The certificate signing request for it, DER.
    pub fn csr(&self) -> &[u8] {
        &self.csr
    }

    /// Where the key waits.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether `chain` (the CA's certificate first) makes a CA of `node` out of the key that `trust` believes:
    /// tried by issuing with it. Returns the chain as PEM.
    pub(super) fn check(
        &self,
        chain: &[Vec<u8>],
        node: &NodeId,
        trust: &Trust,
        now: UnixTime,
    ) -> Result<String, EnrolledError> {
        check(&self.key_pem, chain, node, trust, now)
    }
}

fn check(
    key_pem: &str,
    chain: &[Vec<u8>],
    node: &NodeId,
    trust: &Trust,
    now: UnixTime,
) -> Result<String, EnrolledError> {
    let first = chain.first().ok_or(EnrolledError::NoCa)?;
    let pem: String = chain.iter().map(|der| pem::to_text(der)).collect();
    let own = Ca::from_issuer_pem(&pem, key_pem)?;
    if coordinator_of(first).as_ref() != Some(node) {
        return Err(EnrolledError::OtherCoordinator { node: node.clone() });
    }
    let spiffe = SpiffeId::new(trust.cluster_id().clone(), Role::Coordinator, node.clone());
    trust.verify(&own.prove(&spiffe, now)?, Usage::Server, now)?;
    Ok(pem)
}

/// The own CA of a coordinator that joined, with a proof that its holder has the key.
#[derive(Debug)]
pub struct OwnCa {
    ca: Ca,
    proof: Vec<Vec<u8>>,
}

impl OwnCa {
    /// The own CA of `holder`; none where there is none, as at workers and holders of a root.
    ///
    /// # Errors
    ///
    /// When it is there and cannot be read.
    pub fn load(files: &IdentityFiles, holder: &SpiffeId, now: UnixTime) -> Result<Option<Self>, CaError> {
        if !files.issuer_cert().exists() || holder.role != Role::Coordinator {
            return Ok(None);
        }
        let ca = Ca::load(&files.ca_cert, &files.ca_key)?;
        Ok(Some(Self { proof: ca.prove(holder, now)?, ca }))
    }

    /// A certificate that it has just issued for its holder, and what goes behind that, DER.
    pub fn proof(&self) -> &[Vec<u8>] {
        &self.proof
    }

    /// Whether two thirds of its life are over.
    pub fn is_old(&self, now: UnixTime) -> bool {
        let third = u64::from(CA_DAYS) * 24 * 60 * 60 / 3;
        self.ca.not_after().as_secs() < now.as_secs().saturating_add(third)
    }

    /// Whether it is below another root than the one that issues.
    pub fn is_below_another(&self, bundle: &Bundle, now: UnixTime) -> bool {
        !leads_to(&self.proof, bundle.cluster_id(), &bundle.roots()[0], now)
    }
}

/// Puts a new certificate of a coordinator's own CA, for the same key, in the place of the old one.
///
/// # Errors
///
/// When `trust` would not believe what it issues, or writing fails; the old one stays.
pub fn install(
    files: &IdentityFiles,
    own: &OwnCa,
    chain: &[Vec<u8>],
    trust: &Trust,
    now: UnixTime,
) -> Result<(), EnrolledError> {
    let node = own.ca.coordinator().ok_or(EnrolledError::NoCa)?;
    let pem = check(&own.ca.key_pem(), chain, node, trust, now)?;
    write_all(vec![NewFile::certificate(files.issuer_cert(), pem, true)])?;
    Ok(())
}

impl fmt::Debug for PendingCa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PendingCa").field("path", &self.path).finish_non_exhaustive()
    }
}

/// Completes a join that was cut off when the CA's certificate was there and its key still waited.
/// Returns whether it did.
pub(super) fn complete(files: &IdentityFiles) -> Result<bool, EnrolledError> {
    let (path, cert) = (pending(&files.ca_key), files.issuer_cert());
    if !cert.exists() || files.ca_key.exists() || !path.exists() {
        return Ok(false);
    }
    let certificate = pem::read_certificates(&cert)?.swap_remove(0);
    let key = NodeKey::from_pem(&pem::read(&path)?)
        .map_err(|reason| EnrolledError::PendingKey { path: path.clone(), reason })?;
    if !key.belongs_to(parse_x509(&certificate)?.public_key().raw) {
        return Ok(false);
    }
    super::write::rename(&path, &files.ca_key)?;
    Ok(true)
}

fn pending(ca_key: &Path) -> PathBuf {
    let mut name = ca_key.as_os_str().to_owned();
    name.push(".joining");
    PathBuf::from(name)
}
