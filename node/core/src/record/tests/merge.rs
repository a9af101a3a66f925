use super::{merge, seal, state, store};
use crate::{
    Epoch,
    record::{Merge, Store},
    testing::{TestKeyring, certificate, node, records},
};
use p2p_proto::v1::OwnerState;
use proptest::prelude::*;

fn services(store: &Store, name: &str) -> Vec<String> {
    let owner = store.get(&node(name)).expect("known");
    owner.view.services.keys().map(ToString::to_string).collect()
}

/// All that can be told of a store from outside.
fn contents(store: &Store) -> Vec<(String, u64, u64, OwnerState)> {
    store
        .owners()
        .map(|(name, owner)| (name.to_string(), owner.epoch.0, owner.sequence, (*owner.state).clone()))
        .collect()
}

fn merged(states: &[OwnerState]) -> Store {
    let mut store = store();
    for state in states {
        merge(&mut store, state.clone()).expect("good");
    }
    store
}

#[test]
fn the_newer_epoch_and_then_the_newer_sequence_wins() {
    let mut store = store();
    let new = |owner: &str| Ok(Merge::New(node(owner)));
    let known = |owner: &str| Ok(Merge::Known(node(owner)));
    assert_eq!(merge(&mut store, state("a", 5, 1, &["x.A", "x.B"])), new("a"));
    assert_eq!(merge(&mut store, state("a", 5, 1, &["x.A", "x.B"])), known("a"));
    assert_eq!(merge(&mut store, state("a", 4, 9, &["x.C"])), known("a"));
    assert_eq!(merge(&mut store, state("a", 5, 2, &["x.B"])), new("a"));
    assert_eq!(services(&store, "a"), ["x.B"], "what is absent from the newer state is deleted");
    assert_eq!(merge(&mut store, state("a", 5, 1, &["x.A", "x.B"])), known("a"), "and does not come back");
    assert_eq!(merge(&mut store, state("a", 6, 1, &[])), new("a"));
    assert_eq!(services(&store, "a"), [""; 0]);
    assert_eq!(store.version(&node("a")), Some((Epoch(6), 1)));
}

#[test]
fn what_was_purged_leaves_a_floor() {
    let mut store = merged(&[state("a", 5, 3, &["x.A"]), state("b", 5, 3, &[])]);
    let (a, old) = (node("a"), state("a", 5, 3, &["x.A"]));
    let keyring = TestKeyring::of(&node("reader"));
    store.purge(&a, &keyring);
    store.purge(&node("stranger"), &keyring);
    assert!(store.get(&a).is_none());
    assert_eq!(store.version(&a), Some((Epoch(5), 3)));
    assert_eq!(merge(&mut store, old.clone()), Ok(Merge::Known(a.clone())));

    // A member again in the same life: its last state may return, an older one may not.
    store.readmit(&a);
    assert_eq!(merge(&mut store, state("a", 5, 2, &[])), Ok(Merge::Known(a.clone())));
    assert_eq!(merge(&mut store, old), Ok(Merge::New(a.clone())));
    store.readmit(&a);
    assert_eq!(store.version(&a), Some((Epoch(5), 3)), "readmission concerns only what was purged");
}

#[test]
fn of_two_states_of_one_number_all_keep_the_same() {
    let (one, other) = (state("a", 5, 1, &["x.A"]), state("a", 5, 1, &["x.B"]));
    let both = [merged(&[one.clone(), other.clone()]), merged(&[other, one])];
    assert_eq!(contents(&both[0]), contents(&both[1]));
}

#[test]
fn services_outside_the_grant_and_reserved_ones_are_hidden() {
    let owner = node("a");
    let mut own =
        records(&owner, &["billing.v1.Pay", "demo.Greeter", "p2p.v1.Admin", "grpc.health.v1.Health"]);
    let mut unlimited = store();
    merge(&mut unlimited, seal(&own, &owner, 1, 1)).expect("good");
    assert_eq!(services(&unlimited, "a"), ["billing.v1.Pay", "demo.Greeter"]);

    own.node.certificate_chain = vec![certificate("spiffe://test/worker/a", &["billing.*"])];
    let mut limited = store();
    merge(&mut limited, seal(&own, &owner, 1, 1)).expect("good");
    assert_eq!(services(&limited, "a"), ["billing.v1.Pay"]);
    let view = &limited.get(&owner).expect("known").view;
    assert_eq!(view.not_granted, ["demo.Greeter", "grpc.health.v1.Health", "p2p.v1.Admin"]);
    assert_eq!(contents(&limited)[0].3.records.len(), 5, "what is hidden is still passed on");
}

/// A few owners' states, some of them several times, in any order.
fn any_states() -> impl Strategy<Value = Vec<OwnerState>> {
    let one = (0..3_usize, 1..4_u64, 1..4_u64, 0..3_u8).prop_map(|(owner, epoch, sequence, variant)| {
        let service = format!("s.E{epoch}N{sequence}V{variant}");
        state(["a", "b", "c"][owner], epoch, sequence, &[&service])
    });
    proptest::collection::vec(one, 0..12)
}

proptest! {
    #[test]
    fn merging_is_commutative_and_idempotent(
        (states, shuffled) in any_states().prop_flat_map(|states| (Just(states.clone()), Just(states).prop_shuffle())),
    ) {
        let all = merged(&states);
        prop_assert_eq!(contents(&all), contents(&merged(&shuffled)));
        prop_assert_eq!(contents(&all), contents(&merged(&[states, shuffled].concat())));
    }

    #[test]
    fn merging_is_associative(a in any_states(), b in any_states(), c in any_states()) {
        let store_of = |parts: &[&Store]| {
            let states = parts.iter().flat_map(|part| part.owners().map(|(_, owner)| (*owner.state).clone()));
            merged(&states.collect::<Vec<_>>())
        };
        let (a, b, c) = (merged(&a), merged(&b), merged(&c));
        let left = store_of(&[&store_of(&[&a, &b]), &c]);
        let right = store_of(&[&a, &store_of(&[&b, &c])]);
        prop_assert_eq!(contents(&left), contents(&right));
    }
}
