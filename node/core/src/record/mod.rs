//! What nodes publish about themselves, and the store that merges it.
//!
//! Each owner publishes one signed [`Manifest`](p2p_proto::v1::Manifest) that lists its records by hash, and the records. Rules, each
//! kept by [`Store::merge`]:
//!
//! - A state is accepted only with the owner's own signature: the key of a certificate that names the owner
//!   and chains to the cluster's trust bundle. Who passes it on proves nothing.
//! - The newer (epoch, sequence) replaces the older whole; of two of one number the greater hash. So merging is commutative, associative and
//!   idempotent, and a record absent from a newer manifest is deleted: no tombstones, no resurrection.
//! - Services outside the certificate's grant, and reserved names, are not shown.
//! - Every size is capped, per record, per owner and in all.
//!
//! Signing, verifying and hashing are the caller's ([`Keyring`]); this crate contains no cryptography.

mod compare;
mod manifest;
mod store;
#[cfg(test)]
mod tests;
mod tree;

pub use compare::{Comparison, MAX_RANGES};
pub use manifest::{Heading, Opened, OwnRecords, RecordView, Refusal};
pub use store::{Merge, Owner, Store, Version};
pub(crate) use tree::{Hash, hash_of};

use crate::{Grant, SpiffeId};
use bytes::Bytes;
use p2p_proto::v1::OwnerState;

/// Prepended to a manifest before it is signed, so that no other signature of the key can pass for one.
pub const SIGNATURE_CONTEXT: &[u8] = b"p2p.v1.Manifest\0";

/// Largest body of one record, in bytes.
pub const MAX_RECORD_BYTES: usize = 64 * 1024;
/// Most records of one owner.
pub const MAX_RECORDS: usize = 512;
/// Largest sum of an owner's manifest and records, in bytes.
pub const MAX_OWNER_BYTES: usize = 512 * 1024;
/// Most owners in a store.
pub const MAX_OWNERS: usize = 16_384;
/// Largest sum of all owners, in bytes.
pub const MAX_STORE_BYTES: usize = 512 * 1024 * 1024;

/// Who signed, as its certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signer {
    /// The certificate's SPIFFE id.
    pub id: SpiffeId,
    /// Services that the certificate may provide, if it is limited.
    pub grant: Option<Grant>,
    /// End of the certificate, Unix seconds.
    pub expires_at: i64,
}

/// The cryptography that records need, handed in by the caller.
pub trait Keyring {
    /// SHA-256.
    fn digest(&self, bytes: &[u8]) -> [u8; 32];

    /// Signs with this node's key, in the form that [`Self::verify`] takes.
    fn sign(&self, message: &[u8]) -> Vec<u8>;

    /// Checks that `chain` (DER, leaf first) leads to the trust bundle, is in time, and that the leaf's key
    /// made `signature` over `message`. The error says why not, for people.
    fn verify(&self, chain: &[Bytes], message: &[u8], signature: &[u8]) -> Result<Signer, String>;

    /// The same for a message that must outlive the certificate of its signer: the chain need only have been in time
    /// at `unix_s`, when the message says that it was signed.
    fn verify_at(
        &self,
        chain: &[Bytes],
        message: &[u8],
        signature: &[u8],
        unix_s: u64,
    ) -> Result<Signer, String>;

    /// This very state as it was opened before, where that must not be done again and kept twice: many nodes of one
    /// process that trust the same. A node alone opens each state once anyway.
    fn opened(&self, _state: &OwnerState) -> Option<Opened> {
        None
    }

    /// A state was opened, for [`Self::opened`].
    fn keep_opened(&self, _opened: &Opened) {}
}
