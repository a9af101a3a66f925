//! TLS towards a node, from certificates as PEM.

use crate::{
    connection::ConnectOptions,
    endpoint::Endpoint,
    error::{ConnectError, files_error},
};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
};
use std::sync::Arc;

/// What every connection of `options` is opened with.
///
/// # Errors
///
/// When there is no CA to trust, or a file cannot be used.
pub(crate) fn client_config(options: &ConnectOptions) -> Result<Arc<ClientConfig>, ConnectError> {
    let files = |reason: &str| ConnectError::Files { reason: reason.to_owned() };
    let certificates = |pem| CertificateDer::pem_slice_iter(pem).filter_map(Result::ok);
    let ca_pem = options.ca_pem.as_deref().ok_or(ConnectError::NoCa)?;
    let mut roots = RootCertStore::empty();
    if roots.add_parsable_certificates(certificates(ca_pem)).0 == 0 {
        return Err(files("the CA file contains no PEM certificate"));
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| files_error(&error))?
        .with_root_certificates(roots);
    let mut config = match &options.identity {
        None => builder.with_no_client_auth(),
        Some(identity) => {
            let chain: Vec<_> = certificates(identity.cert_pem.as_slice()).collect();
            if chain.is_empty() {
                return Err(files("the certificate file contains no PEM certificate"));
            }
            let key = PrivateKeyDer::from_pem_slice(&identity.key_pem)
                .map_err(|_| files("the key file contains no PEM private key"))?;
            builder.with_client_auth_cert(chain, key).map_err(|error| files_error(&error))?
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

/// The name that the node's certificate must carry.
pub(crate) fn server_name(endpoint: &Endpoint) -> Option<ServerName<'static>> {
    let authority = endpoint.authority();
    let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
    ServerName::try_from(host.trim_matches(['[', ']']).to_owned()).ok()
}
