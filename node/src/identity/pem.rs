//! Reading PEM (RFC 7468) with limits, and errors that name the file.

use base64::Engine as _;
use rustls_pki_types::{CertificateDer, pem::PemObject};
use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

/// Longest certificate or key file that is read, in bytes.
pub const MAX_FILE_LEN: u64 = 1024 * 1024;

/// Most certificates in one file.
pub const MAX_CERTIFICATES: usize = 64;

/// Characters of base64 in a line (RFC 7468 § 2).
const LINE_LEN: usize = 64;

/// Why a file of certificates or a key could not be used. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// Opening or reading failed.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Longer than [`MAX_FILE_LEN`].
    #[error("{} is longer than {MAX_FILE_LEN} bytes", .0.display())]
    TooLong(PathBuf),
    /// Not PEM, no certificate in it, or more than [`MAX_CERTIFICATES`].
    #[error("{}: {reason}", path.display())]
    Certificates {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: NotCertificates,
    },
}

/// Why a PEM text does not hold certificates.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotCertificates {
    /// Not PEM.
    #[error("it is not valid PEM")]
    Encoding,
    /// No certificate.
    #[error("it holds no PEM certificate")]
    None,
    /// Too many.
    #[error("it holds more than {MAX_CERTIFICATES} certificates")]
    TooMany,
}

/// The bytes of a file, at most [`MAX_FILE_LEN`].
pub(super) fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    let failed = |source| FileError::Read { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(MAX_FILE_LEN + 1).read_to_end(&mut bytes)).map_err(failed)?;
    if bytes.len() as u64 > MAX_FILE_LEN {
        return Err(FileError::TooLong(path.to_owned()));
    }
    Ok(bytes)
}

/// All certificates of a PEM text, in order; at least one.
pub(crate) fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, NotCertificates> {
    let mut found = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        if found.len() == MAX_CERTIFICATES {
            return Err(NotCertificates::TooMany);
        }
        found.push(certificate.map_err(|_| NotCertificates::Encoding)?);
    }
    if found.is_empty() { Err(NotCertificates::None) } else { Ok(found) }
}

/// One certificate as PEM text (RFC 7468 § 5).
pub fn to_text(der: &[u8]) -> String {
    let encoded = base64::engine::general_purpose::STANDARD.encode(der);
    let mut text = "-----BEGIN CERTIFICATE-----\n".to_owned();
    for line in encoded.as_bytes().chunks(LINE_LEN) {
        text.extend(line.iter().copied().map(char::from));
        text.push('\n');
    }
    text + "-----END CERTIFICATE-----\n"
}

/// [`certificates`] of a file.
pub(super) fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, FileError> {
    certificates(&read(path)?).map_err(|reason| FileError::Certificates { path: path.to_owned(), reason })
}
