//! The files of a CA's rotation, at the coordinator that holds the root's key. Each step can be repeated.
//!
//! ```text
//! <ssl_ca_key_file>.next              the new root's key, before it issues
//! <ssl_ca_key_file>                   the key of the root that issues
//! <ssl_ca_key_file>.retired-<serial>  the key before, kept to sign the bundle that drops its root
//! ```

use super::{
    bundle::{Bundle, BundleError, RootKey, needs_reissue},
    ca::{Ca, CaError, LeafRequest, San, Validity},
    inspect::inspect,
    local::{Identity, IdentityFiles},
    pem,
    write::{NewFile, WriteError, rename, write_all},
};
use p2p_core::ClusterId;
use rustls_pki_types::UnixTime;
use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

/// Validity of a new root, in days.
const ROOT_DAYS: u32 = 10 * 365;
/// How far a certificate that is issued anew is backdated.
const BACKDATE: Duration = Duration::from_secs(60 * 60);

/// Why a step was not done. It can be repeated.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// A CA.
    #[error(transparent)]
    Ca(#[from] CaError),
    /// A bundle.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// Writing.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The key is in none of the places where it may be.
    #[error("the key of the root is neither {} nor beside it; put it back", .0.display())]
    NoKey(PathBuf),
    /// Our own certificate cannot be read.
    #[error("this coordinator's own certificate cannot be read: {0}")]
    Own(#[from] super::VerifyError),
}

/// Makes the root that is to issue next; its key is durable once this returns. Whatever an earlier try left is
/// replaced: nothing refers to it yet.
///
/// # Errors
///
/// When the present root cannot be rotated (its key is not here, or not ECDSA P-256), or writing fails.
pub fn stage(files: &IdentityFiles, cluster: &ClusterId, now: UnixTime) -> Result<Staged, StepError> {
    let present = Ca::load(&files.ca_cert, &files.ca_key)?;
    if let Some(node) = present.coordinator() {
        return Err(CaError::NotARoot(node.clone()).into());
    }
    RootKey::of(&present)?;
    let new = Ca::generate(cluster, Validity::days(now, ROOT_DAYS)?)?;
    write_all(vec![NewFile::key(beside(&files.ca_key, "next"), new.key_pem(), true)])?;
    Ok(Staged { old: present.cert_pem().to_owned(), new: new.cert_pem().to_owned() })
}

/// The root that issues and the one that will, PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Staged {
    /// The one before.
    pub old: String,
    /// The new one.
    pub new: String,
}

/// The root `cert_pem` with its key, wherever in the rotation that lies.
///
/// # Errors
///
/// [`StepError::NoKey`].
pub fn root(files: &IdentityFiles, cert_pem: &str, serial: u64) -> Result<Ca, StepError> {
    let places = [files.ca_key.clone(), beside(&files.ca_key, "next"), retired(&files.ca_key, serial)];
    let read = |path: &PathBuf| pem::read(path).ok().map(|text| String::from_utf8_lossy(&text).into_owned());
    let found = places.iter().filter_map(read).find_map(|key| Ca::from_pem(cert_pem, &key).ok());
    found.ok_or_else(|| StepError::NoKey(files.ca_key.clone()))
}

/// Lets the new root issue: its key takes the place of the old one, which is kept.
///
/// # Errors
///
/// When the files cannot be linked or renamed.
pub fn switch(files: &IdentityFiles, serial: u64) -> Result<(), StepError> {
    let next = beside(&files.ca_key, "next");
    if !next.exists() {
        return Ok(());
    }
    let kept = retired(&files.ca_key, serial);
    match fs::hard_link(&files.ca_key, &kept) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(source) => return Err(WriteError { path: kept, source }.into()),
    }
    Ok(rename(&next, &files.ca_key)?)
}

/// Issues this coordinator's own certificate anew, for the same key, names and length of life, unless it leads to
/// the root that issues already. Returns whether it did; the caller reloads.
///
/// # Errors
///
/// When the CA cannot issue, or writing fails.
pub fn reissue_own(
    files: &IdentityFiles,
    identity: &Identity,
    bundle: &Bundle,
    now: UnixTime,
) -> Result<bool, StepError> {
    if !needs_reissue(identity, bundle, now) {
        return Ok(false);
    }
    let (ca, own) = (Ca::load(&files.ca_cert, &files.ca_key)?, identity.certificate());
    let leaf = identity.chain_der().first().map(|der| pem::to_text(der)).unwrap_or_default();
    let info = inspect(leaf.as_bytes(), now)?.swap_remove(0);
    let names = info.dns_names.into_iter().map(San::Dns);
    let life = own.not_after.as_secs().saturating_sub(own.not_before.as_secs());
    let since = Duration::from_secs(now.as_secs());
    let request = LeafRequest {
        spiffe: own.spiffe.clone(),
        sans: names.chain(info.ip_addresses.into_iter().map(San::Ip)).collect(),
        grant: own.grant.clone(),
        vouchers: Vec::new(),
        validity: Validity {
            not_before: UnixTime::since_unix_epoch(since.saturating_sub(BACKDATE)),
            not_after: UnixTime::since_unix_epoch(since.saturating_add(Duration::from_secs(life))),
        },
    };
    let certificate = ca.certify(&request, &own.public_key)?;
    let text: String = std::iter::once(&certificate).chain(ca.chain()).map(|der| pem::to_text(der)).collect();
    write_all(vec![NewFile::certificate(files.cert.clone(), text, true)])?;
    Ok(true)
}

fn beside(ca_key: &Path, ending: &str) -> PathBuf {
    let mut name = ca_key.as_os_str().to_owned();
    name.push(".");
    name.push(ending);
    PathBuf::from(name)
}

fn retired(ca_key: &Path, serial: u64) -> PathBuf {
    beside(ca_key, &format!("retired-{serial}"))
}
