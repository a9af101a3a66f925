//! The new node's side of an enrolment on disk: its key before the certificate is there, and the three files
//! afterwards.
//!
//! ```text
//! 1. <ssl_key_file>.joining   the key, 0600; kept over failures, so that a repeated try shows the same key
//! 2. ssl_ca_cert_file         the pinned roots, unless the file has them already
//! 3. ssl_cert_file            the certificate; before it, on a coordinator, its CA's (`ca_issuer_cert.pem`)
//! 4. <ssl_key_file>.joining → ssl_key_file, by renaming: the last step, and repeated at the next start if
//!    the process ends before it. Before it, on a coordinator, the same with ssl_ca_key_file
//! ```

use super::{
    authority::{self, PendingCa},
    ca::CaError,
    certificate::{InvalidCertificate, PeerCertificate},
    csr, instant,
    key::{InvalidKey, NodeKey},
    local::IdentityFiles,
    pem::{self, FileError},
    pinned::pin_of,
    renewed,
    trust::{InvalidRoots, Trust, TrustError, Usage},
    write::{NewFile, WriteError, rename, write_all},
};
use crate::identity::{JoinToken, RootPin};
use p2p_core::{NodeId, SpiffeId};
use rcgen::KeyPair;
use rustls_pki_types::{CertificateDer, UnixTime};
use std::path::{Path, PathBuf};

/// Why an enrolment cannot be prepared, or its answer not be taken. Certificate files are as they were.
#[derive(Debug, thiserror::Error)]
pub enum EnrolledError {
    /// Reading a file failed.
    #[error(transparent)]
    File(#[from] FileError),
    /// The kept key is unusable.
    #[error("the key {} of an earlier try is unusable ({reason}); remove the file", path.display())]
    PendingKey {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: InvalidKey,
    },
    /// Trusted certificates of another cluster are there already.
    #[error("{} (ssl_ca_cert_file) exists and holds no CA that the join token pins; move it away to join another cluster", .0.display())]
    OtherCa(PathBuf),
    /// A CA key is in force.
    #[error(
        "{} (ssl_ca_key_file) exists, and a coordinator that joins makes a CA key of its own; move it away to join",
        .0.display()
    )]
    CaKeyExists(PathBuf),
    /// The answer holds no CA.
    #[error(
        "the coordinator's answer holds no CA certificate for this node; it runs a release that is too old"
    )]
    NoCa,
    /// The CA's certificate in the answer is unusable.
    #[error("the CA certificate in the coordinator's answer is unusable: {0}")]
    Ca(#[from] CaError),
    /// It is another coordinator's CA.
    #[error("the CA certificate in the coordinator's answer is not one of coordinator {node}")]
    OtherCoordinator {
        /// Whose it should be.
        node: NodeId,
    },
    /// The key could not be made.
    #[error("the key could not be made: {0}")]
    Make(#[from] rcgen::Error),
    /// Writing failed; what the same step had newly created is removed again.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// None of the roots in the answer is pinned.
    #[error("the coordinator's answer holds no CA certificate that the join token pins")]
    NoPinnedRoot,
    /// The roots are unusable.
    #[error("the coordinator's answer is unusable: {0}")]
    Roots(#[from] InvalidRoots),
    /// The certificate is unusable.
    #[error("the certificate in the coordinator's answer is unusable: {0}")]
    Certificate(#[from] InvalidCertificate),
    /// It is for another key.
    #[error("the coordinator answered with a certificate for another key than this node's")]
    OtherKey,
    /// It is another node's.
    #[error("the coordinator answered with the certificate of {found}, expected {expected}")]
    OtherNode {
        /// Whose it is.
        found: SpiffeId,
        /// Whose it should be.
        expected: SpiffeId,
    },
    /// It ends no later than the one in force.
    #[error("the new certificate ends on {}, no later than the present one; does the CA itself end?", instant::rfc3339(*.0))]
    NoGain(UnixTime),
    /// It does not chain to a trusted root.
    #[error("the certificate in the coordinator's answer is not to be believed: {0}")]
    Untrusted(#[from] TrustError),
}

/// A node's key that waits for its certificate.
#[derive(Debug)]
pub struct PendingKey {
    path: PathBuf,
    key: NodeKey,
    csr: Vec<u8>,
    ca: Option<PendingCa>,
}

impl PendingKey {
    /// The key of an earlier try, or a new one, durable once this returns; with the request for `node`.
    /// Refuses to begin where trusted certificates of another cluster are.
    ///
    /// # Errors
    ///
    /// [`EnrolledError::OtherCa`], [`EnrolledError::PendingKey`], or what reading and writing may fail with.
    pub fn prepare(files: &IdentityFiles, node: &NodeId, pins: &[RootPin]) -> Result<Self, EnrolledError> {
        if files.ca_cert.exists() && !holds_pinned(&pem::read_certificates(&files.ca_cert)?, pins) {
            return Err(EnrolledError::OtherCa(files.ca_cert.clone()));
        }
        let path = pending(&files.key);
        let (key, csr) = kept_key(&path, node)?;
        Ok(Self { path, key, csr, ca: None })
    }

    /// The same for a coordinator, which joins with a CA of its own.
    pub fn with_ca(self, ca: PendingCa) -> Self {
        Self { ca: Some(ca), ..self }
    }

    /// The certificate signing request for the coordinator's own CA, DER; empty for a worker.
    pub fn ca_csr(&self) -> &[u8] {
        self.ca.as_ref().map_or(&[], PendingCa::csr)
    }

    /// The certificate signing request for it, DER.
    pub fn csr(&self) -> &[u8] {
        &self.csr
    }

    /// Checks what a coordinator answered and writes the node's three files, as the module says.
    ///
    /// # Errors
    ///
    /// What is wrong with the answer, or what writing failed with; without its key a certificate that was
    /// written is completed at the next start.
    pub fn install(
        self,
        files: &IdentityFiles,
        token: &JoinToken,
        node: &NodeId,
        answer: &Enrolled,
        now: UnixTime,
    ) -> Result<(), EnrolledError> {
        let pinned = |der: &&Vec<u8>| pin_of(der).is_some_and(|pin| token.pins.contains(&pin));
        let roots: Vec<CertificateDer<'static>> =
            answer.roots.iter().filter(pinned).map(|der| CertificateDer::from(der.clone())).collect();
        if roots.is_empty() {
            return Err(EnrolledError::NoPinnedRoot);
        }
        let leaf = answer.chain.first().ok_or(TrustError::NoCertificate)?;
        let certificate = PeerCertificate::parse(leaf)?;
        if !self.key.belongs_to(&certificate.public_key) {
            return Err(EnrolledError::OtherKey);
        }
        let expected = SpiffeId::new(token.cluster.clone(), token.role, node.clone());
        if certificate.spiffe != expected {
            return Err(EnrolledError::OtherNode { found: certificate.spiffe, expected });
        }
        let ca_pem: String = roots.iter().map(|root| pem::to_text(root)).collect();
        let trust = Trust::new(token.cluster.clone(), roots)?;
        for usage in [Usage::Client, Usage::Server] {
            trust.verify(&answer.chain, usage, now)?;
        }
        let ca = self.ca.as_ref().map(|ca| ca.check(&answer.ca_chain, node, &trust, now)).transpose()?;
        let chain_pem: String = answer.chain.iter().map(|der| pem::to_text(der)).collect();
        let mut new = Vec::new();
        if !files.ca_cert.exists() {
            new.push(NewFile::certificate(files.ca_cert.clone(), ca_pem, false));
        }
        // Without its key, which is not there yet, what an earlier try left is of no use.
        new.extend(ca.map(|pem| NewFile::certificate(files.issuer_cert(), pem, true)));
        new.push(NewFile::certificate(files.cert.clone(), chain_pem, false));
        write_all(new)?;
        if let Some(ca) = &self.ca {
            rename(ca.path(), &files.ca_key)?;
        }
        Ok(rename(&self.path, &files.key)?)
    }
}

/// What a coordinator answers to an enrolment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enrolled {
    /// DER, the node's certificate first.
    pub chain: Vec<Vec<u8>>,
    /// DER.
    pub roots: Vec<Vec<u8>>,
    /// DER, the certificate of the coordinator's own CA first; empty for a worker.
    pub ca_chain: Vec<Vec<u8>>,
}

/// The key that is kept in `path`, made if there is none, and the request of `node` for it.
pub(super) fn kept_key(path: &Path, node: &NodeId) -> Result<(NodeKey, Vec<u8>), EnrolledError> {
    let pem = if path.exists() {
        String::from_utf8_lossy(&pem::read(path)?).into_owned()
    } else {
        let pem = KeyPair::generate()?.serialize_pem();
        write_all(vec![NewFile::key(path.to_owned(), pem.clone(), false)])?;
        pem
    };
    let unusable = |reason| EnrolledError::PendingKey { path: path.to_owned(), reason };
    let key = NodeKey::from_pem(pem.as_bytes()).map_err(unusable)?;
    let pair = KeyPair::from_pem(&pem).map_err(|_| unusable(InvalidKey::Kind))?;
    Ok((key, csr::request(node, &pair)?))
}

/// Completes an enrolment or renewal that was cut off before its last step: certificate there, key still
/// under its first name. Returns whether it did.
///
/// # Errors
///
/// When the files cannot be read or renamed.
pub fn complete(files: &IdentityFiles) -> Result<bool, EnrolledError> {
    let ca = authority::complete(files)?;
    let path = pending(&files.key);
    if !files.cert.exists() || files.key.exists() || !path.exists() {
        return Ok(renewed::complete(files)? || ca);
    }
    let chain = pem::read_certificates(&files.cert)?;
    let key = NodeKey::from_pem(&pem::read(&path)?)
        .map_err(|reason| EnrolledError::PendingKey { path: path.clone(), reason })?;
    if !key.belongs_to(&PeerCertificate::parse(&chain[0])?.public_key) {
        return Ok(ca);
    }
    rename(&path, &files.key)?;
    Ok(true)
}

fn pending(key: &Path) -> PathBuf {
    let mut name = key.as_os_str().to_owned();
    name.push(".joining");
    PathBuf::from(name)
}

fn holds_pinned(roots: &[CertificateDer<'_>], pins: &[RootPin]) -> bool {
    roots.iter().any(|root| pin_of(root).is_some_and(|pin| pins.contains(&pin)))
}
