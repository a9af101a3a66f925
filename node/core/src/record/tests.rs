//! Merging, and everything that is refused.

mod compare;
mod merge;
mod refusals;

use super::{Merge, OwnRecords, Refusal, Store};
use crate::{
    Epoch, NodeId,
    testing::{START_MS, TestKeyring, cluster, node, records},
};
use p2p_proto::v1::OwnerState;

fn store() -> Store {
    Store::new(cluster())
}

fn merge(store: &mut Store, state: OwnerState) -> Result<Merge, Refusal> {
    store.merge(state, START_MS, &TestKeyring::of(&node("reader")))
}

fn seal(own: &OwnRecords, owner: &NodeId, epoch: u64, sequence: u64) -> OwnerState {
    own.seal(&cluster(), owner, Epoch(epoch), sequence, &TestKeyring::of(owner))
}

/// The state number `sequence` of `name`'s start `epoch`, with these services.
fn state(name: &str, epoch: u64, sequence: u64, services: &[&str]) -> OwnerState {
    let owner = node(name);
    seal(&records(&owner, services), &owner, epoch, sequence)
}
