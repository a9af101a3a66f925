use super::{merge, seal, state, store};
use crate::{
    Epoch,
    record::{Merge, Store},
    testing::{certificate, node, records},
};
use p2p_proto::v1::{Digest, DigestEntry, OwnerState};
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
    store.purge(&a);
    store.purge(&node("stranger"));
    assert!(store.get(&a).is_none());
    assert_eq!(store.version(&a), Some((Epoch(5), 3)));
    assert_eq!(merge(&mut store, old.clone()), Ok(Merge::Known(a.clone())));
    assert_eq!(store.digest().entries.len(), 1, "nobody is told of the floor");
    let offer = DigestEntry { owner: "a".into(), epoch: 5, sequence: 3 };
    let theirs = Digest { entries: vec![offer, store.digest().entries[0].clone()] };
    assert_eq!(store.compare(&theirs), (vec![], vec![]), "what was purged is not asked for");

    // A member again in the same life: its last state may return, an older one may not.
    store.readmit(&a);
    assert_eq!(merge(&mut store, state("a", 5, 2, &[])), Ok(Merge::Known(a.clone())));
    assert_eq!(merge(&mut store, old), Ok(Merge::New(a.clone())));
    store.readmit(&a);
    assert_eq!(store.version(&a), Some((Epoch(5), 3)), "readmission concerns only what was purged");
}

#[test]
fn a_comparison_finds_what_either_side_lacks() {
    let here = merged(&[state("a", 1, 1, &[]), state("b", 2, 5, &[]), state("c", 3, 1, &[])]);
    let there = merged(&[state("b", 2, 4, &[]), state("c", 4, 0, &[]), state("d", 1, 1, &[])]);
    let (a, b, c, d) = (node("a"), node("b"), node("c"), node("d"));
    assert_eq!(here.compare(&there.digest()), (vec![a.clone(), b.clone()], vec![c.clone(), d.clone()]));
    assert_eq!(there.compare(&here.digest()), (vec![c, d], vec![a, b]));
    assert_eq!(here.compare(&here.digest()), (vec![], vec![]));
    let odd = DigestEntry { owner: "NOT AN ID".into(), epoch: 1, sequence: 1 };
    assert_eq!(here.compare(&Digest { entries: vec![odd] }).1, []);
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
    let one = (0..3_usize, 1..4_u64, 1..4_u64).prop_map(|(owner, epoch, sequence)| {
        let service = format!("s.E{epoch}N{sequence}");
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

    #[test]
    fn two_stores_that_answer_each_others_comparison_become_equal(a in any_states(), b in any_states()) {
        let (mut a, mut b) = (merged(&a), merged(&b));
        let (to_b, to_a) = a.compare(&b.digest());
        let states = |store: &Store, owners: &[crate::NodeId]| -> Vec<OwnerState> {
            owners.iter().map(|owner| (*store.get(owner).expect("offered").state).clone()).collect()
        };
        let (to_b, to_a) = (states(&a, &to_b), states(&b, &to_a));
        for state in to_b {
            prop_assert!(matches!(merge(&mut b, state), Ok(Merge::New(_))), "nothing is sent in vain");
        }
        for state in to_a {
            prop_assert!(matches!(merge(&mut a, state), Ok(Merge::New(_))));
        }
        prop_assert_eq!(contents(&a), contents(&b));
    }
}
