//! All owners' states, merged.

use super::{Keyring, MAX_OWNERS, MAX_STORE_BYTES, Manifest, RecordView, Refusal, manifest::weight};
use crate::{ClusterId, Epoch, NodeId};
use p2p_proto::v1::{Digest, DigestEntry, OwnerState};
use std::{collections::BTreeMap, sync::Arc};

/// One owner's newest state.
#[derive(Debug, Clone)]
pub struct Owner {
    /// The owner's start.
    pub epoch: Epoch,
    /// Number of the state within the start.
    pub sequence: u64,
    /// As signed, to be passed on unchanged.
    pub state: Arc<OwnerState>,
    /// Decoded.
    pub view: Arc<RecordView>,
}

impl Owner {
    fn version(&self) -> (Epoch, u64) {
        (self.epoch, self.sequence)
    }
}

/// What [`Store::merge`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Merge {
    /// The state was new and is kept; it should be passed on.
    New(NodeId),
    /// The state was known, or older than what is known. Nothing has changed.
    Known(NodeId),
}

/// The newest verified state of every owner.
///
/// What was purged leaves its (epoch, sequence) behind as a floor: an old copy cannot bring it back.
#[derive(Debug)]
pub struct Store {
    cluster: ClusterId,
    owners: BTreeMap<NodeId, Owner>,
    floors: BTreeMap<NodeId, (Epoch, u64)>,
    pub(super) bytes: usize,
}

impl Store {
    /// An empty store of `cluster`.
    pub fn new(cluster: ClusterId) -> Self {
        Self { cluster, owners: BTreeMap::new(), floors: BTreeMap::new(), bytes: 0 }
    }

    /// Merges one state. `unix_ms` bounds how far ahead its epoch may lie.
    pub fn merge(
        &mut self,
        state: OwnerState,
        unix_ms: u64,
        keyring: &dyn Keyring,
    ) -> Result<Merge, Refusal> {
        let manifest = Manifest::peek(&state, &self.cluster)?;
        let version = (manifest.epoch, manifest.sequence);
        if self.version(&manifest.owner).is_some_and(|known| version <= known) {
            return Ok(Merge::Known(manifest.owner));
        }
        if manifest.epoch.is_too_far_ahead(unix_ms) {
            return Err(Refusal::EpochAhead { owner: manifest.owner });
        }
        let view = manifest.open(&state, keyring)?;
        self.insert(&manifest, state, view)?;
        Ok(Merge::New(manifest.owner))
    }

    fn insert(&mut self, manifest: &Manifest, state: OwnerState, view: RecordView) -> Result<(), Refusal> {
        let owner = &manifest.owner;
        let old = self.owners.get(owner).map_or(0, |owner| weight(&owner.state));
        let bytes = self.bytes - old + weight(&state);
        let full = |what| Err(Refusal::Full { owner: owner.clone(), what });
        if !self.owners.contains_key(owner) && self.owners.len() >= MAX_OWNERS {
            return full("number of owners");
        }
        if bytes > MAX_STORE_BYTES {
            return full("bytes");
        }
        self.bytes = bytes;
        self.floors.remove(owner);
        self.owners.insert(
            owner.clone(),
            Owner {
                epoch: manifest.epoch,
                sequence: manifest.sequence,
                state: Arc::new(state),
                view: Arc::new(view),
            },
        );
        Ok(())
    }

    /// The newest (epoch, sequence) known of `owner`, also if it was purged.
    pub fn version(&self, owner: &NodeId) -> Option<(Epoch, u64)> {
        self.owners.get(owner).map(Owner::version).or_else(|| self.floors.get(owner).copied())
    }

    /// The newest state of `owner`.
    pub fn get(&self, owner: &NodeId) -> Option<&Owner> {
        self.owners.get(owner)
    }

    /// All owners, by node id.
    pub fn owners(&self) -> impl Iterator<Item = (&NodeId, &Owner)> {
        self.owners.iter()
    }

    /// Forgets an owner that has long been gone, keeping its floor. Floors are as few as owners may be;
    /// beyond that the lowest node ids lose theirs first.
    pub fn purge(&mut self, owner: &NodeId) {
        if let Some(gone) = self.owners.remove(owner) {
            self.bytes -= weight(&gone.state);
            self.floors.insert(owner.clone(), gone.version());
            if self.floors.len() > MAX_OWNERS {
                self.floors.pop_first();
            }
        }
    }

    /// Lets the very state that was purged come back, but still nothing older: its owner was away for long
    /// and is a member again in the same life, so that it has nothing newer to offer.
    pub fn readmit(&mut self, owner: &NodeId) {
        if !self.owners.contains_key(owner) {
            self.floors.remove(owner).and_then(|(epoch, sequence)| {
                let below = (epoch, sequence.checked_sub(1)?);
                self.floors.insert(owner.clone(), below)
            });
        }
    }

    /// What this store holds.
    pub fn digest(&self) -> Digest {
        let entries = self
            .owners
            .iter()
            .map(|(name, owner)| DigestEntry {
                owner: name.to_string(),
                epoch: owner.epoch.0,
                sequence: owner.sequence,
            })
            .collect();
        Digest { entries }
    }

    /// Compares with another's digest: the owners that it lacks or has older, and those that we do.
    /// Entries that do not parse are passed over.
    pub fn compare(&self, theirs: &Digest) -> (Vec<NodeId>, Vec<NodeId>) {
        let theirs: BTreeMap<NodeId, (Epoch, u64)> = theirs
            .entries
            .iter()
            .take(MAX_OWNERS)
            .filter_map(|entry| Some((entry.owner.parse().ok()?, (Epoch(entry.epoch), entry.sequence))))
            .collect();
        let newer_here = self
            .owners
            .iter()
            .filter(|(name, owner)| theirs.get(*name).is_none_or(|version| *version < owner.version()))
            .map(|(name, _)| name.clone())
            .collect();
        let newer_there = theirs
            .iter()
            .filter(|(name, version)| self.version(name).is_none_or(|known| known < **version))
            .map(|(name, _)| name.clone())
            .collect();
        (newer_here, newer_there)
    }
}
