//! What a backup of a CA holds: key, certificate and the cluster's roots. `p2pctl ca backup` puts it under a
//! passphrase; this module neither encrypts nor asks anybody, so that the daemon carries no second cryptography.
//!
//! A marker beside the CA's key tells later which key was backed up and when, so that `doctor` can nag; it says
//! nothing that helps a thief.

use super::{
    authority::issuer_cert_path,
    ca::{Ca, CaError},
    instant,
    pem::{self, FileError},
    pinned::pin_of,
    write::{NewFile, WriteError, write_all},
};
use aws_lc_rs::digest::{SHA256, digest};
use rcgen::{KeyPair, PublicKeyData as _};
use rustls_pki_types::{CertificateDer, UnixTime};
use serde::{Deserialize, Serialize};
use std::{
    fmt, io,
    path::{Path, PathBuf},
    time::Duration,
};

/// The version of the content that this release writes.
const VERSION: u32 = 1;
/// What the content says it is.
const FORMAT: &str = "p2p-core CA backup";

/// Why there is no backup, or nothing was restored. No file was changed unless it is [`BackupError::Write`].
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// Reading failed.
    #[error(transparent)]
    File(#[from] FileError),
    /// The CA is not one.
    #[error(transparent)]
    Ca(#[from] CaError),
    /// It opens, and holds something else.
    #[error("it opens, but it holds no backup of a CA")]
    NotABackup,
    /// Made by a newer release.
    #[error("the backup is of version {0}, and this release reads up to {VERSION}; use the newer p2pctl")]
    Newer(u32),
    /// There is a CA already.
    #[error("{} exists; a CA is never overwritten: move it away if this backup is to take its place", .0.display())]
    Exists(PathBuf),
    /// Writing failed; what the call had newly created is removed again.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// The last backup of the CA whose key lies in a directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastBackup {
    /// SHA-256 of the CA's public key, hexadecimal; a backup of another key does not count.
    pub ca_pin: String,
    /// When, Unix seconds.
    pub made_at: u64,
}

/// What a backup holds, among it the CA's private key. Its `Debug` does not show it.
#[derive(Serialize, Deserialize)]
pub struct Contents {
    format: String,
    version: u32,
    made_at: String,
    made_at_unix: u64,
    /// The CA's certificate; for a coordinator's own CA, then those above it below the root.
    ca_cert: String,
    ca_key: String,
    /// `ssl_ca_cert_file` as it was.
    roots: String,
    /// Whether the CA is a coordinator's own, below a root.
    below_a_root: bool,
}

/// What a backup is read with, to know whether it is of this format before the rest is looked at.
#[derive(Deserialize)]
struct Header {
    format: String,
    version: u32,
}

impl Contents {
    /// The CA of `ssl_ca_cert_file` and `ssl_ca_key_file`, after looking whether both belong together.
    ///
    /// # Errors
    ///
    /// Why the CA cannot be read.
    pub fn of(cert: &Path, key: &Path, now: UnixTime) -> Result<Self, BackupError> {
        let ca = Ca::load(cert, key)?;
        let chain: String = ca.chain().iter().map(|der| pem::to_text(der)).collect();
        Ok(Self {
            format: FORMAT.to_owned(),
            version: VERSION,
            made_at: instant::rfc3339(now),
            made_at_unix: now.as_secs(),
            below_a_root: !chain.is_empty(),
            ca_cert: if chain.is_empty() { ca.cert_pem().to_owned() } else { chain },
            ca_key: ca.key_pem(),
            roots: pem::read_certificates(cert)?.iter().map(|der| pem::to_text(der)).collect(),
        })
    }

    /// As it goes into the backup, unencrypted.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec_pretty(self).expect("plain fields serialize")
    }

    /// Reads what [`Self::to_bytes`] wrote.
    ///
    /// # Errors
    ///
    /// [`BackupError::NotABackup`] or [`BackupError::Newer`].
    pub fn parse(bytes: &[u8]) -> Result<Self, BackupError> {
        let header: Header = serde_json::from_slice(bytes).map_err(|_| BackupError::NotABackup)?;
        if header.format != FORMAT {
            return Err(BackupError::NotABackup);
        }
        if header.version > VERSION {
            return Err(BackupError::Newer(header.version));
        }
        serde_json::from_slice(bytes).map_err(|_| BackupError::NotABackup)
    }

    /// The CA in it: its key and certificate belong together.
    ///
    /// # Errors
    ///
    /// [`BackupError::Ca`] when they do not.
    pub fn ca(&self) -> Result<Ca, BackupError> {
        Ok(match self.below_a_root {
            true => Ca::from_issuer_pem(&self.ca_cert, &self.ca_key)?,
            false => Ca::from_pem(&self.ca_cert, &self.ca_key)?,
        })
    }

    /// When the backup was made, RFC 3339.
    pub fn made_at(&self) -> &str {
        &self.made_at
    }

    /// Writes the encrypted backup to `out`, which must not exist (mode 0600), and the marker beside the CA's
    /// key.
    ///
    /// # Errors
    ///
    /// [`BackupError::Exists`], or the disk's.
    pub fn save(&self, encrypted: String, out: &Path, ca_key: &Path) -> Result<(), BackupError> {
        if out.symlink_metadata().is_ok() {
            return Err(BackupError::Exists(out.to_owned()));
        }
        let marker = self.marker(&self.ca()?, ca_key);
        write_all(vec![NewFile::key(out.to_owned(), encrypted, false), marker])?;
        Ok(())
    }

    /// Restores the CA into the files of `ssl_ca_cert_file` and `ssl_ca_key_file`; keys get mode 0600. Trusted
    /// certificates that are there already stay if they hold the backup's. Returns the files, the key first.
    ///
    /// # Errors
    ///
    /// [`BackupError::Exists`] if there is a CA, or what is wrong with the contents.
    pub fn restore(self, cert: &Path, key: &Path) -> Result<Vec<PathBuf>, BackupError> {
        check_free(key)?;
        let ca = self.ca()?;
        let roots = pem::certificates(self.roots.as_bytes()).map_err(CaError::from)?;
        let marker = self.marker(&ca, key);
        let mut files = vec![NewFile::key(key.to_owned(), ca.key_pem(), false)];
        if self.below_a_root {
            files.push(NewFile::certificate(issuer_cert_path(key), self.ca_cert, false));
        }
        if !cert.exists() {
            files.push(NewFile::certificate(cert.to_owned(), self.roots, false));
        } else if !holds_all(&pem::read_certificates(cert)?, &roots) {
            return Err(BackupError::Exists(cert.to_owned()));
        }
        files.push(marker);
        let mut files = write_all(files)?;
        files.pop();
        Ok(files)
    }

    fn marker(&self, ca: &Ca, ca_key: &Path) -> NewFile {
        let last = LastBackup { ca_pin: pin(ca), made_at: self.made_at_unix };
        let text = serde_json::to_string_pretty(&last).expect("two plain fields serialize");
        NewFile::certificate(marker_path(ca_key), text + "\n", true)
    }
}

impl fmt::Debug for Contents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Contents").field("made_at", &self.made_at).finish_non_exhaustive()
    }
}

/// Fails if there is a CA whose place is that of `ca_key`: before anybody is asked for a passphrase.
///
/// # Errors
///
/// [`BackupError::Exists`].
pub fn check_free(ca_key: &Path) -> Result<(), BackupError> {
    let issuer = issuer_cert_path(ca_key);
    match [ca_key, &issuer].into_iter().find(|path| path.symlink_metadata().is_ok()) {
        Some(taken) => Err(BackupError::Exists(taken.to_owned())),
        None => Ok(()),
    }
}

fn holds_all(there: &[CertificateDer<'_>], roots: &[CertificateDer<'_>]) -> bool {
    roots.iter().all(|root| there.contains(root))
}

/// The last backup of the CA with this key, as far as the marker beside it tells: `None` if there was none, or
/// it was of another key (the CA was replaced since).
///
/// # Errors
///
/// When the key or the marker cannot be read.
pub fn last(ca_key: &Path) -> Result<Option<LastBackup>, BackupError> {
    let path = marker_path(ca_key);
    let text = match pem::read(&path) {
        Ok(text) => text,
        Err(FileError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let key = String::from_utf8_lossy(&pem::read(ca_key)?).into_owned();
    let key = KeyPair::from_pem(&key).map_err(|_| CaError::Key)?;
    let present = hex(digest(&SHA256, &key.subject_public_key_info()).as_ref());
    // A marker that does not read is no backup.
    let last: Option<LastBackup> = serde_json::from_slice(&text).ok();
    Ok(last.filter(|last| last.ca_pin == present))
}

impl LastBackup {
    /// When it was made.
    pub fn made_at(&self) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_secs(self.made_at))
    }
}

/// `ca_backup.json` beside `ca_key.pem`.
fn marker_path(ca_key: &Path) -> PathBuf {
    let stem = ca_key.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    ca_key.with_file_name(format!("{}_backup.json", stem.strip_suffix("_key").unwrap_or(&stem)))
}

/// SHA-256 of a CA's public key, hexadecimal.
pub fn pin(ca: &Ca) -> String {
    let der = pem::certificates(ca.cert_pem().as_bytes()).ok().map(|mut all| all.swap_remove(0));
    let pin = der.and_then(|der| pin_of(&der)).unwrap_or_default();
    hex(&pin)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
