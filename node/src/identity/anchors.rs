//! The trust bundle in force at this node: what it may be replaced by, and how that reaches the disk.
//!
//! ```text
//! 1. ssl_ca_cert_file      the bundle's roots, and the stand-alone certificates that were listed there
//! 2. trust_bundle.json     the bundle as it was signed, to pass on; a lower serial is never taken again
//! 3. the identity is loaded anew: handshakes and records are verified by the new roots
//! ```
//!
//! Cut off after the first step, the node trusts the new roots and takes the bundle once more.

use super::{
    bundle::{Bundle, BundleError, leads_to},
    certificate, pem,
    store::IdentityStore,
    write::{NewFile, write_all},
};
use crate::persist::{Loaded, PersistError, StateDirectory, StateFile};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use p2p_proto::v1::TrustBundle;
use prost::Message as _;
use rustls_pki_types::UnixTime;
use serde::{Deserialize, Serialize};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// The file's name in the state directory.
const FILE: &str = "trust_bundle.json";

/// What is kept, as JSON.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Kept {
    serial: u64,
    /// The encoded [`TrustBundle`], base64.
    bundle: String,
}

/// `trust_bundle.json`, read at start.
#[derive(Debug)]
pub struct AnchorsFile {
    file: StateFile<Kept>,
    bundle: Option<Bundle>,
}

impl AnchorsFile {
    /// Reads what is kept in `directory`. A damaged file is moved aside; the bundle then comes again by gossip.
    ///
    /// # Errors
    ///
    /// When a file is there and cannot be read.
    pub fn load(directory: &StateDirectory) -> Result<Self, PersistError> {
        let (file, loaded) = StateFile::<Kept>::load(directory, FILE)?;
        let kept = match loaded {
            Loaded::Ok(kept) => Some(kept),
            Loaded::Missing => None,
            Loaded::Corrupt { moved_to } => {
                tracing::error!(moved_to = %moved_to.display(), "the trust bundle's serial is lost until a node sends it again");
                None
            }
        };
        let bundle = kept.and_then(|kept| {
            let wire = TrustBundle::decode(STANDARD.decode(kept.bundle).ok()?.as_slice()).ok()?;
            Bundle::parse(&wire).ok()
        });
        Ok(Self { file, bundle })
    }
}

/// The bundle in force, shared by gossip, which spreads it, and by who rotates the CA.
#[derive(Debug)]
pub struct Anchors {
    identity: Arc<IdentityStore>,
    kept: Mutex<AnchorsFile>,
    changes: watch::Sender<u64>,
}

impl Anchors {
    /// The bundle that is kept in `file`, for the node of `identity`.
    pub fn new(file: AnchorsFile, identity: Arc<IdentityStore>) -> Arc<Self> {
        let serial = file.bundle.as_ref().map_or(0, Bundle::serial);
        let (changes, _) = watch::channel(serial);
        Arc::new(Self { identity, kept: Mutex::new(file), changes })
    }

    fn kept(&self) -> MutexGuard<'_, AnchorsFile> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The serial in force; 0 before the first rotation.
    pub fn serial(&self) -> u64 {
        *self.changes.borrow()
    }

    /// The bundle in force; none before the first rotation.
    pub fn bundle(&self) -> Option<Bundle> {
        self.kept().bundle.clone()
    }

    /// The serial, and news of it; also of a certificate of our own that was issued anew meanwhile.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Tells everybody who [subscribed](Self::subscribe) that there is something to publish.
    pub fn touch(&self) {
        self.changes.send_modify(|_| {});
    }

    /// Puts a bundle in force if it is newer than the present one and signed by a root that is trusted here.
    /// Returns whether it was newer. Blocks on the disk.
    ///
    /// # Errors
    ///
    /// Why it is not to be believed, or cannot be kept; the roots in force stay.
    pub fn accept(&self, wire: &TrustBundle, now: UnixTime) -> Result<bool, BundleError> {
        let bundle = Bundle::parse(wire)?;
        let mut kept = self.kept();
        let identity = self.identity.current();
        if bundle.cluster_id() != identity.cluster_id() {
            let (theirs, ours) = (bundle.cluster_id().clone(), identity.cluster_id().clone());
            return Err(BundleError::OtherCluster { theirs, ours });
        }
        let serial = bundle.serial();
        if let Some(present) = &kept.bundle {
            if serial == present.serial() && bundle.wire().body != present.wire().body {
                return Err(BundleError::OtherContent(serial));
            }
            if serial <= present.serial() {
                return Ok(false);
            }
        }
        let trust = identity.trust();
        if !bundle.is_signed_by(trust.roots()) {
            return Err(BundleError::Signature(serial));
        }
        let (chain, cluster) = (identity.chain_der(), identity.cluster_id());
        if !bundle.roots().iter().any(|root| leads_to(chain, cluster, root, now)) {
            return Err(BundleError::OwnCertificate(serial));
        }
        let is_alone = |der: &[u8]| certificate::parse_x509(der).is_ok_and(|x509| !certificate::is_ca(&x509));
        let alone = trust.roots().iter().filter(|root| is_alone(root));
        let text: String = bundle.roots().iter().chain(alone).map(|root| pem::to_text(root)).collect();
        let path = self.identity.files().ca_cert.clone();
        write_all(vec![NewFile::certificate(path, text, true)])?;
        kept.file.save(&Kept { serial, bundle: STANDARD.encode(bundle.wire().encode_to_vec()) })?;
        kept.bundle = Some(bundle);
        let reloaded = self.identity.reload(now);
        drop(kept);
        self.changes.send_replace(serial);
        tracing::info!(serial, "new trust bundle in force");
        reloaded.map(|_| true).map_err(|error| Box::new(error).into())
    }
}
