//! A hash tree over owners: two stores find where they differ by descending only where hashes do
//! (Merkle 1987; anti-entropy over hash trees as in Dynamo, DeCandia et al. 2007).
//!
//! An owner's place is the hash of its id, read as 16 hexadecimal digits from the left. A [`Prefix`] of them names a
//! range of places. The hash of a range depends on what lies in it alone: of nothing it is zero, of at most [`FEW`]
//! leaves the hash of theirs in order, of more the hash of its 16 parts'. A leaf is the hash of a manifest, which
//! names owner, epoch, sequence and every record.
//!
//! Hashes are kept for the ranges that were asked for, and forgotten along the way of a change: a change costs one
//! hash for each level, log16(n).

use super::Keyring;
use crate::NodeId;
use std::collections::BTreeMap;

/// A hash, cut to 128 bits: to pass one state for another, both of one's own making, takes about 2^64 tries, and harms
/// none but one's own records.
pub(crate) type Hash = [u8; 16];

/// A range of so many owners is told by naming them.
pub(super) const FEW: usize = 16;
/// Parts of a range.
pub(super) const PARTS: u64 = 16;
/// Deepest prefix, in digits.
const MAX_DEPTH: u8 = 15;

/// A range of places: all that begin with these digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Prefix {
    depth: u8,
    /// The digits, at the left; the rest is zero.
    digits: u64,
}

impl Prefix {
    /// Every place.
    pub(super) const ROOT: Self = Self { depth: 0, digits: 0 };

    /// The prefix of `depth` digits at the left of `digits`; `None` if there is more behind them, or too many.
    pub(super) fn new(depth: u32, digits: u64) -> Option<Self> {
        let depth = u8::try_from(depth).ok().filter(|depth| *depth <= MAX_DEPTH)?;
        let prefix = Self::of(digits, depth);
        (prefix.digits == digits).then_some(prefix)
    }

    fn of(place: u64, depth: u8) -> Self {
        Self { depth, digits: place & !Self::below(depth) }
    }

    /// The digits that are not fixed.
    fn below(depth: u8) -> u64 {
        u64::MAX.checked_shr(4 * u32::from(depth)).unwrap_or(0)
    }

    /// How many digits.
    pub(super) fn depth(self) -> u32 {
        self.depth.into()
    }

    /// The digits, at the left.
    pub(super) fn digits(self) -> u64 {
        self.digits
    }

    /// Its 16 parts; none where no range is that small.
    pub(super) fn parts(self) -> impl Iterator<Item = Self> {
        let depth = self.depth + 1;
        let parts = if self.depth < MAX_DEPTH { PARTS } else { 0 };
        (0..parts)
            .map(move |digit| Self { depth, digits: self.digits | (digit << (64 - 4 * u32::from(depth))) })
    }

    /// The range itself and all that it lies in.
    pub(super) fn and_above(self) -> impl Iterator<Item = Self> {
        (0..=self.depth).map(move |depth| Self::of(self.digits, depth))
    }

    /// Whether the place lies in the range.
    pub(super) fn contains(self, place: u64) -> bool {
        Self::of(place, self.depth) == self
    }
}

/// Where an owner stands in every tree.
pub(super) fn place_of(owner: &NodeId, keyring: &dyn Keyring) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = keyring.digest(owner.as_str().as_bytes());
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

/// The hash of a leaf.
pub(crate) fn hash_of(manifest: &[u8], keyring: &dyn Keyring) -> Hash {
    cut(keyring.digest(manifest))
}

fn cut(digest: [u8; 32]) -> Hash {
    let mut hash = Hash::default();
    hash.copy_from_slice(&digest[..16]);
    hash
}

/// The leaves, by place.
#[derive(Debug, Default)]
pub(super) struct Tree {
    /// Nearly always one each; of more, in the order of their ids.
    leaves: BTreeMap<u64, Box<[(NodeId, Hash)]>>,
    known: BTreeMap<Prefix, Hash>,
}

impl Tree {
    /// Sets an owner's leaf, or takes it out.
    pub(super) fn set(&mut self, owner: &NodeId, leaf: Option<Hash>, keyring: &dyn Keyring) {
        let place = place_of(owner, keyring);
        let here = self.leaves.get(&place).map_or(&[][..], |here| here);
        let before = here.iter().find(|(id, _)| id == owner).map(|(_, hash)| *hash);
        if before == leaf {
            return;
        }
        let mut here: Vec<_> = here.iter().filter(|(id, _)| id != owner).cloned().collect();
        here.extend(leaf.map(|leaf| (owner.clone(), leaf)));
        here.sort();
        match here.is_empty() {
            true => self.leaves.remove(&place),
            false => self.leaves.insert(place, here.into()),
        };
        for depth in 0..=MAX_DEPTH {
            self.known.remove(&Prefix::of(place, depth));
        }
    }

    fn range(&self, range: Prefix) -> impl Iterator<Item = (&NodeId, &Hash)> {
        let places = self.leaves.range(range.digits..=range.digits | Prefix::below(range.depth));
        places.flat_map(|(_, here)| here).map(|(owner, hash)| (owner, hash))
    }

    /// The owners of a range, if they are few or the range is the smallest.
    pub(super) fn few(&self, range: Prefix) -> Option<Vec<NodeId>> {
        let limit = if range.depth < MAX_DEPTH { FEW + 1 } else { usize::MAX };
        let found: Vec<_> = self.owners(range).take(limit).cloned().collect();
        (found.len() < limit).then_some(found)
    }

    /// Every owner of a range.
    pub(super) fn owners(&self, range: Prefix) -> impl Iterator<Item = &NodeId> {
        self.range(range).map(|(owner, _)| owner)
    }

    /// The hash of a range.
    pub(super) fn hash(&mut self, range: Prefix, keyring: &dyn Keyring) -> Hash {
        if let Some(hash) = self.known.get(&range) {
            return *hash;
        }
        let limit = if range.depth < MAX_DEPTH { FEW + 1 } else { usize::MAX };
        let mut text: Vec<u8> = self.range(range).take(limit).flat_map(|(_, leaf)| *leaf).collect();
        if text.is_empty() {
            return Hash::default();
        }
        if text.len() >= limit.saturating_mul(size_of::<Hash>()) {
            text = range.parts().flat_map(|part| self.hash(part, keyring)).collect();
        }
        let hash = cut(keyring.digest(&text));
        self.known.insert(range, hash);
        hash
    }
}
