//! A node's new certificate on disk: a new key for each renewal, and the two files replaced so that every
//! start in between finds a pair that belongs together.
//!
//! ```text
//! 1. <ssl_key_file>.renewing  the new key, 0600; kept over failures, so that a repeated try shows the same key
//! 2. ssl_cert_file            the new certificate, replaced by renaming
//! 3. <ssl_key_file>.renewing → ssl_key_file, by renaming; repeated at the next start if the process ends
//!    before it
//! ```

use super::{
    bundle::{Bundle, leads_to},
    certificate::PeerCertificate,
    enrolled::{Enrolled, EnrolledError, kept_key},
    key::NodeKey,
    local::{Identity, IdentityFiles},
    pem,
    trust::{TrustError, Usage},
    write::{NewFile, rename, write_all},
};
use p2p_core::NodeId;
use rcgen::KeyPair;
use rustls_pki_types::UnixTime;
use std::path::{Path, PathBuf};

/// What the new key of a recovery is signed for by the old one, before cluster and request. The zero byte ends
/// what is text, so that no other signature of the same key can pass for it.
const RECOVERY_CONTEXT: &[u8] = b"p2p.v1.Recover\0";

/// The message that proves a recovery: signed by the key of the expired certificate.
pub fn recovery_message(cluster: &p2p_core::ClusterId, csr: &[u8]) -> Vec<u8> {
    [RECOVERY_CONTEXT, cluster.as_str().as_bytes(), b"\0", csr].concat()
}

/// The key of a renewal that waits for its certificate.
#[derive(Debug)]
pub struct RenewalKey {
    path: PathBuf,
    key: NodeKey,
    csr: Vec<u8>,
}

impl RenewalKey {
    /// The key of an earlier try, or a new one, durable once this returns; with the request for `node`.
    ///
    /// # Errors
    ///
    /// What reading, making and writing may fail with.
    pub fn prepare(files: &IdentityFiles, node: &NodeId) -> Result<Self, EnrolledError> {
        let path = renewing(&files.key);
        let (key, csr) = match kept_key(&path, node) {
            // Nobody needs a key that is damaged.
            Err(EnrolledError::PendingKey { .. }) => {
                let pem = KeyPair::generate()?.serialize_pem();
                write_all(vec![NewFile::key(path.clone(), pem, true)])?;
                kept_key(&path, node)?
            }
            kept => kept?,
        };
        Ok(Self { path, key, csr })
    }

    /// The certificate signing request for it, DER.
    pub fn csr(&self) -> &[u8] {
        &self.csr
    }

    /// Checks what a coordinator answered to the holder of `present` and replaces certificate and key. The
    /// roots in the answer are not looked at: whom the node believes does not change by a renewal. With `root`, the
    /// certificate must lead to the root that issues there, and may end before the present one; else it must end later.
    ///
    /// # Errors
    ///
    /// What is wrong with the answer, and then no file has changed; or what writing failed with.
    pub fn install(
        self,
        files: &IdentityFiles,
        present: &Identity,
        answer: &Enrolled,
        root: Option<&Bundle>,
        now: UnixTime,
    ) -> Result<(), EnrolledError> {
        let leaf = answer.chain.first().ok_or(TrustError::NoCertificate)?;
        let certificate = PeerCertificate::parse(leaf)?;
        if !self.key.belongs_to(&certificate.public_key) {
            return Err(EnrolledError::OtherKey);
        }
        if certificate.spiffe != *present.spiffe() {
            let expected = present.spiffe().clone();
            return Err(EnrolledError::OtherNode { found: certificate.spiffe, expected });
        }
        for usage in [Usage::Client, Usage::Server] {
            present.trust().verify(&answer.chain, usage, now)?;
        }
        let gain = match root {
            None => certificate.not_after > present.not_after(),
            Some(bundle) => leads_to(&answer.chain, bundle.cluster_id(), &bundle.roots()[0], now),
        };
        if !gain {
            return Err(EnrolledError::NoGain(certificate.not_after));
        }
        let chain_pem: String = answer.chain.iter().map(|der| pem::to_text(der)).collect();
        write_all(vec![NewFile::certificate(files.cert.clone(), chain_pem, true)])?;
        Ok(rename(&self.path, &files.key)?)
    }
}

/// Completes a renewal that was cut off before its last step. Returns whether it did.
pub(super) fn complete(files: &IdentityFiles) -> Result<bool, EnrolledError> {
    let path = renewing(&files.key);
    if !files.cert.exists() || !path.exists() {
        return Ok(false);
    }
    let chain = pem::read_certificates(&files.cert)?;
    let Ok(key) = NodeKey::from_pem(&pem::read(&path)?) else { return Ok(false) };
    if !key.belongs_to(&PeerCertificate::parse(&chain[0])?.public_key) {
        return Ok(false);
    }
    rename(&path, &files.key)?;
    Ok(true)
}

fn renewing(key: &Path) -> PathBuf {
    let mut name = key.as_os_str().to_owned();
    name.push(".renewing");
    PathBuf::from(name)
}
