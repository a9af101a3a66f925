//! One upstream as it was configured or registered.

use super::{descriptors::MAX_BYTES, problem::Problem};
use crate::{
    config::{HealthCheck, ServiceConfig, UpstreamUrl},
    identity::tls::provider,
};
use bytes::Bytes;
use p2p_core::ServiceName;
use rustls::{ClientConfig, RootCertStore, version::TLS12, version::TLS13};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use std::{
    fs::File,
    io::{self, Read as _},
    num::NonZeroU32,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

/// Longest file of CA certificates, in bytes.
pub(super) const MAX_CA_BYTES: usize = 256 * 1024;

/// Why a configured service cannot be started with.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A file that the service names cannot be read.
    #[error("services: {service}: cannot read {}: {source}", .path.display())]
    Read {
        /// The service.
        service: ServiceName,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// What it names does not do.
    #[error("services: {service}: {problem}")]
    Unusable {
        /// The service.
        service: ServiceName,
        /// Why.
        problem: Problem,
    },
}

/// What is known of an upstream before it is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// The service that it implements.
    pub name: ServiceName,
    /// Where it listens.
    pub url: UpstreamUrl,
    /// Its `FileDescriptorSet`, if it is not to be asked.
    pub descriptors: Option<Bytes>,
    /// How it is checked.
    pub health: HealthCheck,
    /// Pause between checks.
    pub health_interval: Duration,
    /// Most calls at a time.
    pub max_concurrent: Option<NonZeroU32>,
    /// The CA certificates that it is checked against, as PEM.
    pub ca_pem: Option<Bytes>,
}

impl Spec {
    /// Reads the files that a configured service names. Blocks on the disk.
    ///
    /// # Errors
    ///
    /// When one cannot be read, or is too large.
    pub fn load(config: &ServiceConfig) -> Result<Self, LoadError> {
        let read = |path: &Path, limit| {
            read_bounded(path, limit).map_err(|source| LoadError::Read {
                service: config.name.clone(),
                path: path.to_owned(),
                source,
            })
        };
        let spec = Self {
            name: config.name.clone(),
            url: config.upstream.clone(),
            descriptors: config.descriptors.as_deref().map(|path| read(path, MAX_BYTES)).transpose()?,
            health: config.health,
            health_interval: config.health_interval,
            max_concurrent: config.max_concurrent,
            ca_pem: config.tls_ca.as_deref().map(|path| read(path, MAX_CA_BYTES)).transpose()?,
        };
        spec.tls().map_err(|problem| LoadError::Unusable { service: config.name.clone(), problem })?;
        Ok(spec)
    }

    /// TLS as the upstream is dialled with; `None` for plain HTTP/2.
    pub(super) fn tls(&self) -> Result<Option<Arc<ClientConfig>>, Problem> {
        if !self.url.tls {
            return Ok(None);
        }
        let unusable = |why: String| Problem::Ca(why);
        let pem = self.ca_pem.as_deref().unwrap_or_default();
        if pem.len() > MAX_CA_BYTES {
            return Err(unusable(format!("more than {MAX_CA_BYTES} bytes")));
        }
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate = certificate.map_err(|error| unusable(error.to_string()))?;
            roots.add(certificate).map_err(|error| unusable(error.to_string()))?;
        }
        if roots.is_empty() {
            return Err(unusable("no certificate in it".to_owned()));
        }
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13, &TLS12])
            .map_err(|error| unusable(error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Some(Arc::new(config)))
    }
}

fn read_bounded(path: &Path, limit: usize) -> io::Result<Bytes> {
    let mut bytes = Vec::new();
    File::open(path)?.take(limit as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > limit {
        let why = format!("it is larger than {limit} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidData, why));
    }
    Ok(bytes.into())
}
