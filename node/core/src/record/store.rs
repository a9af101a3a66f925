//! All owners' states, merged.

use super::{
    Heading, Keyring, MAX_OWNERS, MAX_STORE_BYTES, Opened, RecordView, Refusal,
    manifest::weight,
    tree::{Hash, Tree, hash_of},
};
use crate::{ClusterId, Epoch, NodeId, Role, tag::ByNode};
use p2p_proto::v1::OwnerState;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// What orders the states of one owner: the greatest holds. Of two that an owner signed under one number, as after a
/// restored backup, all keep the one of the greater hash.
pub type Version = (Epoch, u64, Hash);

/// Above every hash.
pub(super) const ANY: Hash = [u8::MAX; 16];
/// One owner's newest state.
#[derive(Debug, Clone)]
pub struct Owner {
    /// The owner's start.
    pub epoch: Epoch,
    /// Number of the state within the start.
    pub sequence: u64,
    /// Hash of the manifest.
    pub hash: Hash,
    /// As signed, to be passed on unchanged.
    pub state: Arc<OwnerState>,
    /// Decoded.
    pub view: Arc<RecordView>,
}

impl Owner {
    pub(super) fn version(&self) -> Version {
        (self.epoch, self.sequence, self.hash)
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
    pub(super) owners: ByNode<Owner>,
    floors: BTreeMap<NodeId, Version>,
    /// Owners that are kept out of comparisons.
    banned: BTreeSet<NodeId>,
    pub(super) tree: Tree,
    pub(super) bytes: usize,
}

impl Store {
    /// An empty store of `cluster`.
    pub fn new(cluster: ClusterId) -> Self {
        Self {
            cluster,
            owners: ByNode::default(),
            floors: BTreeMap::new(),
            banned: BTreeSet::new(),
            tree: Tree::default(),
            bytes: 0,
        }
    }

    /// Merges one state. `unix_ms` bounds how far ahead its epoch may lie.
    pub fn merge(
        &mut self,
        state: OwnerState,
        unix_ms: u64,
        keyring: &dyn Keyring,
    ) -> Result<Merge, Refusal> {
        let heading = Heading::peek(&state, &self.cluster)?;
        self.take(heading, state, unix_ms, keyring)
    }

    /// The same for a state whose heading has been read.
    pub(crate) fn take(
        &mut self,
        heading: Heading,
        state: OwnerState,
        unix_ms: u64,
        keyring: &dyn Keyring,
    ) -> Result<Merge, Refusal> {
        let number = (heading.epoch, heading.sequence);
        // Older or the very same, as nearly always: not even hashed.
        if self.version(&heading.owner).is_some_and(|known| number < known)
            || self.owners.get(&heading.owner).is_some_and(|known| known.state.manifest == state.manifest)
        {
            return Ok(Merge::Known(heading.owner));
        }
        let hash = hash_of(&state.manifest, keyring);
        let version = (heading.epoch, heading.sequence, hash);
        if self.full_version(&heading.owner).is_some_and(|known| version <= known) {
            return Ok(Merge::Known(heading.owner));
        }
        if heading.epoch.is_too_far_ahead(unix_ms) {
            return Err(Refusal::EpochAhead { owner: heading.owner });
        }
        let opened = match keyring.opened(&state) {
            Some(opened) => opened,
            None => {
                let view = heading.open(&state, keyring)?;
                let opened = Opened { state: Arc::new(state), view: Arc::new(view) };
                keyring.keep_opened(&opened);
                opened
            }
        };
        self.insert(&heading, hash, opened)?;
        self.show(&heading.owner, keyring);
        Ok(Merge::New(heading.owner))
    }

    fn insert(&mut self, heading: &Heading, hash: Hash, opened: Opened) -> Result<(), Refusal> {
        let (owner, Opened { state, view }) = (&heading.owner, opened);
        // Enrolment hands no coordinator's id to a worker; a coordinator's CA might.
        let role = self.owners.get(owner).map(|owner| owner.view.signer.id.role);
        if role == Some(Role::Coordinator) && view.signer.id.role != Role::Coordinator {
            return Err(Refusal::Role { owner: owner.clone() });
        }
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
            Owner { epoch: heading.epoch, sequence: heading.sequence, hash, state, view },
        );
        Ok(())
    }

    /// Brings an owner's leaf in line with what is kept.
    fn show(&mut self, owner: &NodeId, keyring: &dyn Keyring) {
        let leaf = self.owners.get(owner).map(|owner| owner.hash);
        self.tree.set(owner, leaf.filter(|_| !self.banned.contains(owner)), keyring);
    }

    /// Keeps exactly these owners out of comparisons: some nodes have their states from before, others take none.
    pub fn set_banned(&mut self, banned: BTreeSet<NodeId>, keyring: &dyn Keyring) {
        let before = std::mem::replace(&mut self.banned, banned);
        let changed: Vec<NodeId> = before.symmetric_difference(&self.banned).cloned().collect();
        for owner in changed {
            self.show(&owner, keyring);
        }
    }

    /// What was purged, with its floor.
    pub(super) fn floors(&self) -> &BTreeMap<NodeId, Version> {
        &self.floors
    }

    /// The newest (epoch, sequence) known of `owner`, also if it was purged.
    pub fn version(&self, owner: &NodeId) -> Option<(Epoch, u64)> {
        self.full_version(owner).map(|(epoch, sequence, _)| (epoch, sequence))
    }

    /// The same with the hash that tells two states of one number apart.
    pub fn full_version(&self, owner: &NodeId) -> Option<Version> {
        self.owners.get(owner).map(Owner::version).or_else(|| self.floors.get(owner).copied())
    }

    /// The newest state of `owner`.
    pub fn get(&self, owner: &NodeId) -> Option<&Owner> {
        self.owners.get(owner)
    }

    /// All owners, by node id.
    pub fn owners(&self) -> impl Iterator<Item = (&NodeId, &Owner)> {
        BTreeMap::from_iter(&self.owners).into_iter()
    }

    /// Forgets an owner that has long been gone, keeping its floor. Floors are as few as owners may be;
    /// beyond that the lowest node ids lose theirs first.
    pub fn purge(&mut self, owner: &NodeId, keyring: &dyn Keyring) {
        if let Some(gone) = self.owners.remove(owner) {
            self.bytes -= weight(&gone.state);
            self.floors.insert(owner.clone(), (gone.epoch, gone.sequence, ANY));
            self.show(owner, keyring);
            if self.floors.len() > MAX_OWNERS {
                self.floors.pop_first();
            }
        }
    }

    /// Lets the very state that was purged come back, but still nothing older: its owner was away for long
    /// and is a member again in the same life, so that it has nothing newer to offer.
    pub fn readmit(&mut self, owner: &NodeId) {
        if !self.owners.contains_key(owner) {
            self.floors.remove(owner).and_then(|(epoch, sequence, _)| {
                let below = (epoch, sequence.checked_sub(1)?, ANY);
                self.floors.insert(owner.clone(), below)
            });
        }
    }
}
