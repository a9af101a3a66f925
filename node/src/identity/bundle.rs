//! The trust bundle: which roots a cluster trusts, with a serial, signed by a root of the bundle before.
//!
//! The first root is the one that issues; the others are trusted while certificates below them live. A bundle is
//! signed by every root whose key its maker holds, so that both a node that knows only the old root and one that
//! was given only the new one can follow. The signature is ECDSA P-256 / SHA-256 over
//! `"p2p.v1.TrustBundle\0"` and the encoded body: no other signature of a root passes for one.

use super::{
    ca::Ca,
    certificate,
    key::{self, InvalidKey, NodeKey},
    local::Identity,
    pem,
    trust::{Trust, TrustError, Usage},
};
use bytes::Bytes;
use p2p_core::ClusterId;
use p2p_proto::v1::{TrustBundle, TrustBundleBody, TrustBundleSignature};
use prost::Message as _;
use rustls_pki_types::{CertificateDer, UnixTime};

/// Most roots of a bundle, and most signatures.
pub const MAX_BUNDLE_ROOTS: usize = 8;
/// Longest encoded body, in bytes.
pub const MAX_BODY_LEN: usize = 64 * 1024;

const CONTEXT: &[u8] = b"p2p.v1.TrustBundle\0";

/// Why a bundle is not taken. What was trusted before is trusted as before.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// It does not decode, or breaks a rule that every maker keeps.
    #[error("the trust bundle is malformed: {0}")]
    Malformed(&'static str),
    /// It is another cluster's.
    #[error("the trust bundle is cluster {theirs}'s, this is cluster {ours}")]
    OtherCluster {
        /// Whose it is.
        theirs: ClusterId,
        /// Ours.
        ours: ClusterId,
    },
    /// Two bundles of one serial: somebody with a root's key made them apart.
    #[error("there is another trust bundle of serial {0} already; two rotations have been run at once")]
    OtherContent(u64),
    /// None of our roots signed it.
    #[error("trust bundle {0} is signed by no root that is trusted here")]
    Signature(u64),
    /// Our own certificate would be worth nothing.
    #[error(
        "with trust bundle {0} this node's own certificate would lead to no trusted root; it has to be issued anew \
         first (join again with a token, if it does not renew by itself)"
    )]
    OwnCertificate(u64),
    /// The root's key is of a kind that cannot sign.
    #[error("the key of the root cannot sign a trust bundle: {0}")]
    Key(InvalidKey),
    /// Writing.
    #[error(transparent)]
    Write(#[from] super::WriteError),
    /// The state.
    #[error(transparent)]
    State(#[from] crate::persist::PersistError),
    /// The files do not hold together afterwards.
    #[error("the trust bundle is on disk, but not in force: {0}")]
    Identity(#[from] Box<super::IdentityError>),
}

/// A root with its key.
#[derive(Debug)]
pub struct RootKey {
    root: CertificateDer<'static>,
    key: NodeKey,
}

impl RootKey {
    /// The key of `ca`.
    ///
    /// # Errors
    ///
    /// [`BundleError::Key`] for others than ECDSA P-256 keys.
    pub fn of(ca: &Ca) -> Result<Self, BundleError> {
        let key = NodeKey::from_pem(ca.key_pem().as_bytes()).map_err(BundleError::Key)?;
        let mut all = pem::certificates(ca.cert_pem().as_bytes())
            .map_err(|_| BundleError::Malformed("the root is no certificate"))?;
        Ok(Self { root: all.swap_remove(0), key })
    }

    /// The root's certificate.
    pub fn root(&self) -> &CertificateDer<'static> {
        &self.root
    }
}

/// A bundle whose form is checked; whether it is to be believed, [`Self::is_signed_by`] says.
#[derive(Clone, Debug, PartialEq)]
pub struct Bundle {
    cluster: ClusterId,
    serial: u64,
    roots: Vec<CertificateDer<'static>>,
    wire: TrustBundle,
}

impl Bundle {
    /// Signs a bundle with each of `signers`. The first of `roots` issues.
    ///
    /// # Errors
    ///
    /// [`BundleError::Malformed`] for roots that no receiver would take.
    pub fn sign(
        cluster: &ClusterId,
        serial: u64,
        roots: &[CertificateDer<'static>],
        signers: &[&RootKey],
    ) -> Result<Self, BundleError> {
        let bytes = |der: &CertificateDer<'_>| Bytes::copy_from_slice(der);
        let body = TrustBundleBody {
            cluster_id: cluster.to_string(),
            serial,
            roots: roots.iter().map(bytes).collect(),
        };
        let body = Bytes::from(body.encode_to_vec());
        let message = [CONTEXT, &body].concat();
        let sign = |signer: &&RootKey| TrustBundleSignature {
            signer_root: bytes(&signer.root),
            signature: signer.key.sign(&message).into(),
        };
        Self::parse(&TrustBundle { signatures: signers.iter().map(sign).collect(), body })
    }

    /// Reads a bundle and checks its form.
    ///
    /// # Errors
    ///
    /// [`BundleError::Malformed`].
    pub fn parse(wire: &TrustBundle) -> Result<Self, BundleError> {
        use BundleError::Malformed;
        if wire.body.len() > MAX_BODY_LEN || wire.signatures.len() > MAX_BUNDLE_ROOTS {
            return Err(Malformed("it is too long"));
        }
        let body =
            TrustBundleBody::decode(wire.body.clone()).map_err(|_| Malformed("its body does not decode"))?;
        let cluster: ClusterId =
            body.cluster_id.parse().map_err(|_| Malformed("its cluster id is invalid"))?;
        if body.serial == 0 {
            return Err(Malformed("its serial is 0"));
        }
        if !(1..=MAX_BUNDLE_ROOTS).contains(&body.roots.len()) {
            return Err(Malformed("it has no root, or too many"));
        }
        let roots: Vec<CertificateDer<'static>> =
            body.roots.iter().map(|der| CertificateDer::from(der.to_vec())).collect();
        for (index, root) in roots.iter().enumerate() {
            let x509 = certificate::parse_x509(root).map_err(|_| Malformed("a root is no certificate"))?;
            if !certificate::is_ca(&x509)
                || certificate::ca_cluster(&x509).is_some_and(|named| named != cluster)
            {
                return Err(Malformed("a root is no CA of its cluster"));
            }
            if roots[..index].contains(root) {
                return Err(Malformed("a root is named twice"));
            }
        }
        Ok(Self { cluster, serial: body.serial, roots, wire: wire.clone() })
    }

    /// The cluster.
    pub fn cluster_id(&self) -> &ClusterId {
        &self.cluster
    }

    /// Its number; a higher one replaces a lower.
    pub fn serial(&self) -> u64 {
        self.serial
    }

    /// The roots; the first one issues.
    pub fn roots(&self) -> &[CertificateDer<'static>] {
        &self.roots
    }

    /// As it travels.
    pub fn wire(&self) -> &TrustBundle {
        &self.wire
    }

    /// Whether one of `roots` signed it.
    pub fn is_signed_by(&self, roots: &[CertificateDer<'_>]) -> bool {
        let message = [CONTEXT, &self.wire.body].concat();
        self.wire.signatures.iter().any(|signed| {
            let known = roots.iter().find(|root| root.as_ref() == signed.signer_root.as_ref());
            known
                .and_then(|root| certificate::ca_key_of(root))
                .is_some_and(|public_key| key::verify(&public_key, &message, &signed.signature))
        })
    }
}

/// Whether a node's certificate should be issued anew although it is not near its end: it does not lead to the
/// root that issues now, and the ones before will be dropped.
pub fn needs_reissue(identity: &Identity, bundle: &Bundle, now: UnixTime) -> bool {
    !leads_to(identity.chain_der(), &bundle.cluster, &bundle.roots[0], now)
}

/// Whether a node's chain (leaf first, DER) leads to `root`, its time aside.
pub fn leads_to<C: AsRef<[u8]>>(
    chain: &[C],
    cluster: &ClusterId,
    root: &CertificateDer<'static>,
    now: UnixTime,
) -> bool {
    leads_to_for(chain, cluster, root, Usage::Server, now)
}

/// Whether a chain (leaf first, DER) for `usage` leads to `root`, its time aside.
pub fn leads_to_for<C: AsRef<[u8]>>(
    chain: &[C],
    cluster: &ClusterId,
    root: &CertificateDer<'static>,
    usage: Usage,
    now: UnixTime,
) -> bool {
    let alone = Trust::new(cluster.clone(), vec![root.clone()]);
    alone.is_ok_and(|trust| match trust.verify(chain, usage, now) {
        Ok(_) | Err(TrustError::Expired(_) | TrustError::NotYetValid(_)) => true,
        Err(
            TrustError::NoCertificate
            | TrustError::LongChain(_)
            | TrustError::Certificate(_)
            | TrustError::OtherCluster { .. }
            | TrustError::WrongRole { .. }
            | TrustError::OtherCa { .. }
            | TrustError::OtherCoordinator { .. }
            | TrustError::Banned(_)
            | TrustError::Chain { .. }
            | TrustError::Signature(_),
        ) => false,
    })
}
