//! The keys of all coordinators that sign tokens.
//!
//! A coordinator publishes the certificates of its keys in its node record. Each is believed only if the CA
//! certified it for token signing, and only from the coordinator that it names: a stolen worker has no such
//! certificate, and handing on another's proves nothing. A key that is known stays until its certificate
//! ends, also when its coordinator is down or purged, and is kept on disk.

use super::{key::VerifyingKey, verifier::Verifier};
use crate::{
    identity::{IdentityStore, PeerCertificate, Trust, UnixTime, Usage},
    persist::{Loaded, PersistError, StateDirectory, StateFile},
};
use arc_swap::ArcSwap;
use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use p2p_core::{NodeId, Role, SpiffeId, gossip::View};
use prometheus_client::metrics::gauge::Gauge;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::sync::watch;

/// Most keys that are known.
pub const MAX_SIGNERS: usize = 1_024;
/// Most keys that one coordinator may publish; two overlap while it rotates.
pub const MAX_PUBLISHED: usize = 8;
/// The file's name in the state directory.
pub const FILE: &str = "token_signers.json";
/// Pause between two looks at what ends by itself, and at changed trust.
const TICK: Duration = Duration::from_secs(60);

/// A certificate chain, DER, leaf first.
pub type Chain = Vec<Vec<u8>>;

/// A key that signs tokens, proven by its certificate.
#[derive(Clone, Debug)]
pub struct Signer {
    /// The coordinator: `iss` of its tokens.
    pub issuer: SpiffeId,
    /// The key.
    pub key: VerifyingKey,
    /// End of its certificate, Unix seconds.
    pub not_after: u64,
    chain: Chain,
}

#[derive(Default)]
struct Learning {
    /// The trust that all known keys were proven with.
    trust: Option<Arc<Trust>>,
    /// Chains that did not prove anything, so that they are looked at, told and counted once.
    refused: BTreeSet<[u8; 32]>,
    /// Who was evicted when they were.
    bans: Option<Arc<BTreeSet<NodeId>>>,
}

/// All keys that verify tokens here.
#[derive(Default)]
pub struct Signers {
    known: ArcSwap<HashMap<Box<str>, Arc<Signer>>>,
    learning: Mutex<Learning>,
    count: Gauge,
}

impl std::fmt::Debug for Signers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Signers").field(&self.known.load().len()).finish()
    }
}

impl Signers {
    /// The key called `kid`, if its certificate has not ended.
    pub fn find(&self, kid: &str, now: u64) -> Option<Arc<Signer>> {
        self.known.load().get(kid).filter(|signer| now <= signer.not_after).cloned()
    }

    /// All keys, in the order of their thumbprints.
    pub fn all(&self) -> Vec<Arc<Signer>> {
        let known = self.known.load();
        known.iter().collect::<BTreeMap<_, _>>().into_values().cloned().collect()
    }

    /// How many keys are known, for metrics.
    pub(super) fn count(&self) -> Gauge {
        self.count.clone()
    }

    /// Brings the keys in line with what the cluster publishes, the trust in force and the time. Returns
    /// whether any key came or went.
    pub fn learn(&self, view: &View, trust: &Arc<Trust>, now: UnixTime) -> bool {
        let published = view.members.iter().filter(|(_, member)| member.role() == Role::Coordinator);
        let offers = published.flat_map(|(node, member)| {
            let signers = member.records.node.token_signers.iter().take(MAX_PUBLISHED);
            signers.map(move |signer| {
                (Some(node), signer.certificate_chain.iter().map(|der| der.to_vec()).collect())
            })
        });
        self.update(offers, trust, now)
    }

    /// Takes keys that were known before a restart, or that this node has just made.
    pub fn restore(&self, chains: &[Chain], trust: &Arc<Trust>, now: UnixTime) -> bool {
        self.update(chains.iter().map(|chain| (None, chain.clone())), trust, now)
    }

    fn update<'a>(
        &self,
        offers: impl Iterator<Item = (Option<&'a NodeId>, Chain)>,
        trust: &Arc<Trust>,
        now: UnixTime,
    ) -> bool {
        let mut learning = self.learning.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.known.load();
        let mut known = HashMap::clone(&before);
        known.retain(|_, signer| now.as_secs() <= signer.not_after);
        let bans = trust.bans().snapshot();
        let same_bans = learning.bans.as_ref().is_some_and(|known| Arc::ptr_eq(known, &bans));
        if !same_bans || !learning.trust.as_ref().is_some_and(|proven| Arc::ptr_eq(proven, trust)) {
            known.retain(|_, signer| prove(&signer.chain, None, trust, now).is_ok());
            learning.refused.clear();
            learning.trust = Some(trust.clone());
            learning.bans = Some(bans);
        }
        let mut changed = known.len() != before.len();
        for (publisher, chain) in offers {
            if known.values().any(|signer| signer.chain == chain) {
                continue;
            }
            let id = fingerprint(publisher, &chain);
            if learning.refused.contains(&id) {
                continue;
            }
            match prove(&chain, publisher, trust, now) {
                Ok(signer) if known.len() < MAX_SIGNERS => {
                    // A key whose certificate was renewed replaces itself.
                    known.insert(signer.key.kid().into(), Arc::new(signer));
                    changed = true;
                }
                Ok(_) => tracing::warn!(limit = MAX_SIGNERS, "too many token signers; one is left out"),
                Err(why) => {
                    let publisher = publisher.map_or("disk", NodeId::as_str);
                    tracing::warn!(publisher, why, "a token signer is not believed");
                    if learning.refused.len() >= MAX_SIGNERS {
                        learning.refused.clear();
                    }
                    learning.refused.insert(id);
                }
            }
        }
        if changed {
            self.count.set(i64::try_from(known.len()).unwrap_or(i64::MAX));
            self.known.store(Arc::new(known));
        }
        changed
    }

    fn chains(&self) -> Vec<Chain> {
        self.all().iter().map(|signer| signer.chain.clone()).collect()
    }
}

/// Proves that a chain is a token signer's, and the publisher's own if one is given. The name comes first:
/// it costs nothing.
fn prove(chain: &Chain, publisher: Option<&NodeId>, trust: &Trust, now: UnixTime) -> Result<Signer, String> {
    let leaf = chain.first().ok_or("no certificate")?;
    let claimed = PeerCertificate::parse(leaf).map_err(|error| error.to_string())?;
    if publisher.is_some_and(|publisher| *publisher != claimed.spiffe.name) {
        return Err(format!("it is {}'s, not its publisher's", claimed.spiffe));
    }
    let certificate = trust.verify(chain, Usage::TokenSigning, now).map_err(|error| error.to_string())?;
    let key = VerifyingKey::from_spki(&certificate.public_key).ok_or("its key is not Ed25519 or P-256")?;
    let SpiffeId { cluster, name, .. } = certificate.spiffe;
    let issuer = SpiffeId::new(cluster, Role::Coordinator, name);
    Ok(Signer { issuer, key, not_after: certificate.not_after.as_secs(), chain: chain.clone() })
}

fn fingerprint(publisher: Option<&NodeId>, chain: &Chain) -> [u8; 32] {
    let mut text = publisher.map_or("", NodeId::as_str).as_bytes().to_vec();
    for der in chain {
        text.push(0);
        text.extend_from_slice(digest(&SHA256, der).as_ref());
    }
    digest(&SHA256, &text).as_ref().try_into().expect("SHA-256 has 32 bytes")
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct SignersState {
    /// Chains, each certificate as base64 of its DER.
    #[serde(default)]
    signers: Vec<Vec<String>>,
}

/// The keys on disk, so that tokens verify after a restart while every coordinator is down. They are proven
/// anew when they are read.
#[derive(Debug)]
pub struct SignerFile(StateFile<SignersState>);

impl SignerFile {
    /// Reads what is kept in `directory`. Blocks on the disk.
    ///
    /// # Errors
    ///
    /// When a file is there and cannot be read.
    pub fn load(directory: &StateDirectory) -> Result<(Self, Vec<Chain>), PersistError> {
        let (file, loaded) = StateFile::<SignersState>::load(directory, FILE)?;
        let state = match loaded {
            Loaded::Ok(state) => state,
            // What is lost is learned again from the first peer.
            Loaded::Missing | Loaded::Corrupt { .. } => SignersState::default(),
        };
        let decode =
            |chain: &Vec<String>| chain.iter().map(|der| STANDARD.decode(der)).collect::<Result<_, _>>();
        let chains = state.signers.iter().take(MAX_SIGNERS).filter_map(|chain| decode(chain).ok()).collect();
        Ok((Self(file), chains))
    }

    fn save(&self, chains: &[Chain]) -> Result<(), PersistError> {
        let encode = |chain: &Chain| chain.iter().map(|der| STANDARD.encode(der)).collect();
        self.0.save(&SignersState { signers: chains.iter().map(encode).collect() })
    }
}

/// Keeps the verifier's keys in line with the cluster, and on disk, for as long as the node runs.
pub async fn follow(
    verifier: Arc<Verifier>,
    identity: Arc<IdentityStore>,
    mut view: watch::Receiver<Arc<View>>,
    file: SignerFile,
) {
    let file = Arc::new(file);
    loop {
        let now = view.borrow_and_update().clone();
        if verifier.signers().learn(&now, &identity.current().trust(), UnixTime::now()) {
            // A token whose key went must not live on in the cache.
            verifier.forget();
            save(&file, verifier.signers().chains()).await;
        }
        tokio::select! {
            changed = view.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(TICK) => {}
        }
    }
}

async fn save(file: &Arc<SignerFile>, chains: Vec<Chain>) {
    let file = file.clone();
    let saved = tokio::task::spawn_blocking(move || file.save(&chains)).await;
    match saved {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            tracing::error!(%error, "the token signers could not be kept; they are learned again")
        }
        Err(error) => tracing::debug!(%error, "saving was interrupted"),
    }
}
