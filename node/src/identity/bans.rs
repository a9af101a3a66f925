//! Who was evicted, as trust asks it: nobody believes their certificates, nor what their CAs issued.

use super::PeerCertificate;
use arc_swap::ArcSwap;
use p2p_core::{NodeId, Role};
use std::{collections::BTreeSet, sync::Arc};

/// The evicted nodes, replaced as a whole. All clones show the same set, so what verifies certificates
/// follows whoever learns of evictions; it starts out empty and outlives every reload of certificates.
#[derive(Clone, Debug, Default)]
pub struct Bans(Arc<ArcSwap<BTreeSet<NodeId>>>);

impl Bans {
    /// Bans exactly these nodes from now on. Connections that are open are the caller's to close.
    pub fn set(&self, nodes: BTreeSet<NodeId>) {
        self.0.store(Arc::new(nodes));
    }

    /// The set as it is now: another one after each change.
    pub fn snapshot(&self) -> Arc<BTreeSet<NodeId>> {
        self.0.load_full()
    }

    /// Whether the node is evicted.
    pub fn contains(&self, node: &NodeId) -> bool {
        self.0.load().contains(node)
    }

    /// The evicted node that a chain (leaf first, DER) names: as the holder of its leaf, or as the coordinator
    /// whose CA is in it. For chains that were verified before, such as those of open connections and of
    /// resumed TLS sessions; [`Trust`](super::Trust) asks by itself.
    pub fn banned_in<C: AsRef<[u8]>>(&self, chain: &[C]) -> Option<NodeId> {
        if self.0.load().is_empty() {
            return None;
        }
        self.banned_of(&PeerCertificate::parse_chain(chain).ok()?)
    }

    /// The evicted node that a certificate rests on: its holder, or who vouches for it.
    pub(super) fn banned_of(&self, certificate: &PeerCertificate) -> Option<NodeId> {
        let holder = Some(&certificate.spiffe).filter(|id| names_a_node(id.role)).map(|id| &id.name);
        holder.into_iter().chain(&certificate.vouchers).find(|node| self.contains(node)).cloned()
    }
}

/// Whether the name in a certificate of this role is a node's: a token signer is called as its coordinator,
/// an admin is somebody else of perhaps the same name.
pub(super) fn names_a_node(role: Role) -> bool {
    match role {
        Role::Coordinator | Role::Worker | Role::TokenSigner => true,
        Role::Admin => false,
    }
}
