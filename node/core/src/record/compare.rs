//! Comparing two stores by their trees.

use super::{
    Keyring, MAX_OWNERS, Store,
    store::{ANY, Version},
    tree::{Hash, PARTS, Prefix, place_of},
};
use crate::{Epoch, NodeId};
use p2p_proto::v1::{Digest, DigestEntries, DigestEntry, DigestRange, digest_range::Content};
use std::collections::{BTreeMap, BTreeSet};

/// Most ranges of one message that are looked at; as many as one of ours has.
pub const MAX_RANGES: usize = 256;
/// Most ranges that one message is answered with; the next exchange finds what is left.
const MAX_DETAILS: usize = 1024;

/// What follows from another's digest.
#[derive(Debug, Default, PartialEq)]
pub struct Comparison {
    /// Ranges that differ, in more detail: to be sent back.
    pub ranges: Vec<DigestRange>,
    /// Owners that the other lacks or has older: to be sent.
    pub newer_here: BTreeSet<NodeId>,
    /// Owners that we lack or have older: to be asked for.
    pub newer_there: BTreeSet<NodeId>,
}

/// What was purged here, by place: others need not send it.
struct Purged(Vec<(u64, NodeId, Version)>);

impl Purged {
    fn of(store: &Store, keyring: &dyn Keyring) -> Self {
        let floors = store.floors().iter();
        Self(floors.map(|(owner, version)| (place_of(owner, keyring), owner.clone(), *version)).collect())
    }
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
        match self.entries(Prefix::ROOT, &Purged::of(self, keyring)) {
            Some(entries) => Digest { ranges: vec![range(Prefix::ROOT, entries)], ..Digest::default() },
            None => self.digest(keyring),
        }
    }

    /// What is held, and what is not taken although it is not held.
    fn entries(&self, prefix: Prefix, purged: &Purged) -> Option<Content> {
        let entry = |owner: &NodeId, (epoch, sequence, hash): Version| DigestEntry {
            owner: owner.to_string(),
            epoch: epoch.0,
            sequence,
            hash: hash.to_vec().into(),
        };
        let held = self.tree.few(prefix)?;
        let held = held.iter().filter_map(|owner| Some(entry(owner, self.owners.get(owner)?.version())));
        let purged = purged.0.iter().filter(|(place, ..)| prefix.contains(*place));
        let purged = purged.map(|(_, owner, version)| entry(owner, *version));
        Some(Content::Entries(DigestEntries { entries: held.chain(purged).collect() }))
    }

    /// A range in more detail.
    fn detail(&mut self, prefix: Prefix, purged: &Purged, keyring: &dyn Keyring) -> DigestRange {
        let content = self.entries(prefix, purged).unwrap_or_else(|| {
            let hashes = prefix.parts().flat_map(|part| self.tree.hash(part, keyring));
            Content::Parts(hashes.collect::<Vec<u8>>().into())
        });
        range(prefix, content)
    }

    /// Compares with another's digest. What is malformed is passed over.
    pub fn compare(&mut self, theirs: &Digest, keyring: &dyn Keyring) -> Comparison {
        let mut comparison = Comparison::default();
        let (purged, mut seen) = (Purged::of(self, keyring), BTreeSet::new());
        for range in theirs.ranges.iter().take(MAX_RANGES) {
            let (Some(prefix), Some(content)) = (Prefix::new(range.depth, range.digits), &range.content)
            else {
                continue;
            };
            // Nobody honest asks twice, and an answer costs more than a question.
            if prefix.and_above().any(|above| seen.contains(&above)) {
                continue;
            }
            seen.insert(prefix);
            match content {
                Content::Hash(hash) => {
                    if **hash != self.tree.hash(prefix, keyring) {
                        comparison.ranges.push(self.detail(prefix, &purged, keyring));
                    }
                }
                Content::Parts(hashes) => {
                    let (hashes, rest) = hashes.as_chunks::<{ size_of::<Hash>() }>();
                    if hashes.len() as u64 != PARTS || !rest.is_empty() {
                        continue;
                    }
                    for (part, hash) in prefix.parts().zip(hashes) {
                        if comparison.ranges.len() < MAX_DETAILS && self.tree.hash(part, keyring) != *hash {
                            comparison.ranges.push(self.detail(part, &purged, keyring));
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
                comparison.newer_here.insert(owner.clone());
            }
        }
        for (owner, version) in &theirs {
            if Some(*version) > self.full_version(owner) && version.2 != ANY {
                comparison.newer_there.insert(owner.clone());
            }
        }
    }
}
