//! Comparing two stores by their trees.

use super::{
    Keyring, MAX_OWNERS, Store,
    store::{ANY, Version},
    tree::{Hash, PARTS, Prefix, place_of},
};
use crate::{Epoch, NodeId};
use p2p_proto::v1::{Digest, DigestEntries, DigestEntry, DigestRange, digest_range::Content};
use std::collections::BTreeMap;

/// Most ranges of one message that are looked at.
const MAX_RANGES: usize = 4096;

/// What follows from another's digest.
#[derive(Debug, Default, PartialEq)]
pub struct Comparison {
    /// Ranges that differ, in more detail: to be sent back.
    pub ranges: Vec<DigestRange>,
    /// Owners that the other lacks or has older: to be sent.
    pub newer_here: Vec<NodeId>,
    /// Owners that we lack or have older: to be asked for.
    pub newer_there: Vec<NodeId>,
}

fn range(prefix: Prefix, content: Content) -> DigestRange {
    DigestRange { depth: prefix.depth(), digits: prefix.digits(), content: Some(content) }
}

impl Store {
    /// What begins an exchange between nodes that mostly have the same: one hash.
    pub fn digest(&mut self, keyring: &dyn Keyring) -> Digest {
        let hash = self.hash(keyring).to_vec();
        Digest { ranges: vec![range(Prefix::ROOT, Content::Hash(hash.into()))], ..Digest::default() }
    }

    /// The hash of everything that is compared.
    pub fn hash(&mut self, keyring: &dyn Keyring) -> Hash {
        self.tree.hash(Prefix::ROOT, keyring)
    }

    /// What begins an exchange with a node that was just met: all owners where there are few, so that whoever has many
    /// sends them at once.
    pub fn opening(&mut self, keyring: &dyn Keyring) -> Digest {
        match self.entries(Prefix::ROOT, keyring) {
            Some(entries) => Digest { ranges: vec![range(Prefix::ROOT, entries)], ..Digest::default() },
            None => self.digest(keyring),
        }
    }

    /// What is held, and what is not taken although it is not held: others need not send that.
    fn entries(&self, prefix: Prefix, keyring: &dyn Keyring) -> Option<Content> {
        let entry = |owner: &NodeId, (epoch, sequence, hash): Version| DigestEntry {
            owner: owner.to_string(),
            epoch: epoch.0,
            sequence,
            hash: hash.to_vec().into(),
        };
        let held = self.tree.few(prefix)?;
        let mut versions: BTreeMap<&NodeId, Version> =
            held.iter().filter_map(|owner| Some((owner, self.owners.get(owner)?.version()))).collect();
        for owner in self.not_takers().filter(|owner| prefix.contains(place_of(owner, keyring))) {
            if let Some((epoch, sequence, _)) = self.not_taken(owner).max(versions.get(owner).copied()) {
                versions.insert(owner, (epoch, sequence, ANY));
            }
        }
        let entries = versions.into_iter().map(|(owner, version)| entry(owner, version)).collect();
        Some(Content::Entries(DigestEntries { entries }))
    }

    /// A range in more detail.
    fn detail(&mut self, prefix: Prefix, keyring: &dyn Keyring) -> DigestRange {
        let content = self.entries(prefix, keyring).unwrap_or_else(|| {
            let hashes = prefix.parts().flat_map(|part| self.tree.hash(part, keyring));
            Content::Parts(hashes.collect::<Vec<u8>>().into())
        });
        range(prefix, content)
    }

    /// Compares with another's digest. What is malformed is passed over.
    pub fn compare(&mut self, theirs: &Digest, keyring: &dyn Keyring) -> Comparison {
        let mut comparison = Comparison::default();
        for range in theirs.ranges.iter().take(MAX_RANGES) {
            let (Some(prefix), Some(content)) = (Prefix::new(range.depth, range.digits), &range.content)
            else {
                continue;
            };
            match content {
                Content::Hash(hash) => {
                    if **hash != self.tree.hash(prefix, keyring) {
                        comparison.ranges.push(self.detail(prefix, keyring));
                    }
                }
                Content::Parts(hashes) => {
                    let (hashes, rest) = hashes.as_chunks::<{ size_of::<Hash>() }>();
                    if hashes.len() as u64 != PARTS || !rest.is_empty() {
                        continue;
                    }
                    for (part, hash) in prefix.parts().zip(hashes) {
                        if self.tree.hash(part, keyring) != *hash {
                            comparison.ranges.push(self.detail(part, keyring));
                        }
                    }
                }
                Content::Entries(entries) => self.compare_entries(prefix, &entries.entries, &mut comparison),
            }
        }
        comparison
    }

    fn compare_entries(&self, prefix: Prefix, theirs: &[DigestEntry], comparison: &mut Comparison) {
        let theirs: BTreeMap<NodeId, Version> = theirs
            .iter()
            .take(MAX_OWNERS)
            .filter_map(|entry| {
                let hash = Hash::try_from(&*entry.hash).ok()?;
                Some((entry.owner.parse().ok()?, (Epoch(entry.epoch), entry.sequence, hash)))
            })
            .collect();
        for owner in self.tree.owners(prefix) {
            let ours = self.owners.get(owner).map(super::Owner::version);
            if theirs.get(owner).copied() < ours {
                comparison.newer_here.push(owner.clone());
            }
        }
        for (owner, version) in &theirs {
            let taken = self.owners.get(owner).map(super::Owner::version).max(self.not_taken(owner));
            if *version > taken.unwrap_or((Epoch(0), 0, Hash::default())) && version.2 != ANY {
                comparison.newer_there.push(owner.clone());
            }
        }
    }
}
