//! Whom a node believes: the roots of its cluster, and the one place where certificates are verified.

use super::{
    bans::Bans,
    certificate::{self, InvalidCertificate, PeerCertificate},
    grant::TOKEN_SIGNING_OID_DER,
    instant, key,
    pinned::{RootPin, pin_of},
    tls,
};
use p2p_core::{ClusterId, NodeId, Role, SpiffeId};
use rustls::DistinguishedName;
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use std::fmt;
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};
use x509_parser::{certificate::X509Certificate, extensions::ParsedExtension};

/// Most certificates in a chain that is verified, leaf included.
pub const MAX_CHAIN: usize = 4;

/// Most roots that a node trusts.
pub const MAX_ROOTS: usize = 64;

/// What a certificate is about to be used for. Each usage admits certain roles and one extended key usage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    /// It was presented by a TLS client: a node or an admin.
    Client,
    /// It was presented by a TLS server that must be a node.
    Server,
    /// Its key signed what a node publishes.
    Manifest,
    /// Its key signs access tokens.
    TokenSigning,
}

impl Usage {
    fn admits(self, role: Role) -> bool {
        match self {
            Self::Client => role.is_node() || role == Role::Admin,
            Self::Server | Self::Manifest => role.is_node(),
            Self::TokenSigning => role == Role::TokenSigner,
        }
    }

    fn key_usage(self) -> KeyUsage {
        match self {
            Self::Client | Self::Manifest => KeyUsage::client_auth(),
            Self::Server => KeyUsage::server_auth(),
            Self::TokenSigning => KeyUsage::required(TOKEN_SIGNING_OID_DER),
        }
    }
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Client => "connect as a client",
            Self::Server => "serve as a node",
            Self::Manifest => "publish as a node",
            Self::TokenSigning => "sign access tokens",
        })
    }
}

/// Why a certificate or a signed message is not believed. The subject is always "the certificate".
#[derive(Debug, Clone, thiserror::Error)]
pub enum TrustError {
    /// An empty chain.
    #[error("no certificate was given")]
    NoCertificate,
    /// More than [`MAX_CHAIN`] certificates.
    #[error("the chain has {0} certificates, at most {MAX_CHAIN} are allowed")]
    LongChain(usize),
    /// It does not say who its holder is.
    #[error("the certificate is not usable: {0}")]
    Certificate(#[from] InvalidCertificate),
    /// It is of another cluster.
    #[error("{theirs} belongs to cluster {}, not to cluster {ours}", theirs.cluster)]
    OtherCluster {
        /// Whose certificate it is.
        theirs: SpiffeId,
        /// The cluster expected.
        ours: ClusterId,
    },
    /// Its role does not allow this use.
    #[error("the certificate of {spiffe} may not {usage}: its role is {}", spiffe.role)]
    WrongRole {
        /// Whose certificate it is.
        spiffe: SpiffeId,
        /// What it was used for.
        usage: Usage,
    },
    /// No root vouches for it.
    #[error("the certificate of {spiffe} was issued by another CA: {issuer}; trusted: {trusted}")]
    OtherCa {
        /// Whom it names; unproven.
        spiffe: SpiffeId,
        /// Name and key of its issuer; unproven.
        issuer: String,
        /// Names and keys of the roots.
        trusted: String,
    },
    /// A coordinator's own CA issued it to an admin or another coordinator, which only a root may.
    #[error(
        "the certificate of {spiffe} was issued by the CA of {coordinator}, which vouches for no admin and for no other \
         coordinator; only a root does"
    )]
    OtherCoordinator {
        /// Whom it names.
        spiffe: SpiffeId,
        /// Whose CA issued it.
        coordinator: NodeId,
    },
    /// Its holder, or a coordinator whose CA issued it or one that it replaced, was evicted; unless the time is wrong, too,
    /// everything else is in order.
    #[error("{0} was evicted from the cluster: its certificate, and what its CA issued, no longer count")]
    Banned(NodeId),
    /// Its time is over; everything else about it, and about the message it signed, is in order.
    #[error("the certificate of {} expired on {}", .0.spiffe, instant::rfc3339(.0.not_after))]
    Expired(Box<PeerCertificate>),
    /// Its time has not come (or a clock is wrong); everything else is in order.
    #[error("the certificate of {} is not valid until {}; check both clocks", .0.spiffe, instant::rfc3339(.0.not_before))]
    NotYetValid(Box<PeerCertificate>),
    /// Another rule of RFC 5280 is broken.
    #[error("the certificate of {spiffe} does not verify: {reason:?}")]
    Chain {
        /// Whom it names; unproven.
        spiffe: SpiffeId,
        /// The rule.
        reason: webpki::Error,
    },
    /// The message was not signed by the certificate's key.
    #[error("the signature is not by the key of {0}")]
    Signature(SpiffeId),
}

/// Why certificates cannot be roots.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRoots {
    /// More than [`MAX_ROOTS`].
    #[error("{0} trusted certificates, at most {MAX_ROOTS} are allowed")]
    TooMany(usize),
    /// One does not parse.
    #[error("trusted certificate {index} is unusable: {reason}")]
    Certificate {
        /// Its place, from 1.
        index: usize,
        /// What is wrong.
        reason: InvalidCertificate,
    },
}

/// The trusted certificates of one cluster.
///
/// A CA vouches for what it issued, in the cluster that its certificate names if it names one. A certificate that is not a CA's (a stand-alone one) is trusted for
/// itself only: its key cannot issue others.
pub struct Trust {
    cluster: ClusterId,
    roots: Vec<CertificateDer<'static>>,
    anchors: Vec<TrustAnchor<'static>>,
    stand_alone: Vec<CertificateDer<'static>>,
    labels: Vec<String>,
    bans: Bans,
}

impl Trust {
    /// Trusts `roots` to speak for members of `cluster`.
    pub fn new(cluster: ClusterId, roots: Vec<CertificateDer<'static>>) -> Result<Self, InvalidRoots> {
        if roots.len() > MAX_ROOTS {
            return Err(InvalidRoots::TooMany(roots.len()));
        }
        let (mut anchors, mut stand_alone, mut labels) = (Vec::new(), Vec::new(), Vec::new());
        for (index, root) in roots.iter().enumerate() {
            let unusable = |reason| InvalidRoots::Certificate { index: index + 1, reason };
            let x509 = certificate::parse_x509(root).map_err(unusable)?;
            let anchor = anchor_from_trusted_cert(root)
                .map_err(|_| unusable(InvalidCertificate::Encoding))?
                .to_owned();
            labels.push(label(&x509.subject().to_string(), subject_key_id(&x509)));
            if !certificate::is_ca(&x509) {
                stand_alone.push(root.clone());
            } else if certificate::ca_cluster(&x509).is_none_or(|named| named == cluster) {
                anchors.push(anchor);
            }
        }
        Ok(Self { cluster, roots, anchors, stand_alone, labels, bans: Bans::default() })
    }

    /// Whom it does not believe.
    pub fn bans(&self) -> &Bans {
        &self.bans
    }

    /// The same, but not for whom `bans` shows, now or later.
    pub fn with_bans(self, bans: Bans) -> Self {
        Self { bans, ..self }
    }

    /// The cluster.
    pub fn cluster_id(&self) -> &ClusterId {
        &self.cluster
    }

    /// All trusted certificates, as given.
    pub fn roots(&self) -> &[CertificateDer<'static>] {
        &self.roots
    }

    /// SHA-256 of each trusted CA's key: what join tokens pin.
    pub fn pins(&self) -> Vec<RootPin> {
        self.roots.iter().filter_map(|root| pin_of(root)).collect()
    }

    /// The trusted CA certificate that a node's chain leads to.
    pub(super) fn root_of(
        &self,
        chain: &[CertificateDer<'static>],
        now: UnixTime,
    ) -> Option<&CertificateDer<'static>> {
        self.roots.iter().find(|root| {
            let alone = Self::new(self.cluster.clone(), vec![(*root).clone()]);
            pin_of(root).is_some() && alone.is_ok_and(|trust| trust.verify(chain, Usage::Server, now).is_ok())
        })
    }

    /// The names of the trusted CAs, as TLS servers offer them to clients that choose among certificates.
    pub(super) fn hints(&self) -> Vec<DistinguishedName> {
        self.anchors.iter().map(|anchor| DistinguishedName::in_sequence(&anchor.subject)).collect()
    }

    /// Verifies a chain (leaf first, DER) for `usage` at `now`: our cluster, a role that fits, issued below
    /// a root, nobody in it evicted, in time. Cheap checks come first; time comes last, so that [`TrustError::Expired`] and
    /// [`TrustError::NotYetValid`] mean that all else is in order.
    pub fn verify<C: AsRef<[u8]>>(
        &self,
        chain: &[C],
        usage: Usage,
        now: UnixTime,
    ) -> Result<PeerCertificate, TrustError> {
        let peer = self.verify_but_time(chain, usage, now)?;
        in_time(peer, now)
    }

    /// Verifies that `message` was signed ([`Identity::sign`](super::Identity::sign)) by the node whose
    /// chain (leaf first, DER) this is, and the chain at `now`. The signature is checked before the time:
    /// with [`TrustError::Expired`] the message is authentic.
    pub fn verify_signed<C: AsRef<[u8]>>(
        &self,
        chain: &[C],
        message: &[u8],
        signature: &[u8],
        now: UnixTime,
    ) -> Result<PeerCertificate, TrustError> {
        let peer = self.verify_but_time(chain, Usage::Manifest, now)?;
        if !key::verify(&peer.public_key, message, signature) {
            return Err(TrustError::Signature(peer.spiffe));
        }
        in_time(peer, now)
    }

    fn verify_but_time<C: AsRef<[u8]>>(
        &self,
        chain: &[C],
        usage: Usage,
        now: UnixTime,
    ) -> Result<PeerCertificate, TrustError> {
        if chain.len() > MAX_CHAIN {
            return Err(TrustError::LongChain(chain.len()));
        }
        let (leaf, intermediates) = chain.split_first().ok_or(TrustError::NoCertificate)?;
        let peer = PeerCertificate::parse(leaf.as_ref())?;
        if peer.spiffe.cluster != self.cluster {
            return Err(TrustError::OtherCluster { theirs: peer.spiffe, ours: self.cluster.clone() });
        }
        if !usage.admits(peer.spiffe.role) {
            return Err(TrustError::WrongRole { spiffe: peer.spiffe, usage });
        }
        if let Some(oversized) =
            intermediates.iter().find(|c| c.as_ref().len() > certificate::MAX_CERTIFICATE_LEN)
        {
            return Err(InvalidCertificate::TooLong(oversized.as_ref().len()).into());
        }
        let leaf = CertificateDer::from(leaf.as_ref());
        let intermediates: Vec<_> = intermediates.iter().map(|c| CertificateDer::from(c.as_ref())).collect();
        // Within the leaf's validity, so that its time is judged by `in_time` alone.
        let at = now.clamp(peer.not_before, peer.not_after.max(peer.not_before));
        match self.chain(&leaf, &intermediates, usage, at) {
            Ok(issuers) => self.check_issuers(&issuers, &leaf, peer),
            Err(webpki::Error::UnknownIssuer | webpki::Error::InvalidSignatureForPublicKey) => {
                Err(self.other_ca(&leaf, peer.spiffe))
            }
            Err(reason) => Err(TrustError::Chain { spiffe: peer.spiffe, reason }),
        }
    }

    /// Whether the CAs between leaf and root speak for our cluster, coordinators' own CAs for no other coordinator, and
    /// nobody whom the certificate rests on was evicted.
    fn check_issuers(
        &self,
        issuers: &[CertificateDer<'_>],
        leaf: &CertificateDer<'_>,
        peer: PeerCertificate,
    ) -> Result<PeerCertificate, TrustError> {
        let mut coordinators = Vec::new();
        for der in issuers {
            let x509 = certificate::parse_x509(der)?;
            if certificate::ca_cluster(&x509).is_some_and(|named| named != self.cluster) {
                return Err(self.other_ca(leaf, peer.spiffe));
            }
            coordinators.extend(certificate::coordinator(&x509)?);
        }
        let role = peer.spiffe.role;
        let beyond = coordinators.iter().find(|node| !ca_may_vouch(node, role, &peer.spiffe.name)).cloned();
        let peer = peer.issued_by(coordinators);
        if let Some(node) = self.bans.banned_of(&peer) {
            return Err(TrustError::Banned(node));
        }
        match beyond {
            Some(coordinator) => Err(TrustError::OtherCoordinator { spiffe: peer.spiffe, coordinator }),
            None => Ok(peer),
        }
    }

    /// RFC 5280 path validation to a CA; a stand-alone certificate that we list is its own anchor, and only
    /// its own. Returns the CAs that were used, without the root.
    fn chain(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        usage: Usage,
        at: UnixTime,
    ) -> Result<Vec<CertificateDer<'static>>, webpki::Error> {
        let algorithms = tls::provider().signature_verification_algorithms.all;
        let end_entity = EndEntityCert::try_from(leaf)?;
        if self.stand_alone.iter().any(|trusted| trusted == leaf) {
            let own = [anchor_from_trusted_cert(leaf)?];
            end_entity.verify_for_usage(algorithms, &own, &[], at, usage.key_usage(), None, None)?;
            return Ok(Vec::new());
        }
        let (anchors, usage) = (&self.anchors, usage.key_usage());
        let path = end_entity.verify_for_usage(algorithms, anchors, intermediates, at, usage, None, None)?;
        Ok(path.intermediate_certificates().map(|ca| ca.der().into_owned()).collect())
    }

    fn other_ca(&self, leaf: &CertificateDer<'_>, spiffe: SpiffeId) -> TrustError {
        let issuer = certificate::parse_x509(leaf).map_or_else(
            |_| "unknown".to_owned(),
            |x509| label(&x509.issuer().to_string(), authority_key_id(&x509)),
        );
        let trusted = if self.labels.is_empty() { "no CA at all".to_owned() } else { self.labels.join(", ") };
        TrustError::OtherCa { spiffe, issuer, trusted }
    }
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trust").field("cluster", &self.cluster).field("roots", &self.labels).finish()
    }
}

/// Whether the own CA of `coordinator` may vouch for `name` in `role`: for workers, and for itself. Other coordinators,
/// and admins, who can act through any coordinator, are a root's to vouch for: what else a stolen coordinator could do
/// would outlive its eviction.
pub(super) fn ca_may_vouch(coordinator: &NodeId, role: Role, name: &NodeId) -> bool {
    match role {
        Role::Worker => true,
        Role::Coordinator | Role::TokenSigner => coordinator == name,
        Role::Admin => false,
    }
}

fn in_time(peer: PeerCertificate, now: UnixTime) -> Result<PeerCertificate, TrustError> {
    if now > peer.not_after {
        Err(TrustError::Expired(Box::new(peer)))
    } else if now < peer.not_before {
        Err(TrustError::NotYetValid(Box::new(peer)))
    } else {
        Ok(peer)
    }
}

/// `"CN=p2p-core cluster shop CA" (key 1a2b3c4d)`: after a CA was made anew, only its key tells the two
/// apart.
fn label(name: &str, key_id: Option<&[u8]>) -> String {
    let name: String = name.chars().take(200).collect();
    match key_id {
        Some(id) => {
            let short: String = id.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
            format!("{name:?} (key {short})")
        }
        None => format!("{name:?}"),
    }
}

fn subject_key_id<'a>(x509: &'a X509Certificate<'_>) -> Option<&'a [u8]> {
    x509.iter_extensions().find_map(|extension| {
        let ParsedExtension::SubjectKeyIdentifier(id) = extension.parsed_extension() else { return None };
        Some(id.0)
    })
}

fn authority_key_id<'a>(x509: &'a X509Certificate<'_>) -> Option<&'a [u8]> {
    x509.iter_extensions().find_map(|extension| {
        let ParsedExtension::AuthorityKeyIdentifier(id) = extension.parsed_extension() else { return None };
        id.key_identifier.as_ref().map(|id| id.0)
    })
}
