//! What can be wrong with this node's own identity.

use super::{
    certificate::InvalidCertificate,
    files::GenerateError,
    instant,
    key::InvalidKey,
    pem::FileError,
    trust::{InvalidRoots, TrustError},
};
use p2p_core::{ClusterId, NodeId, Role, SpiffeId};
use rustls_pki_types::UnixTime;
use std::{fmt, path::PathBuf};

/// One of the identity's files, named as in the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhichFile {
    /// `ssl_cert_file`
    Cert,
    /// `ssl_key_file`
    Key,
    /// `ssl_ca_cert_file`
    CaCert,
}

impl WhichFile {
    /// What to do when it is missing.
    pub(super) fn advice(self) -> &'static str {
        match self {
            Self::Cert | Self::Key => {
                "run `p2pctl certs generate` where the CA's key is and copy the node's certificate and key here"
            }
            Self::CaCert => "copy ca_cert.pem here; `p2pctl certs generate` made it beside the certificates",
        }
    }
}

impl fmt::Display for WhichFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cert => "ssl_cert_file",
            Self::Key => "ssl_key_file",
            Self::CaCert => "ssl_ca_cert_file",
        })
    }
}

/// Something to tell the operator that does not stop the node.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Warning {
    /// Others on the host can read the key.
    #[error("the private key {} can be read by others (mode {mode:03o}); run chmod 600 on it", path.display())]
    KeyReadable {
        /// The key's file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The node's own certificate ends soon, and its renewal is late.
    #[error(
        "the certificate of {node} ends on {}: its renewal is late; is a coordinator with the CA's key running? \
         `p2pctl doctor` says what to do",
        instant::rfc3339(*not_after)
    )]
    CertificateEnds {
        /// The node.
        node: NodeId,
        /// When it ends.
        not_after: UnixTime,
    },
    /// The CA's certificate ends soon, and every certificate below it with it.
    #[error(
        "the CA certificate in {} ends on {}, and every certificate of the cluster with it; make a new CA in time",
        path.display(), instant::rfc3339(*not_after)
    )]
    CaEnds {
        /// `ssl_ca_cert_file`.
        path: PathBuf,
        /// When it ends.
        not_after: UnixTime,
    },
    /// The certificate is self-signed and unlisted.
    #[error(
        "the certificate of {0} is self-signed and nobody trusts it: this node stands alone and joins no cluster"
    )]
    StandsAlone(NodeId),
}

/// Why the node has no usable identity. Nothing was changed; a running node keeps its former identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file is not there.
    #[error("{which} names {}, which does not exist; {}", path.display(), which.advice())]
    Missing {
        /// Which file.
        which: WhichFile,
        /// Its path.
        path: PathBuf,
    },
    /// A file could not be read as certificates.
    #[error("{which}: {source}")]
    File {
        /// Which file.
        which: WhichFile,
        /// What is wrong.
        source: FileError,
    },
    /// The key's file holds no usable key.
    #[error("ssl_key_file {}: {reason}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: InvalidKey,
    },
    /// The key is another certificate's.
    #[error("the key in {} does not belong to the certificate in {}; copy both files of the same node", key.display(), cert.display())]
    KeyMismatch {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// The node's certificate does not say who it is.
    #[error("the certificate in {} is unusable: {reason}", path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: InvalidCertificate,
    },
    /// It is another node's.
    #[error("the certificate in {} is {found}'s, but node_id is {expected}", path.display())]
    OtherNode {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        found: SpiffeId,
        /// The configured node id.
        expected: NodeId,
    },
    /// It is of another cluster.
    #[error("the certificate in {} belongs to cluster {}, but this node's cluster is {expected}", path.display(), found.cluster)]
    OtherCluster {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        found: SpiffeId,
        /// The configured cluster, or the running one at a reload.
        expected: ClusterId,
    },
    /// Its role and `coordinator_mode` disagree.
    #[error("the certificate in {} grants the role {}, but coordinator_mode asks for {expected}", path.display(), found.role)]
    OtherRole {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        found: SpiffeId,
        /// What the configuration asks for.
        expected: Role,
    },
    /// Its time is over.
    #[error(
        "the certificate in {} expired on {}; where the CA's key is, run `p2pctl certs generate --node {node} --force` and copy the files",
        path.display(), instant::rfc3339(*not_after)
    )]
    Expired {
        /// The file.
        path: PathBuf,
        /// The node, with its role as the command takes it.
        node: String,
        /// When it ended.
        not_after: UnixTime,
    },
    /// It does not verify.
    #[error("the certificate in {} is not accepted by ssl_ca_cert_file {}: {reason}", path.display(), ca_cert.display())]
    Untrusted {
        /// The certificate's file.
        path: PathBuf,
        /// The trusted certificates' file.
        ca_cert: PathBuf,
        /// Why not.
        reason: Box<TrustError>,
    },
    /// It is self-signed and not listed among the trusted ones.
    #[error(
        "the certificate in {} is self-signed and not listed in ssl_ca_cert_file {}; list it there, or set ssl_verify: false for a node that stands alone",
        path.display(), ca_cert.display()
    )]
    SelfSigned {
        /// The certificate's file.
        path: PathBuf,
        /// The trusted certificates' file.
        ca_cert: PathBuf,
    },
    /// The trusted certificates are unusable.
    #[error("ssl_ca_cert_file {}: {reason}", path.display())]
    Roots {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: InvalidRoots,
    },
    /// rustls does not take the chain or the key.
    #[error("TLS cannot use the certificate in {}: {source}", path.display())]
    Tls {
        /// The file.
        path: PathBuf,
        /// What rustls said.
        source: rustls::Error,
    },
    /// One of certificate and key exists.
    #[error("{} exists but {} does not; put the missing file back or move this one away (nothing is overwritten)", present.display(), missing.display())]
    Half {
        /// The file that exists.
        present: PathBuf,
        /// The one that does not.
        missing: PathBuf,
    },
    /// A worker without certificate.
    #[error(
        "node {node} has no certificate: {} (ssl_cert_file) does not exist; on the coordinator's host run `p2pctl certs generate --node {node}:worker` and copy {node}_cert.pem, {node}_key.pem and ca_cert.pem here, or on any host run `p2pctl cluster join-token create --node {node}` and start this node with --join TOKEN",
        path.display()
    )]
    NoCertificate {
        /// The node.
        node: NodeId,
        /// Where its certificate should be.
        path: PathBuf,
    },
    /// The node's first certificate could not be made.
    #[error("the node's certificate could not be made: {0}")]
    Generate(#[from] GenerateError),
}
