//! This node's own identity: certificate, key and trust, loaded from files and checked as a whole.

use super::{
    authority::issuer_cert_path,
    bans::Bans,
    ca::San,
    certificate::{self, PeerCertificate},
    error::{IdentityError, Warning, WhichFile},
    inspect, instant,
    key::NodeKey,
    pem::{self, FileError},
    schedule, tls,
    trust::{Trust, TrustError, Usage},
};
use p2p_core::{ClusterId, NodeId, Role, SpiffeId};
use rustls::{ClientConfig, ServerConfig};
use rustls_pki_types::{CertificateDer, UnixTime};
use std::{
    fmt, fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

/// From when on before its end a certificate is warned of.
const WARN_BEFORE: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Where the identity lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityFiles {
    /// `ssl_cert_file`: the node's certificate, then intermediates if there are any.
    pub cert: PathBuf,
    /// `ssl_key_file`: its private key.
    pub key: PathBuf,
    /// `ssl_ca_cert_file`: the trusted certificates.
    pub ca_cert: PathBuf,
    /// `ssl_ca_key_file`: the CA's key, on coordinators.
    pub ca_key: PathBuf,
}

impl IdentityFiles {
    /// Where a coordinator that joined keeps the certificate of its own CA, beside that CA's key.
    pub fn issuer_cert(&self) -> PathBuf {
        issuer_cert_path(&self.ca_key)
    }
}

/// What the configuration says about the node; its certificate must agree.
#[derive(Clone, Debug)]
pub struct Expected {
    /// `node_id`.
    pub node_id: NodeId,
    /// `cluster_id`, if it is set.
    pub cluster_id: Option<ClusterId>,
    /// `coordinator_mode`.
    pub coordinator: bool,
    /// `ssl_verify: false`: a self-signed certificate that nobody trusts is accepted, and the node stands
    /// alone.
    pub may_stand_alone: bool,
}

/// Certificate, key and trust of this node, and the TLS configurations made from them. Immutable: a renewal
/// makes a new one.
pub struct Identity {
    certificate: PeerCertificate,
    chain: Vec<CertificateDer<'static>>,
    key: NodeKey,
    trust: Arc<Trust>,
    server: Arc<ServerConfig>,
    peer_client: Arc<ClientConfig>,
    warnings: Vec<Warning>,
    stands_alone: bool,
    ca_not_after: Option<UnixTime>,
}

impl Identity {
    /// Reads the files and checks everything: PEM, key and certificate belong together, node, cluster and
    /// role are the configured ones, issued below `ca_cert`, in time at `now`.
    pub fn load(files: &IdentityFiles, expected: &Expected, now: UnixTime) -> Result<Self, IdentityError> {
        Self::load_with(files, expected, Bans::default(), now)
    }

    /// [`Self::load`], with a trust that believes nobody whom `bans` shows. A node's own certificate is not
    /// held against them: that is for its peers to judge.
    pub fn load_with(
        files: &IdentityFiles,
        expected: &Expected,
        bans: Bans,
        now: UnixTime,
    ) -> Result<Self, IdentityError> {
        let chain = read(WhichFile::Cert, &files.cert, pem::read_certificates)?;
        let key_pem = read(WhichFile::Key, &files.key, pem::read)?;
        let key = NodeKey::from_pem(&key_pem)
            .map_err(|reason| IdentityError::Key { path: files.key.clone(), reason })?;
        let certificate = PeerCertificate::parse(&chain[0])
            .map_err(|reason| IdentityError::Certificate { path: files.cert.clone(), reason })?;
        if !key.belongs_to(&certificate.public_key) {
            return Err(IdentityError::KeyMismatch { cert: files.cert.clone(), key: files.key.clone() });
        }
        check_name(&certificate.spiffe, expected, &files.cert)?;
        let (trust, stands_alone) = trust(files, expected, &chain, &certificate.spiffe, now)?;
        let trust = Arc::new(trust.with_bans(bans));

        let mut warnings: Vec<Warning> = readable_key(&files.key).into_iter().collect();
        if stands_alone {
            warnings.push(Warning::StandsAlone(expected.node_id.clone()));
        }
        let tls = |source| IdentityError::Tls { path: files.cert.clone(), source };
        let root = trust.root_of(&chain, now).cloned();
        let ca_not_after = root.as_ref().and_then(|root| end_of(root));
        warnings.extend(ends_soon(files, &certificate, ca_not_after, now));
        // Whoever joins meets a coordinator first, and must see the root whose key its join token pins.
        let root = root.filter(|_| certificate.spiffe.role == Role::Coordinator);
        let server = tls::server_config(chain.clone(), root, &key, Arc::clone(&trust)).map_err(tls)?;
        let peer_client = tls::peer_client_config(chain.clone(), &key, Arc::clone(&trust)).map_err(tls)?;
        Ok(Self { certificate, chain, key, trust, server, peer_client, warnings, stands_alone, ca_not_after })
    }

    /// Who we are.
    pub fn spiffe(&self) -> &SpiffeId {
        &self.certificate.spiffe
    }

    /// Our cluster.
    pub fn cluster_id(&self) -> &ClusterId {
        &self.certificate.spiffe.cluster
    }

    /// What our certificate says.
    pub fn certificate(&self) -> &PeerCertificate {
        &self.certificate
    }

    /// Our chain, leaf first, without the root: what peers need to verify what we [`sign`](Self::sign).
    pub fn chain_der(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// Last second of our certificate's validity.
    pub fn not_after(&self) -> UnixTime {
        self.certificate.not_after
    }

    /// Last second of the CA that vouches for our certificate; `None` for a stand-alone one.
    pub fn ca_not_after(&self) -> Option<UnixTime> {
        self.ca_not_after
    }

    /// When our certificate is to be renewed.
    pub fn renewal_time(&self) -> UnixTime {
        schedule::renewal_time(&self.certificate, &self.chain[0])
    }

    /// The names in our certificate, beside the SPIFFE id.
    pub fn names(&self) -> Vec<San> {
        let described = inspect::describe(&self.chain[0], self.not_after()).into_iter();
        described
            .flat_map(|info| {
                let names = info.dns_names.into_iter().map(San::Dns);
                names.chain(info.ip_addresses.into_iter().map(San::Ip)).collect::<Vec<_>>()
            })
            .collect()
    }

    /// TLS for dialling nodes of our cluster without showing a certificate: ours has expired.
    ///
    /// # Errors
    ///
    /// When rustls does not offer TLS 1.3: a defect.
    pub fn anonymous_client_config(&self) -> Result<Arc<ClientConfig>, rustls::Error> {
        tls::anonymous_client_config(self.trust())
    }

    /// TLS for the listener: client certificates optional, verified if presented; ALPN `h2`, `http/1.1`.
    pub fn server_config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.server)
    }

    /// TLS for dialling nodes: accepts nodes of our cluster whatever name was dialled; ALPN `h2`.
    pub fn peer_client_config(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.peer_client)
    }

    /// Signs with our key: ECDSA P-256, SHA-256, ASN.1 DER; [`Trust::verify_signed`] verifies.
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.key.sign(message)
    }

    /// Whom we believe.
    pub fn trust(&self) -> Arc<Trust> {
        Arc::clone(&self.trust)
    }

    /// What the operator should know.
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    /// Whether our certificate is self-signed and unlisted: such a node joins, forwards and counts as a
    /// node principal nowhere.
    pub fn stands_alone(&self) -> bool {
        self.stands_alone
    }

    /// Whether both have the same certificate (and so key) and trust.
    pub(super) fn is_same_as(&self, other: &Identity) -> bool {
        self.chain == other.chain && self.trust.roots() == other.trust.roots()
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let not_after = instant::rfc3339(self.not_after());
        f.debug_struct("Identity")
            .field("spiffe", self.spiffe())
            .field("not_after", &not_after)
            .finish_non_exhaustive()
    }
}

fn read<T>(
    which: WhichFile,
    path: &Path,
    read: impl FnOnce(&Path) -> Result<T, FileError>,
) -> Result<T, IdentityError> {
    read(path).map_err(|error| match error {
        FileError::Read { path, source } if source.kind() == io::ErrorKind::NotFound => {
            IdentityError::Missing { which, path }
        }
        source @ (FileError::Read { .. } | FileError::TooLong(_) | FileError::Certificates { .. }) => {
            IdentityError::File { which, source }
        }
    })
}

fn check_name(found: &SpiffeId, expected: &Expected, path: &Path) -> Result<(), IdentityError> {
    let (path, found) = (path.to_owned(), found.clone());
    let role = if expected.coordinator { Role::Coordinator } else { Role::Worker };
    match &expected.cluster_id {
        Some(cluster) if *cluster != found.cluster => {
            return Err(IdentityError::OtherCluster { path, found, expected: cluster.clone() });
        }
        Some(_) | None => {}
    }
    if found.name != expected.node_id {
        return Err(IdentityError::OtherNode { path, found, expected: expected.node_id.clone() });
    }
    if found.role != role {
        return Err(IdentityError::OtherRole { path, found, expected: role });
    }
    Ok(())
}

/// The trusted certificates, once they accept our own chain; and whether only we ourselves do.
fn trust(
    files: &IdentityFiles,
    expected: &Expected,
    chain: &[CertificateDer<'static>],
    spiffe: &SpiffeId,
    now: UnixTime,
) -> Result<(Trust, bool), IdentityError> {
    let self_signed = is_self_issued(&chain[0]);
    let mut roots = match read(WhichFile::CaCert, &files.ca_cert, pem::read_certificates) {
        Err(IdentityError::Missing { .. }) if self_signed => Vec::new(),
        read => read?,
    };
    let stands_alone = self_signed && !roots.contains(&chain[0]);
    if stands_alone {
        if !expected.may_stand_alone {
            let (path, ca_cert) = (files.cert.clone(), files.ca_cert.clone());
            return Err(IdentityError::SelfSigned { path, ca_cert });
        }
        roots.push(chain[0].clone());
    }
    let trust = Trust::new(spiffe.cluster.clone(), roots)
        .map_err(|reason| IdentityError::Roots { path: files.ca_cert.clone(), reason })?;
    for usage in [Usage::Client, Usage::Server] {
        trust.verify(chain, usage, now).map_err(|reason| refused(files, reason))?;
    }
    Ok((trust, stands_alone))
}

fn refused(files: &IdentityFiles, reason: TrustError) -> IdentityError {
    let path = files.cert.clone();
    match reason {
        TrustError::Expired(peer) => {
            let node = format!("{}:{}", peer.spiffe.name, peer.spiffe.role);
            IdentityError::Expired { path, node, not_after: peer.not_after }
        }
        reason @ (TrustError::NoCertificate
        | TrustError::LongChain(_)
        | TrustError::Certificate(_)
        | TrustError::OtherCluster { .. }
        | TrustError::WrongRole { .. }
        | TrustError::OtherCa { .. }
        | TrustError::OtherCoordinator { .. }
        | TrustError::NotYetValid(_)
        | TrustError::Chain { .. }
        | TrustError::Banned(_)
        | TrustError::Signature(_)) => {
            IdentityError::Untrusted { path, ca_cert: files.ca_cert.clone(), reason: Box::new(reason) }
        }
    }
}

/// Last second of a certificate.
fn end_of(der: &[u8]) -> Option<UnixTime> {
    let x509 = certificate::parse_x509(der).ok()?;
    Some(instant::from_seconds(x509.validity().not_after.timestamp()))
}

/// What ends within [`WARN_BEFORE`]. A certificate that is due for renewal only later is as it should be.
fn ends_soon(
    files: &IdentityFiles,
    certificate: &PeerCertificate,
    ca_not_after: Option<UnixTime>,
    now: UnixTime,
) -> Vec<Warning> {
    let soon = |at: UnixTime| schedule::left(at, now) < WARN_BEFORE;
    let late = schedule::left(certificate.not_after, now) < schedule::life(certificate) / 4;
    let mut warnings = Vec::new();
    if soon(certificate.not_after) && late {
        let node = certificate.spiffe.name.clone();
        warnings.push(Warning::CertificateEnds { node, not_after: certificate.not_after });
    }
    if let Some(not_after) = ca_not_after.filter(|at| soon(*at)) {
        warnings.push(Warning::CaEnds { path: files.ca_cert.clone(), not_after });
    }
    warnings
}

fn is_self_issued(der: &[u8]) -> bool {
    certificate::parse_x509(der).is_ok_and(|x509| x509.subject().as_raw() == x509.issuer().as_raw())
}

fn readable_key(path: &Path) -> Option<Warning> {
    let mode = fs::metadata(path).ok()?.permissions().mode() & 0o777;
    (mode & 0o077 != 0).then(|| Warning::KeyReadable { path: path.to_owned(), mode })
}
